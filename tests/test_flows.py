"""Bijectors are what they claim to be: every property asked of every case of `flow_tools`."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow_tools import (
    CASES,
    ITEMS,
    METHODS,
    Programs,
    applying,
    normal,
    quickly,
    random_variables,
    started,
    wide,
)
from jax.flatten_util import ravel_pytree

from prpr.errors import ConfigError
from prpr.models.flows import elementwise
from prpr.models.flows.bijector import Bijector, Chain, sum_items
from prpr.models.flows.couplings import AffineCoupling, SplineCoupling
from prpr.models.flows.dequantise import Variational
from prpr.models.flows.elementwise import Logit
from prpr.models.flows.flow import Flow, bits_per_dim
from prpr.models.flows.glow import ActNorm, InvertibleLinear, glow, realnvp, spline
from prpr.models.flows.lipschitz import convolution_bound, lip_swish, spectral_bound
from prpr.models.flows.multiscale import Multiscale, Permute, Squeeze, shuffled
from prpr.models.flows.residual import (
    Residual,
    _rademacher,
    drawn_for,
    estimated_log_det,
    exact_log_det,
    residual,
    solve,
)
from prpr.numerics import float64

# ---- the registry ---------------------------------------------------------------------


@functools.cache
def programs(name: str, with_context: bool) -> Programs:
    return Programs(next(case for case in CASES if case.name == name), with_context)


every = pytest.mark.parametrize(
    ("name", "with_context"),
    [
        pytest.param(case.name, with_context, id=case.name + with_context * "-context")
        for case in CASES
        for with_context in case.contexts
    ],
)


@every
def test_round_trips(name, with_context):
    run = programs(name, with_context)
    ahead = run.forward(run.x)
    back = run.inverse(ahead.out)
    np.testing.assert_allclose(back.out, run.x, atol=1e-5)
    np.testing.assert_allclose(back.log_det, -ahead.log_det, atol=1e-4)
    back = run.inverse(run.z)
    ahead = run.forward(back.out)
    np.testing.assert_allclose(ahead.out, run.z, atol=1e-5)
    np.testing.assert_allclose(ahead.log_det, -back.log_det, atol=1e-4)


@every
def test_one_item_is_a_batch_and_log_det_that_of_autodiffs_jacobian(name, with_context):
    run = programs(name, with_context)
    out, log_det, jacobian, back = run.single()
    np.testing.assert_allclose(log_det, [jacobian], atol=1e-4)
    ahead = run.forward(run.x)
    np.testing.assert_allclose(out, ahead.out[:1], atol=1e-5)
    np.testing.assert_allclose(log_det, ahead.log_det[:1], atol=1e-4)
    np.testing.assert_allclose(back, run.inverse(run.z).out[:1], atol=1e-5)


@every
def test_items_do_not_influence_each_other(name, with_context):
    run = programs(name, with_context)
    for direction, inputs in ((run.forward, run.x), (run.inverse, run.z)):
        before, moved = direction(inputs), inputs.copy()
        moved[0] += 0.25
        after = direction(moved)
        for one, other in ((before.out, after.out), (before.log_det, after.log_det)):
            np.testing.assert_array_equal(other[1:], one[1:])
        assert np.abs(after.out[0] - before.out[0]).max() > 1e-3


@every
def test_types_and_shapes(name, with_context):
    run = programs(name, with_context)
    case, ahead, back = run.case, run.forward(run.x), run.inverse(run.z)
    assert ahead.out.shape == (ITEMS, *(run.model.latent_shape or case.shape))
    assert back.out.shape == (ITEMS, *case.shape)
    for found in (ahead, back):
        assert found.log_det.shape == (ITEMS,)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}


@every
def test_far_inputs_keep_values_and_gradients_finite(name, with_context):
    run = programs(name, with_context)
    for direction, inputs in ((run.forward, run.x), (run.inverse, run.z)):
        some = np.where(np.arange(inputs.shape[-1]) % 2, inputs, 1e4).astype(np.float32)
        for far in (np.float32(1e4) * np.sign(inputs), some):
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(direction(far)))


@every
def test_a_context_is_read(name, with_context):
    run = programs(name, with_context)
    if not with_context:
        assert run.context is None
        return
    before, context = run.forward(run.x), run.context
    try:
        run.context = context + np.float32(0.5)
        assert np.abs(run.forward(run.x).out - before.out).max() > 1e-4
    finally:
        run.context = context


@pytest.mark.parametrize("name", ["InvertibleLinear-5", "AffineCoupling-2", "SplineCoupling-2"])
def test_jit_changes_nothing(name):
    run = programs(name, False)
    for method, direction, inputs in zip(
        METHODS, (run.forward, run.inverse), (run.x, run.z), strict=True
    ):
        out, log_det = run.apply(method, run.variables, jnp.asarray(inputs), None)
        np.testing.assert_allclose(out, direction(inputs).out, atol=1e-5)
        np.testing.assert_allclose(log_det, direction(inputs).log_det, atol=1e-4)


# ---- elementwise ----------------------------------------------------------------------


def _spline_inputs(n=200, bins=6, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = np.linspace(-4, 4, n)
    raw = [scale * rng.standard_normal((n, k)) for k in (bins, bins, bins - 1)]
    return tuple(np.asarray(a, np.float32) for a in (x, *raw))


def test_spline_follows_its_formula():
    """Against a scalar transcription of equations 4 to 8 with loops."""
    x, widths, heights, slopes = (np.float64(a) for a in _spline_inputs())
    bound, bins = 3.0, widths.shape[1]
    with float64():
        y, log_slope = elementwise.rational_quadratic(
            *map(jnp.asarray, (x, widths, heights, slopes)), bound
        )
        y, log_slope = np.asarray(y), np.asarray(log_slope)

    def knots(raw):
        part = np.exp(raw - raw.max())
        part = elementwise.MIN_BIN + (1 - bins * elementwise.MIN_BIN) * part / part.sum()
        return bound * (2 * np.concatenate([[0], np.cumsum(part)]) - 1)

    for i in range(len(x)):
        if abs(x[i]) >= bound:
            assert (y[i], log_slope[i]) == (x[i], 0.0)
            continue
        xs, ys = knots(widths[i]), knots(heights[i])
        limit = elementwise.MAX_LOG_SLOPE
        inner = np.exp(limit * np.tanh(slopes[i] / limit))
        d = np.concatenate([[1], inner, [1]])
        k = np.searchsorted(xs, x[i], side="right") - 1
        s = (ys[k + 1] - ys[k]) / (xs[k + 1] - xs[k])
        t = (x[i] - xs[k]) / (xs[k + 1] - xs[k])
        below = s + (d[k + 1] + d[k] - 2 * s) * t * (1 - t)
        expected = ys[k] + (ys[k + 1] - ys[k]) * (s * t**2 + d[k] * t * (1 - t)) / below
        slope = s**2 * (d[k + 1] * t**2 + 2 * s * t * (1 - t) + d[k] * (1 - t) ** 2) / below**2
        np.testing.assert_allclose(y[i], expected, atol=1e-12)
        np.testing.assert_allclose(log_slope[i], np.log(slope), atol=1e-10)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_spline_inverts_and_has_the_slope_of_autodiff(scale):
    """At a scale of 100 bins and slopes are at their limits."""
    with float64():
        x, *raw = (jnp.asarray(a, jnp.float64) for a in _spline_inputs(scale=scale, seed=1))
        y, log_slope = elementwise.rational_quadratic(x, *raw, 3.0)
        again, back = elementwise.rational_quadratic_inverse(y, *raw, 3.0)
        # y is rounded; x is as uncertain as the inverse slope makes it, 1e9 times at the limits.
        assert (jnp.abs(again - x) < 1e-15 * (10 + 10 * jnp.exp(-log_slope))).all()
        np.testing.assert_allclose(back, -log_slope, atol=1e-4)
        slope = jax.vmap(jax.grad(lambda *a: elementwise.rational_quadratic(*a, 3.0)[0]))(x, *raw)
        np.testing.assert_allclose(jnp.log(slope), log_slope, atol=1e-8)
        if scale == 0.0:
            np.testing.assert_allclose(y, x, atol=1e-12)


def test_spline_in_float32_inverts_as_well_as_its_slope_allows():
    x, *raw = _spline_inputs(scale=3.0, seed=2)
    y, log_slope = elementwise.rational_quadratic(x, *raw, 3.0)
    again, _ = elementwise.rational_quadratic_inverse(y, *raw, 3.0)
    # y is rounded to about 2e-7; x is as uncertain as the inverse slope makes it.
    assert (np.abs(again - x) < 2e-6 * np.maximum(np.exp(-log_slope), 1) + 2e-6).all()


def test_spline_is_smooth_at_its_ends_and_finite_beyond():
    _, *raw = _spline_inputs(n=2, scale=2.0)
    near = np.asarray([-3 + 1e-5, 3 - 1e-5], np.float32)
    y, log_slope = elementwise.rational_quadratic(near, *raw, 3.0)
    np.testing.assert_allclose(y, near, atol=1e-6)
    np.testing.assert_allclose(log_slope, 0, atol=1e-2)
    far = np.asarray([3.0, 1e4, 1e30, -3.0, -1e4, -1e30], np.float32)
    raw = [np.repeat(a, 3, axis=0) for a in raw]
    for one in (elementwise.rational_quadratic, elementwise.rational_quadratic_inverse):

        def total(*inputs, one=one):
            out, log_slope = one(*inputs, 3.0)
            return out.sum() + log_slope.sum(), out

        (_, out), slopes = quickly(jax.value_and_grad(total, (0, 1, 2, 3), True))(far, *raw)
        assert all(np.isfinite(leaf).all() for leaf in slopes)
        np.testing.assert_array_equal(out, far)


def test_bounded_scales():
    x = np.asarray([-1e30, -1, 0, 0.01, 1e30], np.float32)
    y = elementwise.bounded(x, 2.0)
    assert np.abs(y).max() <= 2
    np.testing.assert_allclose(y[2:4], x[2:4], atol=1e-5)
    np.testing.assert_allclose(jax.vmap(jax.grad(lambda a: elementwise.bounded(a, 2.0)))(x)[2], 1)


def test_logit_by_hand():
    """RealNVP's formula inside the data's range, its tangent outside."""
    low, high = -1 - 1 / 16, 1 + 1 / 16  # 17 levels, 1/8 apart
    p = np.asarray([0.0, 0.25, 1.0])
    x = (low + (high - low) * p).astype(np.float32)[:, None]
    z, log_det = Logit(17, alpha=0.1).apply({}, x, method="forward_and_log_det")
    t = 0.1 + 0.8 * p
    np.testing.assert_allclose(z[:, 0], np.log(t / (1 - t)), atol=1e-5)
    np.testing.assert_allclose(log_det, np.log(0.8 / (high - low) / (t * (1 - t))), atol=1e-5)
    x = np.asarray([[high + 0.5]], np.float32)
    z, log_det = Logit(17, alpha=0.1).apply({}, x, method="forward_and_log_det")
    slope = 0.8 / (high - low) / 0.09
    np.testing.assert_allclose(z, [[np.log(9) + 0.5 * slope]], rtol=1e-5)
    np.testing.assert_allclose(log_det, np.log([slope]), rtol=1e-5)


# ---- what maps start as ---------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        AffineCoupling((5,), width=8),
        AffineCoupling((4, 4, 3), "checkerboard", width=8),
        SplineCoupling((2, 2, 4), width=8),
        Residual((3,), width=8),
        Residual((2, 2, 2), width=8),
    ],
    ids=lambda model: f"{type(model).__name__}-{len(model.shape)}",
)
def test_starts_as_the_identity(model):
    x = normal(0, 4, *model.shape)
    context = normal(1, 4, 3)
    (y, log_det), _ = started(model, x, context)
    np.testing.assert_allclose(y, x, atol=1e-6)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", [(5,), (2, 2, 4)])
def test_a_coupling_keeps_one_half_and_moves_the_other_given_it(shape, flip):
    model = AffineCoupling(shape, "halves", flip, width=8)
    x = normal(0, 3, *shape)
    z, _ = applying(model)(random_variables(model, x), x)
    z, k = np.asarray(z), shape[-1] // 2
    kept, moved = (slice(k, None), slice(0, k)) if flip else (slice(0, k), slice(k, None))
    np.testing.assert_array_equal(z[..., kept], x[..., kept])
    assert (z[..., moved] != x[..., moved]).all()


def test_a_checkerboard_keeps_every_second_pixel():
    x = normal(0, 3, 4, 4, 3)
    for flip in (False, True):
        model = AffineCoupling((4, 4, 3), "checkerboard", flip, width=8)
        z, _ = applying(model)(random_variables(model, x), x)
        same = (np.asarray(z) == x).all((0, 3))
        np.testing.assert_array_equal(same, np.indices((4, 4)).sum(0) % 2 == int(flip))


def test_actnorm_is_initialised_by_data():
    x = 3 + 2 * normal(0, 64, 2, 2, 3)
    x[..., 1] = np.float32(1 / 3)  # whose mean is rounded
    model = ActNorm()
    (z, log_det), _ = started(model, x)
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(z.std((0, 1, 2)), [1, 0, 1], atol=1e-5)
    scale = np.log(x.std((0, 1, 2)).astype(np.float64)[[0, 2]]).sum()
    np.testing.assert_allclose(log_det, -4 * scale, rtol=1e-5)
    for method, start in (("forward_and_log_det", 0 * x), ("inverse_and_log_det", x)):
        _, v = started(model, start, method=method)
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(v)), method


def test_actnorm_in_a_flow_sees_what_the_maps_before_it_make():
    x = 3 + 2 * normal(0, 256, 2)
    model = Flow((2,), glow((2,), depth=3, width=8))
    y = np.zeros(256, np.int32)
    (z, _), _ = started(model, x, y, method="encode")
    np.testing.assert_allclose(np.asarray(z).std(0), 1, atol=0.2)
    np.testing.assert_allclose(np.asarray(z).mean(0), 0, atol=0.2)


def test_the_linear_map_is_a_rotation_first_and_keeps_its_permutation():
    x = normal(0, 4, 2, 2, 5)
    model = InvertibleLinear()
    (z, log_det), v = started(model, x)
    np.testing.assert_allclose(np.square(z).sum(-1), np.square(x).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)
    assert set(v["constants"]) == {"permutation", "sign"}
    assert set(v["params"]) == {"lower", "upper", "log_s"}
    p = np.asarray(v["constants"]["permutation"])
    assert (p.sum(0) == 1).all()
    assert (p.sum(1) == 1).all()
    assert (p != np.eye(5)).any()  # so that the wrong side or order of P would be seen
    v["params"]["log_s"] = v["params"]["log_s"] + 0.5
    _, log_det = applying(model)(v, x)
    np.testing.assert_allclose(log_det, 4 * 5 * 0.5, rtol=1e-5)


# ---- shapes ---------------------------------------------------------------------------


def test_squeeze_puts_a_cell_into_a_pixel():
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    z, _ = Squeeze((4, 4, 1)).apply({}, x, method="forward_and_log_det")
    np.testing.assert_array_equal(z[0, 0, 0], [0, 1, 4, 5])
    np.testing.assert_array_equal(z[0, 1, 0], [8, 9, 12, 13])


def test_multiscale_factors_out_the_second_half():
    x = normal(0, 2, 4, 4, 1)
    squeeze = Squeeze((4, 4, 1))
    model = Multiscale((4, 4, 1), [squeeze, Squeeze((2, 2, 2))])
    z, _ = model.apply({}, x, method="forward_and_log_det")
    first, _ = squeeze.apply({}, x, method="forward_and_log_det")
    np.testing.assert_array_equal(z[:, :8], first[..., 2:].reshape(2, -1))
    np.testing.assert_array_equal(np.sort(z[:, 8:]), np.sort(first[..., :2].reshape(2, -1)))
    assert model.latent_shape == (16,)


def test_shuffled_is_a_permutation_that_depends_on_the_seed_only():
    assert shuffled(6, 0) == shuffled(6, 0) != shuffled(6, 1)
    assert sorted(shuffled(6, 0)) == list(range(6))


@pytest.mark.parametrize("build", [glow, realnvp])
def test_a_flow_of_a_logit_and_scales_round_trips(build):
    """Its latent has another shape than its data, which the chain must know."""
    model = Flow((4, 4, 1), build((4, 4, 1), depth=2, width=4, hidden=1, levels=17), levels=17)
    x, y = np.round(8 * np.tanh(normal(0, 3, 4, 4, 1))) / 8, np.zeros(3, np.int32)
    u = np.full(x.shape, 0.5, np.float32)
    v = random_variables(model, x, y, u, method="log_likelihood")
    z, _ = applying(model, "encode")(v, x, y)
    assert z.shape == (3, 16)
    again, log_q = applying(model, "sample_and_log_prob")(v, z, y)
    np.testing.assert_allclose(again, x, atol=1e-5)
    log_p = applying(model, "log_prob")(v, x, y)
    np.testing.assert_allclose(log_q, log_p, atol=1e-4)


# ---- residual flows -------------------------------------------------------------------


def test_spectral_bound_lies_just_above_the_singular_value():
    for seed, shape in enumerate([(1, 1), (2, 64), (64, 2), (5, 7), (64, 64)]):
        for scale in (1e-9, 1.0, 1e9):
            w = scale * np.random.default_rng(seed).standard_normal(shape)
            bound = float(spectral_bound(jnp.asarray(w, jnp.float32)))
            assert 1 - 1e-5 < bound / np.linalg.norm(w, 2) < 1.02
    assert np.isfinite(jax.grad(spectral_bound)(jnp.zeros((3, 3)))).all()


@pytest.mark.parametrize("shape", [(4, 4), (2, 5), (1, 1)])
@pytest.mark.parametrize("channels", [(1, 3), (2, 2)])
def test_convolution_bound_lies_above_the_singular_value_of_the_map(shape, channels):
    kernel = normal(4, 3, 3, *channels)

    def apply(x):
        out = jax.lax.conv_general_dilated(
            x.reshape(1, *shape, channels[0]),
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return out.reshape(-1)

    matrix = jax.jacfwd(apply)(jnp.zeros(math.prod(shape) * channels[0]))
    ratio = float(convolution_bound(jnp.asarray(kernel), *shape)) / np.linalg.norm(matrix, 2)
    assert ratio > 1 - 1e-5
    assert ratio < 1.4 or min(shape) == 1


def test_lip_swish_has_slopes_within_one():
    x = jnp.linspace(-100, 100, 20001)
    for beta in (-3.0, 0.5, 5.0):
        slope = jax.vmap(jax.grad(lambda a, beta=beta: lip_swish(a, jnp.float32(beta))))(x)
        assert 0.99 < np.abs(slope).max() <= 1 + 1e-6


@pytest.mark.parametrize("shape", [(1,), (3,), (6, 6, 1), (3, 3, 2)])
def test_g_contracts_whatever_its_parameters_are(shape):
    """The largest singular value of its Jacobian, where the activations are steep.

    With one channel and kernels of ones nearly all of the bound is reached.
    """
    reached = shape[-1] == 1
    model = Residual(shape, width=1 if reached else 8, depth=1, lipschitz=0.8)
    x = normal(0, 40, *shape)
    v = random_variables(model, x, scale=30.0)
    if reached:
        v = jax.tree.map(np.ones_like, v)
        x = np.linspace(0.5, 20, 40, dtype=np.float32).reshape(-1, *[1] * len(shape)) + 0 * x

    def g(x):
        return (model.apply(v, x[None], method="forward_and_log_det")[0][0] - x).reshape(-1)

    jacobian = quickly(jax.vmap(jax.jacfwd(g)))(x).reshape(40, math.prod(shape), -1)
    largest = np.linalg.norm(jacobian, 2, axis=(1, 2)).max()
    assert (0.6 if reached else 0.05) < largest <= 0.8 + 1e-5


def _contraction(w, x):
    return 0.9 * jnp.tanh(x @ w)


def test_solve_has_the_implicit_derivatives():
    """Both modes, in z and in the parameters, against the formula and finite differences."""
    with float64():
        rng = np.random.default_rng(0)
        w = jnp.asarray(np.linalg.qr(rng.standard_normal((3, 3)))[0])
        z = jnp.asarray(rng.standard_normal((5, 3)))

        def x_of(w, z):
            return solve(lambda x: _contraction(w, x), z, 0.9)

        def by(mode):
            return jax.vmap(mode(lambda a: x_of(w, a[None])[0]))

        @quickly
        def everything(w, z):
            x = x_of(w, z)
            ahead, below = (jnp.square(x_of(w.at[0, 1].add(h), z)).sum() for h in (1e-5, -1e-5))
            slope = jax.vmap(jax.jacfwd(lambda a: a + _contraction(w, a[None])[0]))(x)
            by_w = jax.grad(lambda w: jnp.square(x_of(w, z)).sum())(w)[0, 1]
            modes = by(jax.jacfwd)(z), by(jax.jacrev)(z)
            return x + _contraction(w, x), slope, modes, by_w, (ahead - below) / 2e-5

        again, slope, modes, by_w, expected = everything(w, z)
        np.testing.assert_allclose(again, z, atol=1e-13)
        for got in modes:
            np.testing.assert_allclose(got, np.linalg.inv(slope), atol=1e-12)
        np.testing.assert_allclose(by_w, expected, rtol=1e-6)


def test_an_item_that_is_solved_does_not_move_while_others_are():
    """So its digits are those that it has alone."""

    def g(x):
        return 0.9 * x / (1 + jnp.abs(x))

    z = 3 * normal(0, 200, 1)
    together = jax.jit(lambda z: solve(g, z, 0.9))(z)
    alone = jax.jit(jax.vmap(lambda z: solve(g, z[None], 0.9)[0]))(z)
    np.testing.assert_array_equal(together, alone)


def test_gradients_flow_through_a_residual_sampler():
    """d/dθ of a function of x = inverse(z), against finite differences of the whole map."""
    model, z = Residual((2,), width=8), normal(0, 6, 2)
    v = random_variables(model, z)

    def loss(params, z):
        x, log_det = model.apply({"params": params}, z, method="inverse_and_log_det")
        return jnp.sin(x).sum() + log_det.sum().astype(x.dtype)

    with float64():
        params, z = wide((v["params"], z))
        gradient = quickly(jax.grad(loss))(params, z)
        flat, back = ravel_pytree(params)
        direction = jnp.asarray(np.random.default_rng(2).standard_normal(flat.shape))
        h = 1e-3
        value = quickly(loss)
        ahead, below = (value(back(flat + s * h * direction), z) for s in (1, -1))
        expected = (ahead - below) / (2 * h)
        got = ravel_pytree(gradient)[0] @ direction
    np.testing.assert_allclose(got, expected, rtol=1e-3)


def test_the_probes_mean_over_all_signs_is_the_exact_log_det_and_its_gradient():
    """Over all 2^D vectors of ±1 the estimate's mean is the trace itself: no bias is hidden."""
    with float64():
        rng = np.random.default_rng(1)
        w = jnp.asarray(0.8 * np.linalg.qr(rng.standard_normal((3, 3)))[0])
        x = jnp.asarray(0.3 * rng.standard_normal((4, 3)))
        signs = jnp.asarray([[2.0 * (i >> k & 1) - 1 for k in range(3)] for i in range(8)])

        def mean(w):
            def one(v):
                probe = jnp.broadcast_to(v[None], x.shape)
                return estimated_log_det(lambda x: _contraction(w, x), x, probe, 0.9)

            return jax.vmap(one)(signs).mean(0)

        def exact(w):
            return exact_log_det(lambda x: _contraction(w, x), x)

        found, expected = quickly(lambda w: (mean(w), exact(w)))(w)
        np.testing.assert_allclose(found, expected, atol=3e-5)
        assert np.abs(expected).max() > 0.1
        slopes = quickly(jax.jacrev(lambda w: (mean(w).sum(), exact(w).sum())))
        np.testing.assert_allclose(*slopes(w), atol=3e-4)


