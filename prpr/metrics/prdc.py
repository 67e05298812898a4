"""Precision and recall, density and coverage, from exact nearest neighbours (numpy, tiled).

Notation
  x_i     features of N real samples (P, always first),  y_j  features of M fake samples (Q)
  ρ_k(i)  distance from a sample to its k-th nearest neighbour in its OWN set, itself excluded
  B_k(i)  the closed ball of radius ρ_k(i) around it

  precision = 1/M Σ_j 1{ some i: y_j ∈ B_k(x_i) }    Kynkäänniemi et al. 2019 (arXiv:1904.06991)
  recall    = 1/N Σ_i 1{ some j: x_i ∈ B_k(y_j) }
  density   = 1/(k M) Σ_j #{ i: y_j ∈ B_k(x_i) }     Naeem et al. 2020 (arXiv:2002.09797)
  coverage  = 1/N Σ_i 1{ some j: y_j ∈ B_k(x_i) }

The papers use k = 3 for the first pair and k = 5 for the second: `k` and `k_dc` here. All
four depend on N, M and k, so only numbers at equal N, M, k and features can be compared.

Ties: balls are CLOSED (d <= ρ). A set against itself has precision = recall = coverage = 1
and density = (k+1)/k, constant features give 1 (and density N/k); the `prdc` package has
open balls (d < ρ), where constant features give 0. On data without ties both are equal.

Distances, ties up to rounding, and memory: see `neighbours`. Precision, recall, density, coverage
and all their replicates come from one pass over the distances; the features are not copied and
may be a memory map of any real dtype.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from prpr import errors
from prpr.metrics import balls, checks, intervals, leave_out, neighbours
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE, REAL
from prpr.metrics.statistics import UNNAMED, Statistics

METRICS = ("precision", "recall", "density", "coverage")
GROUPS = 20  # of the jackknife


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple; ConfigError for one that is not in METRICS."""
    names = tuple(names)
    for name in names:
        if name not in METRICS:
            raise errors.unknown_name("metric", name, METRICS)
    return names


class Counts(NamedTuple):
    """Per-sample indicators, whose means are the metrics; the order is the caller's.

    precise:     (M,) bool, the fake lies in a ball of a real sample (k)
    recalled:    (N,) bool, the real sample lies in a ball of a fake (k)
    ball_counts: (M,) int64, in how many real balls the fake lies (k_dc)
    covered:     (N,) bool, a fake lies in the real sample's ball (k_dc)
    """

    precise: np.ndarray
    recalled: np.ndarray
    ball_counts: np.ndarray
    covered: np.ndarray
    k: int
    k_dc: int

    @property
    def precision(self) -> float:
        return float(self.precise.mean())

    @property
    def recall(self) -> float:
        return float(self.recalled.mean())

    @property
    def density(self) -> float:
        return float(self.ball_counts.mean() / self.k_dc)

    @property
    def coverage(self) -> float:
        return float(self.covered.mean())

    def values(self) -> dict[str, float]:
        """{metric: value}, in the order of METRICS."""
        return {name: getattr(self, name) for name in METRICS}


def manifold_radii(
    features: ArrayLike, k: int = 3, *, tile: int | None = None, backend: str = "auto"
) -> np.ndarray:
    """ρ_k: distance of every sample to its k-th nearest neighbour, itself excluded.

    Args:
      features: (N, D), any real dtype.
      k: neighbours, >= 1.
      tile, backend: see `neighbours.within`; they change no number.

    Returns:
      (N,) float64, in the units of the features; 0 for a sample with k duplicates.

    Raises:
      DataError: features that are not finite or not (N, D), or fewer than k + 1 of them.
      ConfigError: k or tile below 1, or an unknown backend.
    """
    checks.check_settings({"k": k})
    points = _statistics(checks.check_rows(features, "the features"))
    return neighbours.within(points, k, tile=tile, backend=backend).distances[:, -1]


