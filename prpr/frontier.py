"""The precision-recall frontier of a generative model: α(λ), β(λ), and what is read off them.

Notation: P is the data and comes first, Q the model, p and q their densities, r = p/q;
`log_r` is log r at samples, [N]; `lam` is λ in (0, ∞), the slope of a ray α = λβ; large λ:
precision matters; precision is named before recall.

    α(λ) = ∫ min(λp, q) = E_q[min(λr, 1)] = E_p[min(λ, 1/r)],     β(λ) = α(λ)/λ
    precision = α(∞) = Q(supp P),     recall = β(0) = P(supp Q)

α is increasing and concave, β decreasing, α(λ) ≤ min(1, λ). Exchanging P and Q exchanges
precision and recall: α_QP(1/λ) = ∫ min(q/λ, p) = β_PQ(λ). So every estimate is written once, as
a function of log(λr), and used twice.

Sources: Sajjadi et al. 2018 (arXiv:1806.00035) for the frontier, its rays and F-scores; Simon et
al. 2019 (arXiv:1905.05441) for general distributions; Verine et al., NeurIPS 2023
(arXiv:2305.18910) for the divergence D_λ = min(1, λ) − α(λ).

λ is a traced value everywhere: one compilation serves a whole grid. Values that can be looked at
are checked (`DataError`, `ConfigError`); under `jit`, `grad` and `vmap` the checks are skipped.
±∞ is a legitimate log_r (a density that is zero); NaN is not.
"""

import math
import numbers
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from prpr.errors import ConfigError, DataError
from prpr.numerics import check_lam


class Curve(NamedTuple):
    """Points of a frontier: `alpha` = α(λ) and `beta` = α(λ)/λ at each `lam`; all [L]."""

    lam: jax.Array
    alpha: jax.Array
    beta: jax.Array


class Best(NamedTuple):
    """The largest F-score on a curve and the λ where it is reached; scalars."""

    score: jax.Array
    lam: jax.Array


class PrecisionRecall(NamedTuple):
    """A precision and a recall; scalars."""

    precision: jax.Array
    recall: jax.Array


class UpperBound(NamedTuple):
    """Held-out bound on α at each `lam`: `estimate` from the counts, `upper` confident; [L]."""

    lam: np.ndarray
    estimate: np.ndarray
    upper: np.ndarray


# --- estimates from samples ---------------------------------------------------------------------


def alpha(log_r_fake: ArrayLike, lam: ArrayLike) -> jax.Array:
    """α(λ) = E_q[min(λr, 1)] from samples of Q: log_r [N], one λ -> scalar.

    Raises:
      DataError: log_r is empty, not [N], or has a NaN.
      ConfigError: λ is not one positive finite number.
    """
    log_r, log_lam = _inputs("log_r_fake", log_r_fake, lam)
    return _one(log_r, log_lam)[0]


def alpha_from_data(log_r_real: ArrayLike, lam: ArrayLike) -> jax.Array:
    """α(λ) = E_p[min(λ, 1/r)] from samples of P: log_r [N], one λ -> scalar. Raises as `alpha`."""
    log_r, log_lam = _inputs("log_r_real", log_r_real, lam)
    return _one(-log_r, -log_lam)[1]


def alpha_both(log_r_real: ArrayLike, log_r_fake: ArrayLike, lam: ArrayLike) -> jax.Array:
    """α(λ) from samples of both: log_r [M] of P, [N] of Q, one λ -> scalar. Raises as `alpha`.

    The P-estimate has the weight w = M / (M + N λ²), the Q-estimate 1 − w: min(λ, 1/r) lies in
    [0, λ] and min(λr, 1) in [0, 1], so the variances of their means are at most λ²/4M and 1/4N,
    and w weighs by the inverse of these. Small λ (recall) is thus read from the data, large λ
    (precision) from the model's samples. The weights do not look at the samples, so for the
    correct r the result is unbiased; and P and Q exchanged still exchange α and β.
    """
    return _both(log_r_real, log_r_fake, lam).alpha


