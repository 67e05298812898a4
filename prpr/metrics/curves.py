"""The frontier α(λ), β(λ) and its F-scores from features, by classifiers.

Notation
  P, Q        real data (always first) and the model; N, M samples; r = p/q
  s           a held-out estimate of log r at a sample, high where it looks real
  α(λ)        ∫ min(λp, q): the precision on the ray α = λβ;   β(λ) = α(λ)/λ the recall
  F_b         max over λ of (1 + b²) α(λ) / (1 + b² λ); b > 1 favours recall

The frontier is the error of the best classifier (Simon et al. 2019, arXiv:1905.05441; Sykes,
Simon & Rabin 2024, arXiv:2405.01611). One that calls a sample real where s >= t has

    R(λ, t) = λ P(s < t) + Q(s >= t) >= α(λ),       equal for s = log r and t = −log λ

since min(λp, q) is at most λp on one side of t and at most q on the other. So on samples that s
was not fitted to, R is a bound from above, whatever s is. Two empirical values:

  best     min over t of R on all samples: biased downwards, since t is fitted to the noise
  chosen   R on each fold at the t that is best on the other folds: biased upwards, as that t is
           not quite the best; a bound like R, if R's noise is all that a t knows

and the VALUE is (best + chosen)/2, whose biases cancel: they are those of the two sides of one
minimum. What remains is the bias upwards of a classifier that is not the best one; it falls as N
grows, and is larger for differences that take more samples to find. Measured, mean |error| of
α(λ)/min(1, λ) as in `classifiers`, of four estimates from the same s:

  D, N          plug-in  chosen  value  best
  2, 500        ..
  (the plug-in is the mean of min(λr̂, 1) over Q and of min(λ, 1/r̂) over P, see `plug_in`)

By which classifier: "alpha_<λ>" by the cross-fitted classifiers of `classifiers`, or
"alpha_knn_<λ>" by the share of real samples among the k nearest others of both sets, k =
√(N + M), at most NEAREST: the leave-one-out nearest-neighbour classifier of Sykes et al.
"""

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from prpr import errors
from prpr.metrics import classifiers, intervals, neighbours
from prpr.metrics.classifiers import Scores
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE, REAL, Groups, split
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

NAMES = ("alpha_<λ>", "beta_<λ>", "f_<b>", "alpha_knn_<λ>", "beta_knn_<λ>", "f_knn_<b>")
ESTIMATORS = ("classifier", "knn")
NEAREST = 128
FINE = 128  # thresholds are every sample near the ends and 1/FINE of the tail's samples apart
GRID = np.geomspace(1e-3, 1e3, 241)  # the λ among which F_b has its maximum
_NAME = re.compile(r"(alpha|beta|f)(_knn)?_(.*)", re.DOTALL)


class Curve(NamedTuple):
    """A measured frontier; all (L,).

    Attributes:
      lam: λ.
      alpha, beta: α(λ) and β(λ) = α(λ)/λ.
      low, high: the interval of α at the options' level; β's is this over λ.
      upper: a limit that α exceeds with probability 1 − level at most, see `curve`.
      plug_in: the plug-in estimate of α, for comparison.
    """

    lam: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    low: np.ndarray
    high: np.ndarray
    upper: np.ndarray
    plug_in: np.ndarray


def curve(
    real: Statistics,
    fake: Statistics,
    lam_grid: ArrayLike | None = None,
    options: Options | None = None,
    estimator: str = "classifier",
) -> Curve:
    """The frontier on a grid of λ, with intervals and a confident bound from above.

    `upper` adds to each of the two proportions of "chosen" its exact one-sided binomial limit
    (Clopper-Pearson) at 1 − (1 − level)/2, as `prpr.frontier.upper_bound` does for one held-out
    set. It holds whatever the classifier, as far as folds are independent: each scores with its
    own classifier, which was fitted to others of the folds.

    Args:
      real, fake: samples with features.
      lam_grid: λ > 0, (L,); by default 81 from 1/100 to 100, evenly in log λ.
      options: level, groups, seed, progress.
      estimator: "classifier" or "knn".

    Raises:
      ConfigError: a λ that is not positive and finite, an unknown estimator, a bad option.
      DataError: fewer than `classifiers.LEAST` samples in a set, or no features.
    """
    options = options or Options()
    lam = check_lam(np.geomspace(1e-2, 1e2, 81) if lam_grid is None else lam_grid)
    scores = log_ratios(real, fake, options, estimator)
    counts = _count(scores, options)
    found = [intervals.estimate(one, options.level) for one in _alphas(counts, lam, scores)]
    alpha = np.array([one.value for one in found])
    return Curve(
        lam,
        alpha,
        alpha / lam,
        np.array([one.low for one in found]),
        np.array([one.high for one in found]),
        _upper(counts, lam, options.level),
        plug_in(scores.real, scores.fake, lam),
    )


