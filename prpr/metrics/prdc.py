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

Arithmetic: features are scaled by a power of two (exact) and centred on the real mean, then
d² = |a|² + |b|² − 2ab in `dtype`. Two squared distances count as equal when they differ by
less than the rounding error of that formula, 4√D·eps·(|a|² + |b|²); with float64, the
default, that is a distance of 1e-7 of the features' spread. Equality is applied by inflating
the balls; at the edge of a ball |b|² <= 2|a|² + 2ρ², so the allowance needs only the centre.

Memory: blocks of at most max(tile, number of samples) distances; never N×M.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from prpr import errors
from prpr.metrics import checks, intervals
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE, REAL, split
from prpr.metrics.statistics import Statistics

METRICS = ("precision", "recall", "density", "coverage")
TILE = 2**21  # distances in a block: 16 MB of float64, about what a core's caches reward
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
    features: ArrayLike, k: int = 3, *, tile: int = TILE, dtype: DTypeLike = np.float64
) -> np.ndarray:
    """ρ_k: distance of every sample to its k-th nearest neighbour, itself excluded.

    Args:
      features: (N, D), any real dtype.
      k: neighbours, >= 1.
      tile: bound on the distances held at once.
      dtype: of the products; np.float32 halves time and memory at D in the thousands, with
        distances below about 1 % of the features' norm no longer told from 0.

    Returns:
      (N,) float64, in the units of the features; 0 for a sample with k duplicates.

    Raises:
      DataError: features that are not finite or not (N, D), or fewer than k + 1 of them.
      ConfigError: k or tile below 1, or dtype neither float32 nor float64.
    """
    checks.check_settings({"k": k, "tile": tile}, dtype)
    points = checks.check_features(features, "the features")
    checks.check_enough({"feature": len(points)}, {"k": k})
    (part,), exponent = _prepare((points,), dtype)
    nearest = _nearest(part, [0, len(points)], k, tile)[:, 0, k - 1].astype(np.float64)
    # Duplicates are at exactly 0: below the rounding error nothing is known but "equal".
    nearest[nearest <= 2 * part.tolerance * part.squares] = 0
    return np.ldexp(np.sqrt(nearest), exponent)


def prdc(
    real: ArrayLike,
    fake: ArrayLike,
    k: int = 3,
    k_dc: int = 5,
    *,
    tile: int = TILE,
    dtype: DTypeLike = np.float64,
) -> Counts:
    """Precision, recall (at k), density, coverage (at k_dc) of fake against real features.

    Args:
      real: (N, D) features of real samples, any real dtype.
      fake: (M, D) features of generated samples.
      k: neighbours for precision and recall.
      k_dc: neighbours for density and coverage.
      tile, dtype: see `manifold_radii`.

    Returns:
      Counts; its `values()` are the four metrics.

    Raises:
      DataError: features that are not finite, not (N, D), of two widths, or too few.
      ConfigError: k, k_dc or tile below 1, or dtype neither float32 nor float64.
    """
    points = checks.check_pair(real, fake, k, k_dc, tile, dtype)
    counts, _ = _count(points, ([0, len(points[0])], [0, len(points[1])]), k, k_dc, tile, dtype)
    return counts


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
    tile: int = TILE,
    dtype: DTypeLike = np.float64,
) -> dict[str, intervals.Estimate]:
    """The metrics with intervals that allow for the sampling of BOTH sets; one pass.

    Every metric is recomputed, exactly, without each of `groups` random groups of the real
    and of the fake samples, from the same distances; `intervals` says how these replicates
    become an interval and what it covers.

    Args:
      real, fake, k, k_dc, tile, dtype: see `prdc`.
      level: probability of covering the metric's expectation at these sizes.
      names: which of METRICS to return.
      groups: G of the jackknife, >= 2; at most the number of samples is used.
      seed: of the random cut into groups. The values do not depend on it.

    Returns:
      {metric: Estimate(value, low, high, k)}, where k is the one that the metric used.

    Raises:
      DataError, ConfigError: as `prdc`; fewer than max(k, k_dc) + 2 samples; an unknown name;
        level outside (0, 1); groups below 2.
    """
    names = check_names(names)
    intervals.check_level(level)
    found = prdc_replicates(real, fake, k, k_dc, groups=groups, seed=seed, tile=tile, dtype=dtype)
    return {name: intervals.estimate(found[name], level) for name in names}


