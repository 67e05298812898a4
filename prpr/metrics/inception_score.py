"""Inception Score: confident predictions of many classes, of generated samples alone.

Notation
  p_i        class probabilities (C,) of generated sample i = 1..M
  S          number of splits, 10; the value is the mean of their scores

  IS = 1/S Σ_s exp( 1/M_s Σ_{i in s} KL(p_i ‖ p̄_s) ),   p̄_s the mean of p_i in split s

Salimans et al. 2016 (arXiv:1606.03498). The convention of the field is M = 50,000 in 10 splits,
so that each p̄_s comes from 5,000 samples; a score is bounded by C and biased towards 1 where a
split is small, so only numbers of equal M can be compared. The original cuts the samples in the
order in which they come; here splits are random, as in torch-fidelity: a folder sorted by class
would have one class a split and a score of 1.

The splits are dealt so that every group of `groups` is spread over all of them: θ[0, h] then is
exact, from sums over the cells (split, group). Published "±" are standard deviations between
splits, which are no errors of the mean.
"""

import numpy as np
from scipy import sparse, special

from prpr import errors
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE, Groups, split
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

SPLITS = 10
USUAL = 50_000  # samples behind published scores
ROWS = 8192  # samples in a block


def inception_score(fake: Statistics, seed: int = 0) -> float:
    """The mean score of 10 random splits.

    Raises:
      DataError: statistics without probabilities, or fewer than two samples a split.
    """
    return float(_scores(fake, Options(seed=seed))[0])


def splits(groups: Groups) -> np.ndarray:
    """(M,) the split of each sample: they are dealt to the splits in the groups' order."""
    out = np.empty(len(groups.order), np.int64)
    out[groups.order] = np.arange(len(groups.order)) % SPLITS
    return out


def _scores(fake: Statistics, options: Options) -> np.ndarray:
    """The score of all samples, then without each group: (1 + H,)."""
    probabilities = fake.probabilities
    if probabilities is None:
        raise errors.DataError(
            "is needs the class probabilities of every generated sample, and the fake statistics "
            "have none: encode with 'inception', or give "
            "statistics(features, probabilities=softmax(logits))"
        )
    if fake.n < 2 * SPLITS:
        raise errors.DataError(
            f"is takes the mean of {SPLITS} splits of at least 2 samples, got {fake.n} samples: "
            "give more"
        )
    groups = split(fake.n, options.groups, options.seed, FAKE)
    count = len(groups.cut) - 1
    cell = splits(groups) * count + groups.labels()
    cells = SPLITS * count
    size = np.bincount(cell, minlength=cells).astype(np.float64)
    sums, inside = np.zeros((cells, probabilities.shape[1])), np.zeros(cells)
    for start in range(0, fake.n, ROWS):
        some = cell[start : start + ROWS]
        p = probabilities[start : start + ROWS].astype(np.float64)
        member = sparse.csr_array((np.ones(len(p)), (some, np.arange(len(p)))), (cells, len(p)))
        sums += member @ p
        inside += np.bincount(some, special.xlogy(p, p).sum(axis=1), cells)

    def left(x: np.ndarray) -> np.ndarray:
        """Sums of cells over groups: of all, then without each. (1 + H, S, ...)."""
        x = x.reshape(SPLITS, count, *x.shape[1:])
        total = x.sum(axis=1)
        return np.stack([total, *(total - x[:, h] for h in range(count))])

    n = left(size)
    mean = np.maximum(left(sums), 0) / n[..., None]
    divergence = left(inside) / n - special.xlogy(mean, mean).sum(axis=-1)
    return np.exp(divergence).mean(axis=1)


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, Replicates]:
    del real, names
    scores = _scores(fake, options)
    notes = ()
    if fake.n < USUAL:
        notes = (
            f"is: {fake.n} samples in {SPLITS} splits; published scores have {USUAL}, and fewer "
            "samples give a lower score: compare at equal numbers only",
        )
    # The real samples have no part in it, whatever their number.
    theta = np.tile(scores, (1 + options.groups, 1))
    return {"is": Replicates(theta, fake.n, "real", None, notes)}


FAMILY = Family("Inception Score", ("is",), ("is",).__contains__, _replicates)
