"""Critics and what they estimate: critic output -> log-ratio, and checks of the estimate.

Notation: p data density, q model density, r = p/q, log_r its logarithm, g the f-divergence
whose variational form the critic maximises, g* its conjugate, T the dual variable. P is data
and comes first.

    D_g(P‖Q) = sup_T E_p[T] − E_q[g*(T)],  attained at T = g'(r)    (Nguyen et al. 2010;
                                                                    Nowozin et al. 2016)

Two parametrisations of T by the critic's raw output v:

  * "log": T = g'(e^v), so that v itself is the log-ratio for every g, with no clamp and no domain
    to leave; for g = gan it is logistic regression of data against samples;
  * "dual": T = v clipped into the domain of g*, r̂ = (g*)'(T), as published; its ratio may vanish
    or go negative before the clip, and what the clip hides it loses.

`scale` multiplies the raw output first: a spectrally normalised critic's outputs are too small
to be log-ratios.

Checks of an estimate: E_q[r̂] = 1, E_p[1/r̂] = Q's mass where p > 0, and held-out calibration:
among samples with σ(log_r̂) = c, drawn half from p and half from q, the share from p is c.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import divergences
from prpr.errors import ConfigError, DataError, unknown_name

Array = jax.Array

PARAMETRISATIONS = ("log", "dual")
NAMES: tuple[str, ...] = ("hinge", "logistic", *divergences.NAMES)


class CriticLoss(NamedTuple):
    """A critic's loss and the log-ratio that its output stands for.

    Attributes:
      name: its name in `NAMES`.
      loss: (output on data (N,), output on samples (M,)) -> scalar that the critic descends.
      log_ratio: raw output -> log_r̂, elementwise.
      identified: False when the loss does not determine a ratio (hinge: only its sign); `log_ratio`
        is then the scaled output, to be looked at and not to be believed.
      scale: what the raw output was multiplied by.
    """

    name: str
    loss: Callable[[Array, Array], Array]
    log_ratio: Callable[[Array], Array]
    identified: bool
    scale: float = 1.0


def _hinge(scale: float) -> CriticLoss:
    def loss(real: Array, fake: Array) -> Array:
        return jax.nn.relu(1.0 - scale * real).mean() + jax.nn.relu(1.0 + scale * fake).mean()

    return CriticLoss("hinge", loss, lambda v: scale * v, False, scale)


def _mean(x: Array) -> Array:
    # Divided before it is summed: two values that saturated at the dtype's largest do not add to ∞.
    return (x / x.shape[0]).sum()


def _log_parametrised(name: str, scale: float, lam: float) -> CriticLoss:
    g = divergences.get(name)

    def loss(real: Array, fake: Array) -> Array:
        # −g*(g'(r)) = g(r) − r g'(r), the h of `divergences`.
        return -(_mean(g.f_prime_log(scale * real, lam)) + _mean(g.h_log(scale * fake, lam)))

    return CriticLoss(name, loss, lambda v: scale * v, True, scale)


def _dual(name: str, scale: float, lam: float) -> CriticLoss:
    g = divergences.get(name)

    def inside(v: Array) -> Array:
        low, high = g.domain(lam)
        margin = 1e-6 if v.dtype == jnp.float32 else 1e-12
        return jnp.clip(scale * v, low, high - margin)

    def loss(real: Array, fake: Array) -> Array:
        return _mean(g.conjugate(inside(fake), lam)) - inside(real).mean()

    return CriticLoss(name, loss, lambda v: g.log_ratio(inside(v), lam), True, scale)


def get(
    name: str, *, scale: float = 1.0, parametrisation: str = "log", lam: float = 1.0
) -> CriticLoss:
    """The critic loss of that name.

    Args:
      name: "hinge", "logistic" (the same as "gan"), or a divergence of `prpr.divergences`.
      scale: multiplies the critic's raw output.
      parametrisation: "log" or "dual", see the module's head.
      lam: λ of a critic that maximises smoothed_pr itself.

    Raises:
      ConfigError: for an unknown name or parametrisation, and for pr and total_variation, whose
        optimal critic takes two values and identifies no ratio.
    """
    if parametrisation not in PARAMETRISATIONS:
        raise unknown_name("parametrisation", parametrisation, PARAMETRISATIONS)
    if name == "hinge":
        return _hinge(scale)
    if name == "logistic":
        name = "gan"
    if name not in divergences.NAMES:
        raise unknown_name("critic loss", name, NAMES)
    if name in ("pr", "total_variation"):
        raise ConfigError(
            f"critic loss {name!r}: its optimal critic takes only two values, so no ratio can be "
            "read off it; estimate the ratio with 'logistic' (or 'smoothed_pr')."
        )
    make = _log_parametrised if parametrisation == "log" else _dual
    return make(name, scale, lam)


def normalisation(log_r_fake: Array) -> Array:
    """E_q[r̂] from samples of q, (N,) -> (); 1 for the true ratio. Finite for log_r̂ ≤ 80."""
    return jnp.exp(jax.nn.logsumexp(log_r_fake) - jnp.log(float(log_r_fake.shape[0])))


def inverse_normalisation(log_r_real: Array) -> Array:
    """E_p[1/r̂] from samples of p, (N,) -> (); Q's mass where p > 0 for the true ratio."""
    return normalisation(-log_r_real)


class Calibration(NamedTuple):
    """A reliability curve over bins of c = σ(log_r̂), data and samples weighted half and half.

    Attributes:
      predicted: (B,) mean c in each bin.  observed: (B,) weighted share of data in it.
      mass: (B,) share of all weight in it; sums to 1.
      error: () expected calibration error, Σ mass·|predicted − observed|.
    """

    predicted: Array
    observed: Array
    mass: Array
    error: Array


