"""Rejection: each label draws until a proposal is accepted.

Notation: a(x) probability of acceptance, q' ∝ q a the accepted model, K budget, c threshold.

`reject` is optimal budgeted rejection sampling (Verine et al. 2024, arXiv:2311.00460): of all a
with the same mean acceptance, a = min(c r, 1) makes q' closest to p, in every f-divergence. With
c = λ the acceptance is α(λ) = E_q[min(λ r, 1)]; q' then has α = 1 on the ray λ/α(λ).

`drs` is discriminator rejection sampling (Azadi et al. 2018, arXiv:1810.06758): a = σ(F̂),

    F̂ = log r̂ − log r̂_M − log(1 − exp(log r̂ − log r̂_M − ε)) − γ

with r̂_M the largest r̂ seen, in a burn-in and since, and γ a percentile of F̂ + γ over the burn-in.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from prpr import train
from prpr.errors import DataError
from prpr.samplers import proposals
from prpr.samplers.proposals import Drawn
from prpr.samplers.settings import Cost, Drs, Reject

Array = jax.Array
Accept = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (log r̂, u) -> which are accepted

_ONCE = 2**30  # of the key of what is drawn before; the batches of proposals count from 0
_PILOT = 2048  # draws for a threshold, at least,
_EACH = 64  # and for each class: 1/α̂ of n draws is too large, by (1 − α)/(n α) of it at most
_EPS = 1e-6  # ε of F̂


def reject(
    system: train.System,
    state: train.TrainState,
    labels: np.ndarray,
    key: Array,
    settings: Reject,
    batch: int,
) -> Drawn:
    """Samples accepted with min(c r̂, 1); see `drawing.latents`.

    With a budget c solves Σ_y w_y / α_y(c) = K: w_y are the labels' shares, α_y(c) =
    E[min(c r̂, 1)] of samples of class y. Each label draws until it has its sample, so this is how
    many draws one takes on average.
    """
    once = 0
    if settings.budget is None:
        assert settings.lam is not None  # `check` has looked
        log_c = float(np.log(settings.lam))
    else:
        classes, count = np.unique(labels, return_counts=True)
        each = max(-(-_PILOT // len(classes)), _EACH)
        pilot = np.repeat(classes, each).astype(np.int32)
        seen = proposals.log_ratios(system, state, pilot, jax.random.fold_in(key, _ONCE), batch)
        log_c = threshold(seen.reshape(len(classes), each), count / len(labels), settings.budget)
        once = len(pilot)

    def accept(log_r: np.ndarray, u: np.ndarray) -> np.ndarray:
        return u < np.exp(np.minimum(log_c + log_r, 0.0))

    found = _until_accepted(system, state, labels, key, accept, batch, settings.limit)
    drawn = found.cost.generator
    said = (
        f"accepted with min(c r̂, 1), c = {np.exp(log_c):.4g}: {len(labels)} of {drawn} draws, "
        f"{len(labels) / drawn:.3g}"
    )
    cost = found.cost._replace(once=once, once_critic=once)
    return Drawn(found.z, cost, (said, *found.notes))


def threshold(log_r: np.ndarray, weights: np.ndarray, budget: float) -> float:
    """log c with Σ_y w_y / E[min(c r, 1)] = budget; ∞ for a budget of 1.

    Args:
      log_r: (C, M) of M samples of each of C classes, finite.
      weights: (C,) w_y, which sum to 1.
      budget: draws for one accepted sample, >= 1.
    """
    if budget == 1:
        return np.inf

    def draws(log_c: float) -> float:
        return float((weights / np.exp(np.minimum(log_c + log_r, 0.0)).mean(axis=1)).sum())

    # At the low end no sample is accepted more often than 1/budget, at the high end all are.
    low, high = float(-log_r.max() - np.log(budget)), float(-log_r.min())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if draws(middle) > budget else (low, middle)
    return high


def drs(
    system: train.System,
    state: train.TrainState,
    labels: np.ndarray,
    key: Array,
    settings: Drs,
    batch: int,
) -> Drawn:
    """Samples by discriminator rejection sampling; see the module's head and `drawing.latents`."""
    burn = np.resize(np.random.default_rng(0).permutation(labels), settings.burn_in)
    seen = proposals.log_ratios(system, state, burn, jax.random.fold_in(key, _ONCE), batch)
    largest = seen.max()
    gamma = float(np.quantile(logit_of(seen, largest, 0.0), settings.gamma))

    def accept(log_r: np.ndarray, u: np.ndarray) -> np.ndarray:
        nonlocal largest
        largest = max(largest, log_r.max())
        # u < σ(F̂); the logit of u, since σ of a large F̂ is 1.
        with np.errstate(divide="ignore"):
            return np.log(u) - np.log1p(-u) < logit_of(log_r, largest, gamma)

    found = _until_accepted(system, state, labels, key, accept, batch, settings.limit)
    said = (
        f"γ = {gamma:.4g}, log r̂_M = {largest:.4g}: {len(labels)} of {found.cost.generator} draws "
        "accepted"
    )
    cost = found.cost._replace(once=len(burn), once_critic=len(burn))
    return Drawn(found.z, cost, (said, *found.notes))


