"""Augmentations against loops in NumPy, exact enumeration, and what data processing says of α."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from prpr import augment
from prpr.augment import Draws, adapted, apply, draw, instance_noise, parts
from prpr.errors import ConfigError
from prpr.regularizers import gradient_penalty

POLICY = "color,translation,cutout,noise"
SHAPES = [
    (9, 8, 8, 1),
    (9, 5, 12, 3),
    (9, 3, 2, 3),
]  # sides whose shares are odd and even, 0 shifts

# Compiled, for speed alone.
APPLY = jax.jit(apply, static_argnums=2)
AUGMENT = jax.jit(augment.augment, static_argnums=2)
NOISED = jax.jit(instance_noise)


def images(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def numbers(shape, seed=0):
    """Draws as `draw` makes them, without a compilation."""
    rng = np.random.default_rng(seed)
    uniform, normal = rng.uniform(size=(shape[0], 13)), rng.standard_normal(shape)
    return Draws(*(jnp.asarray(a, jnp.float32) for a in (uniform, normal)))


def bits(x):
    return np.asarray(x).view(np.int32 if x.dtype == jnp.float32 else np.int16)


def by_hand(u, normal, x, policy, p, sigma):
    """One image, by loops and in float64, from its numbers in the order of the module's table."""
    x, (h, w) = x.astype(np.float64), x.shape[:2]
    for part in policy.split(","):
        if part == "color":
            if u[0] < p:
                x = x + u[6] - 0.5
            if u[1] < p:
                grey = x.mean(2, keepdims=True)
                x = grey + (x - grey) * 2 * u[7]
            if u[2] < p:
                x = x.mean() + (x - x.mean()) * (0.5 + u[8])
        if part == "translation" and u[3] < p:
            tall, wide = int(h / 8 + 0.5), int(w / 8 + 0.5)
            down, right = tall - int(u[9] * (2 * tall + 1)), wide - int(u[10] * (2 * wide + 1))
            moved = np.zeros_like(x)
            for i, j in np.ndindex(h, w):
                if 0 <= i - down < h and 0 <= j - right < w:
                    moved[i, j] = x[i - down, j - right]
            x = moved
        if part == "cutout" and u[4] < p:
            tall, wide = int(h / 2 + 0.5), int(w / 2 + 0.5)
            top = int(u[11] * (h + 1 - tall % 2)) - tall // 2
            left = int(u[12] * (w + 1 - wide % 2)) - wide // 2
            x = x.copy()
            for i, j in np.ndindex(h, w):
                if top <= i < top + tall and left <= j < left + wide:
                    x[i, j] = 0
        if part == "noise" and u[5] < p:
            x = x + sigma * normal
    return x


@pytest.mark.parametrize("shape", SHAPES)
def test_each_transform_is_what_a_loop_makes(shape):
    x, draws = images(shape), numbers(shape)
    u, normal = np.asarray(draws.uniform).copy(), np.asarray(draws.normal)
    for gates in ([0, 1, 2], [3], [4], [5], range(6)):
        one = u.copy()
        one[:, [g for g in range(6) if g not in gates]] = 1.0  # those are made at no chance
        for p in (1.0, 0.4):
            got = APPLY(Draws(jnp.asarray(one), draws.normal), x, POLICY, p, 0.3)
            assert got.shape == shape
            assert got.dtype == jnp.float32
            expected = [by_hand(one[i], normal[i], x[i], POLICY, p, 0.3) for i in range(len(x))]
            np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_policy_makes_its_parts_in_its_order():
    x, draws = images(SHAPES[1]), numbers(SHAPES[1])
    u, normal = np.asarray(draws.uniform), np.asarray(draws.normal)
    for policy in ("cutout", "noise,color"):
        expected = [by_hand(u[i], normal[i], x[i], policy, 1.0, 0.3) for i in range(len(x))]
        np.testing.assert_allclose(APPLY(draws, x, policy, 1.0, 0.3), expected, atol=1e-6)


