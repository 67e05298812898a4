"""Log-space helpers, derivatives by rule, and what λ may be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prpr import numerics
from prpr.errors import ConfigError
from prpr.numerics import check_lam, float64

MAX = float(jnp.finfo(jnp.float32).max)


@pytest.mark.parametrize(
    "lam", [1, 0.5, np.float32(2.0), np.int64(3), np.array([0.1, 7.0]), jnp.float32(4.0), 1e-30]
)
def test_good_lam_comes_back(lam):
    assert check_lam(lam) is lam


@pytest.mark.parametrize(
    "lam",
    [
        *(0, 0.0, -1.0, np.nan, np.inf, -np.inf, 10**400, "2", None, True, 1 + 1j, object()),
        *([1.0, -2.0], [], np.array([1.0, np.nan]), np.array(["1"]), np.array([True])),
        jnp.float32(-3.0),
    ],
)
def test_bad_lam_is_named(lam):
    with pytest.raises(ConfigError, match="λ must be a finite positive number, got ") as caught:
        check_lam(lam)
    assert repr(lam) in str(caught.value)


def test_traced_lam_passes():
    assert jax.jit(lambda lam: check_lam(lam) + 1.0)(-1.0) == 0.0


def test_saturate():
    x = jnp.array([-jnp.inf, -1.0, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(numerics.saturate(x), np.float32([-MAX, -1.0, MAX, np.nan]))


def test_times_exp_is_zero_at_ratio_zero():
    x = jnp.array([-jnp.inf, 0.0, 2.0])
    np.testing.assert_allclose(numerics.times_exp(x, x), [0.0, 0.0, 2 * np.exp(2)], rtol=1e-6)


def test_log_half_sum_keeps_its_digits_at_zero():
    x = np.concatenate([np.geomspace(1e-6, 200, 60), -np.geomspace(1e-6, 200, 60)])
    x = x.astype(np.float32)
    wide = x.astype(np.float64)
    # log cosh(x/2) + x/2 with log cosh = ½ log1p(sinh²): stable in float64
    expected = 0.5 * np.log1p(np.sinh(0.5 * wide) ** 2) + 0.5 * wide
    # the two terms cancel at x << 0: there log((1 + eˣ)/2) directly
    expected = np.where(wide < -1, np.log1p(np.exp(wide)) - np.log(2), expected)
    np.testing.assert_allclose(numerics.log_half_sum(x), expected, rtol=1e-6)


def test_newton_and_bisect_find_the_root():
    with float64():
        t = jnp.array([0.5, 2.0, 9.0])
        root = numerics.newton(lambda y, t: (t - y**2) / (2 * y), t, t, 7)
        np.testing.assert_allclose(root, np.sqrt(t), rtol=1e-14)
        low, high = jnp.zeros(3), jnp.full(3, 10.0)
        np.testing.assert_allclose(
            numerics.bisect(lambda y: y**2, t, low, high), np.sqrt(t), rtol=1e-14
        )


def test_unit_quadrature_is_exact_for_polynomials():
    nodes, weights = numerics.unit_quadrature(3, 4)
    assert nodes.shape == weights.shape == (12,)
    for degree in range(8):  # 4 nodes a panel: exact up to degree 7
        assert np.sum(weights * nodes**degree) == pytest.approx(1 / (degree + 1), rel=1e-13)


def test_with_slope_uses_the_rule_in_x_and_the_value_in_lam():
    fn = numerics.with_slope(lambda x, lam: lam * x, lambda x, _: 10.0 * x)
    at = (jnp.float32(2.0), jnp.float32(3.0))
    assert jax.grad(fn)(*at) == 20.0
    assert jax.grad(fn, argnums=1)(*at) == 2.0
    assert jax.grad(jax.grad(fn))(*at) == 10.0
    endless = numerics.with_slope(lambda x, _: x, lambda x, _: jnp.full_like(x, -jnp.inf))
    assert jax.grad(endless)(*at) == -MAX


def test_exp_of_log_is_a_power():
    fn = numerics.exp_of_log(lambda x, _: -3.0 * x)  # v⁻³
    two, small, lam = jnp.float32(2.0), jnp.float32(1e-20), jnp.float32(1.0)
    assert float(fn(two, lam)) == pytest.approx(1 / 8, rel=1e-6)
    assert float(jax.grad(fn)(two, lam)) == pytest.approx(-3 / 16, rel=1e-6)
    assert fn(small, lam) == MAX
    assert jax.grad(fn)(small, lam) == -MAX


def test_elementwise_refuses_a_lam_of_another_precision():
    fn = numerics.elementwise(lambda x, lam: x * lam, "name", needs_lam=True)
    with float64(), pytest.raises(jax.dtypes.TypePromotionError, match="float32"):
        fn(jnp.float64(1.0), jnp.float32(2.0))


def test_log_limits_exponentiate_inside_the_range():
    low, high = numerics.log_limits(jnp.float32)
    assert np.isfinite(jnp.exp(jnp.float32(high)))
    assert jnp.exp(jnp.float32(low)) > 0