def logit_of(log_r: np.ndarray, largest: float, gamma: float) -> np.ndarray:
    """F̂ (N,) of log r̂ (N,) <= largest = log r̂_M."""
    above = log_r - largest
    return above - np.log(-np.expm1(above - _EPS)) - gamma


def _until_accepted(
    system: train.System,
    state: train.TrainState,
    labels: np.ndarray,
    key: Array,
    accept: Accept,
    batch: int,
    limit: int,
) -> Drawn:
    """A latent for each label: the first proposal of its own that is accepted.

    All labels without a sample get one proposal each; a batch that they do not fill gives each as
    many as go in. Draws after a label's first accepted one are not counted, like padding.

    Raises:
      DataError: labels without a sample after `limit` draws each, or r̂ that is not finite.
    """
    z = np.empty((len(labels), system.dim_z), np.float32)
    tries = np.zeros(len(labels), np.int64)
    pending, number, first_sight = np.arange(len(labels)), 0, []
    while len(pending):
        left = []
        for at in range(0, len(pending), batch):
            some = pending[at : at + batch]
            times = batch // len(some)
            slots = np.resize(some, batch)
            k = jax.random.fold_in(key, number)
            made, log_r, u = map(
                np.asarray, proposals.propose(system, state, k, jnp.asarray(labels[slots]))
            )
            number += 1
            used = times * len(some)
            log_r = proposals.checked(log_r[:used])
            if not tries[some].any():  # of all labels alike: later ones are of those that failed
                first_sight.append(log_r[: len(some)])
            good = accept(log_r, np.asarray(u[:used], np.float64)).reshape(times, len(some))
            hit, first = good.any(axis=0), good.argmax(axis=0)
            tries[some] += np.where(hit, first + 1, times)
            z[some[hit]] = made[(first * len(some) + np.arange(len(some)))[hit]]
            left.append(some[~hit])
        pending = np.concatenate(left)
        if len(pending) and tries[pending].max() >= limit:
            raise _not_filled(labels, pending, tries, limit)
    total = int(tries.sum())
    cost = Cost(len(labels), total, total)
    return Drawn(z, cost, (proposals.normalisation(system, np.concatenate(first_sight)),))


def _not_filled(
    labels: np.ndarray, pending: np.ndarray, tries: np.ndarray, limit: int
) -> DataError:
    classes = np.unique(labels[pending])
    some = ", ".join(map(str, classes[:5])) + (", ..." if len(classes) > 5 else "")
    rate = (len(labels) - len(pending)) / tries.sum()
    return DataError(
        f"{len(pending)} of {len(labels)} labels have no accepted sample after limit={limit} draws "
        f"each (classes {some}; {rate:.2g} of all draws were accepted): the critic takes nearly "
        "all that the generator makes of them for no data. Accept more (a smaller budget, a "
        "larger lam, a smaller gamma), or raise limit"
    )