def test_ranges_are_those_of_the_source():
    # Every shift and every place of the hole, all alike; factors over their whole range.
    n = 4000
    x = jnp.ones((n, 16, 8, 1))
    draws = draw(jax.random.key(0), x.shape, "color")
    moved, kept, bright = (
        np.asarray(APPLY(draws, x, part))[..., 0] for part in ("translation", "cutout", "color")
    )
    rows = moved.any(2)
    down = np.where(rows[:, 0], rows.sum(1) - 16, 16 - rows.sum(1))
    assert (rows[:, 0] | rows[:, -1]).all()
    shifts, counts = np.unique(down, return_counts=True)
    assert list(shifts) == [-2, -1, 0, 1, 2]
    assert abs(counts / n - 0.2).max() < 0.03
    hidden, counts = np.unique(16 - kept.all(2).sum(1), return_counts=True)
    assert list(hidden) == [4, 5, 6, 7, 8]  # a hole of half the side, its middle in the image
    np.testing.assert_allclose(counts[-1] / n, 9 / 17, atol=0.03)
    added = bright.mean((1, 2)) - 1
    np.testing.assert_allclose([added.min(), added.max()], [-0.5, 0.5], atol=0.01)
    np.testing.assert_allclose(added.var(), 1 / 12, rtol=0.1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_probability_0_is_the_identity_bit_for_bit(shape, dtype):
    x = jnp.asarray(images(shape), dtype).at[0, 0].set(-0.0)
    draws = numbers(shape)
    got = APPLY(draws, x, POLICY, 0.0, 0.5)
    assert got.dtype == dtype
    np.testing.assert_array_equal(bits(got), bits(x))
    moved = APPLY(draws, x, POLICY, 1.0, 0.5)
    assert moved.dtype == dtype
    assert (bits(moved) != bits(x)).any((1, 2, 3)).all()
    np.testing.assert_array_equal(bits(APPLY(draws, x, "", 1.0, 0.5)), bits(x))
    np.testing.assert_array_equal(bits(APPLY(draws, x, "noise", 1.0, 0.0)), bits(x))


def test_each_transform_of_each_item_has_the_probability():
    n, p = 2000, 0.3
    x = jnp.asarray(images((1, 8, 8, 3))).repeat(n, 0)
    uniform, normal = numbers(x.shape)
    changed = []
    for gate in range(6):
        mine = uniform.at[:, :6].set(1.0).at[:, gate].set(uniform[:, gate])
        moved = APPLY(Draws(mine, normal), x, POLICY, p, 0.1)
        changed.append(np.asarray((moved != x).any((1, 2, 3))))
    # A translation by 0 in both directions, one in nine, changes nothing.
    expected = [p, p, p, p * 8 / 9, p, p]
    np.testing.assert_allclose(np.mean(changed, 1), expected, atol=0.04)
    assert abs(np.corrcoef(changed) - np.eye(6)).max() < 0.08


def test_grey_images_have_no_saturation():
    u = np.full((9, 13), 0.5, np.float32)  # brightness + 0, contrast times 1
    u[:, 7] = np.arange(9) / 10
    grey, colour = (jnp.asarray(images((9, 8, 8, c))) for c in (1, 3))
    draws = Draws(jnp.asarray(u), jnp.zeros((9, 0)))
    np.testing.assert_allclose(APPLY(draws, grey, "color"), grey, atol=1e-6)
    alone = Draws(jnp.asarray(u).at[:, jnp.array([0, 2])].set(1.0), draws.normal)
    zeros = -jnp.zeros_like(grey)
    np.testing.assert_array_equal(bits(APPLY(alone, zeros, "color")), bits(zeros))
    got = APPLY(draws, colour, "color")
    np.testing.assert_allclose(got[0], got[0, ..., :1].repeat(3, -1), atol=1e-6)
    assert abs(got[8] - colour[8]).max() > 0.1


def test_the_gradient_is_the_transposed_of_the_change():
    # All are affine in x: their derivative is a difference, and ⟨g, Jv⟩ = ⟨Jᵀg, v⟩.
    shape = SHAPES[1]
    x, v, g = (jnp.asarray(images(shape, seed)) for seed in (1, 2, 3))

    @jax.jit
    def products(draws):
        def of(x):
            return apply(draws, x, POLICY, 0.5, 0.2)

        out, pull = jax.vjp(of, x)
        return of(x + v) - out, pull(g)[0]

    uniform, normal = numbers(shape)
    for gates in ([0], [1], [2], [3], [4], [5], range(6)):
        mine = uniform.at[:, :6].set(1.0).at[:, jnp.array(gates)].set(0.0)
        moved, back = products(Draws(mine, normal))
        forward, backward = ((a * b).sum((1, 2, 3)) for a, b in ((g, moved), (back, v)))
        np.testing.assert_allclose(forward, backward, rtol=1e-3, atol=1e-4)
        assert np.isfinite(back).all()
        assert (jnp.abs(back).max((1, 2, 3)) > 0).all()


def test_a_gradient_penalty_through_it_is_finite_and_differentiable():
    x = jnp.asarray(images(SHAPES[1]))
    draws = numbers(x.shape)

    @jax.jit
    @jax.grad
    def moved(w):
        return gradient_penalty(
            lambda x: jnp.tanh(apply(draws, x, POLICY, 0.7, 0.1) * w[None]).sum((1, 2, 3)), x
        )

    got = moved(jnp.asarray(images(x.shape[1:], 6)))
    assert np.isfinite(got).all()
    assert abs(got).max() > 1e-3


def test_the_same_key_is_the_same_result_and_each_item_has_its_own():
    x = jnp.asarray(images((1, 8, 8, 3))).repeat(6, 0)
    one, again, other = (AUGMENT(jax.random.key(k), x, POLICY, 1.0, 0.1) for k in (7, 7, 8))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any((1, 2, 3)).all()
    assert len(np.unique(np.asarray(one), axis=0)) == 6
    # One part's numbers do not depend on the others, nor an item's on where the batch is cut.
    whole = draw(jax.random.key(7), x.shape, POLICY)
    np.testing.assert_allclose(one, APPLY(whole, x, POLICY, 1.0, 0.1), atol=1e-6)
    alone = draw(jax.random.key(7), x.shape, "translation")
    np.testing.assert_array_equal(alone.uniform, whole.uniform)
    half = jax.tree.map(lambda leaf: leaf[3:], whole)
    np.testing.assert_allclose(one[3:], APPLY(half, x[3:], POLICY, 1.0, 0.1), atol=1e-6)


def test_strengths_are_traced():
    traces = []

    @jax.jit
    def step(draws, x, p, sigma):
        traces.append(None)
        return apply(draws, x, POLICY, p, sigma), adapted(p, x, batch=8)

    x, draws = jnp.asarray(images(SHAPES[0])), numbers(SHAPES[0])
    for p, sigma in ((0.0, 0.0), (0.5, 0.1), (1.0, 2.0)):
        step(draws, x, jnp.float32(p), jnp.float32(sigma))
    assert len(traces) == 1


# ---- points and errors ----------------------------------------------------------------


def test_points_take_noise_alone():
    x = jnp.asarray(images((50, 2)))
    got = AUGMENT(jax.random.key(0), x, "noise", 0.5, 0.3)
    changed = (got != x).any(1)
    assert 10 < changed.sum() < 40
    assert got.shape == x.shape
    for policy in ("color", "noise,translation", "cutout"):
        with pytest.raises(ConfigError, match=r"shape \(2,\); points take 'noise' alone"):
            augment.augment(jax.random.key(0), x, policy)


def test_policies_are_checked():
    assert parts("color,translation,cutout", (8, 8, 1)) == ("color", "translation", "cutout")
    assert parts("cutout, color", (8, 8, 1)) == ("cutout", "color")
    assert parts("", (2,)) == parts(" ", (8, 8, 1)) == ()
    with pytest.raises(ConfigError, match=r"unknown augmentation 'colour'\. Did you mean 'color'"):
        parts("colour", (8, 8, 1))
    with pytest.raises(ConfigError, match="'color' stands in it twice"):
        parts("color,cutout,color", (8, 8, 1))
    with pytest.raises(ConfigError, match="unknown augmentation ''"):
        parts("color,", (8, 8, 1))


# ---- adaptive -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log_r", "step"),
    [
        ([1.0, 2.0, 0.1, 9.0], 1),  # all called data: the mean sign is 1
        ([1.0, -2.0, 0.1, 9.0], -1),  # 0.5 is below the target of 0.6
        ([0.0, 0.0, 0.0, 0.0], -1),
        ([1.0, float("nan"), 1.0, 1.0], 0),
    ],
)
def test_the_probability_follows_the_sign(log_r, step):
    got = adapted(jnp.float32(0.5), jnp.array(log_r), batch=64, kimg=2.0)
    np.testing.assert_allclose(got - 0.5, step * 64 / 2000, atol=1e-7)