def frontier(
    real: Statistics,
    fake: Statistics,
    lam: ArrayLike,
    options: Options | None = None,
    estimator: str = "classifier",
) -> list[Replicates]:
    """Replicates of α at each λ, the classifiers held fixed. Args and raises as `curve`.

    The classifiers are not fitted anew without each group, so their own variation is not in the
    interval. Measured at level .95: see the module's head.
    """
    options, lam = options or Options(), check_lam(lam)
    scores = log_ratios(real, fake, options, estimator)
    return _alphas(_count(scores, options), lam, scores)


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


def check_lam(lam: ArrayLike) -> np.ndarray:
    """λ as float64 (L,), L >= 1; ConfigError unless all are positive and finite."""
    out = np.atleast_1d(np.asarray(lam, np.float64))
    if out.ndim != 1 or out.size == 0 or not (np.isfinite(out).all() and (out > 0).all()):
        raise errors.ConfigError(
            f"lam={lam!r} of a frontier must be one or several positive finite numbers"
        )
    return out


# --- the estimate of log r -------------------------------------------------------------


def log_ratios(
    real: Statistics, fake: Statistics, options: Options, estimator: str = "classifier"
) -> Scores:
    """Held-out log-ratios of both sets, see `Scores`. Raises as `curve`."""
    if estimator == "classifier":
        return classifiers.held_out(real, fake, options)
    if estimator == "knn":
        return knn(real, fake, options)
    raise errors.unknown_name("estimator", estimator, ESTIMATORS)


def neighbours_used(n: int, m: int) -> int:
    """k = √(N + M), at most NEAREST: more neighbours of all samples would fill the memory."""
    return min(int(np.sqrt(n + m)), NEAREST)


def knn(real: Statistics, fake: Statistics, options: Options) -> Scores:
    """log((a + ½)/(k − a + ½)) − log(N/M), where a of the k nearest others are real.

    Ties for the last places are shared out in proportion, so duplicates favour neither set. Both
    sets have the same constant: N − 1 or M − 1 in it would tell the sample's own label.
    """
    classifiers.check_enough(real, fake)
    n, m = real.n, fake.n
    k = neighbours_used(n, m)
    of_real, of_fake = neighbours.across(real, fake, k)
    share_real = _own_share(neighbours.within(real, k).distances, of_real.distances, k)
    share_fake = k - _own_share(neighbours.within(fake, k).distances, of_fake.distances, k)
    scores = [
        np.log((a + 0.5) / (k - a + 0.5)) - np.log(n / m) for a in (share_real, share_fake)
    ]
    fold = [
        split(len(x), classifiers.FOLDS, options.seed, side).labels()
        for x, side in zip(scores, (REAL, FAKE), strict=True)
    ]
    return Scores(*scores, *fold)


def _own_share(own: np.ndarray, other: np.ndarray, k: int) -> np.ndarray:
    """(n,) how many of the k nearest of both lists, each (n, k) ascending, are from the first."""
    out = np.empty(len(own))
    for start in range(0, len(own), classifiers.ROWS):
        a, b = own[start : start + classifiers.ROWS], other[start : start + classifiers.ROWS]
        last = np.partition(np.concatenate([a, b], axis=1), k - 1, axis=1)[:, k - 1 : k]
        inside, others = (a < last).sum(axis=1), (b < last).sum(axis=1)
        tied, rivals = (a == last).sum(axis=1), (b == last).sum(axis=1)
        left = k - inside - others
        out[start : start + classifiers.ROWS] = inside + left * tied / (tied + rivals)
    return out


# --- the least error -------------------------------------------------------------------


class _Counts(NamedTuple):
    """below (G, K, T), above (H, K, T): samples of group and fold with s < t, and s >= t.

    T thresholds, the first −∞ and the last ∞; real (G, K), fake (H, K): how many samples.
    """

    below: np.ndarray
    above: np.ndarray
    real: np.ndarray
    fake: np.ndarray

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """P(s < t) (1 + G, T) and Q(s >= t) (1 + H, T): of all, and without each group."""
        return _left(self.below.sum(axis=1), self.real.sum(axis=1)), _left(
            self.above.sum(axis=1), self.fake.sum(axis=1)
        )