def prdc(
    real: ArrayLike,
    fake: ArrayLike,
    k: int = 3,
    k_dc: int = 5,
    *,
    tile: int | None = None,
    backend: str = "auto",
) -> Counts:
    """Precision, recall (at k), density, coverage (at k_dc) of fake against real features.

    Args:
      real: (N, D) features of real samples, any real dtype.
      fake: (M, D) features of generated samples.
      k: neighbours for precision and recall.
      k_dc: neighbours for density and coverage.
      tile, backend: see `neighbours.within`; they change no number.

    Returns:
      Counts; its `values()` are the four metrics.

    Raises:
      DataError: features that are not finite, not (N, D), of two widths, or too few: at least
        max(k, k_dc) + 1 real and k + 1 fake samples.
      ConfigError: k, k_dc or tile below 1, or an unknown backend.
    """
    real, fake = checks.check_pair(real, fake, _needed(METRICS, k, k_dc))
    pair = _statistics(real), _statistics(fake)
    whole = balls.whole(len(real)), balls.whole(len(fake))
    found = balls.tally(pair, whole, _asked(METRICS, k, k_dc), (k, k_dc), tile, backend)
    return Counts(
        found["precision"].counts()[0] > 0,
        found["recall"].counts()[0] > 0,
        found["density"].counts()[0],
        found["coverage"].any(),
        k,
        k_dc,
    )


def prdc_with_intervals(
    real: ArrayLike,
    fake: ArrayLike,
    k: int = 3,
    k_dc: int = 5,
    level: float = 0.95,
    *,
    names: Iterable[str] = METRICS,
    groups: int = GROUPS,
    seed: int = 0,
    tile: int | None = None,
    backend: str = "auto",
) -> dict[str, intervals.Estimate]:
    """The metrics with intervals that allow for the sampling of BOTH sets; one pass.

    Every metric is recomputed, exactly, without each of `groups` random groups of the real
    and of the fake samples, from the same distances; `intervals` says how these replicates
    become an interval and what it covers.

    Args:
      real, fake, k, k_dc, tile, backend: see `prdc`.
      level: probability of covering the metric's expectation at these sizes.
      names: which of METRICS to return.
      groups: G of the jackknife, >= 2; at most the number of samples is used.
      seed: of the random cut into groups. The values do not depend on it.

    Returns:
      {metric: Estimate(value, low, high, k)}, where k is the one that the metric used.

    Raises:
      DataError, ConfigError: as `prdc`, but samples must be enough for the `names` alone and
        still be when a group is left out; an unknown name; level outside (0, 1); groups below 2.
    """
    names = check_names(names)
    intervals.check_level(level)
    found = prdc_replicates(
        real, fake, k, k_dc, names=names, groups=groups, seed=seed, tile=tile, backend=backend
    )
    return {name: intervals.estimate(found[name], level) for name in names}


def prdc_replicates(
    real: ArrayLike,
    fake: ArrayLike,
    k: int = 3,
    k_dc: int = 5,
    *,
    names: Iterable[str] = METRICS,
    groups: int = GROUPS,
    seed: int = 0,
    tile: int | None = None,
    backend: str = "auto",
) -> dict[str, intervals.Replicates]:
    """The metrics without each group of samples, as `prdc_with_intervals` uses them."""
    names = check_names(names)
    one, two = checks.check_pair(real, fake, _needed(names, k, k_dc))
    options = Options(k=k, k_dc=k_dc, groups=groups, seed=seed, backend=backend)
    return _leave(_statistics(one), _statistics(two), names, options, tile)


