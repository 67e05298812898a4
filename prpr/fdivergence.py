"""An f-divergence as a tuple of pure functions fn(x, lam), all made from five formulas.

Notation
  p, q    densities of the data P and of the model Q; P is always first
  u       a value of the density ratio p/q, in [0, ∞); x = log u, called `log_u`
  t       a value of the dual variable (critic output) T
  lam     the trade-off λ in (0, ∞): large λ asks for precision, small λ for recall
  μ       the λ of one member of a mixture of PR-divergences, called `mu`
  f       convex on [0, ∞), f(1) = 0;  D_f(P‖Q) = E_q[f(p/q)]
  f*      its conjugate, f*(t) = sup over u ≥ 0 of t·u - f(u);  h(u) = f(u) - u·f'(u) = -f*(f'(u))
  w(μ)    mixture weight, f''(1/μ)/μ³:  D_f(P‖Q) = ∫ w(μ) D_μ(P‖Q) dμ + Σ over the atoms
All are pure numbers; logarithms are natural (nats).

The dual D_f = sup over T of E_p[T] - E_q[f*(T)] is from Nowozin, Cseke, Tomioka, "f-GAN",
NeurIPS 2016 (arXiv:1606.00709).

What is derived from what: `build` is given f, f', h, log f'' as formulas in x = log u, log (f*)'
in t, and f'(∞). The table `prpr.divergences` and the mixtures `prpr.mixtures` give them.
  f, f', f''       the formulas at x = log u; f_log, f_prime_log, h_log the same at x itself
  w(μ)             exp(log f''(x) - 3 log μ) at x = -log μ
  ratio(t)         exp(log (f*)'(t)), with t clipped into the domain, which ends at f'(∞)
  f*(t)            -h at x = log (f*)'(t); where f' may jump, t·u - f(u) there
  derivatives      in x of f, f', h: u·f', u·f'', -u²·f''; in t of f*, ratio, log_ratio: ratio,
                   1/f'', 1/(u·f''); by formula, never by differentiating a stable expression
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import numerics
from prpr.numerics import Function, in_log, in_ratio, times_exp, with_slope

Atoms = Sequence[tuple[Any, Any]]  # (location μ, mass)


class Divergence(NamedTuple):
    """An f-divergence. Every function is fn(x, lam): elementwise, for jit, vmap and grad.

    x is a number or array of any shape; λ a number, or an array of x's dtype that is a scalar
    or of x's shape. The result has the shape and dtype of x. Parameter-free divergences ignore
    λ (None will do); the others raise ConfigError for None. λ is not checked for its value
    here: entry points call `numerics.check_lam`.

    Finite: at finite x a value or a derivative in x that exceeds the dtype saturates at its
    largest finite number. Accurate: the log-space functions keep their relative accuracy near
    log_u = 0 and over the dtype's exponents. Limits: u = 0 (log_u = -∞) gives the limit, which
    may be infinite.

    Attributes:
      name: its name in the table.
      f: f(u), u ≥ 0.
      f_prime: f'(u). At the kink of a piecewise linear f a subgradient: the left one for
        pr (at λu = 1), 0 for total_variation.
      f_second: f''(u); the kinks of pr and total_variation are not in it, but in `atoms`.
      conjugate: f*(t), +∞ for t above the domain. An end that the domain does not include is
        read as the nearest number inside, since f'(u) of a large u rounds onto it. For such t
        -h_log(log_u) is the accurate way to f*(f'(u)).
      domain: fn(lam) -> (low, high), where f* is finite; of λ's shape. low = -∞ always (u ≥ 0).
        high = f'(∞) is included for pr, smoothed_pr, neyman, le_cam, total_variation, mixtures,
        and not for reverse_kl, jensen_shannon, gan, squared_hellinger.
      ratio: (f*)'(t), the density ratio that the critic output t stands for; ratio(f'(u)) = u
        where f is strictly convex. t is clipped into the domain; below f'(0) the ratio is 0.
      weight: w(μ) = f''(1/μ)/μ³, without the atoms.
      f_log: f(e^log_u).
      h_log: f(r) - r·f'(r) at r = e^log_u: what a generator descends with the ratio frozen.
      f_prime_log: f'(e^log_u), the optimal critic as a function of the log-ratio.
      log_ratio: log ratio(t), kept between the logarithms of the dtype's smallest and largest
        normal numbers, so that it is finite for any critic output; constant beyond.
      atoms: fn(lam) -> tuple of (location μ, mass): the point masses of the mixture.
    """

    name: str
    f: Function
    f_prime: Function
    f_second: Function
    conjugate: Function
    domain: Callable[[Any], tuple[jax.Array, jax.Array]]
    ratio: Function
    weight: Function
    f_log: Function
    h_log: Function
    f_prime_log: Function
    log_ratio: Function
    atoms: Callable[[Any], tuple[tuple[Any, Any], ...]]


def build(
    name: str,
    *,
    f: Function,
    f_prime: Function,
    h: Function,
    log_f_second: Function,
    log_ratio: Function,
    high: float | Callable[[Any], Any],
    open_end: bool = False,
    kinked: bool = False,
    needs_lam: bool = False,
    atoms: Callable[[Any], Atoms] = lambda _: (),
) -> Divergence:
    """A Divergence from f, f', h, log f'' as functions of (x = log u, lam) and log (f*)'(t, lam).

    `high` is f'(∞); `open_end` says that f* is infinite there; `kinked` that f' jumps, so that
    f* has to be taken as t·u - f(u).
    """
    curvature = log_f_second
    if not callable(high):
        f_prime = _bounded(f_prime, high)

    # Derivatives in x of f, f' and h at u = eˣ are u·f', u·f'' and -u²·f''.
    # Beyond |x| = 1e4 all of them have saturated or vanished: no ∞ - ∞.
    def u_f_prime_value(x, lam):
        x = jnp.clip(x, -1e4, 1e4)
        slope = f_prime(x, lam)
        direct = times_exp(slope, x)
        # f' may overflow (u → 0) or vanish (u → ∞) where u·f' = f - h does neither.
        rest = f(x, lam) - h(x, lam)
        rest = jnp.where(jnp.isnan(rest), jnp.where(slope < 0, -jnp.inf, jnp.inf), rest)
        usable = jnp.isfinite(slope) & ~jnp.isnan(direct)
        return numerics.saturate(jnp.where(usable, direct, rest))

    def scaled_second(x, lam, power):
        x = jnp.clip(x, -1e4, 1e4)
        return jnp.exp(curvature(x, lam) + power * x)

    u_f_prime = with_slope(
        u_f_prime_value, lambda x, lam: u_f_prime_value(x, lam) + scaled_second(x, lam, 2)
    )
    f_log = with_slope(in_log(f), u_f_prime)
    f_prime_log = with_slope(in_log(f_prime), lambda x, lam: scaled_second(x, lam, 1))
    h_log = with_slope(in_log(h), lambda x, lam: -scaled_second(x, lam, 2))

    f_second = numerics.exp_of_log(curvature)
    f_prime_u = with_slope(in_ratio(f_prime), f_second)
    f_u = with_slope(in_ratio(f), f_prime_u)
    weight = numerics.exp_of_log(lambda x, lam: curvature(-x, lam) - 3.0 * x)

    def end(lam):
        return high(lam) if callable(high) else jnp.full_like(lam, high)

    def raw_log_ratio(t, lam):
        last = end(lam)
        if open_end:
            last = jnp.full_like(last, _below(float(high), t.dtype))  # type: ignore[arg-type]
        return log_ratio(jnp.minimum(t, last), lam)

    def dual_slope(t, lam, power):
        # d log u/dt = 1/(u·f'') for power 1, du/dt = 1/f'' for power 0; 0 where clipped and
        # where f is linear.
        x = raw_log_ratio(t, lam)
        g = curvature(x, lam) + power * x
        low, top = numerics.log_limits(t.dtype)
        moves = (t < end(lam)) & (x > low) & (x < top) & (g > -jnp.inf)
        return jnp.where(moves, jnp.exp(-jnp.where(moves, g, 0.0)), 0.0)

    ratio = with_slope(
        lambda t, lam: numerics.saturate(jnp.exp(raw_log_ratio(t, lam))),
        lambda t, lam: dual_slope(t, lam, 0),
    )
    log_ratio_t = with_slope(
        lambda t, lam: jnp.clip(raw_log_ratio(t, lam), *numerics.log_limits(t.dtype)),
        lambda t, lam: dual_slope(t, lam, 1),
    )

    def conjugate_value(t, lam):
        x = raw_log_ratio(t, lam)
        inside = times_exp(t, x) - f(x, lam) if kinked else -h(x, lam)
        return jnp.where(t > end(lam), jnp.inf, numerics.saturate(inside))

    conjugate = with_slope(
        conjugate_value, lambda t, lam: jnp.where(t > end(lam), 0.0, ratio(t, lam))
    )

    def domain(lam):
        if lam is None:
            lam = numerics.placeholder_lam(name, needs_lam=needs_lam)
        lam = numerics.as_float(lam)
        return jnp.full_like(lam, -jnp.inf), end(lam)

    def public(fn: Function) -> Function:
        return numerics.elementwise(fn, name, needs_lam=needs_lam)

    return Divergence(
        name=name,
        f=public(f_u),
        f_prime=public(f_prime_u),
        f_second=public(f_second),
        conjugate=public(conjugate),
        domain=domain,
        ratio=public(ratio),
        weight=public(weight),
        f_log=public(f_log),
        h_log=public(h_log),
        f_prime_log=public(f_prime_log),
        log_ratio=public(log_ratio_t),
        atoms=lambda lam: tuple(atoms(lam)),
    )


def _bounded(f_prime: Function, high: float) -> Function:
    """f' kept from rounding to above f'(∞), where f* is infinite."""
    return lambda x, lam: jnp.minimum(f_prime(x, lam), high)


def _below(end: float, dtype: Any) -> float:
    """The number next below `end`; -tiny below 0, since subnormal numbers are flushed."""
    if end == 0.0:
        return -float(jnp.finfo(dtype).tiny)
    return float(np.nextafter(np.asarray(end, dtype), np.asarray(-np.inf, dtype)))