def prdc_replicates(
    real: ArrayLike,
    fake: ArrayLike,
    k: int = 3,
    k_dc: int = 5,
    *,
    groups: int = GROUPS,
    seed: int = 0,
    tile: int = TILE,
    dtype: DTypeLike = np.float64,
) -> dict[str, intervals.Replicates]:
    """The metrics without each group of samples, as `prdc_with_intervals` uses them."""
    points = checks.check_pair(real, fake, k, k_dc, tile, dtype)
    n, m = len(points[0]), len(points[1])
    both = split(n, groups, seed, REAL), split(m, groups, seed, FAKE)
    points = points[0][both[0].order], points[1][both[1].order]
    cuts = both[0].cut, both[1].cut
    fewest = min(len(x) - int(np.max(np.diff(cut))) for x, cut in zip(points, cuts, strict=True))
    if fewest < max(k, k_dc) + 1:
        raise errors.DataError(
            f"an interval with k={k}, k_dc={k_dc} and groups={groups} needs at least "
            f"{max(k, k_dc) + 1} samples when a group is left out, got {fewest} of "
            f"{n} real and {m} fake: give more samples or groups"
        )
    _, theta = _count(points, cuts, k, k_dc, tile, dtype)
    k_used = {"precision": k, "recall": k, "density": k_dc, "coverage": k_dc}
    draws = {"precision": m, "recall": n, "density": m, "coverage": n}
    return {
        name: intervals.Replicates(
            theta[name],
            draws[name],
            "rate" if name == "density" else "proportion",
            k_used[name],
        )
        for name in METRICS
    }


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, intervals.Replicates]:
    found = prdc_replicates(
        real.needed("real"),
        fake.needed("fake"),
        options.k,
        options.k_dc,
        groups=options.groups,
        seed=options.seed,
    )
    return {name: found[name] for name in names}


FAMILY = Family("kNN", METRICS, METRICS.__contains__, _replicates)


# --- the distances ---------------------------------------------------------------------


class _Set(NamedTuple):
    """A centred, scaled sample: points (n, D), squares |a|² (n,), both in the products' dtype."""

    points: np.ndarray
    squares: np.ndarray
    tolerance: float


def _prepare(sets: tuple[np.ndarray, ...], dtype: DTypeLike) -> tuple[list[_Set], int]:
    """Scales by a power of two, centres on the first set's mean; also returns the exponent."""
    largest = max(float(np.max(np.abs(x), initial=0.0)) for x in sets)
    # Products of values near 1 neither overflow nor underflow.
    exponent = int(np.frexp(largest)[1])
    sets = tuple(np.ldexp(x, -exponent) for x in sets)
    centre = sets[0].mean(axis=0)
    out = []
    for x in sets:
        x = (x - centre).astype(dtype)
        squares = np.einsum("nd,nd->n", x, x, dtype=np.float64).astype(dtype)
        out.append(_Set(x, squares, 4 * float(np.sqrt(x.shape[1]) * np.finfo(x.dtype).eps)))
    return out, exponent


