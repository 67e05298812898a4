"""The penalties against functions whose gradient is known, finite differences and fixed points."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy

from prpr import objectives, ratio
from prpr.errors import ConfigError
from prpr.models import biggan, small
from prpr.regularizers import (
    consistency,
    frozen,
    gradient_penalty,
    layers,
    lecam,
    mode_seeking,
    moved_anchor,
    orthogonal,
    schedule,
)

X = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)


def test_of_a_linear_function_it_is_half_the_squared_slope():
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = gradient_penalty(lambda x: (x * w[None]).sum((1, 2)) + 7.0, jnp.asarray(X))
    np.testing.assert_allclose(got, 0.5 * (0 + 1 + 4 + 9 + 16 + 25), rtol=1e-6)


def test_of_a_quadratic_function_it_is_a_mean_over_rows():
    # T = ½|x|² has slope x.
    got = gradient_penalty(lambda x: 0.5 * (x * x).sum((1, 2)), jnp.asarray(X))
    np.testing.assert_allclose(got, 0.5 * (X**2).sum((1, 2)).mean(), rtol=1e-6)


def test_it_and_its_gradient_agree_with_finite_differences():
    rng = np.random.default_rng(1)
    w = rng.standard_normal((4, 3)).astype(np.float32)
    x = rng.standard_normal((2, 3)).astype(np.float32)

    def penalty(w: jax.Array) -> jax.Array:
        return gradient_penalty(lambda x: jnp.tanh(x @ w.T).sum(-1), x)

    def slow(w: np.ndarray) -> float:
        """The same from differences of T alone, in float64."""
        d, total = 1e-4, 0.0
        for row in x.astype(np.float64):
            for e in d * np.eye(3):
                up, down = np.tanh(w @ (row + e)).sum(), np.tanh(w @ (row - e)).sum()
                total += 0.5 * ((up - down) / (2 * d)) ** 2
        return total / len(x)

    value, gradient = jax.value_and_grad(penalty)(jnp.asarray(w))
    wide = w.astype(np.float64)
    np.testing.assert_allclose(value, slow(wide), rtol=1e-4)
    directions = [1e-3 * e.reshape(w.shape) for e in np.eye(w.size)]
    expected = [(slow(wide + e) - slow(wide - e)) / 2e-3 for e in directions]
    np.testing.assert_allclose(gradient.ravel(), expected, rtol=1e-3, atol=1e-3)


RNG = np.random.default_rng(2)
PARAMS = {
    "shared": {"w": {"kernel": RNG.standard_normal((4, 3))}},
    "embed": {"w": {"kernel": RNG.standard_normal((4, 3))}},
    "block0": {
        "conv1": {"w": {"kernel": RNG.standard_normal((3, 3, 2, 5))}, "bias": np.ones(5)},
        "norm1": {"gain": {"w": {"kernel": RNG.standard_normal((4, 2))}}},
    },
}
PARAMS = jax.tree.map(lambda leaf: leaf.astype(np.float32), PARAMS)


def of_the_original(w: np.ndarray) -> np.ndarray:
    """The gradient that BigGAN-PyTorch adds: 2 (W Wᵀ ⊙ (1 − I)) W, W (out, fan_in)."""
    w = w.astype(np.float64)
    return 2 * (w @ w.T * (1 - np.eye(len(w)))) @ w


def test_orthogonality_has_the_gradient_of_the_original():
    got = jax.grad(orthogonal)(PARAMS)
    kernel = PARAMS["block0"]["conv1"]["w"]["kernel"]
    expected = of_the_original(kernel.reshape(-1, 5).T).T.reshape(kernel.shape)
    np.testing.assert_allclose(got["block0"]["conv1"]["w"]["kernel"], expected, rtol=1e-4)
    np.testing.assert_array_equal(got["block0"]["conv1"]["bias"], 0)
    np.testing.assert_array_equal(got["shared"]["w"]["kernel"], 0)
    table = PARAMS["embed"]["w"]["kernel"]
    np.testing.assert_allclose(
        got["embed"]["w"]["kernel"], of_the_original(table), rtol=1e-4, atol=1e-5
    )
    gain = PARAMS["block0"]["norm1"]["gain"]["w"]["kernel"]
    linear = got["block0"]["norm1"]["gain"]["w"]["kernel"]
    np.testing.assert_allclose(linear, of_the_original(gain.T).T, rtol=1e-4, atol=1e-5)
    got = jax.grad(lambda p: orthogonal(p, tables=("embed", "gain", "bias")))(PARAMS)
    table = got["block0"]["norm1"]["gain"]["w"]["kernel"]
    np.testing.assert_allclose(table, of_the_original(gain), rtol=1e-4, atol=1e-5)


def test_orthogonality_of_orthogonal_outputs_is_0_whatever_their_length():
    kernel = np.diag([1.0, 2.0, 3.0]).astype(np.float32)
    assert orthogonal({"w": {"kernel": kernel}}) == 0
    kernel[0, 1] = 0.5  # columns 0 and 1 now have the product 0.5, counted twice, and halved
    np.testing.assert_allclose(orthogonal({"w": {"kernel": kernel}}), 0.25, rtol=1e-6)


# ---- LeCam ----------------------------------------------------------------------------


def test_lecam_is_the_papers_formula_and_its_anchors_are_constants():
    real, fake = (np.random.default_rng(i).standard_normal(n) for i, n in ((3, 7), (4, 5)))
    expected = ((real - -0.3) ** 2).mean() + ((fake - 0.8) ** 2).mean()
    args = [jnp.asarray(a, jnp.float32) for a in (real, fake, 0.8, -0.3)]
    value, gradients = jax.value_and_grad(lecam, argnums=(0, 1, 2, 3))(*args)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradients[0], 2 * (real + 0.3) / 7, rtol=1e-5)
    np.testing.assert_allclose(gradients[1], 2 * (fake - 0.8) / 5, rtol=1e-5)
    assert gradients[2] == gradients[3] == 0


def test_anchors_are_moving_averages_of_means():
    values = np.random.default_rng(5).standard_normal((4, 2, 3)).astype(np.float32)
    anchor, expected = jnp.zeros(()), 0.0
    for batch in values:
        anchor = moved_anchor(anchor, jnp.asarray(batch), 0.9)
        expected = 0.9 * expected + 0.1 * batch.mean()
    np.testing.assert_allclose(anchor, expected, rtol=1e-5)
    assert not jax.grad(lambda x: moved_anchor(jnp.zeros(()), x, 0.9))(jnp.ones(3)).any()


def fixed_point(n: int, same: int, weight: float) -> np.ndarray:
    """T at two items of n data and n samples, `same` of each on their own side, trained out."""
    real = np.repeat([0, 1], [same, n - same])
    fake = np.repeat([0, 1], [n - same, same])

    def loss(t, anchors):
        penalty = lecam(t[real], t[fake], *anchors)
        return ratio.get("logistic").loss(t[real], t[fake]) + weight * penalty

    def step(_, state):
        t, anchors = state
        moved = [moved_anchor(a, t[i], 0.8) for a, i in zip(anchors, (real, fake), strict=True)]
        return t - 0.5 / (1 + 4 * weight) * jax.grad(loss)(t, moved), moved

    start = (jnp.array([0.5, 0.1]), [jnp.zeros(()), jnp.zeros(())])
    return np.asarray(jax.jit(lambda s: jax.lax.fori_loop(0, 1000, step, s))(start)[0])


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
def test_lecam_ends_at_the_log_ratio_that_the_docstring_gives(weight):
    c = 0.8
    # σ(T) + 2w (T − c α_q − (1 − c) α_p) = c with T = ±t and α_p = −α_q = (2c − 1) t.
    root = scipy.optimize.brentq(
        lambda t: scipy.special.expit(t) + 2 * weight * t * (1 + (2 * c - 1) ** 2) - c, 0, 5
    )
    got = fixed_point(10, 8, weight)
    np.testing.assert_allclose(got, [root, -root], rtol=1e-3)
    true = np.log(c / (1 - c))
    assert (root < 0.9 * true) == (weight > 0)
    if not weight:
        np.testing.assert_allclose(root, true)


def test_lecam_shrinks_a_small_log_ratio_by_1_plus_8_times_its_weight():
    true, weight = np.log(0.55 / 0.45), 0.5
    np.testing.assert_allclose(fixed_point(20, 11, weight)[0], true / (1 + 8 * weight), rtol=0.02)


def test_a_shrunk_log_ratio_is_a_stronger_lam_at_a_higher_temperature():
    log_r, s, lam, tau = jnp.linspace(-4, 4, 50), 0.4, jnp.float32(3), jnp.float32(0.2)
    shrunk = objectives.envelope(s * log_r, lam, tau)
    np.testing.assert_allclose(
        shrunk, objectives.envelope(log_r, lam ** (1 / s), tau / s), rtol=1e-4, atol=1e-7
    )


# ---- consistency and mode seeking -----------------------------------------------------


def test_consistency_is_the_mean_square_and_moves_both():
    a, b = np.random.default_rng(6).standard_normal((2, 9)).astype(np.float32)
    value, (left, right) = jax.value_and_grad(consistency, argnums=(0, 1))(a, b)
    np.testing.assert_allclose(value, ((a - b) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(left, 2 * (a - b) / 9, rtol=1e-5)
    np.testing.assert_allclose(right, -left)
    assert consistency(jnp.asarray(a), jnp.asarray(a)) == 0
    with pytest.raises(ValueError, match=r"\(9,\) and \(9, 1\)"):
        consistency(jnp.asarray(a), jnp.asarray(a)[:, None])


def test_mode_seeking_is_the_inverse_of_the_ratio_of_distances():
    rng = np.random.default_rng(7)
    x1, x2 = rng.standard_normal((2, 6, 4, 4, 3)).astype(np.float32)
    z1, z2 = rng.standard_normal((2, 6, 5)).astype(np.float32)
    expected = 1 / (np.abs(x1 - x2).mean() / np.abs(z1 - z2).mean() + 1e-5)
    value, gradient = jax.value_and_grad(mode_seeking)(x1, x2, z1, z2)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # It is descended by moving samples apart.
    assert (np.sign(gradient) == -np.sign(x1 - x2)).all()
    np.testing.assert_allclose(mode_seeking(3 * x1, 3 * x2, z1, z2), value / 3, rtol=1e-4)
    for shapes in ((x1, x2[:1], z1, z2), (x1, x2, z1, z2[:1])):
        with pytest.raises(ValueError, match="two shapes"):
            mode_seeking(*shapes)


@pytest.mark.parametrize(("samples", "latents", "value"), [(0, 0, 0), (1, 0, 0), (0, 1, 1e5)])
def test_mode_seeking_is_finite_for_equal_latents_and_equal_samples(samples, latents, value):
    x, z = jnp.asarray(X), jnp.asarray(X[:, 0])
    args = x, x + samples, z, z + latents
    got, gradients = jax.value_and_grad(mode_seeking, argnums=(0, 1, 2, 3))(*args)
    np.testing.assert_allclose(got, value, rtol=1e-4)
    assert all(np.isfinite(g).all() for g in gradients)
    # Some equal pairs in a batch are nothing special.
    z2 = z.at[0].add(1.0)
    assert np.isfinite(jax.grad(mode_seeking)(x, x.at[0].add(0.5), z, z2)).all()


def test_weights_are_traced():
    traces = []

    @jax.jit
    def total(weights, decay, a, b):
        traces.append(None)
        anchor = moved_anchor(weights[0], a, decay)
        penalties = lecam(a, b, anchor, anchor), consistency(a, b), mode_seeking(a, b, a, b)
        return sum(w * one for w, one in zip(weights, penalties, strict=True))

    a, b = jnp.asarray(X[0, 0]), jnp.asarray(X[1, 0])
    values = [total(jnp.full(3, w), jnp.float32(d), a, b) for w, d in ((0, 0.9), (1, 0.9), (1, 0))]
    assert len(traces) == 1
    assert values[0] == 0 < values[1] != values[2]


# ---- FreezeD --------------------------------------------------------------------------

IMAGE = (2, 32, 32, 3)
# critic, shape of its items, and what its layers are, from the input on
CRITICS = {
    "small": (small.Critic(3), (2, 2), [("layer0",), ("layer1",)]),
    "small with all": (
        small.Critic(depth=11, width=4, fourier=2.0, dial=(-1.0, 1.0)),
        (2, 2),
        [("frequencies",), *((f"layer{i}",) for i in range(11))],
    ),
    "biggan": (
        biggan.Critic(32, 3, ch=8, attention_at=(16,)),
        IMAGE,
        [("block0", "attention0"), ("block1",), ("block2",), ("block3",)],
    ),
    "biggan_deep": (
        biggan.Critic(32, 3, ch=8, deep=True, depth=2, attention_at=(16,), dial=(-1.0, 1.0)),
        IMAGE,
        [
            ("conv_in",),
            ("block0",),
            ("block1", "attention1"),
            *((f"block{i}",) for i in range(2, 6)),
        ],
    ),
}


def shapes_of(critic, shape):
    """Its parameters' shapes, and the names in which it calls its parts."""
    calls = []

    def record(call, args, kwargs, context):
        path = context.module.path
        if len(path) == 1 and path[0] not in calls:
            calls.append(path[0])
        return call(*args, **kwargs)

    y = jnp.zeros((shape[0],), jnp.int32) if critic.dial is None else jnp.zeros((shape[0], 2))
    with nn.intercept_methods(record):
        tree = jax.eval_shape(
            lambda key: critic.init(key, jnp.zeros(shape), y, train=True), jax.random.key(0)
        )
    return tree["params"], calls


