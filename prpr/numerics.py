"""Numerics that stay finite: saturation, log-space helpers, quadrature, derivatives by rule.

Notation: `u` a density ratio in [0, ∞); `x = log u` in [-∞, ∞), where x = -∞ is u = 0;
`lam` the trade-off λ in (0, ∞). All functions are elementwise unless they say otherwise.

What JAX has is used from there (`jax.nn.softplus`, `log_sigmoid`, `log1mexp`,
`jax.scipy.special.xlogy`); this file holds what it lacks.
"""

import math
import numbers
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from prpr.errors import ConfigError

Function = Callable[[Any, Any], jax.Array]  # fn(x, lam), elementwise


def is_traced(value: Any) -> bool:
    """Whether JAX is tracing this value, so that only its shape and dtype are known."""
    return isinstance(value, Tracer)


def check_lam(lam: Any) -> Any:
    """Returns λ as it came, once it is known to be usable; for user-facing entry points.

    Tracers pass: their values are not known. A grid of λ is checked in every element.

    Args:
      lam: a number, an array of numbers, or a tracer.

    Raises:
      ConfigError: λ is not a number, or is NaN, infinite, zero or negative.
    """
    if is_traced(lam):
        return lam
    error = ConfigError(f"λ must be a finite positive number, got {lam!r}.")
    if isinstance(lam, (str, bytes, bool, np.bool_, type(None))):
        raise error
    try:
        values = np.asarray(lam)
        if not isinstance(lam, numbers.Real) and values.dtype.kind in "bOSU":
            raise error
        if values.dtype.kind == "c":
            raise error
        values = values.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise error from None
    if values.size == 0 or not np.all(np.isfinite(values) & (values > 0)):
        raise error
    return lam


def float64() -> AbstractContextManager[None]:
    """A context in which JAX computes in float64: the reference that tests compare with."""
    return jax.enable_x64(True)


def largest(dtype: Any) -> float:
    """The largest finite number of a floating dtype."""
    return float(jnp.finfo(dtype).max)


def saturate(y: jax.Array) -> jax.Array:
    """`y` with ±∞ replaced by the largest finite number of that sign; NaN stays NaN."""
    return jnp.clip(y, -largest(y.dtype), largest(y.dtype))


def times_exp(y: jax.Array, x: jax.Array) -> jax.Array:
    """y·eˣ, and 0 at x = -∞ even where y is infinite there (u log u at u = 0)."""
    at_zero = x == -jnp.inf
    return jnp.where(at_zero, 0.0, jnp.where(at_zero, 1.0, y) * jnp.exp(x))


def log_half_sum(x: jax.Array) -> jax.Array:
    """log((1 + eˣ)/2), without the cancellation that softplus(x) - log 2 has at x = 0."""
    return jnp.maximum(x, 0.0) + jnp.log1p(0.5 * jnp.expm1(-jnp.abs(x)))


def newton(
    step: Callable[[jax.Array, jax.Array], jax.Array], t: jax.Array, start: jax.Array, steps: int
) -> jax.Array:
    """`steps` updates y ← y + step(y, t), unrolled."""
    for _ in range(steps):
        start = start + step(start, t)
    return start


def bisect(
    fn: Callable[[jax.Array], jax.Array], t: jax.Array, low: jax.Array, high: jax.Array
) -> jax.Array:
    """The x in [low, high] where a nondecreasing fn crosses t, to the last bit of its dtype.

    No derivative flows through the search: give it by rule (`with_slope`).
    """

    def halve(_, ends):
        low, high = ends
        middle = low + 0.5 * (high - low)
        left = fn(middle) < t
        return jnp.where(left, middle, low), jnp.where(left, high, middle)

    steps = jnp.finfo(t.dtype).nmant + 8
    low, high = jax.lax.fori_loop(0, steps, halve, jax.lax.stop_gradient((low, high)))
    return jax.lax.stop_gradient(low + 0.5 * (high - low))