def beta(log_r_fake: ArrayLike, lam: ArrayLike) -> jax.Array:
    """β(λ) = E_q[min(r, 1/λ)] from samples of Q: log_r [N], one λ -> scalar. Raises as `alpha`."""
    log_r, log_lam = _inputs("log_r_fake", log_r_fake, lam)
    return _one(log_r, log_lam)[1]


def beta_from_data(log_r_real: ArrayLike, lam: ArrayLike) -> jax.Array:
    """β(λ) = E_p[min(1, 1/(λr))] from samples of P: log_r [N], one λ -> scalar."""
    log_r, log_lam = _inputs("log_r_real", log_r_real, lam)
    return _one(-log_r, -log_lam)[0]


def beta_both(log_r_real: ArrayLike, log_r_fake: ArrayLike, lam: ArrayLike) -> jax.Array:
    """β(λ) from samples of both: `alpha_both` divided by λ, without under- or overflow."""
    return _both(log_r_real, log_r_fake, lam).beta


def curve(
    log_r_real: ArrayLike | None = None,
    log_r_fake: ArrayLike | None = None,
    *,
    lam: ArrayLike | None = None,
) -> Curve:
    """The frontier over a grid of λ, from samples of P [M], of Q [N], or of both.

    The same numbers as `alpha_from_data`, `alpha` and `alpha_both` at every λ, but sorted once:
    with the N samples in order, α(λ) = (λ Σ_{r < 1/λ} r + #{r ≥ 1/λ}) / N needs one cumulative
    sum (of logarithms) and one search: O(N log N + L log N) time, O(N + L) memory.

    Args:
      lam: the grid, [L], in any order; `lambda_grid()` if not given.

    Raises:
      DataError: samples are missing, empty, not one-dimensional, or have a NaN.
      ConfigError: a λ is not positive and finite.
    """
    grid = lambda_grid() if lam is None else jnp.asarray(check_lam(lam))
    if log_r_real is None and log_r_fake is None:
        raise DataError("curve needs log_r_real, log_r_fake, or both; it got neither.")
    if log_r_fake is None:
        log_r, log_lam = _inputs("log_r_real", log_r_real, grid, grid=True)
        beta_, alpha_ = _grid(-log_r, -log_lam)
    elif log_r_real is None:
        log_r, log_lam = _inputs("log_r_fake", log_r_fake, grid, grid=True)
        alpha_, beta_ = _grid(log_r, log_lam)
    else:
        return _both(log_r_real, log_r_fake, grid, grid=True)
    return Curve(grid.astype(alpha_.dtype), alpha_, beta_)


def lambda_grid(
    n: int = 201,
    low: float = 1e-2,
    high: float = 1e2,
    spacing: Literal["log", "angle"] = "log",
) -> jax.Array:
    """n values of λ from low to high, ascending, [n].

    "log" spaces log λ evenly: the natural scale of λ, symmetric under exchange of P and Q.
    "angle" spaces the rays' angles arctan λ evenly, as Sajjadi et al. do (n=1001, low=1e-10):
    evenly spread over the figure, but coarse in log λ at both ends.
    """
    if not (isinstance(n, int) and n >= 2):
        raise ConfigError(f"n={n!r}: a grid of λ needs an integer of at least 2.")
    _log_lam([low, high], jnp.float32)
    if not low < high:
        raise ConfigError(f"low={low!r}, high={high!r}: a grid of λ needs low < high.")
    if spacing == "log":
        grid = np.geomspace(low, high, n)
    elif spacing == "angle":
        grid = np.tan(np.linspace(math.atan(low), math.atan(high), n))
    else:
        raise ConfigError(f"spacing={spacing!r}: choose 'log' or 'angle'.")
    return jnp.asarray(grid)


