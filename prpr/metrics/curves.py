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

  best     min over t of R on all samples: too low, since t is fitted to their noise
  chosen   R on each fold at the t that is best on the other folds: too high, by what that t is
           worse and by what s is

The VALUE is (best + chosen)/2, capped at min(1, λ). Best alone is Sykes et al.'s and Simon et
al.'s estimate; it has the least error below, because it is too low where a classifier that is
not the best one is too high. But on two samples of one distribution it is low by 0.63 √(2/N) at
λ = 1, more than two standard errors at any N: its interval held the truth in 71 % of 100 draws
(N = 300), that of the value in 90 %. Measured, mean |error| of α(λ)/min(1, λ) over the λ and
pairs of `classifiers`, and of the value by neighbours:

  D, N        plug-in  chosen  value  best    knn
  2, 500       .025     .024    .018  .016    .024
  16, 500      .067     .049    .042  .036    .054
  16, 2000     .038     .020    .018  .016    .039
  16, 5000     .029     .017    .015  .013    .031
  64, 500      .087     .067    .061  .054    .079
  64, 2000     .052     .029    .026  .024    .052
  512, 2000    .073     .052    .051  .049    .123

Nearly all of it is upwards: what no classifier finds from N samples counts as equal. The worst
pair had .18, one direction of 64 narrowed to 0.4 of its spread, unseen at N = 500.

Replicates leave a group out of the error rates, with classifiers and chosen t held fixed, so an
interval lacks the classifiers' own variation. 95 % intervals held the true α(λ) at λ = .2, 1, 5 in

  classifier   N(0, I) shifted by 1, D = 2, N = 300 (80 draws)     97 %, 94 %, 99 %
               not shifted, D = 8, N = 300 (80)                    100 %, 97 %, 100 %
               shifted by 1, D = 8, N = 1000 (40)                  95 %, 95 %, 90 %
               shifted by 2.5, D = 8, N = 1000 (40)                100 %, 97 %, 90 %
  knn          shifted by 1, D = 2, N = 500 (200)                  92 %, 90 %, 91 %
               not shifted, D = 2, N = 500 (200)                   100 %, 85 %, 100 %
               shifted by 1, D = 8, N = 2000 (60)                  67 %, 72 %, 60 %: a bias of .022

and their own mean in 90 % to 100 % throughout. Where the classifiers are too weak (the table's
errors), no interval from them can hold the truth; the classifiers' `Curve.upper` is a bound even
then.

By which classifier: "alpha_<λ>" by the cross-fitted ones of `classifiers`, "alpha_knn_<λ>" by the
share of real samples among the k nearest others of both sets, k = √(N + M) but at most NEAREST,
N − 1 and M − 1: the nearest-neighbour classifier of Sykes et al. with its sample left out.
"""

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from prpr import errors
from prpr.metrics import classifiers, error_rates, intervals, neighbours
from prpr.metrics.classifiers import Scores
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE, REAL, split
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

NAMES = ("alpha_<λ>", "beta_<λ>", "f_<b>", "alpha_knn_<λ>", "beta_knn_<λ>", "f_knn_<b>")
ESTIMATORS = ("classifier", "knn")
NEAREST = 128
FEW = 20  # samples behind a number, below which a note says so
_NAME = re.compile(r"(alpha|beta|f)(_knn)?_(.*)", re.DOTALL)


class Curve(NamedTuple):
    """A measured frontier; all (L,).

    Attributes:
      lam: λ.
      alpha, beta: α(λ) and β(λ) = α(λ)/λ.
      low, high: the interval of α at the options' level; β's is this over λ.
      upper: a limit that α exceeds with probability 1 − level at most, see `curve`; None for
        estimator="knn".
      plug_in: the plug-in estimate of α, for comparison.
    """

    lam: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    low: np.ndarray
    high: np.ndarray
    upper: np.ndarray | None
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
    set. It holds whatever the classifiers, since none saw the labels of the fold that it scores;
    as far as folds are independent, which they nearly are: a fold's labels are in the classifiers
    of the other folds, on whose scores the fold's t is chosen. Measured at P = Q, D = 12, N = 60,
    where classifiers fit nothing but noise, 200 draws: α(1) exceeds it in 17 %, 8 % and 0.5 % at
    levels 50 %, 80 % and 95 %. Of estimator="knn" there is no such bound: a sample's own label is
    in the score of every sample near it.

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
    return of_scores(scores, lam, options, held_out=estimator == "classifier")


def of_scores(
    scores: Scores, lam: np.ndarray, options: Options | None = None, *, held_out: bool = True
) -> Curve:
    """`curve` of scores that are there already, such as a critic's on data that it never saw.

    Args:
      scores: log r̂ and folds, see `given`.
      lam: λ > 0, (L,).
      options: level, groups, seed.
      held_out: whether no sample was seen by what scores it; else there is no `upper`.
    """
    options = options or Options()
    counts = error_rates.count(scores, options)
    found = [intervals.estimate(one, options.level) for one in _alphas(counts, lam, scores)]
    alpha = np.array([one.value for one in found])
    return Curve(
        lam,
        alpha,
        alpha / lam,
        np.array([one.low for one in found]),
        np.array([one.high for one in found]),
        error_rates.upper_limit(counts, lam, options.level) if held_out else None,
        error_rates.plug_in(scores.real, scores.fake, lam),
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
    interval; the module's head says how well it covers.
    """
    options, lam = options or Options(), check_lam(lam)
    scores = log_ratios(real, fake, options, estimator)
    return _alphas(error_rates.count(scores, options), lam, scores)


