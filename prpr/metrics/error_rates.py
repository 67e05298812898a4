"""What a classifier's two error rates say of the frontier: counts of scores, no features.

Notation: s scores of N real and M fake samples, high where real; t thresholds; G and H groups of
real and fake samples, K folds of both; R(λ, t) = λ P(s < t) + Q(s >= t). `curves` says what for.
"""

from typing import NamedTuple

import numpy as np

from prpr.metrics import intervals
from prpr.metrics.classifiers import Scores
from prpr.metrics.family import Options
from prpr.metrics.groups import FAKE, REAL, Groups, split

FINE = 128  # thresholds are every sample near the ends and 1/FINE of the tail's samples apart
GRID = np.geomspace(1e-3, 1e3, 241)  # λ whose best thresholds are kept


class Counts(NamedTuple):
    """below (G, K, T), above (H, K, T): samples of group and fold with s < t, and s >= t.

    thresholds (T,), the first −∞ and the last ∞; real (G, K), fake (H, K): how many samples.
    """

    below: np.ndarray
    above: np.ndarray
    real: np.ndarray
    fake: np.ndarray
    thresholds: np.ndarray

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """P(s < t) (1 + G, T) and Q(s >= t) (1 + H, T): of all, and without each group."""
        return left_out(self.below.sum(axis=1), self.real.sum(axis=1)), left_out(
            self.above.sum(axis=1), self.fake.sum(axis=1)
        )


def left_out(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(G, ...) counts of groups of these sizes -> (1 + G, ...) shares: all, without each."""
    total, n = counts.sum(axis=0, keepdims=True), sizes.sum()
    kept = (n - sizes).reshape(-1, *[1] * (counts.ndim - 1))
    return np.concatenate([total / n, (total - counts) / kept])


def thresholds(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """−∞, midpoints between scores of both sets, ∞: all while few, else those that matter.

    Neighbouring ones are 1 + r/FINE samples apart, r the rank from the nearer end, so that small
    shares, which a large or small λ multiplies, are as finely cut as large ones; and the best one
    for each λ of GRID is among them, such as the gap between two sets that are told apart.
    """
    pool = np.unique(np.concatenate([real, fake]))
    middles = (pool[:-1] + pool[1:]) / 2
    rank, ranks = 0, []
    while rank < (len(middles) + 1) // 2:
        ranks += [rank, len(middles) - 1 - rank]
        rank += 1 + rank // FINE
    if len(middles) > 0:
        below = np.searchsorted(np.sort(real), middles) / len(real)
        above = 1 - np.searchsorted(np.sort(fake), middles) / len(fake)
        ranks += [int(np.argmin(one * below + above)) for one in GRID]
    return np.concatenate([[-np.inf], middles[np.unique(ranks).astype(int)], [np.inf]])


def count(scores: Scores, options: Options) -> Counts:
    """The counts of scores, by the jackknife's groups and the scores' folds."""
    t = thresholds(scores.real, scores.fake)
    parts = []
    for s, fold, side in (
        (scores.real, scores.real_fold, REAL),
        (scores.fake, scores.fake_fold, FAKE),
    ):
        groups: Groups = split(len(s), options.groups, options.seed, side)
        shape = len(groups.sizes), int(fold.max()) + 1
        cell = groups.labels() * shape[1] + fold
        # s < t[i] from the first i whose threshold exceeds s.
        first = np.searchsorted(t, s, side="right")
        flat = np.bincount(cell * len(t) + first, minlength=shape[0] * shape[1] * len(t))
        below = flat.reshape(*shape, len(t)).cumsum(axis=2)
        parts.append((below, below[:, :, -1]))
    (below, real), (not_above, fake) = parts
    return Counts(below, fake[:, :, None] - not_above, real, fake, t)


def least(below: np.ndarray, above: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """min over t of λ·below + above: (A, T), (B, T), (L,) -> (L, A, B). Concave in λ."""
    out = np.empty((len(lam), len(below), len(above)))
    for at, one in enumerate(lam):
        for row, shares in enumerate(one * below):
            out[at, row] = (shares + above).min(axis=1)
    return out


def chosen(counts: Counts, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(s < t) (L, 1 + G) and Q(s >= t) (L, 1 + H) at each fold's t, chosen on the others."""
    miss_real, miss_fake = 0, 0
    for k in range(counts.real.shape[1]):
        rest = [np.delete(one, k, axis=1).sum(axis=(0, 1)) for one in (counts.below, counts.above)]
        sizes = [np.delete(one, k, axis=1).sum() for one in (counts.real, counts.fake)]
        p, q = rest[0] / sizes[0], rest[1] / sizes[1]
        at = np.array([lowest(one * p + q, counts.thresholds) for one in lam])
        miss_real = miss_real + counts.below[:, k, at]
        miss_fake = miss_fake + counts.above[:, k, at]
    return (
        left_out(np.asarray(miss_real), counts.real.sum(axis=1)).T,
        left_out(np.asarray(miss_fake), counts.fake.sum(axis=1)).T,
    )


def lowest(risk: np.ndarray, thresholds: np.ndarray) -> int:
    """Where risk (T,) is least: in the first such stretch, as far from what is worse as it goes."""
    first = int(np.argmin(risk))
    higher = np.flatnonzero(risk[first:] > risk[first])
    last = first + int(higher[0]) - 1 if higher.size else len(risk) - 1
    if first == 0 or last == len(risk) - 1:
        return first if first == 0 else last
    worse = thresholds[[first - 1, last + 1]]
    middle = np.where(np.isfinite(worse), worse, thresholds[[first, last]]).mean()
    return first + int(np.argmin(np.abs(thresholds[first : last + 1] - middle)))


def value(counts: Counts, lam: np.ndarray) -> np.ndarray:
    """(best + chosen)/2, not capped, (L, 1 + G, 1 + H)."""
    p, q = chosen(counts, lam)
    held_out = lam[:, None, None] * p[:, :, None] + q[:, None, :]
    return (least(*counts.rates(), lam) + held_out) / 2


def upper_limit(counts: Counts, lam: np.ndarray, level: float) -> np.ndarray:
    """Confident limit of λP + Q at the chosen t, (L,), capped at min(1, λ); see `curves.curve`."""
    from scipy.special import betaincinv

    intervals.check_level(level)
    p, q = (one[:, 0] for one in chosen(counts, lam))
    limits = []
    for share, n in ((p, counts.real.sum()), (q, counts.fake.sum())):
        missed = np.rint(share * n)
        rest = np.maximum(n - missed, 1)
        limit = betaincinv(missed + 1, rest, 1 - (1 - level) / 2)
        limits.append(np.where(missed == n, 1.0, limit))
    return np.minimum(lam * limits[0] + limits[1], np.minimum(1, lam))


def plug_in(log_r_real: np.ndarray, log_r_fake: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """w mean_P min(λ, 1/r̂) + (1 − w) mean_Q min(λr̂, 1) with w = N/(N + Mλ²), (L,).

    `prpr.frontier.alpha_both`, on the host. It believes r̂, so it errs both ways.
    """
    n, m = len(log_r_real), len(log_r_fake)
    out = np.empty(len(lam))
    for at, x in enumerate(np.log(lam)):
        weight = 1 / (1 + m / n * np.exp(2 * x))
        from_real = np.exp(np.minimum(x, -log_r_real)).mean()
        out[at] = weight * from_real + (1 - weight) * np.exp(np.minimum(x + log_r_fake, 0)).mean()
    return out