def exact(
    p: ArrayLike,
    q: ArrayLike,
    lam: ArrayLike,
    volume: float = 1.0,
    tolerance: float = 1e-3,
) -> jax.Array:
    """α(λ) = Σ min(λp, q)·volume for known distributions; λ of any shape -> α of that shape.

    Args:
      p, q: probabilities (volume=1), or densities on a grid whose cells have this volume; any
        one shape. Zeros are fine: neither need be absolutely continuous.
      tolerance: how far Σp·volume and Σq·volume may be from 1.

    Raises:
      DataError: shapes differ, a value is negative or NaN, or a sum is not 1.
      ConfigError: a λ is not positive and finite.
    """
    p, q = _float(p), _float(q)
    if p.shape != q.shape or p.size == 0:
        raise DataError(f"p and q need one shape and a cell, not {p.shape} and {q.shape}.")
    for name, density in (("p", p), ("q", q)):
        if isinstance(density, Tracer):
            continue
        if not bool((density >= 0).all()):
            raise DataError(f"{name} has a negative value or a NaN: it is no distribution.")
        total = float(density.sum()) * volume
        if abs(total - 1) > tolerance:
            raise DataError(f"{name} sums to {total:.6g} (times volume={volume}), not to 1.")
    dtype = np.promote_types(p.dtype, q.dtype)
    lam = jnp.exp(_log_lam(lam, dtype))
    return _exact(p.astype(dtype).ravel(), q.astype(dtype).ravel(), lam) * volume


# --- read off a frontier ------------------------------------------------------------------------


def divergence(alpha: ArrayLike, lam: ArrayLike) -> jax.Array:
    """D_λ(P‖Q) = min(1, λ) − α(λ), of any one shape; 0 iff P = Q.

    It holds for all P and Q. Where q = 0 < p, E_q[f_λ(r)] alone misses the term
    f_λ'(∞)·P(q=0) = λ·P(q=0); min(1, λ) − α(λ) has it.
    """
    alpha = _float(alpha)
    return jnp.minimum(1, _float(lam).astype(alpha.dtype)) - alpha


def f_score(alpha: ArrayLike, lam: ArrayLike, b: ArrayLike = 1.0) -> jax.Array:
    """F_b(λ) = (1+b²) α / (1 + b²λ): `f_score_pr` at precision α(λ), recall β(λ) = α(λ)/λ.

    b > 1 favours recall, b < 1 precision, as everywhere. On the ray α = λβ,
    (1+b²)αβ/(b²α + β) = (1+b²)α/(b²λ + 1).
    """
    alpha = _float(alpha)
    lam, square = _float(lam).astype(alpha.dtype), _float(b).astype(alpha.dtype) ** 2
    return (1 + square) * alpha / (1 + square * lam)


def f_score_pr(precision: ArrayLike, recall: ArrayLike, b: ArrayLike = 1.0) -> jax.Array:
    """F_b = (1+b²)·precision·recall / (b²·precision + recall), and 0 where both are 0."""
    precision = _float(precision)
    recall, square = _float(recall).astype(precision.dtype), _float(b).astype(precision.dtype) ** 2
    below = square * precision + recall
    # The inner `where` keeps 0/0 out of the gradient, too.
    ratio = precision * recall / jnp.where(below > 0, below, 1)
    return jnp.where(below > 0, (1 + square) * ratio, 0)


def best_f(curve: Curve, b: float = 1.0) -> Best:
    """max over the curve's λ of F_b(λ), and the λ that reaches it (the first, in case of ties)."""
    scores = f_score(curve.alpha, curve.lam, b)
    best = jnp.argmax(scores)
    return Best(scores[best], curve.lam[best])


def precision_recall(curve: Curve) -> PrecisionRecall:
    """(α at the largest λ, β at the smallest): what the curve says of α(∞) and β(0).

    Both are lower bounds of them, since α increases and β decreases.
    """
    return PrecisionRecall(curve.alpha[jnp.argmax(curve.lam)], curve.beta[jnp.argmin(curve.lam)])


def area_under(curve: Curve) -> jax.Array:
    """Area of the attainable (recall, precision) pairs, in [0, 1]; P = Q: 1, disjoint: 0.

    The set below the frontier {(β(λ), α(λ))} is swept by its rays: its area is ½∫ β² dλ (half
    the squared radius β²(1+λ²) times dθ = dλ/(1+λ²)). Between two λ of the grid the frontier is
    replaced by its chord, which makes a triangle of area ½ β_i β_{i+1} (λ_{i+1} − λ_i). Beyond
    the ends it is closed by the axis-parallel lines through the last points, α = α(λ_max) and
    β = β(λ_min), the least that monotonicity allows.
    """
    order = jnp.argsort(curve.lam)
    lam, alpha, beta = curve.lam[order], curve.alpha[order], curve.beta[order]
    # β_i·(β_{i+1}·Δλ), in this order: β_i·β_{i+1} underflows at large λ, β·Δλ is at most about 1.
    inner = jnp.sum(beta[:-1] * (beta[1:] * jnp.diff(lam)))
    return 0.5 * (alpha[0] * beta[0] + inner + alpha[-1] * beta[-1])


