"""The table of f-divergences, each a tuple of pure functions fn(x, lam).

The fields are those of `Divergence` in `prpr.fdivergence`, which has the notation too. Mixtures of
PR-divergences (`mixture`, `band`) are divergences of the same kind, from `prpr.mixtures`.

The PR-divergence D_λ has f_λ(u) = max(λu, 1) - max(λ, 1). It, and the reading of any
f-divergence as a mixture of PR-divergences, are from Verine, Negrevergne, Pydi, Chevaleyre,
"Precision-Recall Divergence Optimization for Generative Modeling with GANs and Normalizing
Flows", NeurIPS 2023 (arXiv:2305.18910).

How a row is written: f, f', h = f - u·f' and log f'' as formulas in x = log u; log (f*)' in the
dual variable t; f'(∞), where the domain of f* ends. The comments give each as a function of u
or t. `build` makes all fields and their derivatives from these.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from prpr import numerics
from prpr.errors import ConfigError, unknown_name
from prpr.fdivergence import Divergence, build
from prpr.mixtures import band, mixture, weight_of
from prpr.numerics import is_traced, log_half_sum, times_exp

__all__ = ["NAMES", "Divergence", "band", "get", "mixture", "smoothed_pr", "weight_of"]

# ---------------------------------------------------------------------------- with λ


def _is_active(x: jax.Array, lam: jax.Array) -> jax.Array:
    return x + jnp.log(lam) > 0  # λu > 1


_PR = build(
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

    return build(
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

_KL = build(
    "kl",  # maximum likelihood
    f=lambda x, _: times_exp(x, x),  # u log u
    f_prime=lambda x, _: x + 1.0,  # log u + 1
    h=lambda x, _: -jnp.exp(x),  # -u
    log_f_second=lambda x, _: -x,  # 1/u
    log_ratio=lambda t, _: t - 1.0,  # e^(t-1)
    high=math.inf,
)

_REVERSE_KL = build(
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


_JENSEN_SHANNON = build(
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


_GAN = build(
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


_JEFFREYS = build(
    "jeffreys",
    f=lambda x, _: x * jnp.expm1(x),  # (u-1) log u
    f_prime=lambda x, _: x - jnp.expm1(-x),  # log u + 1 - 1/u
    h=lambda x, _: -x - jnp.expm1(x),  # -log u - (u-1)
    log_f_second=lambda x, _: jax.nn.softplus(x) - 2.0 * x,  # (u+1)/u²
    log_ratio=_jeffreys_log_ratio,
    high=math.inf,
)

_PEARSON = build(
    "pearson",
    f=lambda x, _: jnp.expm1(x) ** 2,  # (u-1)²
    f_prime=lambda x, _: 2.0 * jnp.expm1(x),  # 2(u-1)
    h=lambda x, _: -jnp.expm1(2.0 * x),  # 1 - u²
    log_f_second=lambda x, _: jnp.full_like(x, math.log(2.0)),  # 2
    log_ratio=lambda t, _: jnp.log1p(jnp.maximum(0.5 * t, -1.0)),  # max(t/2 + 1, 0)
    high=math.inf,
)

_NEYMAN = build(
    "neyman",
    f=lambda x, _: -jnp.expm1(x) * jnp.expm1(-x),  # (1-u)²/u
    f_prime=lambda x, _: -jnp.expm1(-2.0 * x),  # 1 - 1/u²
    h=lambda x, _: 2.0 * jnp.expm1(-x),  # 2/u - 2
    log_f_second=lambda x, _: math.log(2.0) - 3.0 * x,  # 2/u³
    log_ratio=lambda t, _: -0.5 * jnp.log1p(-t),  # (1-t)^(-1/2)
    high=1.0,
)

_SQUARED_HELLINGER = build(
    "squared_hellinger",
    f=lambda x, _: jnp.expm1(0.5 * x) ** 2,  # (√u - 1)²
    f_prime=lambda x, _: -jnp.expm1(-0.5 * x),  # 1 - u^(-1/2)
    h=lambda x, _: -jnp.expm1(0.5 * x),  # 1 - √u
    log_f_second=lambda x, _: -1.5 * x - math.log(2.0),  # ½ u^(-3/2)
    log_ratio=lambda t, _: -2.0 * jnp.log1p(-t),  # (1-t)⁻²
    high=1.0,
    open_end=True,
)

_LE_CAM = build(
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

_TOTAL_VARIATION = build(
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