def _blocks(a: _Set, b: _Set, tile: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (rows of a, their squared distances to all of b); the block may be overwritten."""
    minus_two_b = (-2 * b.points).T
    rows = max(1, tile // len(b.points))
    for start in range(0, len(a.points), rows):
        some = slice(start, min(start + rows, len(a.points)))
        block = a.points[some] @ minus_two_b
        block += a.squares[some, None]
        block += b.squares
        yield some, block


def _nearest(a: _Set, cut: list[int], k: int, tile: int) -> np.ndarray:
    """Squared distances to the k nearest others within each group, sorted: (n, G, k).

    Group g is the samples cut[g] to cut[g + 1]; missing neighbours are at infinity.
    """
    out = np.full((len(a.points), len(cut) - 1, k), np.inf, a.points.dtype)
    for some, block in _blocks(a, a, tile):
        own = np.arange(some.start, some.stop)
        block[own - some.start, own] = np.inf  # itself excluded, whatever its duplicates do
        for g, (start, stop) in enumerate(itertools.pairwise(cut)):
            group = block[:, start:stop]
            if stop - start > k:
                group = np.partition(group, k - 1, axis=1)[:, :k]
            out[some, g, : group.shape[1]] = np.sort(group, axis=1)
    return out


def _balls(a: _Set, cut: list[int], ks: tuple[int, ...], tile: int) -> list[np.ndarray]:
    """Squared, inflated radii for each k: (1 + G, n); row 0 is the whole set's.

    Row 1 + g is without group g, whose own balls have radius −∞: nothing is inside. With one
    group there is nothing to leave out, and row 0 is all.
    """
    groups, most = len(cut) - 1, max(ks)
    near = _nearest(a, cut, most, tile).reshape(len(a.points), -1)
    # A group has at most `most` entries here, so the first 2·most hold `most` of the others.
    order = np.argsort(near, axis=1, kind="stable")[:, : 2 * most]
    near = np.take_along_axis(near, order, axis=1)
    label = order // most
    out = [np.empty((1 if groups == 1 else 1 + groups, len(near)), near.dtype) for _ in ks]
    for row in range(len(out[0])):
        rank = np.cumsum(label != row - 1, axis=1)
        for radii, k in zip(out, ks, strict=True):
            at = np.argmax(rank == k, axis=1)[:, None]
            radius = np.maximum(np.take_along_axis(near, at, axis=1)[:, 0], 0)
            radii[row] = radius * (1 + 2 * a.tolerance) + 3 * a.tolerance * a.squares
            if row:
                radii[row, cut[row - 1] : cut[row]] = -np.inf
    return out


def _count(
    points: tuple[np.ndarray, np.ndarray],
    cuts: tuple[list[int], list[int]],
    k: int,
    k_dc: int,
    tile: int,
    dtype: DTypeLike,
) -> tuple[Counts, dict[str, np.ndarray]]:
    """Counts, and θ (1 + G, 1 + H) of each metric as in `intervals` ((1, 1) without groups).

    Leaving out a group of one set changes the radii of that set's balls and whose sample is
    counted, so a row per left-out group of the set that makes the balls is enough: the other
    set's groups are left out of the mean. The rows come from the few pairs that lie inside
    the largest of the balls.
    """
    (real, fake), _ = _prepare(points, dtype)
    ball, ball_dc = _balls(real, cuts[0], (k, k_dc), tile)
    (fake_ball,) = _balls(fake, cuts[1], (k,), tile)
    n, m = len(real.points), len(fake.points)
    precise = np.zeros((len(ball), m), bool)
    recalled = np.zeros((len(fake_ball), n), bool)
    ball_counts = np.zeros((len(ball), m), np.int64)
    nearest = np.empty((n, len(cuts[1]) - 1), real.points.dtype)  # fake, in each group
    reach = np.maximum(ball.max(axis=0), ball_dc.max(axis=0))
    fake_reach = fake_ball.max(axis=0)

    for some, block in _blocks(real, fake, tile):
        nearest[some] = np.minimum.reduceat(block, cuts[1][:-1], axis=1)
        flat = block.ravel()
        at = np.flatnonzero(block <= reach[some, None])
        i, j, d = at // m + some.start, at % m, flat[at]
        for row in range(len(ball)):
            precise[row, j[d <= ball[row, i]]] = True
            ball_counts[row] += np.bincount(j[d <= ball_dc[row, i]], minlength=m)
        at = np.flatnonzero(block <= fake_reach)
        i, j, d = at // m + some.start, at % m, flat[at]
        for row in range(len(fake_ball)):
            recalled[row, i[d <= fake_ball[row, j]]] = True

    # A ball of radius −∞, one of a left-out real, is not covered: only the mean's size is due.
    kept = n - np.diff(cuts[0], prepend=0)[: len(ball), None]
    near = [nearest] + [np.delete(nearest, h, axis=1) for h in range(len(fake_ball) - 1)]
    inside = [(x.min(axis=1) <= ball_dc).sum(axis=1) for x in near]
    theta = {
        "precision": _leave_means(precise, cuts[1]),
        "recall": _leave_means(recalled, cuts[0]).T,
        "density": _leave_means(ball_counts, cuts[1]) / k_dc,
        "coverage": np.stack(inside, axis=1) / kept,
    }
    covered = nearest.min(axis=1) <= ball_dc[0]
    return Counts(precise[0], recalled[0], ball_counts[0], covered, k, k_dc), theta


def _leave_means(x: np.ndarray, cut: list[int]) -> np.ndarray:
    """Means of x (R, n) over n: first over all, then without each group. (R, 1 + G)."""
    whole = x.mean(axis=1, keepdims=True)
    if len(cut) == 2:
        return whole
    inside = np.add.reduceat(x, cut[:-1], axis=1, dtype=np.float64)
    rest = (x.sum(axis=1, keepdims=True) - inside) / (x.shape[1] - np.diff(cut))
    return np.concatenate([whole, rest], axis=1)