def lam_of_wish(precision: float, recall: float) -> float:
    """The λ whose ray passes through a wished precision a and recall b: λ = a/b.

    Raises:
      ConfigError: a wish is not a number in (0, 1].
    """
    for name, value in (("precision", precision), ("recall", recall)):
        if not (isinstance(value, numbers.Real) and 0 < value <= 1):
            raise ConfigError(f"{name}={value!r}: a wish is one number in (0, 1].")
    return float(precision) / float(recall)


def upper_bound(
    log_r_real: ArrayLike,
    log_r_fake: ArrayLike,
    lam: ArrayLike,
    level: float = 0.95,
    simultaneous: bool = False,
) -> UpperBound:
    """An upper confidence bound on α(λ) that holds for ANY estimate r̂; on the host.

        α(λ) ≤ λ·P(r̂ < 1/λ) + Q(r̂ ≥ 1/λ)

    because min(λp, q) is at most λp on one side and at most q on the other; equality for r̂ = r.
    Each of the two proportions gets its exact one-sided binomial limit (Clopper-Pearson) at
    confidence 1 − (1−level)/2, so that both hold together with probability `level`.

    The samples must be held out: r̂ may not have been fitted to them.

    Args:
      log_r_real, log_r_fake: log r̂ at held-out samples of P, [M], and Q, [N].
      lam: one λ or a grid, [L].
      level: the probability that `upper` is not below α.
      simultaneous: at all λ of the grid together (Bonferroni), rather than at each one.

    Raises:
      DataError: samples are empty, not one-dimensional, or have a NaN.
      ConfigError: λ or level cannot be used.
    """
    from scipy.special import betaincinv

    if not 0 < level < 1:
        raise ConfigError(f"level={level!r}: a confidence level lies in (0, 1).")
    real = np.sort(np.asarray(_samples("log_r_real", log_r_real), np.float64))
    fake = np.sort(np.asarray(_samples("log_r_fake", log_r_fake), np.float64))
    _log_lam(lam, jnp.float32)
    lam = np.atleast_1d(np.asarray(lam, np.float64))
    # Any threshold makes a valid bound; it only has to be the same one for both samples.
    threshold = -np.log(lam)
    below = np.searchsorted(real, threshold, side="left")
    above = fake.size - np.searchsorted(fake, threshold, side="left")
    miss = (1 - level) / 2 / (lam.size if simultaneous else 1)

    def limit(count: np.ndarray, n: int) -> np.ndarray:
        # betaincinv's second parameter must be positive; its limit for count = n is 1.
        rest = np.maximum(n - count, 1)
        return np.where(count == n, 1.0, betaincinv(count + 1.0, rest, 1 - miss))

    estimate = lam * below / real.size + above / fake.size
    upper = lam * limit(below, real.size) + limit(above, fake.size)
    ceiling = np.minimum(1.0, lam)
    return UpperBound(lam, np.minimum(estimate, ceiling), np.minimum(upper, ceiling))


# --- kernels: compiled once per shape, whatever the λ -------------------------------------------


def _mean_exp(x: jax.Array) -> jax.Array:
    """mean(exp(x)) whose sum cannot overflow when the mean does not."""
    top = jax.lax.stop_gradient(jnp.max(x))
    top = jnp.where(jnp.isfinite(top), top, 0)
    return jnp.exp(top) * jnp.mean(jnp.exp(x - top))


