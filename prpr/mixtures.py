"""Any mixture of PR-divergences as a divergence, and any f-divergence read as such a mixture.

D(P‖Q) = ∫ w(μ) D_μ(P‖Q) dμ + Σ mass·D_location(P‖Q), with D_μ the PR-divergence of λ = μ and
w(μ) = f''(1/μ)/μ³, is from Verine, Negrevergne, Pydi, Chevaleyre (arXiv:2305.18910). Notation as in
`prpr.fdivergence`; in the sums ν = log μ.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr import numerics
from prpr.errors import ConfigError
from prpr.fdivergence import Atoms, Divergence, build
from prpr.numerics import Function, is_traced


def mixture(
    weight: Callable[..., Any] | None = None,
    *,
    atoms: Atoms | Callable[[Any], Atoms] = (),
    support: tuple[Any, Any] | Callable[[Any], tuple[Any, Any]] = (1e-12, 1e12),
    panels: int = 8,
    order: int = 16,
    name: str = "mixture",
) -> Divergence:
    """The divergence with a given mixture weight: D(P‖Q) = ∫ w(μ) D_μ dμ + Σ mass·D_location.

    f(u) = ∫ w(μ) k_μ(u) dμ with the hinges k_μ(u) = (1 - μu)₊ for μ > 1, (μu - 1)₊ for μ < 1,
    ½|u - 1| for μ = 1. They are f_μ less a multiple of u - 1, which no divergence sees, and make
    f(1) = f'(1) = 0 and the integral finite for every weight, KL's μ⁻² included: at u only the μ
    between 1 and 1/u count. The integral over log μ of that interval is taken by Gauss-Legendre
    quadrature in `panels` × `order` nodes, whose rounding error is relative, also at u = 1.
    The conjugate solves f'(u) = t by bisection; its derivative in λ follows (envelope theorem),
    whereas those of `ratio` and `log_ratio` in λ are not available and read 0.

    Args:
      weight: w(μ) ≥ 0, or w(μ, lam), vectorised and smooth inside the support.
      atoms: point masses (location μ > 0, mass ≥ 0), or fn(lam) -> such a sequence, as in
        `mixture(lambda mu: eps / mu**2, atoms=lambda lam: [(lam, 1.0)])` for D_λ + ε·KL.
      support: (low, high) outside which the weight is taken as 0, or fn(lam) -> (low, high).
        Within it w and μ·w must be in the dtype's range.
      panels, order: nodes of the quadrature; 128 evaluate each element of x in 128 places.

    Raises:
      ConfigError: nothing to mix, a support that is not 0 < low < high < ∞, or an atom or a
        weight that is negative or not finite.
    """
    if weight is None and not (callable(atoms) or len(atoms)):
        raise ConfigError("a mixture needs a weight or at least one atom.")
    atoms_of = _of_lam(atoms, _checked_atoms)
    support_of = _of_lam(support, _checked_support)
    weight_of_mu = None if weight is None else _with_lam(weight)
    if weight is not None and not callable(support) and not _takes_lam(weight):
        _check_weight(weight, support)
    nodes, node_weights = numerics.unit_quadrature(panels, order)

    def log_support(lam, dtype):
        return [jnp.log(jnp.asarray(end, dtype)) for end in support_of(lam)]

    def total(x, lam, kernel):
        """-∫ from 0 to -x of μ·w(μ)·kernel(x, ν) dν, ν = log μ, and the same over the atoms."""
        out = jnp.zeros_like(x)
        for location, mass in atoms_of(lam):
            c = jnp.log(jnp.asarray(location, x.dtype))
            side = 0.5 * (jnp.sign(x + c) - jnp.sign(c))  # 0 where the hinge is 0
            value = jnp.where(side == 0, 0.0, side * kernel(x, c))
            out = out + jnp.asarray(mass, x.dtype) * value
        if weight_of_mu is None:
            return out
        low, high = log_support(lam, x.dtype)
        a = jnp.broadcast_to(jnp.clip(0.0, low, high), x.shape)
        b = jnp.clip(-x, low, high)
        wide = (1,) * x.ndim + (-1,)
        s, ds = (jnp.asarray(v, x.dtype).reshape(wide) for v in (nodes, node_weights))
        nu = a[..., None] + (b - a)[..., None] * s
        lam = lam[..., None] if lam.ndim else lam
        mu = jnp.exp(nu)
        terms = weight_of_mu(mu, lam) * mu * kernel(x[..., None], nu)
        return out - (b - a) * jnp.sum(terms * ds, axis=-1)

    def f(x, lam):
        return total(x, lam, lambda x, nu: jnp.expm1(x + nu))

    def f_prime(x, lam):
        return total(x, lam, lambda _, nu: jnp.exp(nu))

    def h(x, lam):
        return total(x, lam, lambda _, nu: -jnp.ones_like(nu))

    def log_f_second(x, lam):
        if weight_of_mu is None:
            return jnp.full_like(x, -jnp.inf)
        low, high = log_support(lam, x.dtype)
        nu = jnp.clip(-x, low, high)
        w = weight_of_mu(jnp.exp(nu), lam)
        some = (nu == -x) & (w > 0)
        return jnp.where(some, jnp.log(jnp.where(some, w, 1.0)) + 3.0 * nu, -jnp.inf)

    def kinks(lam, dtype):
        """A low and a high x outside which f is linear."""
        logs = [jnp.log(jnp.asarray(location, dtype)) for location, _ in atoms_of(lam)]
        logs += [] if weight_of_mu is None else log_support(lam, dtype)
        below, above = logs[0], logs[0]
        for one in logs[1:]:
            below, above = jnp.minimum(below, one), jnp.maximum(above, one)
        return -above - 1.0, 1.0 - below

    def log_ratio(t, lam):
        low, high = (jnp.broadcast_to(end, t.shape) for end in kinks(lam, t.dtype))
        x = numerics.bisect(lambda x: f_prime(x, lam), t, low, high)
        return jnp.where(t <= f_prime(low, lam), -jnp.inf, x)

    def high(lam):
        # With room for the rounding of the sums that f'(u) of a large u is.
        top = f_prime(jnp.broadcast_to(kinks(lam, lam.dtype)[1], lam.shape), lam)
        return top + 16.0 * float(jnp.finfo(top.dtype).eps) * jnp.abs(top)

    return build(
        name,
        f=f,
        f_prime=f_prime,
        h=h,
        log_f_second=log_f_second,
        log_ratio=log_ratio,
        high=high,
        kinked=True,
        needs_lam=any(callable(v) for v in (atoms, support)) or _takes_lam(weight),
        atoms=atoms_of,
    )


def band(low: Any, high: Any, *, around_lam: bool = False) -> Divergence:
    """The mean of D_μ over a band of log μ: w(μ) = 1/(μ log(high/low)) on [low, high].

    With around_lam the band is [low·λ, high·λ], which follows a traced λ.

    Raises:
      ConfigError: unless 0 < low < high < ∞.
    """
    _checked_support((low, high))
    width = math.log(high / low)
    scaled = (lambda lam: (low * lam, high * lam)) if around_lam else (low, high)
    return mixture(lambda mu: 1.0 / (mu * width), support=scaled, name="band")


def weight_of(f: Callable[..., Any]) -> Callable[..., jax.Array]:
    """The mixture weight w(μ) = f''(1/μ)/μ³ of any twice differentiable f(u) or f(u, lam).

    By automatic differentiation of f; kinks of f (atoms) are not seen. Returns fn(mu) or
    fn(mu, lam), as f is, of μ's shape and ready for `mixture`:
    mixture(weight_of(f)).f(u) = f(u) - f'(1)(u - 1) for f(1) = 0.
    """
    value = _with_lam(f)

    def weight(mu: Any, lam: Any) -> jax.Array:
        def slope(u):
            return jax.jvp(lambda v: value(v, lam), (u,), (jnp.ones_like(u),))[1]

        u = 1.0 / numerics.as_float(mu)
        return jax.jvp(slope, (u,), (jnp.ones_like(u),))[1] * u**3

    return weight if _takes_lam(f) else lambda mu: weight(mu, None)


def _takes_lam(fn: Any) -> bool:
    """Whether fn can be called with two positional arguments."""
    if fn is None:
        return False
    try:
        inspect.signature(fn).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True


def _with_lam(fn: Callable[..., Any]) -> Function:
    return fn if _takes_lam(fn) else lambda x, _: fn(x)


def _of_lam(value: Any, check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if callable(value):
        return lambda lam: check(value(lam))
    checked = check(value)
    return lambda _: checked


def _checked_atoms(atoms: Atoms) -> Atoms:
    for location, mass in atoms:
        if not _known(location, lambda v: v > 0):
            raise ConfigError(f"an atom's location must be finite and > 0, got {location!r}.")
        if not _known(mass, lambda v: v >= 0):
            raise ConfigError(f"an atom's mass must be finite and >= 0, got {mass!r}.")
    return atoms


def _checked_support(support: tuple[Any, Any]) -> tuple[Any, Any]:
    low, high = support
    if not all(_known(end, lambda v: v > 0) for end in support) or not (
        is_traced(low) or is_traced(high) or np.all(np.asarray(low) < np.asarray(high))
    ):
        raise ConfigError(f"a support needs 0 < low < high < ∞, got ({low!r}, {high!r}).")
    return support


def _known(value: Any, holds: Callable[[np.ndarray], Any]) -> bool:
    """Whether a value is traced, so that nothing is known of it, or finite and as it must be."""
    if is_traced(value):
        return True
    array = np.asarray(value, np.float64)
    return bool(np.all(np.isfinite(array) & holds(array)))


def _check_weight(weight: Callable[..., Any], support: tuple[Any, Any]) -> None:
    if any(is_traced(end) for end in support):
        return
    with jax.ensure_compile_time_eval():
        mu = jnp.asarray(np.geomspace(*support, 64))
        values = weight(mu)
        bad = ~(jnp.isfinite(values) & (values >= 0))
        if not is_traced(bad) and bool(jnp.any(bad)):
            i = int(jnp.argmax(bad))
            raise ConfigError(
                f"a mixture weight must be finite and >= 0, got {values[i]} at μ = {mu[i]}."
            )