def test_probes_are_fixed_without_words_and_each_items_own_with_them():
    model = Residual((3,), width=8, exact_dim=2)
    x = normal(0, 400, 3)
    v = random_variables(model, x, scale=2.0)

    run = applying(model)
    v = {**v, "probes": {"words": jnp.zeros((), jnp.float32)}}  # as `init` makes it
    assert jax.tree.map(jnp.shape, started(model, x)[1]["probes"]) == {"words": ()}
    draws = [drawn_for(v, jnp.asarray(normal(i, 400, 2))) for i in range(2)]
    fixed = run(v, x)[1]
    np.testing.assert_array_equal(fixed, run({**v, "probes": {}}, x)[1])
    drawn = [np.asarray(run(one, x)[1]) for one in draws]
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-2
    # Of the item, not of its place: a part of a batch, in another order, finds the same.
    rows = np.arange(400)[::-3]
    part = drawn_for(v, jnp.asarray(normal(0, 400, 2)[rows]))
    np.testing.assert_allclose(run(part, x[rows])[1], drawn[0][rows], atol=1e-6)
    # Layers draw apart from each other.
    two = [_rademacher(draws[0]["probes"]["words"], name, 1, x) for name in ("a", "b")]
    assert 0.3 < (np.asarray(two[0]) == np.asarray(two[1])).mean() < 0.7
    exact = np.asarray(applying(Residual((3,), width=8))(v, x)[1])
    error = np.concatenate(drawn) - np.tile(exact, 2)
    assert np.abs(error.mean()) < 4 * error.std() / np.sqrt(error.size)
    more = np.asarray(applying(model.clone(probes=16))(draws[0], x)[1]) - exact
    assert more.std() < 0.5 * error.std()