@jax.jit
def _one(log_r: jax.Array, log_lam: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(mean min(λr, 1), mean min(r, 1/λ)) at one λ.

    The second is not the first over λ: one of the two forms is in range when the other is not.
    """
    over_one = _mean_exp(jnp.minimum(log_r + log_lam, 0))
    return over_one, _mean_exp(jnp.minimum(log_r, -log_lam))


@jax.jit
def _grid(log_r: jax.Array, log_lam: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`_one` on a grid of λ, from one sort."""
    ordered = jnp.sort(log_r)
    # log Σ_{i<k} r_i for k = 0..N: an empty sum first.
    nothing = jnp.full((1,), -jnp.inf, ordered.dtype)
    sums = jnp.concatenate([nothing, jax.lax.cumlogsumexp(ordered)])
    below = jnp.searchsorted(ordered, -log_lam)
    above = (log_r.size - below).astype(log_r.dtype) / log_r.size
    log_small = sums[below] - math.log(log_r.size)
    return jnp.exp(log_small + log_lam) + above, jnp.exp(log_small) + above * jnp.exp(-log_lam)


@jax.jit
def _exact(p: jax.Array, q: jax.Array, lam: jax.Array) -> jax.Array:
    # `map` rather than broadcasting: memory for one λ at a time.
    alphas = jax.lax.map(lambda one: jnp.sum(jnp.minimum(one * p, q)), lam.ravel())
    return alphas.reshape(lam.shape)


def _data_weight(n_real: int, n_fake: int, log_lam: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(math.log(n_real / n_fake) - 2 * log_lam)


def _both(
    log_r_real: ArrayLike, log_r_fake: ArrayLike, lam: ArrayLike, grid: bool = False
) -> Curve:
    """α and β from both samples, at one λ or on a grid."""
    real, _ = _inputs("log_r_real", log_r_real, lam, grid)
    fake, _ = _inputs("log_r_fake", log_r_fake, lam, grid)
    dtype = np.promote_types(real.dtype, fake.dtype)
    real, fake, log_lam = real.astype(dtype), fake.astype(dtype), _log_lam(lam, dtype)
    kernel = _grid if grid else _one
    beta_p, alpha_p = kernel(-real, -log_lam)
    alpha_q, beta_q = kernel(fake, log_lam)
    weight = _data_weight(real.size, fake.size, log_lam)
    return Curve(
        jnp.asarray(lam).astype(dtype),
        weight * alpha_p + (1 - weight) * alpha_q,
        weight * beta_p + (1 - weight) * beta_q,
    )


# --- checks -------------------------------------------------------------------------------------


def _float(value: ArrayLike) -> jax.Array:
    """value as a float64 array if it is one, else float32 (bfloat16 is too short for a mean)."""
    array = jnp.asarray(value)
    return array if array.dtype == jnp.float64 else array.astype(jnp.float32)


def _log_lam(lam: Any, dtype: Any) -> jax.Array:
    """log λ in dtype, after the checks."""
    value = jnp.asarray(check_lam(lam)).astype(dtype)
    if not isinstance(value, Tracer):
        # 1e-50 is positive, but not as a float32.
        good = (value >= jnp.finfo(dtype).tiny) & jnp.isfinite(value)
        if not bool(good.all()):
            raise ConfigError(f"λ must be a finite positive {np.dtype(dtype)}, got {lam!r}.")
    return jnp.log(value)


def _samples(name: str, log_r: Any) -> jax.Array:
    """log_r as floats, [N], after the checks."""
    value = _float(log_r)
    if value.ndim != 1 or value.size == 0:
        raise DataError(f"{name} needs one log-ratio per sample, [N] with N ≥ 1: {value.shape}.")
    if not isinstance(value, Tracer) and bool(jnp.isnan(value).any()):
        count = int(jnp.isnan(value).sum())
        raise DataError(f"{name} has {count} NaN among {value.size} log-ratios.")
    return value


def _inputs(name: str, log_r: Any, lam: Any, grid: bool = False) -> tuple[jax.Array, jax.Array]:
    value = _samples(name, log_r)
    log_lam = _log_lam(lam, value.dtype)
    if log_lam.ndim != (1 if grid else 0) or log_lam.size == 0:
        raise ConfigError(
            f"lam has shape {log_lam.shape}: `curve` takes a grid [L], the others one λ (use vmap)."
        )
    return value, log_lam