def unit_quadrature(panels: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of composite Gauss-Legendre quadrature on [0, 1], each (panels·order,)."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    starts = np.arange(panels)[:, None]
    return (
        ((starts + 0.5 * (nodes + 1.0)) / panels).ravel(),
        np.tile(0.5 * weights / panels, panels),
    )


def with_slope(value: Function, slope: Function) -> Function:
    """value(x, lam), whose derivative in x is slope(x, lam), saturated, instead of autodiff's.

    A formula that is stable need not have a stable derivative, and the derivative of a
    saturated value would be 0. Both are given here by formula; the derivative in λ is that
    of `value`. Higher derivatives in x come from the derivative of `slope`.
    """

    @jax.custom_jvp
    def fn(x, lam):
        return value(x, lam)

    def rule(primals, tangents):
        x, lam = primals
        dx, dlam = tangents
        y = fn(x, lam)
        dy = jnp.zeros_like(y)
        if not isinstance(dx, SymbolicZero):
            dy = dy + saturate(slope(x, lam)) * dx
        if not isinstance(dlam, SymbolicZero):
            # Only where λ is differentiated: 0·∞ from an unused path would be NaN.
            dy = dy + jax.jvp(lambda v: value(x, v), (lam,), (dlam,))[1]
        return y, dy

    fn.defjvp(rule, symbolic_zeros=True)
    return fn


def exp_of_log(log_value: Function) -> Function:
    """v ↦ exp(G(log v)), saturated in value and slope, from G = log_value: a positive function.

    The slope is G'(log v)·exp(G - log v): one exponential, so that v⁻³ overflows in
    neither factor before the product does.
    """

    def value(v, lam):
        return _finite_unless(v == 0, jnp.exp(log_value(jnp.log(v), lam)))

    def slope(v, lam):
        x = jnp.log(jnp.maximum(v, float(jnp.finfo(v.dtype).tiny)))
        g, dg = jax.jvp(lambda z: log_value(z, lam), (x,), (jnp.ones_like(x),))
        # G = -∞ is a function that is 0 here: so is its slope.
        return jnp.where(g == -jnp.inf, 0.0, dg * saturate(jnp.exp(g - x)))

    return with_slope(value, slope)


def _finite_unless(limit: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.where(limit, y, saturate(y))


def in_log(native: Function) -> Function:
    """The native function of x = log u, saturated at every finite x; the limit at x = -∞."""
    return lambda x, lam: _finite_unless(x == -jnp.inf, native(x, lam))


def in_ratio(native: Function) -> Function:
    """The same as a function of u ≥ 0 (NaN for u < 0)."""
    log_space = in_log(native)
    return lambda u, lam: log_space(jnp.log(u), lam)


def elementwise(fn: Function, name: str, *, needs_lam: bool) -> Function:
    """fn(x, lam) for callers: settles the dtypes and returns the dtype of x.

    x may be a Python number or an array of any shape; integers become floats. λ may be a
    Python number, or an array of the dtype of x, a scalar or of the shape of x. Half-precision
    x is computed in float32 and rounded once.

    Raises:
      ConfigError: λ is None although fn depends on it.
    """

    def call(x: ArrayLike, lam: ArrayLike | None) -> jax.Array:
        x = as_float(x)
        wide = x.dtype if x.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
        if lam is None or not needs_lam:
            lam = placeholder_lam(name, needs_lam=needs_lam)
        lam = _as_dtype_of(lam, x.dtype, wide)
        y = fn(jax.lax.convert_element_type(x, wide), lam)
        return y if wide == x.dtype else _finite_unless(jnp.isinf(y), y.astype(x.dtype))

    return call


def placeholder_lam(name: str, *, needs_lam: bool) -> float:
    """The λ that a parameter-free function is given; an error where it is needed."""
    if needs_lam:
        raise ConfigError(f"divergence {name!r} depends on λ: give a number, not None.")
    return 1.0


def as_float(x: ArrayLike) -> jax.Array:
    """x as a floating array: as it is, or in JAX's default float if it was no such array."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def _as_dtype_of(lam: ArrayLike, dtype: Any, wide: Any) -> jax.Array:
    if isinstance(lam, numbers.Real):
        return jnp.asarray(float(lam), wide)
    array = jnp.asarray(lam)
    if array.dtype == dtype or array.weak_type or not jnp.issubdtype(array.dtype, jnp.floating):
        return jax.lax.convert_element_type(array, wide)
    return array  # another precision: JAX's strict promotion says so where the two meet


def log_limits(dtype: Any) -> tuple[float, float]:
    """Logarithms of the smallest and largest normal numbers; their exponentials stay inside."""
    inside = 1.0 - 1e-6  # the rounded logarithm of the largest number may exponentiate to ∞
    return inside * math.log(float(jnp.finfo(dtype).tiny)), inside * math.log(largest(dtype))