# ---- dequantisation and bits ----------------------------------------------------------


class _UniformModel(Bijector):
    """x uniform on the range that the noise widens -> standard normal."""

    levels: int = 5

    def forward_and_log_det(self, x, context=None):
        del context
        half = 1 / (self.levels - 1)
        z = jax.scipy.special.ndtri((x + 1 + half) / (2 + 2 * half))
        log_slope = -jax.scipy.stats.norm.logpdf(z) - math.log(2 + 2 * half)
        return z, sum_items(log_slope)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_uniform_model_needs_log2_levels_bits(levels):
    model = Flow((2, 2, 1), _UniformModel(levels), levels=levels)
    rng = np.random.default_rng(0)
    x = (2 * rng.integers(levels, size=(50, 2, 2, 1)) / (levels - 1) - 1).astype(np.float32)
    u = rng.uniform(0.01, 0.99, x.shape).astype(np.float32)
    found = model.apply({}, x, np.zeros(50, np.int32), u, method="log_likelihood")
    np.testing.assert_allclose(bits_per_dim(found, (2, 2, 1)), np.log2(levels), rtol=1e-4)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2)])
def test_the_variational_noise_has_the_density_that_it_says(shape):
    model, n = Variational(width=8, depth=1), 3
    x, context = normal(0, n, *shape), normal(2, n, 3)
    u = np.random.default_rng(1).uniform(size=x.shape).astype(np.float32)
    (noise, log_r), _ = started(model, x, context, u, method="__call__")
    np.testing.assert_allclose(noise, u, atol=1e-6)
    np.testing.assert_allclose(log_r, 0, atol=1e-5)
    v = random_variables(model, x, context, u, method="__call__")
    with float64():
        v, x, context, u = wide((v, x, context, u))
        run = applying(model, "__call__")
        noise, log_r = run(v, x, context, u)

        def of_u(u, x, context):
            return model.apply(v, x[None], context[None], u.reshape(1, *shape))[0].reshape(-1)

        jacobian = quickly(jax.vmap(jax.jacfwd(of_u)))(u.reshape(n, -1), x, context)
        np.testing.assert_allclose(log_r, -np.linalg.slogdet(jacobian)[1], atol=1e-5)
        assert np.abs(log_r).min() > 1e-2
        for other in (run(v, -x, context, u)[0], run(v, x, -context, u)[0]):
            assert np.abs(other - noise).max() > 1e-3
        assert all(np.isfinite(leaf).all() for leaf in run(v, x, context, 0 * u))
        assert (noise > 0).all()
        assert (noise < 1).all()


