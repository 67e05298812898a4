"""The table of divergences × its properties; then mixtures. Oracles: tests/oracles.py.

Nearly all arrays have N elements: JAX compiles each operation once for a shape.
"""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from prpr import divergences
from prpr.divergences import NAMES, band, get, mixture, smoothed_pr, weight_of
from prpr.errors import ConfigError
from prpr.numerics import float64

KINKED = ("pr", "total_variation")
STRICT = tuple(name for name in NAMES if name not in KINKED)
WITH_LAM = ("pr", "smoothed_pr")
LAMS = (0.3, 1.0, 7.0)
# Ratios that no kink of LAMS (1/λ and 1) meets, with room for finite differences.
N = 116
U = np.exp(np.linspace(-3.0, 3.0, N))
MAX = float(jnp.finfo(jnp.float32).max)
TINY = float(jnp.finfo(jnp.float32).tiny)


def lams_of(name):
    return LAMS if name in WITH_LAM else (1.0,)


CASES = [(name, lam) for name in NAMES for lam in lams_of(name)]
STRICT_CASES = [(name, lam) for name, lam in CASES if name in STRICT]
every_case = pytest.mark.parametrize(("name", "lam"), CASES)
every_strict_case = pytest.mark.parametrize(("name", "lam"), STRICT_CASES)
every_name = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def x64():
    with float64():
        yield


def of_u(name, lam):
    return lambda u: oracles.F[name](u, lam)


def slope(fn, x, lam):
    """d fn/dx, elementwise, by reverse mode."""
    x = jnp.asarray(x)
    return jax.grad(lambda x: fn(x, lam).sum())(x)


# ---------------------------------------------------------------------------- f, f', f'', h


@every_case
def test_f_is_its_formula_and_vanishes_at_1(name, lam, x64):
    d = get(name)
    np.testing.assert_allclose(d.f(U, lam), of_u(name, lam)(U), rtol=1e-12, atol=1e-13)
    assert d.f(1.0, lam) == 0.0
    assert d.f_log(0.0, lam) == 0.0


@every_case
def test_f_is_convex(name, lam, x64):
    u = np.linspace(0.02, 12.0, N)
    second_difference = np.diff(np.asarray(get(name).f(u, lam)), 2)
    assert second_difference.min() > (0.0 if name in STRICT else -1e-13)


@every_case
def test_derivatives_are_those_of_f(name, lam, x64):
    d = get(name)
    f = of_u(name, lam)
    np.testing.assert_allclose(d.f_prime(U, lam), oracles.derivative(f, U), rtol=1e-8, atol=1e-9)
    second = oracles.derivative(f, U, 2)
    np.testing.assert_allclose(d.f_second(U, lam), second, rtol=1e-5, atol=1e-7)
    # Autodiff of each gives the next, to the third order.
    np.testing.assert_allclose(slope(d.f, U, lam), d.f_prime(U, lam), rtol=1e-12)
    np.testing.assert_allclose(slope(d.f_prime, U, lam), d.f_second(U, lam), rtol=1e-12)
    third = oracles.derivative(lambda u: np.asarray(d.f_second(u, lam)), U)
    np.testing.assert_allclose(slope(d.f_second, U, lam), third, rtol=1e-7, atol=1e-9)