def test_the_probability_stands_at_the_target_and_stays_in_0_to_1():
    at_half = jnp.array([1.0, 1.0, 1.0, -1.0])
    assert adapted(jnp.float32(0.3), at_half, batch=64, target=0.5, kimg=1.0) == jnp.float32(0.3)
    up, down = jnp.ones(3), -jnp.ones(3)
    p = jnp.float32(0.0)
    for _ in range(10):
        p = adapted(p, up, batch=100, kimg=1.0)
    np.testing.assert_allclose(p, 1.0, atol=1e-6)  # from 0 to 1 in `kimg` thousand data
    assert adapted(p, up, batch=100, kimg=1.0) == 1
    assert adapted(jnp.float32(0.05), down, batch=100, kimg=1.0) == 0


def test_devices_that_share_a_batch_move_together():
    # 3 of 4 are called data on one device and 1 of 4 on the other: together the mean sign is 0.
    log_r = jnp.array([[1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, -1.0, 1.0]])
    got = jax.vmap(
        lambda x: adapted(jnp.float32(0.5), x, batch=8, kimg=1.0, target=0.1, axis_name="data"),
        axis_name="data",
    )(log_r)
    np.testing.assert_allclose(got, 0.5 - 0.008, atol=1e-7)


# ---- what it does to the estimate -----------------------------------------------------