def by_size(
    real: Statistics,
    fake: Statistics,
    sizes: Sequence[int] | None = None,
    options: Options | None = None,
) -> dict[int, dict[str, float]]:
    """How the metrics depend on the number of samples: their bias in N, on the data given.

    With n samples of each set the metrics are taken on as many disjoint random pairs of parts
    of n real and n fake samples as there are, and averaged. Balls shrink as N grows; where the
    rows differ by more than the intervals, no number may be compared with one at another N.

    Args:
      sizes: n; by default the smaller set's size and its half and quarter, if these are enough.
      options: k, k_dc and the seed of the parts.

    Returns:
      {n: {metric: value}}, the largest n first.

    Raises:
      DataError: as `prdc`; a size below max(k, k_dc) + 1 or above the smaller set's.
    """
    options = options or Options()
    most, least = min(real.n, fake.n), max(options.k, options.k_dc) + 1
    if sizes is None:
        sizes = [n for n in (most, most // 2, most // 4) if n >= least] or [most]
    for n in sizes:
        if not checks.is_whole(n) or not least <= n <= most:
            raise errors.DataError(
                f"size {n!r} of the parts must be a whole number from {least} (the largest k + 1) "
                f"to {most}, the size of the smaller set"
            )
    rng = np.random.default_rng(options.seed)
    orders = rng.permutation(real.n), rng.permutation(fake.n)
    out = {}
    for n in sorted(set(sizes), reverse=True):
        found = []
        for start in range(0, most - n + 1, n):
            a, b = (
                one.needed(name)[np.sort(order[start : start + n])]
                for one, order, name in zip((real, fake), orders, ("real", "fake"), strict=True)
            )
            found.append(prdc(a, b, options.k, options.k_dc).values())
        out[n] = {name: float(np.mean([one[name] for one in found])) for name in METRICS}
    return out


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, intervals.Replicates]:
    return _leave(real, fake, names, options)


FAMILY = Family("kNN", METRICS, METRICS.__contains__, _replicates)


# --- counting --------------------------------------------------------------------------


def _statistics(features: np.ndarray) -> Statistics:
    """Features that have been checked."""
    return Statistics(len(features), features.shape[1], UNNAMED, features)


def _asked(names: Iterable[str], k: int, k_dc: int) -> dict[str, balls.Asked]:
    """Whose balls each metric is about, and what is counted in them."""
    table = {
        "precision": balls.Asked(REAL, k, balls.Members),
        "recall": balls.Asked(FAKE, k, balls.Members),
        "density": balls.Asked(REAL, k_dc, balls.Members),
        "coverage": balls.Asked(REAL, k_dc, balls.Covered),
    }
    return {name: table[name] for name in names}


def _needed(names: Iterable[str], k: int, k_dc: int) -> tuple[dict[str, int], dict[str, int]]:
    """The neighbours that the metrics ask of real and of fake samples, by setting."""
    checks.check_settings({"k": k, "k_dc": k_dc})
    real, fake = {}, {}
    for name, one in _asked(names, k, k_dc).items():
        setting = "k" if name in ("precision", "recall") else "k_dc"
        (real if one.side == REAL else fake)[setting] = one.k
    return real, fake


def _leave(
    real: Statistics,
    fake: Statistics,
    names: tuple[str, ...],
    options: Options,
    tile: int | None = None,
) -> dict[str, intervals.Replicates]:
    """θ of the metrics, see `intervals`.

    Leaving out a group of one set changes the radii of that set's balls and whose sample is
    counted, so a row per left-out group of the set that makes the balls is enough: the other
    set's groups are left out of the mean.
    """
    k, k_dc = options.k, options.k_dc
    needed = _needed(names, k, k_dc)
    cuts = leave_out.cuts(real, fake, options)
    leave_out.check_left(names, cuts, needed)
    found = balls.tally(
        (real, fake),
        cuts,
        _asked(names, k, k_dc),
        (k, k_dc),
        tile,
        options.backend,
        lambda done, total: options.tick("kNN", done, total),
    )

    def theta(name: str) -> np.ndarray:
        if name == "coverage":
            return found[name].shares()
        counts = found[name].counts()
        if name == "density":
            return leave_out.means(counts, cuts[1]) / k_dc
        if name == "recall":
            return leave_out.means(counts > 0, cuts[0]).T
        return leave_out.means(counts > 0, cuts[1])

    k_used = {"precision": k, "recall": k, "density": k_dc, "coverage": k_dc}
    draws = {"precision": fake.n, "recall": real.n, "density": fake.n, "coverage": real.n}
    return {
        name: intervals.Replicates(
            theta(name), draws[name], "rate" if name == "density" else "proportion", k_used[name]
        )
        for name in names
    }