def calibration(log_r_real: Array, log_r_fake: Array, bins: int = 10) -> Calibration:
    """Reliability of log_r̂ as a classifier of data against samples, on held-out (N,) and (M,).

    Bins have equal width in c ∈ [0, 1]; an empty one has mass 0 and its own middle as both values.
    """
    c = jax.nn.sigmoid(jnp.concatenate([log_r_real, log_r_fake]))
    n, m = log_r_real.shape[0], log_r_fake.shape[0]
    weight = jnp.concatenate([jnp.full((n,), 0.5 / n), jnp.full((m,), 0.5 / m)]).astype(c.dtype)
    from_p = jnp.concatenate([jnp.ones((n,)), jnp.zeros((m,))]).astype(c.dtype)
    index = jnp.clip((c * bins).astype(jnp.int32), 0, bins - 1)

    def total(values: Array) -> Array:
        return jnp.zeros((bins,), c.dtype).at[index].add(values)

    mass = total(weight)
    safe = jnp.where(mass > 0, mass, 1.0)
    middle = (jnp.arange(bins, dtype=c.dtype) + 0.5) / bins
    predicted = jnp.where(mass > 0, total(weight * c) / safe, middle)
    observed = jnp.where(mass > 0, total(weight * from_p) / safe, middle)
    return Calibration(predicted, observed, mass, (mass * jnp.abs(predicted - observed)).sum())


def auc(log_r_real: Array, log_r_fake: Array) -> Array:
    """P(log_r̂ of data > log_r̂ of a sample), ties half: ½ for a critic that sees no difference.

    Sorted ranks (Mann-Whitney), O((N + M) log(N + M)) and no N x M array.
    """
    order = jnp.sort(log_r_fake)
    below = jnp.searchsorted(order, log_r_real, side="left")
    upto = jnp.searchsorted(order, log_r_real, side="right")
    return ((below + upto).astype(log_r_real.dtype) / (2.0 * log_r_fake.shape[0])).mean()


class Recalibration(NamedTuple):
    """log_r = slope · log_r̂ + offset: Platt's scaling of a log-ratio."""

    slope: Array
    offset: Array

    def __call__(self, log_r: Array) -> Array:
        return self.slope * log_r + self.offset


def recalibrate(
    log_r_real: Array,
    log_r_fake: Array,
    iterations: int = 20,
    known: tuple[Array | float, Array | float] = (0.0, 0.0),
) -> Recalibration:
    """The slope and offset that maximise held-out logistic likelihood, by Newton's method.

    Data and samples weigh half each, whatever their numbers. A critic that has overfitted its
    training data spreads log_r̂ too wide; the slope says by how much (1: calibrated, below 1: too
    wide). A weak ridge towards (1, 0) keeps separable sets finite (Platt 1999).

    Args:
      log_r_real, log_r_fake: (N,), (M,).
      iterations: of Newton's method.
      known: (N,), (M,) parts of the log-ratio that stand beside slope · log_r̂ + offset as they
        are, such as what classes of other shares take out.
    """
    n, m = log_r_real.shape[0], log_r_fake.shape[0]
    x = jnp.concatenate([log_r_real, log_r_fake])
    y = jnp.concatenate([jnp.ones((n,)), jnp.zeros((m,))]).astype(x.dtype)
    weight = jnp.concatenate([jnp.full((n,), 0.5 / n), jnp.full((m,), 0.5 / m)]).astype(x.dtype)
    ridge = 1e-3
    start = jnp.array([1.0, 0.0], x.dtype)
    design = jnp.stack([x, jnp.ones_like(x)], axis=1)
    sizes = jnp.asarray(0.5 ** np.arange(12), x.dtype)
    beside = jnp.concatenate(
        [
            jnp.broadcast_to(jnp.asarray(part, x.dtype), (size,))
            for part, size in zip(known, (n, m), strict=True)
        ]
    )

    def loss(w: Array) -> Array:
        logit = design @ w + beside
        pull = 0.5 * ridge * jnp.square(w - start).sum()
        return (weight * (jax.nn.softplus(logit) - y * logit)).sum() + pull

    def newton(w: Array, _) -> tuple[Array, None]:
        c = jax.nn.sigmoid(design @ w + beside)
        gradient = design.T @ (weight * (c - y)) + ridge * (w - start)
        hessian = (design * (weight * c * (1 - c))[:, None]).T @ design
        step = jnp.linalg.solve(hessian + ridge * jnp.eye(2, dtype=x.dtype), gradient)
        # A full step overshoots where σ is saturated, as it is for a log_r̂ that is too wide, and
        # then comes back: take the best of the halved ones.
        tried = w[None, :] - sizes[:, None] * step[None, :]
        return tried[jnp.argmin(jax.vmap(loss)(tried))], None

    w, _ = jax.lax.scan(newton, start, None, length=iterations)
    return Recalibration(w[0], w[1])


def check_log_ratio(log_r: Array, where: str) -> None:
    """Raises DataError if a concrete log_r is empty, not 1-D, or holds NaN; `where` names it."""
    if log_r.ndim != 1 or log_r.shape[0] == 0:
        raise DataError(f"{where}: log-ratios must be a non-empty (N,) array, got {log_r.shape}.")
    bad = int(jnp.isnan(log_r).sum())
    if bad:
        raise DataError(f"{where}: {bad} of {log_r.shape[0]} log-ratios are NaN.")