def kernel_of_translations(p):
    """(64, 65): where an image of one bright pixel goes, by running through all the draws.

    The last column is the blank image.
    """
    starts = jnp.eye(64).reshape(64, 8, 8, 1)
    # Gates and shifts of a grid over [0, 1)², in which each of the three shifts has the same part.
    gate, down, right = np.meshgrid((np.arange(20) + 0.5) / 20, *[(np.arange(3) + 0.5) / 3] * 2)
    numbers = np.zeros((gate.size, 13), np.float32)
    numbers[:, [3, 9, 10]] = np.stack([gate.ravel(), down.ravel(), right.ravel()], 1)
    draws = Draws(jnp.asarray(numbers.repeat(64, 0)), jnp.zeros((64 * gate.size, 0)))
    moved = APPLY(draws, jnp.tile(starts, (gate.size, 1, 1, 1)), "translation", p)
    total = np.asarray(moved, np.float64).reshape(gate.size, 64, 64).mean(0)
    return np.concatenate([total, 1 - total.sum(1, keepdims=True)], 1)


def test_the_augmented_alpha_is_at_least_the_true_one():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.full(64, 0.2), 2)
    lams = np.geomspace(0.05, 20, 15)[:, None]
    true = np.minimum(lams * p, q).sum(1)
    alphas = []
    for chance in (0.0, 0.5, 1.0):
        kernel = kernel_of_translations(chance)
        after_p, after_q = p @ kernel, q @ kernel
        alphas.append(np.minimum(lams * after_p, after_q).sum(1))
        seen = after_q > 0
        ratio = after_p[seen] / after_q[seen]
        assert (p / q).min() * 0.999 < ratio.min() <= ratio.max() < (p / q).max() * 1.001
    np.testing.assert_allclose(alphas[0], true, atol=1e-6)
    for weaker, stronger in ((true, alphas[1]), (true, alphas[2])):
        assert (stronger >= weaker - 1e-6).all()
    middle = slice(4, 11)
    assert (alphas[1] > true + 0.02)[middle].all()
    assert (alphas[2] > alphas[1] + 0.02)[middle].all()


@pytest.mark.parametrize(("chance", "all_kept"), [(0.4, True), (0.8, True), (1.0, False)])
def test_a_chance_below_1_does_not_leak(chance, all_kept):
    # One to one on distributions: as many dimensions as there are images. A step of −1, 0 or 1 at
    # p = 1 has the eigenvalue (1 + 2 cos 120°)/3 = 0 on 8 places, and then distributions are lost.
    values = np.linalg.svd(kernel_of_translations(chance), compute_uv=False)
    assert ((values > 1e-5).sum() == 64) == all_kept


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_instance_noise_makes_alpha_that_of_the_noised_laws(sigma):
    # N(0, 1) and N(m, 1) have α(1) = 2Φ(−m/2), and noised 2Φ(−m/(2√(1 + σ²))).
    m, n = 2.0, 20000
    x = m + jnp.asarray(np.random.default_rng(1).standard_normal((n, 1)), jnp.float32)
    noised = np.asarray(NOISED(jax.random.key(2), x, sigma))[:, 0]
    np.testing.assert_allclose([noised.mean(), noised.var()], [m, 1 + sigma**2], rtol=0.03)
    log_r = (m * m / 2 - m * noised) / (1 + sigma**2)
    alpha = np.minimum(np.exp(log_r), 1).mean()
    exact = 2 * scipy.stats.norm.cdf(-m / (2 * np.sqrt(1 + sigma**2)))
    np.testing.assert_allclose(alpha, exact, atol=0.01)
    assert (exact > 2 * scipy.stats.norm.cdf(-m / 2) + 0.1) == (sigma > 0)


def test_instance_noise_at_0_is_the_identity_and_keeps_what_items_are():
    @jax.jit
    def both(x, sigma):
        out, pull = jax.vjp(lambda x: instance_noise(jax.random.key(0), x, sigma), x)
        return out, pull(jnp.ones_like(x))[0]

    x = jnp.asarray(images((6, 4, 4, 3)), jnp.bfloat16).at[0].set(-0.0)
    same, _ = both(x, jnp.float32(0.0))
    np.testing.assert_array_equal(bits(same), bits(x))
    moved, gradient = both(x, jnp.float32(0.5))
    assert moved.dtype == jnp.bfloat16
    assert moved.shape == x.shape
    assert (moved != x).mean() > 0.9
    np.testing.assert_array_equal(gradient, 1.0)