def _left(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
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


def _count(scores: Scores, options: Options) -> _Counts:
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
    return _Counts(below, fake[:, :, None] - not_above, real, fake)


def least(below: np.ndarray, above: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """min over t of λ·below + above: (A, T), (B, T), (L,) -> (L, A, B). Concave in λ."""
    out = np.empty((len(lam), len(below), len(above)))
    for at, one in enumerate(lam):
        for row, shares in enumerate(one * below):
            out[at, row] = (shares + above).min(axis=1)
    return out


def _chosen(counts: _Counts, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(s < t) (L, 1 + G) and Q(s >= t) (L, 1 + H) at each fold's t, chosen on the others."""
    shape = len(lam), -1
    miss_real, miss_fake = 0, 0
    for k in range(counts.real.shape[1]):
        rest = [
            np.delete(one, k, axis=1).sum(axis=(0, 1)) for one in (counts.below, counts.above)
        ]
        sizes = [np.delete(one, k, axis=1).sum() for one in (counts.real, counts.fake)]
        p, q = rest[0] / sizes[0], rest[1] / sizes[1]
        at = np.array([np.argmin(one * p + q) for one in lam])
        miss_real = miss_real + counts.below[:, k, at]
        miss_fake = miss_fake + counts.above[:, k, at]
    return (
        _left(np.asarray(miss_real), counts.real.sum(axis=1)).T.reshape(shape),
        _left(np.asarray(miss_fake), counts.fake.sum(axis=1)).T.reshape(shape),
    )


def _theta(counts: _Counts, lam: np.ndarray) -> np.ndarray:
    """(best + chosen)/2, not capped, (L, 1 + G, 1 + H)."""
    p, q = _chosen(counts, lam)
    chosen = lam[:, None, None] * p[:, :, None] + q[:, None, :]
    return (least(*counts.rates(), lam) + chosen) / 2


def _alphas(counts: _Counts, lam: np.ndarray, scores: Scores) -> list[Replicates]:
    n, m = len(scores.real), len(scores.fake)
    return [
        _capped(theta, min(1.0, one), _draws(theta, one, n, m), scores.notes)
        for one, theta in zip(lam, _theta(counts, lam), strict=True)
    ]


def _f_score(counts: _Counts, b: float, scores: Scores) -> Replicates:
    scale = (1 + b * b) / (1 + b * b * GRID)
    theta = (_theta(counts, GRID) * scale[:, None, None]).max(axis=0)
    n, m = len(scores.real), len(scores.fake)
    return _capped(theta, 1.0, _draws(theta, 1.0, n, m), scores.notes)


def _capped(theta: np.ndarray, top: float, draws: float, notes: tuple[str, ...]) -> Replicates:
    theta[0, 0] = min(theta[0, 0], top)
    return Replicates(theta, draws, "capped", None, notes, top=top)


def _draws(theta: np.ndarray, lam: float, n: int, m: int) -> float:
    """How many draws the interval has at most: what no error at all, or no gap, leaves open.

    Without an error α/min(1, λ) <= (λ/N + 1/M) log(1/miss)/min(1, λ). Between 0 and the top, its
    variance is at least that of M draws (N, for λ < 1) of a proportion.
    """
    value = theta[0, 0] / min(1.0, lam)
    if value <= 0:
        return min(1.0, lam) / (lam / n + 1 / m)
    size = m if lam >= 1 else n
    return size if value >= 1 else size / (1 - value)


def _upper(counts: _Counts, lam: np.ndarray, level: float) -> np.ndarray:
    from scipy.special import betaincinv

    intervals.check_level(level)
    p, q = (one[:, 0] for one in _chosen(counts, lam))
    limits = []
    for share, n in ((p, counts.real.sum()), (q, counts.fake.sum())):
        missed = np.rint(share * n)
        rest = np.maximum(n - missed, 1)
        limit = betaincinv(missed + 1, rest, 1 - (1 - level) / 2)
        limits.append(np.where(missed == n, 1.0, limit))
    return np.minimum(lam * limits[0] + limits[1], np.minimum(1, lam))


# --- names -----------------------------------------------------------------------------


class _Asked(NamedTuple):
    what: str
    estimator: str
    number: float


def _read(name: str) -> _Asked | None:
    """A name's parts, None for another family's; ConfigError for one that cannot be read."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    what, knn_, text = match.groups()
    letter = "b" if what == "f" else "λ"
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not (np.isfinite(number) and number > 0):
        raise errors.ConfigError(
            f"metric {name!r}: {text!r} is no {letter}; write {what}{knn_ or ''}_<{letter}> with "
            f"a positive finite number, such as {what}{knn_ or ''}_0.5"
        )
    return _Asked(what, "knn" if knn_ else "classifier", number)


def _owns(name: str) -> bool:
    return _read(name) is not None


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, Replicates]:
    asked = {name: one for name in names if (one := _read(name)) is not None}
    out: dict[str, Replicates] = {}
    for estimator in ESTIMATORS:
        own = {name: one for name, one in asked.items() if one.estimator == estimator}
        if not own:
            continue
        scores = log_ratios(real, fake, options, estimator)
        counts = _count(scores, options)
        k = neighbours_used(real.n, fake.n) if estimator == "knn" else None
        for name, one in own.items():
            if one.what == "f":
                found = _f_score(counts, one.number, scores)
            else:
                found = _alphas(counts, np.array([one.number]), scores)[0]
            if one.what == "beta":
                found = found._replace(
                    theta=found.theta / one.number, top=found.top / one.number
                )
            out[name] = found._replace(k=k)
    return {name: out[name] for name in names}


FAMILY = Family("frontier", NAMES, _owns, _replicates)