def test_the_variational_bound_is_below_the_probability_and_its_mean_is_it():
    """One pixel of 4 values: E exp(bound) = P(x) = ∫ q over the cell, and they sum to ≤ 1."""
    levels = 4
    chain = Chain([Residual((1,), width=8), ActNorm()])
    model = Flow((1,), chain, levels=levels, dequantiser=Variational(width=8, depth=1, steps=2))
    grid = np.linspace(-1, 1, levels, dtype=np.float32)[:, None]
    y = np.zeros(levels, np.int32)
    v = random_variables(model, grid, y, grid, method="log_likelihood")
    with float64():
        # The trapezoid rule in logit u, where both integrands are smooth and vanish at the ends.
        t = jnp.linspace(-30, 30, 2001)[:, None]
        weight = (jax.nn.sigmoid(t) * jax.nn.sigmoid(-t))[:, 0] * (t[1, 0] - t[0, 0])
        v, grid, u = wide(v), wide(grid), jax.nn.sigmoid(t)
        y, total, width = np.zeros(len(t), np.int32), 0.0, 2 / (levels - 1)
        bound, density = applying(model, "log_likelihood"), applying(model, "log_prob")
        for x in grid:
            found = bound(v, jnp.tile(x[None], (len(t), 1)), y, u).astype(jnp.float64)
            inside = density(v, x[None] + width * (u - 0.5), y).astype(jnp.float64)
            probability = (weight * jnp.exp(inside)).sum() * width
            np.testing.assert_allclose((weight * jnp.exp(found)).sum(), probability, rtol=1e-5)
            assert float((weight * found).sum()) < math.log(probability) - 1e-4
            total += float(probability)
    assert 0.1 < total <= 1