@pytest.mark.parametrize("name", CRITICS)
def test_layers_are_in_the_order_in_which_a_critic_calls_them(name):
    critic, shape, expected = CRITICS[name]
    params, calls = shapes_of(critic, shape)
    assert layers(params) == expected
    flat = [part for layer in layers(params) for part in layer if part != "frequencies"]
    head = [part for part in params if part not in (*flat, "frequencies")]
    # Before the head stands nothing but what is listed, but for dials, which hear λ.
    assert [part for part in calls if part not in head] == flat
    assert {re.sub(r"\d+", "", part) for part in head} <= {"out", "linear", "embed", "dial"}


@pytest.mark.parametrize("name", CRITICS)
def test_frozen_layers_are_those_nearest_to_the_input(name):
    critic, shape, _ = CRITICS[name]
    params, _ = shapes_of(critic, shape)
    known = layers(params)
    for depth in range(len(known) + 1):
        mask = frozen(params, depth)
        assert jax.tree.structure(mask) == jax.tree.structure(params)
        held = {part for layer in known[:depth] for part in layer}
        for part, tree in mask.items():
            assert set(jax.tree.leaves(tree)) == {part not in held}
    with pytest.raises(ConfigError, match=rf"{depth + 1} frozen layers: the critic has {depth} "):
        frozen(params, depth + 1)
    with pytest.raises(ConfigError, match="-1 frozen layers"):
        frozen(params, -1)
    assert frozen(params, known[0]) == frozen(params, 1)
    one = frozen(params, known[-1][0])
    assert [part for part in params if not all(jax.tree.leaves(one[part]))] == [known[-1][0]]
    with pytest.raises(ConfigError, match=rf"all {len(params)} of the critic's layers"):
        frozen(params, list(params))
    with pytest.raises(ConfigError, match="unknown layer of the critic 'nothing'"):
        frozen(params, ["nothing"])


