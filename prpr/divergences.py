"""The table of f-divergences, each a tuple of pure functions fn(x, lam).

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

The PR-divergence D_λ has f_λ(u) = max(λu, 1) - max(λ, 1). It, and the reading of any
f-divergence as a mixture of PR-divergences, are from Verine, Negrevergne, Pydi, Chevaleyre,
"Precision-Recall Divergence Optimization for Generative Modeling with GANs and Normalizing
Flows", NeurIPS 2023 (arXiv:2305.18910). The dual D_f = sup over T of E_p[T] - E_q[f*(T)] is
from Nowozin, Cseke, Tomioka, "f-GAN", NeurIPS 2016 (arXiv:1606.00709).

How a row is written: five formulas in x = log u, from which `_build` makes all fields and
their derivatives (f → f' → f'' by formula, never by differentiating a stable expression).
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import numerics
from prpr.errors import ConfigError, unknown_name
from prpr.numerics import Function, in_log, in_ratio, is_traced, log_half_sum, times_exp, with_slope

Atoms = Sequence[tuple[Any, Any]]


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


def _build(
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


# ---------------------------------------------------------------------------- with λ


def _is_active(x: jax.Array, lam: jax.Array) -> jax.Array:
    return x + jnp.log(lam) > 0  # λu > 1


_PR = _build(
    # f = max(λu, 1) - max(λ, 1), with λ - max(λ, 1) = -max(1 - λ, 0) to keep digits at u = 1
    "pr",
    f=lambda x, lam: jnp.maximum(
        lam * jnp.expm1(x) - jnp.maximum(1.0 - lam, 0.0), -jnp.maximum(lam - 1.0, 0.0)
    ),
    f_prime=lambda x, lam: jnp.where(_is_active(x, lam), lam, 0.0),  # λ·1{λu > 1}
    h=lambda x, lam: jnp.where(_is_active(x, lam), 0.0, 1.0) - jnp.maximum(lam, 1.0),
    log_f_second=lambda x, _: jnp.full_like(x, -jnp.inf),  # a Dirac: see atoms
    log_ratio=lambda t, lam: jnp.where(t > 0, -jnp.log(lam), -jnp.inf),  # 1{t > 0}/λ
    high=lambda lam: lam,
    kinked=True,
    needs_lam=True,
    atoms=lambda lam: ((lam, 1.0),),
)


def smoothed_pr(tau: Any = 0.25) -> Divergence:
    """The PR-divergence with its maximum smoothed into a p-norm, p = 1/τ; tends to pr as τ → 0.

    f(u) = (1 + s)^τ - (1 + λ^p)^τ with s = (λu)^p;   f'(u) = λ·(s/(1 + s))^(1-τ)
    f*(t) = (1 + λ^p)^τ - (1 - (t/λ)^q)^(1/q) for 0 ≤ t ≤ λ with 1/p + 1/q = 1, constant below.
    f'' > 0, so every critic output in (0, λ) stands for one ratio, which pr's {0, λ} does not,
    and D_λ(P‖Q) = λ·D_{1/λ}(Q‖P) holds exactly, as it does for pr.

    Args:
      tau: the smoothing τ; may be traced by jit and vmap, but not differentiated.

    Raises:
      ConfigError: τ is not a number in (0, 1).
    """
    if not is_traced(tau):
        try:
            tau = float(tau)
        except (TypeError, ValueError):
            raise ConfigError(f"τ must be a number in (0, 1), got {tau!r}.") from None
        if not 0.0 < tau < 1.0:
            raise ConfigError(f"τ must be a number in (0, 1), got {tau!r}.")
    p = 1.0 / tau
    softplus = jax.nn.softplus

    def log_s(x, lam):
        return p * (x + jnp.log(lam))

    def log_gap(x, lam):
        # τ·log((1 + s)/(1 + s₁)), s₁ = λ^p being s at u = 1: exact to first order at x = 0,
        # and x plus a small rest for s > 1, so that no error of order p·x is exponentiated.
        a, a1 = log_s(x, lam), p * jnp.log(lam)
        near = jnp.abs(p * x) < 1.0
        x_near = jnp.where(near, x, 0.0)
        up, down = jnp.maximum(a, 0.0), jnp.minimum(a, 0.0)
        far = jnp.where(
            a > 0,
            x + tau * (softplus(-up) - softplus(-a1)),
            tau * (softplus(down) - softplus(a1)),
        )
        return jnp.where(near, tau * jnp.log1p(jax.nn.sigmoid(a1) * jnp.expm1(p * x_near)), far)

    def log_f_second(x, lam):
        x = jnp.maximum(x, -1e30)  # p = 2 at u = 0: 0·∞
        a = log_s(x, lam)
        main = jnp.where(a < 0, (p - 2.0) * x + (p - 1.0) * jnp.log(lam), -a - x)
        return jnp.log(lam * (p - 1.0)) + main - (2.0 - tau) * softplus(-jnp.abs(a))

    def f_prime(x, lam):
        a = log_s(x, lam)
        power = jnp.where(a < 0, (p - 1.0) * (x + jnp.log(lam)), 0.0)
        power = power - (1.0 - tau) * softplus(-jnp.abs(a))
        # λ outside the exponential keeps its digits, inside it keeps it from underflowing.
        return jnp.where(power < -80.0, jnp.exp(power + jnp.log(lam)), lam * jnp.exp(power))

    def log_ratio(t, lam):
        z = jnp.maximum(t / lam, float(jnp.finfo(t.dtype).tiny))
        log_v = jnp.log(z) / (1.0 - tau)  # v = (t/λ)^q = s/(1 + s)
        log_u = tau * (log_v - jax.nn.log1mexp(-log_v)) - jnp.log(lam)
        return jnp.where(t > 0, log_u, -jnp.inf)

    return _build(
        "smoothed_pr",
        f=lambda x, lam: jnp.exp(tau * softplus(p * jnp.log(lam))) * jnp.expm1(log_gap(x, lam)),
        f_prime=f_prime,
        # (1 + s)^(τ-1) - (1 + λ^p)^τ: both differences from 1 have the same sign
        h=lambda x, lam: (
            jnp.expm1((tau - 1.0) * softplus(log_s(x, lam)))
            - jnp.expm1(tau * softplus(p * jnp.log(lam)))
        ),
        log_f_second=log_f_second,
        log_ratio=log_ratio,
        high=lambda lam: lam,
        needs_lam=True,
    )


# ---------------------------------------------------------------------------- without λ

_KL = _build(
    "kl",  # maximum likelihood
    f=lambda x, _: times_exp(x, x),  # u log u
    f_prime=lambda x, _: x + 1.0,  # log u + 1
    h=lambda x, _: -jnp.exp(x),  # -u
    log_f_second=lambda x, _: -x,  # 1/u
    log_ratio=lambda t, _: t - 1.0,  # e^(t-1)
    high=math.inf,
)

_REVERSE_KL = _build(
    "reverse_kl",
    f=lambda x, _: -x,  # -log u
    f_prime=lambda x, _: -jnp.exp(-x),  # -1/u
    h=lambda x, _: 1.0 - x,  # 1 - log u
    log_f_second=lambda x, _: -2.0 * x,  # 1/u²
    log_ratio=lambda t, _: -jnp.log(-t),  # -1/t
    high=0.0,
    open_end=True,
)


def _twice_js(x: jax.Array, _: Any) -> jax.Array:
    """u log u - (u+1) log((u+1)/2) = (u+1)/2 · [(1+y) log(1+y) + (1-y) log(1-y)], y = tanh(x/2).

    The bracket is x·y - log cosh²(x/2), of order x² at u = 1.
    """
    small = x * jnp.tanh(0.5 * x) - jnp.log1p(jnp.sinh(0.5 * x) ** 2)
    a = jnp.abs(x)
    z = jnp.exp(-a)
    large = 2.0 * (math.log(2.0) - jnp.log1p(z) - times_exp(a, -a) / (1.0 + z))
    return 0.5 * (1.0 + jnp.exp(x)) * jnp.where(a < 1.0, small, large)


_JENSEN_SHANNON = _build(
    "jensen_shannon",
    f=lambda x, _: 0.5 * _twice_js(x, _),
    f_prime=lambda x, _: -0.5 * log_half_sum(-x),  # ½ log(2u/(u+1))
    h=lambda x, _: -0.5 * log_half_sum(x),  # -½ log((u+1)/2)
    log_f_second=lambda x, _: -x - jax.nn.softplus(x) - math.log(2.0),  # 1/(2u(u+1))
    log_ratio=lambda t, _: 2.0 * t - jnp.log1p(-jnp.expm1(2.0 * t)),  # e^2t/(2 - e^2t)
    high=0.5 * math.log(2.0),
    open_end=True,
)


def _gan_f(x: jax.Array, _: Any) -> jax.Array:
    """u log u - (u+1) log(u+1) + 2 log 2."""
    near = _twice_js(x, _) - math.log(2.0) * jnp.expm1(x)
    z = jnp.exp(-x)
    # u·log(u/(u+1)) = -log(1 + 1/u)·u, which tends to -1
    above = -jnp.where(z < 1e-8, 1.0 - 0.5 * z, jnp.log1p(z) / jnp.maximum(z, 1e-8))
    below = times_exp(jax.nn.log_sigmoid(x), x)
    far = 2.0 * math.log(2.0) - jax.nn.softplus(x) + jnp.where(x > 0, above, below)
    return jnp.where(jnp.abs(x) < 1.0, near, far)


_GAN = _build(
    "gan",  # logistic loss: with T = log sigmoid(logit), the logit is log u
    f=_gan_f,
    f_prime=lambda x, _: jax.nn.log_sigmoid(x),  # log(u/(u+1))
    h=lambda x, _: 2.0 * math.log(2.0) - jax.nn.softplus(x),  # 2 log 2 - log(u+1)
    log_f_second=lambda x, _: -x - jax.nn.softplus(x),  # 1/(u(u+1))
    log_ratio=lambda t, _: t - jax.nn.log1mexp(-t),  # e^t/(1 - e^t)
    high=0.0,
    open_end=True,
)


def _jeffreys_log_ratio(t: jax.Array, _: Any) -> jax.Array:
    """Solves x + 1 - e⁻ˣ = t. Newton from the left of the root of a concave function: monotone."""
    t = jnp.maximum(t, -0.5 * numerics.largest(t.dtype))  # so that e⁻ˣ does not overflow
    start = jnp.maximum(
        jnp.maximum(0.5 * t, t - 1.0), jnp.where(t < 0, -jnp.log1p(jnp.maximum(-t, 0.0)), 0.5 * t)
    )

    def step(x, t):
        return (t - (x - jnp.expm1(-x))) / (1.0 + jnp.exp(-x))

    return numerics.newton(step, t, start, 6)


_JEFFREYS = _build(
    "jeffreys",
    f=lambda x, _: x * jnp.expm1(x),  # (u-1) log u
    f_prime=lambda x, _: x - jnp.expm1(-x),  # log u + 1 - 1/u
    h=lambda x, _: -x - jnp.expm1(x),  # -log u - (u-1)
    log_f_second=lambda x, _: jax.nn.softplus(x) - 2.0 * x,  # (u+1)/u²
    log_ratio=_jeffreys_log_ratio,
    high=math.inf,
)

_PEARSON = _build(
    "pearson",
    f=lambda x, _: jnp.expm1(x) ** 2,  # (u-1)²
    f_prime=lambda x, _: 2.0 * jnp.expm1(x),  # 2(u-1)
    h=lambda x, _: -jnp.expm1(2.0 * x),  # 1 - u²
    log_f_second=lambda x, _: jnp.full_like(x, math.log(2.0)),  # 2
    log_ratio=lambda t, _: jnp.log1p(jnp.maximum(0.5 * t, -1.0)),  # max(t/2 + 1, 0)
    high=math.inf,
)

_NEYMAN = _build(
    "neyman",
    f=lambda x, _: -jnp.expm1(x) * jnp.expm1(-x),  # (1-u)²/u
    f_prime=lambda x, _: -jnp.expm1(-2.0 * x),  # 1 - 1/u²
    h=lambda x, _: 2.0 * jnp.expm1(-x),  # 2/u - 2
    log_f_second=lambda x, _: math.log(2.0) - 3.0 * x,  # 2/u³
    log_ratio=lambda t, _: -0.5 * jnp.log1p(-t),  # (1-t)^(-1/2)
    high=1.0,
)

_SQUARED_HELLINGER = _build(
    "squared_hellinger",
    f=lambda x, _: jnp.expm1(0.5 * x) ** 2,  # (√u - 1)²
    f_prime=lambda x, _: -jnp.expm1(-0.5 * x),  # 1 - u^(-1/2)
    h=lambda x, _: -jnp.expm1(0.5 * x),  # 1 - √u
    log_f_second=lambda x, _: -1.5 * x - math.log(2.0),  # ½ u^(-3/2)
    log_ratio=lambda t, _: -2.0 * jnp.log1p(-t),  # (1-t)⁻²
    high=1.0,
    open_end=True,
)

_LE_CAM = _build(
    # with tanh(x/2) = (u-1)/(u+1)
    "le_cam",
    f=lambda x, _: jnp.expm1(x) * jnp.tanh(0.5 * x),  # (u-1)²/(u+1)
    f_prime=lambda x, _: jnp.tanh(0.5 * x) * (1.0 + 2.0 * jax.nn.sigmoid(-x)),  # 1 - 4/(u+1)²
    h=lambda x, _: -jnp.tanh(0.5 * x) * (1.0 + 2.0 * jax.nn.sigmoid(x)),  # -(u-1)(3u+1)/(u+1)²
    log_f_second=lambda x, _: math.log(8.0) - 3.0 * jax.nn.softplus(x),  # 8/(u+1)³
    # 2/√(1-t) - 1, and 0 for t ≤ -3
    log_ratio=lambda t, _: jnp.log1p(
        2.0 * jnp.maximum(jnp.expm1(-0.5 * jnp.log1p(-t)), -0.5),
    ),
    high=1.0,
)

_TOTAL_VARIATION = _build(
    "total_variation",
    f=lambda x, _: 0.5 * jnp.abs(jnp.expm1(x)),  # ½|u-1|
    f_prime=lambda x, _: 0.5 * jnp.sign(x),  # ½ sign(u-1)
    h=lambda x, _: -0.5 * jnp.sign(x),
    log_f_second=lambda x, _: jnp.full_like(x, -jnp.inf),  # a Dirac: see atoms
    log_ratio=lambda t, _: jnp.where(t > -0.5, 0.0, -jnp.inf),  # 1{t > -½}
    high=0.5,
    kinked=True,
    atoms=lambda _: ((1.0, 1.0),),
)

_TABLE = {
    row.name: row
    for row in (
        _PR,
        smoothed_pr(),
        _KL,
        _REVERSE_KL,
        _JENSEN_SHANNON,
        _GAN,
        _JEFFREYS,
        _PEARSON,
        _NEYMAN,
        _SQUARED_HELLINGER,
        _LE_CAM,
        _TOTAL_VARIATION,
    )
}
NAMES: tuple[str, ...] = tuple(_TABLE)


def get(name: str) -> Divergence:
    """The divergence of that name, one of `NAMES`; "smoothed_pr" has τ = 0.25.

    Raises:
      ConfigError: the table has no such name.
    """
    if name not in _TABLE:
        raise unknown_name("divergence", name, NAMES)
    return _TABLE[name]


# ---------------------------------------------------------------------------- mixtures


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

    return _build(
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