@every_case
def test_log_space_agrees_with_ratio_space(name, lam, x64):
    d = get(name)
    x = np.log(U)
    f, f_prime = np.asarray(d.f(U, lam)), np.asarray(d.f_prime(U, lam))
    second = np.asarray(d.f_second(U, lam))
    close = {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(d.f_log(x, lam), f, **close)
    np.testing.assert_allclose(d.f_prime_log(x, lam), f_prime, **close)
    np.testing.assert_allclose(d.h_log(x, lam), f - U * f_prime, **close)
    # In x = log u: f' = u f', (f')' = u f'', h' = -u² f''; and the second derivatives.
    np.testing.assert_allclose(slope(d.f_log, x, lam), U * f_prime, **close)
    np.testing.assert_allclose(slope(d.f_prime_log, x, lam), U * second, **close)
    np.testing.assert_allclose(slope(d.h_log, x, lam), -(U**2) * second, **close)
    twice = slope(lambda x, lam: slope(d.f_log, x, lam), x, lam)
    np.testing.assert_allclose(twice, U * f_prime + U**2 * second, **close)


@pytest.mark.parametrize("name", WITH_LAM)
@pytest.mark.parametrize("field", ["f_log", "f_prime_log", "h_log", "conjugate", "f", "weight"])
@pytest.mark.parametrize("lam", [0.3, 7.0])
def test_derivative_in_lam(name, field, lam, x64):
    fn = getattr(get(name), field)
    x = (
        np.linspace(-1.0, 0.9 * lam, N)
        if field == "conjugate"
        else U
        if field in ("f", "weight")
        else np.log(U)
    )
    got = jax.jvp(lambda v: fn(x, v), (jnp.asarray(lam),), (jnp.ones(()),))[1]
    d = 1e-5
    expected = (np.asarray(fn(x, lam + d)) - np.asarray(fn(x, lam - d))) / (2 * d)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------------------- the conjugate


@every_case
def test_fenchel_young(name, lam, x64):
    d = get(name)
    t = np.asarray(d.f_prime(U, lam))
    f, conj = np.asarray(d.f(U, lam)), np.asarray(d.conjugate(t, lam))
    gap = f[:, None] + conj - U[:, None] * t  # f(u) + f*(t) >= u t
    assert gap.min() > -1e-9
    np.testing.assert_allclose(np.diag(gap), 0.0, atol=1e-9)  # equal at t = f'(u)
    np.testing.assert_allclose(conj, -np.asarray(d.h_log(np.log(U), lam)), rtol=1e-9, atol=1e-9)


@every_case
def test_conjugate_against_brute_force(name, lam, x64):
    d = get(name)
    low, high = float(d.f_prime(U[0], lam)), float(d.f_prime(U[-1], lam))
    # also below f'(0), where the supremum is at u = 0
    t = np.append(np.linspace(low, high, N - 2), [-4.0, -0.4 if high < 0 else 0.0])
    some = np.append(np.arange(0, N - 2, 9), [N - 2, N - 1])
    expected = oracles.conjugate(t[some], of_u(name, lam), [1 / lam, 1.0])
    got = np.asarray(d.conjugate(t, lam))[some]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


@every_case
def test_conjugate_is_infinite_outside_the_domain(name, lam, x64):
    d = get(name)
    low, high = d.domain(lam)
    assert low == -np.inf
    # high is f'(∞)
    assert float(high) == pytest.approx(float(d.f_prime(1e300, lam)), rel=1e-9) or high == np.inf
    if np.isfinite(high):
        beyond = float(high) + np.geomspace(1e-6, 50.0, N)
        assert np.all(np.isposinf(d.conjugate(beyond, lam)))
        assert np.all(slope(d.conjugate, beyond, lam) == 0.0)
        # the ratio is that of the end, and finite
        np.testing.assert_array_equal(d.ratio(beyond, lam), np.full(N, d.ratio(float(high), lam)))
        assert np.all(np.isfinite(d.log_ratio(beyond, lam)))
    inside = min(float(high), 9.0) - U
    assert np.all(np.isfinite(d.conjugate(inside, lam)))


@pytest.mark.parametrize("name", ["reverse_kl", "jensen_shannon", "gan", "squared_hellinger"])
def test_the_open_end_is_read_as_the_nearest_number_inside(name):
    d = get(name)
    high = jnp.full(N, d.domain(None)[1])
    for fn in (d.conjugate, d.ratio, d.log_ratio):
        assert np.all(np.isfinite(fn(high, None)))
        assert np.all(np.isfinite(slope(fn, high, None)))


@every_strict_case
def test_ratio_inverts_f_prime(name, lam, x64):
    d = get(name)
    t = np.asarray(d.f_prime(U, lam))
    second = np.asarray(d.f_second(U, lam))
    # A rounding of t moves log u by eps·|t|/(u f'').
    tolerance = 1e-14 + 64 * np.finfo(np.float64).eps * (1 + np.abs(t)) / (U * second)
    assert np.all(np.abs(np.asarray(d.log_ratio(t, lam)) - np.log(U)) <= tolerance)
    assert np.all(np.abs(np.asarray(d.ratio(t, lam)) / U - 1) <= tolerance)
    np.testing.assert_allclose(slope(d.ratio, t, lam), 1 / second, rtol=1e-6)
    np.testing.assert_allclose(slope(d.log_ratio, t, lam), 1 / (U * second), rtol=1e-6)


@every_case
def test_ratio_is_the_derivative_of_the_conjugate(name, lam, x64):
    d = get(name)
    high = min(float(d.domain(lam)[1]), 4.0)
    t = high - np.geomspace(0.05, 9.0, N)  # meets no kink of a conjugate
    h = 1e-6
    difference = (np.asarray(d.conjugate(t + h, lam)) - np.asarray(d.conjugate(t - h, lam))) / 2 / h
    np.testing.assert_allclose(d.ratio(t, lam), difference, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(slope(d.conjugate, t, lam), d.ratio(t, lam), rtol=1e-12)


# ---------------------------------------------------------------------------- the mixture weight


@every_case
def test_weights_integrate_to_the_divergence(name, lam, x64):
    d = get(name)
    mu = np.geomspace(0.02, 50.0, N)
    weight = oracles.WEIGHT[name]
    np.testing.assert_allclose(d.weight(mu, lam), weight(mu, lam), rtol=1e-11)
    atoms = d.atoms(lam)
    assert list(atoms) == oracles.ATOMS.get(name, lambda _: [])(lam)
    for seed in range(2):
        p, q = oracles.discrete_pair(seed)
        by_f = oracles.f_divergence(p, q, lambda u: np.asarray(d.f(u, lam)))
        by_weight = oracles.mixture(p, q, lambda mu: np.asarray(d.weight(mu, lam)), atoms)
        assert by_f == pytest.approx(by_weight, rel=1e-7)
        assert by_f > 0


@pytest.mark.parametrize("divergence", [get("pr"), get("smoothed_pr"), smoothed_pr(0.6)])
@pytest.mark.parametrize("lam", [0.04, 0.5, 3.0])
def test_symmetry_under_lam_to_its_inverse(divergence, lam, x64):
    # D_λ(P‖Q) = λ D_{1/λ}(Q‖P)
    p, q = oracles.discrete_pair(3)
    one = oracles.f_divergence(p, q, lambda u: np.asarray(divergence.f(u, lam)))
    other = oracles.f_divergence(q, p, lambda u: np.asarray(divergence.f(u, 1 / lam)))
    assert one == pytest.approx(lam * other, rel=1e-10)


def test_pr_is_minus_alpha(x64):
    p, q = oracles.discrete_pair(4)
    for lam in (0.2, 1.0, 4.0):
        by_f = oracles.f_divergence(p, q, lambda u, lam=lam: np.asarray(get("pr").f(u, lam)))
        assert by_f == pytest.approx(oracles.pr_divergence(p, q, lam), abs=1e-14)


# ---------------------------------------------------------------------------- finite, accurate

LOG_FIELDS = ("f_log", "h_log", "f_prime_log")


@every_case
@pytest.mark.parametrize("field", LOG_FIELDS)
def test_log_space_float32_is_finite_and_accurate(name, lam, field):
    fn = getattr(get(name), field)
    near = np.geomspace(1e-6, 1.0, N // 2)
    lam = float(np.float32(lam))
    for grid in (np.linspace(-80, 80, N), np.concatenate([-near, near])):
        x = grid.astype(np.float32)
        value, grad = fn(x, lam), slope(fn, x, lam)
        assert value.dtype == grad.dtype == jnp.float32
        assert np.all(np.isfinite(value))
        assert np.all(np.isfinite(grad))
        with float64():
            wide = x.astype(np.float64)
            true, true_grad = np.asarray(fn(wide, lam)), np.asarray(slope(fn, wide, lam))
        agree(name, field, np.float64(value), np.float64(grad), true, true_grad)


def agree(name, field, value, grad, true, true_grad):
    # Absolute tolerance: what is below float32's range, and the zeros of h for gan (u = 3) and
    # reverse_kl (u = e), where an error of a unit in the last place of h's terms remains.
    atol = 1e-7 if (name, field) in (("gan", "h_log"), ("reverse_kl", "h_log")) else TINY
    np.testing.assert_allclose(value, np.clip(true, -MAX, MAX), rtol=1e-5, atol=atol)
    np.testing.assert_allclose(grad, np.clip(true_grad, -MAX, MAX), rtol=2e-5, atol=TINY)


@every_case
def test_ratio_space_is_finite_at_the_extremes(name, lam):
    d = get(name)
    u = np.exp(np.linspace(-80.0, 80.0, N)).astype(np.float32)
    t = d.f_prime(u, lam)

    def composed(u, lam):
        return d.conjugate(d.f_prime(u, lam), lam)

    for fn, x in (
        *((fn, u) for fn in (d.f, d.f_prime, d.f_second, d.weight, composed)),
        *((fn, t) for fn in (d.conjugate, d.ratio, d.log_ratio)),
    ):
        assert np.all(np.isfinite(fn(x, lam)))
        assert np.all(np.isfinite(slope(fn, x, lam)))


@every_name
def test_beyond_the_range_there_is_no_nan(name):
    d = get(name)
    far = np.geomspace(89.0, 1e9, N // 2)
    x = np.concatenate([[-np.inf], -far[1:], far]).astype(np.float32)
    for field in (*LOG_FIELDS, "log_ratio", "ratio", "conjugate"):
        fn = getattr(d, field)
        value = np.asarray(fn(x, 2.0))
        assert not np.any(np.isnan(value)), field
        if field in LOG_FIELDS:
            assert np.all(np.isfinite(value[1:])), field
        assert np.all(np.isfinite(slope(fn, x, 2.0))), field


# f(0), f'(0), f''(0), from the formulas of oracles.F; smoothed: p = 4, so f''(0) ~ u² = 0
AT_ZERO = {
    "pr": (-1.0, 0.0, 0.0),  # λ = 2: 1 - max(2, 1)
    "smoothed_pr": (1 - 17**0.25, 0.0, 0.0),
    "kl": (0.0, -np.inf, np.inf),
    "reverse_kl": (np.inf, -np.inf, np.inf),
    "jensen_shannon": (0.5 * np.log(2), -np.inf, np.inf),
    "gan": (2 * np.log(2), -np.inf, np.inf),
    "jeffreys": (np.inf, -np.inf, np.inf),
    "pearson": (1.0, -2.0, 2.0),
    "neyman": (np.inf, -np.inf, np.inf),
    "squared_hellinger": (1.0, -np.inf, np.inf),
    "le_cam": (1.0, -3.0, 8.0),
    "total_variation": (0.5, -0.5, 0.0),
}


@every_name
def test_limits_at_ratio_zero(name):
    d = get(name)
    got = [float(fn(0.0, 2.0)) for fn in (d.f, d.f_prime, d.f_second)]
    assert got == pytest.approx(AT_ZERO[name], rel=1e-6)
    assert float(d.f_log(-jnp.inf, 2.0)) == got[0]
    assert np.isfinite(jax.grad(d.f)(0.0, 2.0))
    assert np.isnan(d.f(-1.0, 2.0))


def test_saturation_has_the_right_sign():
    # (u-1)² and its derivative 2u(u-1) at u = e⁸⁰ are above float32's 3.4e38, as is -h = u² - 1
    pearson, neyman = get("pearson"), get("neyman")
    assert pearson.f_log(80.0, None) == MAX
    assert pearson.h_log(80.0, None) == -MAX
    assert jax.grad(pearson.f_log)(80.0, None) == MAX
    assert jax.grad(pearson.h_log)(80.0, None) == -MAX
    # f' = 1 - u⁻² at u = e⁻⁸⁰
    assert neyman.f_prime_log(-80.0, None) == -MAX
    # but f = u + 1/u - 2 and u f' = u - 1/u are inside
    assert float(neyman.f_log(-80.0, None)) == pytest.approx(np.exp(80), rel=1e-6)
    assert float(jax.grad(neyman.f_log)(-80.0, None)) == pytest.approx(-np.exp(80), rel=1e-6)


# ---------------------------------------------------------------------------- transformations


@every_name
def test_jit_vmap_loop_agree_and_one_trace_serves_all_lam(name):
    d = get(name)
    grid = np.geomspace(0.05, 20.0, 50).astype(np.float32)
    x = np.linspace(-2.0, 1.7, N).astype(np.float32)
    traces = []

    def everything(x, lam):
        traces.append(lam)
        u = jnp.exp(x)
        t = 0.5 * d.f_prime(u, lam)  # halved: away from the ends, where the ratio is ill-posed
        outs = [fn(x, lam) for fn in (d.f_log, d.h_log, d.f_prime_log)]
        outs += [d.f(u, lam), d.weight(u, lam), d.conjugate(t, lam), d.log_ratio(t, lam)]
        return jnp.stack(outs)

    jitted = jax.jit(everything)
    looped = np.stack([np.asarray(jitted(x, float(lam))) for lam in grid])
    assert len(traces) == 1
    mapped = jax.jit(jax.vmap(everything, (None, 0)))(x, grid)
    np.testing.assert_allclose(mapped, looped, rtol=3e-6, atol=3e-6)
    plain = np.stack([np.asarray(everything(x, float(lam))) for lam in grid[::25]])
    np.testing.assert_allclose(plain, looped[::25], rtol=3e-6, atol=3e-6)


@every_name
def test_shapes_and_dtypes_are_kept(name):
    d = get(name)
    x = jnp.full(N, 0.4, jnp.float32)
    assert d.f_log(x[:6].reshape(2, 3), 2.0).shape == (2, 3)
    for lam in (2, 2.0, np.float64(2.0), jnp.float32(2.0), jnp.full(N, 2.0, jnp.float32)):
        assert d.f_log(x, lam).shape == (N,)
        assert d.f_log(x, lam).dtype == jnp.float32
    for dtype in (jnp.bfloat16, jnp.float16):
        half = jnp.full(N, 0.5, dtype)
        for field in (*LOG_FIELDS, "f", "conjugate", "log_ratio"):
            out = getattr(d, field)(-half if field == "conjugate" else half, 2.0)
            assert out.dtype == dtype
            assert np.all(np.isfinite(out.astype(jnp.float32)))
    assert d.f(2, 2).dtype == jnp.float32
    low, high = d.domain(jnp.ones((4,)))
    assert low.shape == high.shape == (4,)
    with float64():
        assert d.f(2.0, 2.0).dtype == jnp.float64


# ---------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("name", "field", "x", "lam", "expected"),
    [
        # max(2·3, 1) - max(2, 1) = 6 - 2;  max(1, 1) - 2;  max(.5·3, 1) - 1
        ("pr", "f", 3.0, 2.0, 4.0),
        ("pr", "f", 0.25, 2.0, -1.0),
        ("pr", "f", 3.0, 0.5, 0.5),
        # slope λ to the right of the kink u = 1/λ, 0 to the left
        ("pr", "f_prime", 0.51, 2.0, 2.0),
        ("pr", "f_prime", 0.49, 2.0, 0.0),
        # max(1, 0)/2 + max(2, 1) - 1
        ("pr", "conjugate", 1.0, 2.0, 1.5),
        ("pr", "conjugate", 2.0, 2.0, 2.0),
        ("pr", "conjugate", -1.0, 2.0, 1.0),
        ("pr", "conjugate", 2.01, 2.0, np.inf),
        # h = f - u f' = 1{λu <= 1} - max(λ, 1)
        ("pr", "h_log", np.log(3.0), 2.0, -2.0),
        ("pr", "h_log", np.log(0.25), 2.0, -1.0),
        # ½|3 - 1|;  sup over u of .25u - ½|u - 1| at u = 1;  at u = 0 for t < -½
        ("total_variation", "f", 3.0, 1.0, 1.0),
        ("total_variation", "conjugate", 0.25, 1.0, 0.25),
        ("total_variation", "conjugate", -3.0, 1.0, -0.5),
        ("total_variation", "f_prime", 1.0, 1.0, 0.0),
        # e^(1-1);  e·1
        ("kl", "conjugate", 1.0, 1.0, 1.0),
        ("kl", "f_log", 1.0, 1.0, np.e),
        # -1 - log(-t) at t = -1
        ("reverse_kl", "conjugate", -1.0, 1.0, -1.0),
        # log σ(0); 2 log 2 - log 4 = 0 at u = 3; logit of σ = 3/4 is log 3
        ("gan", "f_prime_log", 0.0, 1.0, -np.log(2)),
        ("gan", "h_log", np.log(3.0), 1.0, 0.0),
        ("gan", "log_ratio", np.log(0.75), 1.0, np.log(3)),
        # T/2 + 1, and 0 below T = -2, where sup over u >= 0 is -f(0) = -1
        ("pearson", "ratio", 4.0, 1.0, 3.0),
        ("pearson", "ratio", -3.0, 1.0, 0.0),
        ("pearson", "conjugate", -3.0, 1.0, -1.0),
        # closed ends: 2 - 2√(1-t) and 4 - t - 4√(1-t) at t = 1
        ("neyman", "conjugate", 1.0, 1.0, 2.0),
        ("le_cam", "conjugate", 1.0, 1.0, 3.0),
        ("le_cam", "conjugate", -5.0, 1.0, -1.0),
        # (1 + 16)^¼ - 2^¼ at λu = 2, λ = 1; at t = λ: (1 + λ⁴)^¼
        ("smoothed_pr", "f", 2.0, 1.0, 17**0.25 - 2**0.25),
        ("smoothed_pr", "conjugate", 2.0, 2.0, 17**0.25),
        ("smoothed_pr", "conjugate", -1.0, 2.0, 17**0.25 - 1),
        # q = 4/3: 17^¼ - (1 - ½^(4/3))^(3/4)
        ("smoothed_pr", "conjugate", 1.0, 2.0, 17**0.25 - (1 - 0.5 ** (4 / 3)) ** 0.75),
    ],
)
def test_corners_by_hand(name, field, x, lam, expected):
    assert float(getattr(get(name), field)(x, lam)) == pytest.approx(expected, rel=2e-6, abs=3e-7)


# ---------------------------------------------------------------------------- smoothed_pr, errors


def test_smoothed_pr_tends_to_pr(x64):
    for lam in (0.4, 2.0):
        sharp = np.asarray(get("pr").f(U, lam))
        for tau in (0.1, 0.01):
            smooth = smoothed_pr(tau)
            # ‖(λu, 1)‖_p exceeds the maximum by at most the factor 2^τ
            bound = (2**tau - 1) * np.maximum(np.maximum(lam * U, 1), max(lam, 1))
            assert np.all(np.abs(np.asarray(smooth.f(U, lam)) - sharp) <= bound)
    half = smoothed_pr(0.5)  # p = 2: √(1 + (λu)²), f''(0) = λ²
    assert float(half.f(0.75, 1.0)) == pytest.approx(1.25 - 2**0.5, rel=1e-12)
    assert float(half.f_second(0.0, 3.0)) == pytest.approx(9.0, rel=1e-12)


def test_tau_can_be_traced():
    def value(tau):
        return smoothed_pr(tau).f(0.5, 2.0)

    taus = jnp.array([0.2, 0.5])
    expected = [float(value(0.2)), float(value(0.5))]
    np.testing.assert_allclose(jax.jit(jax.vmap(value))(taus), expected, rtol=1e-5)


@pytest.mark.parametrize("tau", [0.0, 1.0, -0.5, np.nan, "soft", None])
def test_bad_tau(tau):
    with pytest.raises(ConfigError, match=f"τ.*{tau}"):
        smoothed_pr(tau)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown divergence 'pearsn'.*'pearson'"):
        get("pearsn")


@pytest.mark.parametrize("name", NAMES)
def test_no_lam(name):
    d = get(name)
    if name in WITH_LAM:
        with pytest.raises(ConfigError, match="depends on λ"):
            d.f(1.0, None)
        with pytest.raises(ConfigError, match="depends on λ"):
            d.domain(None)
    else:
        assert d.f(2.0, None) == d.f(2.0, 7.0)


# ---------------------------------------------------------------------------- mixtures


def centred(name, lam=1.0):
    """f(u) - f'(1)(u - 1): what a mixture gives back."""
    d = get(name)
    return lambda u: np.asarray(d.f(u, lam)) - float(d.f_prime(1.0, lam)) * (u - 1)


@every_strict_case
def test_mixture_of_its_weight_is_the_divergence(name, lam, x64):
    d = mixture(lambda mu: jnp.asarray(oracles.WEIGHT[name](mu, lam)))
    one = get(name)
    shift = float(one.f_prime(1.0, lam))
    np.testing.assert_allclose(d.f(U, None), centred(name, lam)(U), rtol=1e-9, atol=1e-12)
    f_prime = np.asarray(one.f_prime(U, lam)) - shift
    np.testing.assert_allclose(d.f_prime(U, None), f_prime, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(d.f_second(U, None), one.f_second(U, lam), rtol=1e-10)
    h = np.asarray(one.h_log(np.log(U), lam)) + shift
    np.testing.assert_allclose(d.h_log(np.log(U), None), h, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["kl", "le_cam"])
def test_conjugate_of_a_mixture(name, x64):
    one = get(name)
    shift = float(one.f_prime(1.0, None))
    d = mixture(lambda mu: jnp.asarray(oracles.WEIGHT[name](mu, None)))
    # f - c(u - 1) has the conjugate f*(t + c) - c
    t = np.asarray(one.f_prime(U, None))
    moved = np.asarray(one.conjugate(t, None)) - shift
    np.testing.assert_allclose(d.conjugate(t - shift, None), moved, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(d.ratio(t - shift, None), U, rtol=1e-8)
    second = np.asarray(one.f_second(U, None))
    np.testing.assert_allclose(slope(d.log_ratio, t - shift, None), 1 / (U * second), rtol=1e-7)


@every_strict_case
def test_weight_of_is_the_weight(name, lam, x64):
    mu = np.geomspace(0.05, 20.0, N)
    expected = oracles.WEIGHT[name](mu, lam)
    np.testing.assert_allclose(weight_of(get(name).f)(mu, lam), expected, rtol=1e-10)


def test_weight_of_a_formula(x64):
    mu = np.geomspace(0.05, 20.0, N)
    np.testing.assert_allclose(weight_of(lambda u: u * jnp.log(u))(mu), mu**-2, rtol=1e-12)
    by_lam = weight_of(lambda u, lam: lam * (u - 1) ** 2)
    np.testing.assert_allclose(by_lam(mu, 3.0), 6 * mu**-3, rtol=1e-12)


def test_weight_and_mixture_round_trips(x64):
    def weight(mu):
        return jnp.exp(-(jnp.log(mu) ** 2))

    mu = np.geomspace(0.05, 20.0, N)
    np.testing.assert_allclose(weight_of(mixture(weight).f)(mu, None), weight(mu), rtol=1e-10)

    def f(u):  # f(1) = 0, f'(1) = -½
        return 1 / (1 + u) - 0.5 + (u - 1) ** 2 / 8 - 0.25 * (u - 1)

    again = mixture(weight_of(f))
    np.testing.assert_allclose(again.f(U, None), f(U) + 0.5 * (U - 1), rtol=1e-9, atol=1e-12)


def test_mixture_integrates_to_the_divergence_it_names(x64):
    # D_λ + ε·KL with a traced λ, and a band: against the oracle's sum of PR-divergences.
    p, q = oracles.discrete_pair(5)
    both = mixture(lambda mu: 0.1 / mu**2, atoms=lambda lam: [(lam, 1.0), (1.0, 0.5)])
    for lam in (0.4, 2.0):
        got = oracles.f_divergence(p, q, lambda u, lam=lam: np.asarray(both.f(u, lam)))
        expected = oracles.mixture(p, q, lambda mu: 0.1 / mu**2, [(lam, 1.0), (1.0, 0.5)])
        assert got == pytest.approx(expected, rel=1e-9)
    # the band's kinks at its ends are nodes of nobody's grid: put them among the oracle's
    for low, high in ((0.5, 2.0), (1.5, 4.0), (0.2, 0.7)):
        nu = np.linspace(np.log(low), np.log(high), 200_001)
        values = [oracles.pr_divergence(p, q, mu) for mu in np.exp(nu[::50])]
        expected = np.trapezoid(values, nu[::50]) / np.log(high / low)
        d = band(low, high)
        got = oracles.f_divergence(p, q, lambda u, d=d: np.asarray(d.f(u, None)))
        assert got == pytest.approx(expected, rel=1e-6)
        moving = band(low / 3.0, high / 3.0, around_lam=True)
        np.testing.assert_allclose(moving.f(U, 3.0), d.f(U, None), rtol=1e-9, atol=1e-12)


def test_mixture_of_atoms_is_pr_and_total_variation(x64):
    tv = mixture(atoms=[(1.0, 1.0)])
    for field in ("f", "f_prime", "f_second"):
        got, expected = getattr(tv, field)(U, None), getattr(get("total_variation"), field)(U, 1.0)
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    t = np.linspace(-2.0, 0.6, N)
    np.testing.assert_allclose(
        tv.conjugate(t, None), get("total_variation").conjugate(t, 1.0), atol=1e-12
    )
    pr = mixture(atoms=lambda lam: [(lam, 1.0)])
    for lam in (0.5, 2.0):
        # up to c(u - 1): c = 0 for λ < 1, λ for λ > 1
        expected = oracles.F["pr"](U, lam) - (lam if lam > 1 else 0.0) * (U - 1)
        np.testing.assert_allclose(pr.f(U, lam), expected, rtol=1e-12, atol=1e-13)
        assert np.all(np.isfinite(slope(pr.ratio, t, lam)))


def test_mixture_in_float32_compiles_once_and_stays_finite():
    d = mixture(lambda mu, lam: 1.0 / (mu * (lam + mu)), atoms=lambda lam: [(lam, 0.3)])
    traces = []

    @jax.jit
    def all_of_it(x, lam):
        traces.append(lam)
        outs = [fn(x, lam) for fn in (d.h_log, d.f_log, d.f_prime_log, d.log_ratio)]
        return [*outs, slope(d.h_log, x, lam), slope(d.f_log, x, lam)]

    x = jnp.asarray([[-80.0, -3.0, -1e-5, 0.0], [0.1, 1e-5, 3.0, 80.0]])
    for lam in (0.2, 1.0, 4.0):
        assert all(np.all(np.isfinite(out)) for out in all_of_it(x, lam))
    assert len(traces) == 1
    # Relative accuracy at u = 1: f = f''(1) x²/2 = w(1) x²/2 to first order, w(1) = ½ for λ = 1,
    # without the atom; Gauss-Legendre has no cancellation.
    smooth = mixture(lambda mu: 1.0 / (mu * (1.0 + mu)))
    assert float(smooth.f_log(1e-5, None)) == pytest.approx(0.25e-10, rel=2e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a weight or at least one atom"),
        ({"atoms": [(0.0, 1.0)]}, "location must be finite and > 0, got 0.0"),
        ({"atoms": [(1.0, -1.0)]}, "mass must be finite and >= 0, got -1.0"),
        ({"weight": lambda mu: mu, "support": (2.0, 1.0)}, r"0 < low < high < ∞, got \(2.0, 1.0\)"),
        ({"weight": lambda mu: 1.0 - mu}, "weight must be finite and >= 0, got -"),
        ({"weight": lambda mu: jnp.log(mu)}, "weight must be finite and >= 0"),
    ],
)
def test_bad_mixtures(arguments, message):
    with pytest.raises(ConfigError, match=message):
        mixture(**arguments)
    with pytest.raises(ConfigError, match="0 < low < high"):
        band(-1.0, 2.0)


def test_the_table_is_complete():
    assert set(NAMES) == set(oracles.F) == set(oracles.WEIGHT) == set(AT_ZERO)
    assert all(get(name).name == name for name in NAMES)
    assert divergences.Divergence._fields[:2] == ("name", "f")
