"""Distributions in the plane × properties: what is sampled has the density that is claimed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from prpr import data, errors
from prpr.data import planar, randomness
from prpr.numerics import float64

NAMES = tuple(planar.LAWS)
NEW = ("two_moons", "spirals", "checkerboard", "pinwheel")
N = 20_000
BLOCKS = 40  # of [−4, 4]², a side; 8 midpoints in each block, a side


@functools.cache
def log_density(name):
    return jax.jit(planar.law(name).log_density)


@functools.cache
def samples(name):
    return planar.law(name).sample(np.random.default_rng(1), N)


@functools.cache
def block_masses(name):
    """∫ p over each block of [−4, 4]², (BLOCKS, BLOCKS), and the total over [−5, 5]²."""
    step = 8 / BLOCKS / 8
    side = np.arange(-5 + step / 2, 5, step)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).astype(np.float32)
    p = np.stack([np.exp(np.asarray(log_density(name)(jnp.asarray(row)))) for row in grid])
    p = p.astype(np.float64) * step**2
    edge = round(1 / step)
    inner = p[edge:-edge, edge:-edge].reshape(BLOCKS, 8, BLOCKS, 8).sum(axis=(1, 3))
    return inner, p.sum()


@pytest.mark.parametrize("name", NAMES)
def test_the_density_integrates_to_one(name):
    inner, total = block_masses(name)
    assert total == pytest.approx(1, abs=1e-4)
    assert inner.sum() > 1 - 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_density(name):
    x, _ = samples(name)
    edges = np.linspace(-4, 4, BLOCKS + 1)
    seen = np.histogram2d(*x.T, bins=[edges, edges])[0].ravel()
    expected = N * block_masses(name)[0].ravel()
    # Blocks with few expected samples are one, or the statistic is not chi-square.
    large = expected >= 8
    seen = np.append(seen[large], N - seen[large].sum())
    expected = np.append(expected[large], N - expected[large].sum())
    assert len(seen) > 20
    chi = np.sum((seen - expected) ** 2 / np.maximum(expected, 1))
    assert stats.chi2.sf(chi, len(seen) - 1) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_what_they_say(name):
    law = planar.law(name)
    x, label = samples(name)
    assert (x.dtype, label.dtype) == (np.float32, np.int32)
    share = np.bincount(label, minlength=law.classes) / N
    assert len(share) == law.classes
    want = getattr(law, "weights", np.full(law.classes, 1 / law.classes))
    assert (np.abs(share - want) < 4 * np.sqrt(want * (1 - want) / N)).all()
    if name not in NEW:
        return
    if name == "checkerboard":
        # 0.2 is 6.7 edges of the blur.
        assert (np.abs(x - (law.fields[label] - 1.5)).max(axis=1) < 0.5 + 0.2).mean() > 0.99
        return
    # Turned back by its label's angle, every arm is the first one.
    turn = -2 * np.pi * label / law.classes
    back = planar._rotated(x.astype(np.float64), turn)
    first = back[label == 0]
    for k in range(1, law.classes):
        other = back[label == k]
        for f in (lambda v: v[:, 0], lambda v: v[:, 1], lambda v: (v**2).sum(axis=1)):
            assert stats.ks_2samp(f(first), f(other)).pvalue > 1e-4
    # As they are, they differ.
    pair = [x[label == k] for k in (0, 1)]
    assert min(stats.ks_2samp(pair[0][:, d], pair[1][:, d]).pvalue for d in (0, 1)) < 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_finite_far_away(name):
    far = jnp.asarray([[1e4, -1e4], [0.0, 0.0], [3.0, 100.0], [-1e4, 0.0]], jnp.float32)
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(planar.law(name).log_density)))(far)
    assert value.dtype == jnp.float32
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NEW)
def test_any_leading_shape_and_float64(name):
    x = np.random.default_rng(0).uniform(-2, 2, (4, 5, 2))
    single = log_density(name)(jnp.asarray(x, jnp.float32))
    assert (single.shape, single.dtype) == ((4, 5), jnp.float32)
    one = log_density(name)(jnp.asarray(x[1, 2], jnp.float32))
    with float64():
        double = jax.jit(planar.law(name).log_density)(jnp.asarray(x))
        assert double.dtype == jnp.float64
    np.testing.assert_allclose(one, single[1, 2], rtol=1e-5)
    # The coordinates alone are rounded by 1e-7, in units of the noise by 1e-6, times z.
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["two_moons", "spirals"])
def test_the_quadrature_along_a_curve(name):
    """Against panels 8 times as many, and a plain sum over a million points of the curve."""
    law = planar.law(name)
    rng = np.random.default_rng(2)
    x = rng.uniform(-4, 4, (400, 2))
    on = samples(name)[0][:400].astype(np.float64)
    off = on + law.scale * rng.normal(0, 3, on.shape)
    x = np.concatenate([x, on, off])
    fine = planar.dataclasses.replace(law, panels=8 * law.panels)
    with float64():
        got = np.asarray(jax.jit(law.log_density)(jnp.asarray(x)))
        want = np.asarray(jax.jit(fine.log_density)(jnp.asarray(x)))
    seen = want > want.max() + np.log(1e-8)
    assert 300 < seen.sum() < len(x)
    assert np.abs(got - want)[seen].max() < 2e-7
    # The definition itself: v = t^(1/power) for equally likely t.
    curve = law.curve(((np.arange(1_000_000) + 0.5) / 1_000_000) ** (1 / law.power))
    for point, log_p in zip(x[400:404], want[400:404], strict=True):
        arms = [curve if k == 0 else -curve for k in range(2)]
        terms = [np.exp(-np.sum((point - arm) ** 2, axis=1) / (2 * law.scale**2)) for arm in arms]
        density = np.mean(terms) / (2 * np.pi * law.scale**2)
        assert log_p == pytest.approx(np.log(density), abs=1e-6)


def test_the_pinwheels_twist_preserves_areas():
    law = planar.Pinwheel(arms=1, twist=0.3)
    straight = planar.Pinwheel(arms=1, twist=1e-12)

    def twist(u):
        turn = 0.3 * jnp.sum(u * u)
        c, s = jnp.cos(turn), jnp.sin(turn)
        return jnp.stack([c * u[0] - s * u[1], s * u[0] + c * u[1]])

    with float64():
        u = jnp.asarray(np.random.default_rng(0).normal(1, 1, (50, 2)))
        areas = np.linalg.det(jax.jit(jax.vmap(jax.jacfwd(twist)))(u))
        np.testing.assert_allclose(areas, 1, rtol=1e-10)
        moved = jax.jit(lambda v: law.log_density(jax.vmap(twist)(v)))(u)
        np.testing.assert_allclose(moved, jax.jit(straight.log_density)(u), rtol=1e-8)


def test_the_checkerboard_is_a_blurred_square():
    law = planar.Checkerboard()
    x = np.random.default_rng(3).uniform(-2.5, 2.5, (200, 2))
    want = np.zeros(200)
    for i, j in law.fields:
        each = [
            stats.logistic.cdf(x[:, d], at - 2, law.edge)
            - stats.logistic.cdf(x[:, d], at - 1, law.edge)
            for d, at in enumerate((i, j))
        ]
        want += each[0] * each[1] / 8
    with float64():
        got = np.exp(jax.jit(law.log_density)(jnp.asarray(x)))
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-15)
    hard = planar.Checkerboard(side=3, width=2.0, edge=0.0)
    assert hard.classes == 5
    points = jnp.asarray([[0.0, 0.0], [2.0, 0.0], [2.5, -2.9], [3.1, 2.0], [1.0, 1.0]])
    hard_density = jax.jit(hard.log_density)
    np.testing.assert_allclose(np.exp(hard_density(points)), [0.05, 0, 0.05, 0, 0.05], rtol=1e-6)
    inside = hard_density(jnp.asarray(hard.sample(np.random.default_rng(0), 1000)[0]))
    np.testing.assert_allclose(inside, np.log(1 / 20), rtol=1e-6)


@pytest.mark.parametrize("name", data.MIXTURES)
def test_mixtures_are_sampled_as_ever(name):
    # The published runs' data: component by a uniform, then normals, from one Philox stream.
    m, whole = data.mixture(name), data.load(name, "train", seed=7, fractions=(1, 0, 0))
    key = np.random.SeedSequence(7, spawn_key=(randomness.SAMPLE,))
    rng = np.random.Generator(np.random.Philox(key))
    c = np.searchsorted(np.cumsum(m.weights)[:-1], rng.random(data.POINTS), side="right")
    x = (m.means[c] + m.scale * rng.standard_normal((data.POINTS, 2))).astype(np.float32)
    order, want = np.lexsort(whole.images.T), np.lexsort(x.T)
    np.testing.assert_array_equal(whole.images[order], x[want])
    np.testing.assert_array_equal(whole.labels[order], c[want])


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_by_name(name):
    one, same, other = (data.load(name, "train", seed=s) for s in (0, 0, 1))
    assert one.name == name
    assert one.num_classes == planar.law(name).classes
    assert set(one.labels) == set(range(one.num_classes))
    assert (one.images.shape[1:], one.images.dtype) == ((2,), np.float32)
    np.testing.assert_array_equal(one.images, same.images)
    assert not np.array_equal(one.images, other.images)
    parts = [data.load(name, part).size for part in data.SPLITS]
    assert sum(parts) == data.POINTS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: planar.law("two_moon"), "unknown distribution .* Did you mean 'two_moons'"),
        (lambda: data.load("spiral", "train"), "Did you mean 'spirals'"),
        (lambda: planar.Checkerboard(side=1), "side=1 "),
        (lambda: planar.Checkerboard(width=0.0), "Checkerboard: width=0.0 must be positive"),
        (lambda: planar.Checkerboard(edge=-0.1), "edge=-0.1 "),
        (lambda: planar.Pinwheel(tangential=float("nan")), "Pinwheel: tangential=nan"),
        (lambda: planar.Strokes(planar._moon, scale=0), "Strokes: scale=0 "),
    ],
)
def test_what_cannot_be_made_is_named(make, message):
    with pytest.raises(errors.ConfigError, match=message):
        make()