def check_lam(lam: ArrayLike) -> np.ndarray:
    """λ as float64 (L,), L >= 1; ConfigError unless all are positive and finite."""
    out = np.atleast_1d(np.asarray(lam, np.float64))
    if out.ndim != 1 or out.size == 0 or not (np.isfinite(out).all() and (out > 0).all()):
        raise errors.ConfigError(
            f"lam={lam!r} of a frontier must be one or several positive finite numbers"
        )
    return out


def few(lam: np.ndarray, n: int, m: int) -> tuple[str, ...]:
    """Notes of the λ (L,) at which a frontier of N real and M fake samples rests on a handful."""
    return tuple(line for one in lam for line in _few(float(one), n, m))


def given(log_r_real: np.ndarray, log_r_fake: np.ndarray, options: Options) -> Scores:
    """Scores of log r̂ (N,) and (M,) that come from elsewhere, in random folds.

    Raises:
      DataError: fewer than `classifiers.LEAST` of a set, or values that are not finite.
    """
    folds = []
    for one, side, name in ((log_r_real, REAL, "real"), (log_r_fake, FAKE, "fake")):
        if one.ndim != 1 or len(one) < classifiers.LEAST or not np.isfinite(one).all():
            raise errors.DataError(
                f"log r̂ of {one.shape} {name} samples: a frontier takes (N,) finite ones, of at "
                f"least {classifiers.LEAST} samples"
            )
        folds.append(split(len(one), classifiers.FOLDS, options.seed, side).labels())
    return Scores(log_r_real, log_r_fake, *folds)


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
    """k = √(N + M), at most NEAREST, which memory has room for, and what the smaller set has."""
    return min(int(np.sqrt(n + m)), NEAREST, n - 1, m - 1)


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
    scores = [np.log((a + 0.5) / (k - a + 0.5)) - np.log(n / m) for a in (share_real, share_fake)]
    return given(scores[0], scores[1], options)


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


# --- replicates ------------------------------------------------------------------------


def _alphas(counts: error_rates.Counts, lam: np.ndarray, scores: Scores) -> list[Replicates]:
    n, m = len(scores.real), len(scores.fake)
    return [
        _capped(theta, min(1.0, one), _draws(theta, one, n, m), scores.notes + _few(one, n, m))
        for one, theta in zip(lam, error_rates.value(counts, lam), strict=True)
    ]


def _few(lam: float, n: int, m: int) -> tuple[str, ...]:
    """A note where R depends on a handful of samples, since λ times one of them is not small."""
    count, what = (n / lam, "real") if lam >= 1 else (m * lam, "fake")
    if count >= FEW:
        return ()
    return (
        f"the frontier at λ={lam:g} is read from about {count:.2g} of the {what} samples: it errs "
        f"upwards; give more of them, or a λ nearer to 1",
    )


def _f_score(counts: error_rates.Counts, b: float, scores: Scores) -> Replicates:
    """F_b at the λ where it is largest, among those of GRID with FEW samples behind a threshold.

    At the ends of GRID one sample has the weight of all that are needed for a value of 1.
    Replicates are at the same λ, since at a maximum the first derivative by λ is 0.
    """
    n, m = len(scores.real), len(scores.fake)
    grid = error_rates.GRID
    lam = grid[(grid >= FEW / m) & (grid <= n / FEW)]
    # (1 + b²)/(1 + b²λ), which b of any size leaves finite.
    weight = float((b / np.hypot(1, b)) ** 2)
    scale = 1 / (1 - weight + weight * lam)
    alpha = error_rates.value(counts, lam)
    found = np.minimum(alpha[:, 0, 0], np.minimum(lam, 1)) * scale
    at = int(np.argmax(found))
    theta = alpha[at] * scale[at]
    theta[0, 0] = found[at]
    if found[at] > 0:
        draws = _draws(alpha[at], lam[at], n, m) / (scale[at] * min(1.0, lam[at]))
    else:
        draws = 1 / (scale * (lam / n + 1 / m)).max()
    one = _capped(theta, 1.0, float(draws), scores.notes)
    # As large as that at an end, as far as its standard error tells.
    near = np.maximum(found[0], found[-1]) >= max(intervals.estimate(one, 0.68).low, 1e-300)
    if not near:
        return one
    end, more, edge = (
        (lam[0], "fake", "less") if found[0] > found[-1] else (lam[-1], "real", "more")
    )
    note = (
        f"F with b={b:g} may be larger at a λ {edge} than {end:.3g}, where {n} real and {m} fake "
        f"samples are too few to tell: give more {more} samples, or a b nearer to 1"
    )
    return one._replace(notes=(*one.notes, note))


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
        counts = error_rates.count(scores, options)
        k = neighbours_used(real.n, fake.n) if estimator == "knn" else None
        for name, one in own.items():
            if one.what == "f":
                found = _f_score(counts, one.number, scores)
            else:
                found = _alphas(counts, np.array([one.number]), scores)[0]
            if one.what == "beta":
                found = found._replace(theta=found.theta / one.number, top=found.top / one.number)
            out[name] = found._replace(k=k)
    return {name: out[name] for name in names}


def _expects(real: Statistics, fake: Statistics, names: tuple[str, ...]) -> int:
    knn_asked = any((one := _read(name)) and one.estimator == "knn" for name in names)
    return neighbours_used(real.n, fake.n) if knn_asked else 0


FAMILY = Family("frontier", NAMES, _owns, _replicates, expects=_expects)