# ---- what cannot be built -------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AffineCoupling((1,)), r"AffineCoupling: shape = \(1,\) has one entry"),
        (lambda: SplineCoupling((1,)), "residual"),
        (lambda: AffineCoupling((4, 4, 3)), "odd number of channels, 3"),
        (lambda: AffineCoupling((4, 4)), r"must be \(D,\) or \(H, W, C\)"),
        (lambda: AffineCoupling((4,), "checkerboard"), "checkerboard"),
        (lambda: AffineCoupling((1, 1, 4), "checkerboard"), "2 pixels"),
        (lambda: AffineCoupling((4,), "checkboard"), "Did you mean 'checkerboard'"),
        (lambda: AffineCoupling((4,), width=0), "width = 0"),
        (lambda: SplineCoupling((4,), bins=1), "bins = 1"),
        (lambda: SplineCoupling((4,), bound=-1.0), "bound = -1.0"),
        (lambda: AffineCoupling((4,), max_log_scale=0.0), "max_log_scale = 0.0 must be positive"),
        (lambda: AffineCoupling((4,), max_log_scale=-1.0), "max_log_scale = -1.0"),
        (lambda: AffineCoupling((4,), max_log_scale=math.nan), "max_log_scale = nan"),
        (lambda: Logit(alpha=0.0), "alpha = 0.0"),
        (lambda: Logit(1), "levels = 1"),
        (lambda: Permute((0, 2)), "no permutation"),
        (lambda: Squeeze((7, 8, 1)), "even H and W"),
        (lambda: Squeeze((8,)), "even H and W"),
        (lambda: Multiscale((4, 4, 1), [Permute((0,)), Permute((0,))]), "odd number of channels"),
        (lambda: Multiscale((4, 4, 1), []), "must be a scale"),
        (lambda: realnvp((1,)), "one entry"),
        (lambda: realnvp((28, 28, 1), scales=3), "scales = 3.*halved 2 times"),
        (lambda: glow((28, 28, 1), scales=3), "glow: scales = 3.*halved 2 times"),
        (lambda: glow((7, 7, 1)), "odd number of channels, 1"),
        (lambda: spline((4,), depth=0), "spline: depth = 0"),
        (lambda: residual((4, 4)), "residual: shape"),
        (lambda: residual((4,), lipschitz=1.0), "lipschitz = 1.0"),
        (lambda: Residual((4,), probes=0), "probes = 0"),
        (lambda: Variational(steps=-1), "Variational: steps = -1"),
        (lambda: Variational(max_log_scale=0.0), "Variational: max_log_scale = 0.0"),
        (lambda: Variational(max_log_scale=math.inf), "Variational: max_log_scale = inf"),
    ],
)
def test_refused_builds_name_what_is_wrong(build, words):
    with pytest.raises(ConfigError, match=words):
        build()