def test_the_mask_works_in_optax_as_its_docstring_says():
    critic = small.Critic(width=4)
    x, y = jnp.asarray(X[:, 0, :2]), jnp.zeros(5, jnp.int32)
    params = critic.init(jax.random.key(0), x, y, train=True)["params"]
    mask = frozen(params, 1)
    inverted = jax.tree.map(lambda trained: not trained, mask)
    tx = optax.chain(
        optax.masked(optax.adam(0.1), mask), optax.masked(optax.set_to_zero(), inverted)
    )

    @jax.jit
    def step(params, opt):
        def loss(p):
            return jnp.square(critic.apply({"params": p}, x, y, train=True) - 3.0).sum()

        updates, opt = tx.update(jax.grad(loss)(params), opt, params)
        return optax.apply_updates(params, updates), opt

    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes weak types and int32
        moved, opt = step(params, tx.init(params))
        moved, _ = step(moved, opt)
    for part in params:
        same = jax.tree.map(lambda a, b: bool((a == b).all()), params[part], moved[part])
        assert all(jax.tree.leaves(same)) == (part == "layer0"), part


# ---- schedules ------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end"), [(1.0, 20.0), (1.0, 0.05), (2.0, 0.1), (1.0, 1.001)])
def test_a_schedule_is_exact_at_both_ends_and_monotone_between(start, end):
    steps = 5000
    value = jax.jit(jax.vmap(schedule(start, end, steps, "linear")))
    got = np.asarray(value(jnp.arange(-3, steps + 4)))
    assert (got[:4] == np.float32(start)).all()
    assert (got[-4:] == np.float32(end)).all()
    assert (np.diff(got) * np.sign(end - start) >= 0).all()
    np.testing.assert_allclose(got[3 + steps // 2], np.sqrt(start * end), rtol=1e-5)
    np.testing.assert_allclose(
        np.log(got[3:-3]), np.linspace(np.log(start), np.log(end), steps + 1), atol=1e-5
    )


def test_rounding_moves_no_end_and_nothing_beyond_it():
    steps, rng = 2**24, np.random.default_rng(8)
    starts, ends = jnp.exp(jnp.asarray(rng.normal(0, 2, (2, 20000)), jnp.float32))
    at = jax.jit(jax.vmap(lambda step: schedule(starts, ends, steps, "linear")(step)))
    # The steps beside the ends are less than a rounding apart from them.
    first, second, before, last = at(jnp.array([0, 1, steps - 1, steps]))
    np.testing.assert_array_equal(first, starts)
    np.testing.assert_array_equal(last, ends)
    up = jnp.sign(ends - starts)
    assert ((second - first) * up >= 0).all()
    assert ((last - before) * up >= 0).all()


def test_a_constant_schedule_is_the_end():
    assert schedule(1.0, 7.3, 10, "constant")(jnp.int32(0)) == np.float32(7.3)


def test_a_schedule_takes_traced_ends_and_one_for_each_sample():
    traces = []

    @jax.jit
    def at(step, end):
        traces.append(None)
        return schedule(1.0, end, 100, "linear")(step)

    for step, lam in ((0, 5.0), (50, 5.0), (100, 0.2)):
        np.testing.assert_allclose(at(step, jnp.float32(lam)), lam ** (step / 100), rtol=1e-6)
    assert len(traces) == 1
    ends = jnp.array([0.2, 1.0, 5.0])
    np.testing.assert_allclose(at(50, ends), np.sqrt(ends), rtol=1e-6)
    np.testing.assert_array_equal(at(100, ends), ends)
    np.testing.assert_array_equal(at(0, ends), 1.0)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((1.0, 2.0, 10, "cosine"), "unknown schedule 'cosine'"),
        ((1.0, 2.0, 0, "linear"), "0 steps"),
        ((0.0, 2.0, 10, "linear"), "start is 0.0"),
        ((1.0, -2.0, 10, "linear"), "end is -2.0"),
        ((1.0, float("nan"), 10, "constant"), "end is nan"),
        ((1.0, np.float32(np.inf), 10, "linear"), "end is inf"),
    ],
)
def test_a_schedule_says_what_it_cannot_be(args, message):
    with pytest.raises(ConfigError, match=message):
        schedule(*args)
