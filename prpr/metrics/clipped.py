"""Clipped Density and Clipped Coverage: fidelity and coverage that read as a share of good samples.

Salvy, Talbot, Thirion, "Enhanced Generative Model Evaluation with Clipped Density and
Coverage", ICLR 2026 (arXiv:2507.01761).

Notation
  x_i, y_j   N real (P, always first) and M generated samples (Q)
  ρ(i)       distance of x_i to its k-th nearest other real, k = 5 (`k_dc`)
  r(i)       min(ρ(i), median of ρ): the balls of outliers are clipped
  n(z)       number of closed balls (x_i, r(i)) that hold z; a real sample's own ball left out

  density          = mean_j min(n(y_j)/k, 1)          a sample counts at most once
  clipped_density  = min(1, density / mean_i min(n(x_i)/k, 1))    real samples have 1
  coverage         = mean_i min(#{j: |x_i − y_j| <= ρ(i)}, k) / k
  clipped_coverage = f⁻¹(coverage)

f(s) is the coverage to expect of M samples of which the share s is good, that is drawn from P,
and the others are near no real sample. A ball to the k-th of N − 1 others has a Beta(k, N − k)
share of P, whatever P is, so with m = sM the number inside is beta-binomial, and
f(m/M) = E[min(n, k)]/k = 1/k Σ_t P(n >= t), t = 1..k; between whole m it is linear.

Where this differs from the authors' code (ClippedDensityCoverage 9920dae): there f is 0 for m < k
and its inverse is the rank among M + 1 values, which moves clipped_coverage by less than (k + 1)/M;
duplicates are told from the sample itself here, and all ties with ρ are inside.

Replicates: exact, with radii, their median, the real samples' own density and f recomputed without
each group; they are not capped at 1 (for coverage f goes on beyond M with its last slope), so that
a value at the cap has an interval below it.
"""

from collections.abc import Iterator

import numpy as np

from prpr.metrics import leave_out, neighbours
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE, REAL, Groups, split
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

NAMES = ("clipped_density", "clipped_coverage")


def expected_coverage(n: int, m: int, k: int) -> np.ndarray:
    """(m + 1,) f(0), f(1/m), .., f(1): coverage of n real samples by 0 to m good ones.

    Raises: nothing; needs n > k >= 1 and m >= 1.
    """
    good = np.arange(m + 1)
    # P(none inside) = Π_{r < good} (n − k + r)/(n + r); then P(t inside) from P(t − 1 inside).
    steps = np.log1p(-k / (n + np.arange(m)))
    inside = np.exp(np.concatenate([[0.0], np.cumsum(steps)]))
    below, total = inside.copy(), 1 - inside
    for t in range(1, k):
        # Where t exceeds the number of good samples, the factor is 0.
        inside = inside * np.maximum(good - t + 1, 0) / t * (t - 1 + k)
        inside = inside / np.maximum(n - k + good - t, 1)
        below = below + inside
        total = total + (1 - below)
    return total / k


def calibrated(coverage: np.ndarray, n: int, m: int, k: int) -> np.ndarray:
    """f⁻¹ of coverages of n real samples by m generated ones: shares of good samples.

    Beyond f(1) it goes on with the slope of f's last step, above 1.
    """
    f = expected_coverage(n, m, k)
    beyond = np.maximum(coverage - f[-1], 0) / max(m * (f[-1] - f[-2]), np.finfo(np.float64).eps)
    return np.interp(coverage, f, np.arange(m + 1) / m) + beyond


def real_density(real: Statistics, groups: Groups, clipped: np.ndarray, k: int) -> np.ndarray:
    """(1 + G,) mean_i min(n(x_i)/k, 1) of the real samples, and without each group.

    Args:
      clipped: (1 + G, N) r, −∞ for a sample that is left out.
    """
    label = groups.labels()
    counts = np.zeros(clipped.shape)
    top = clipped.max(axis=0)
    for i, j, d in _own_pairs(real, top, k):
        for row in range(len(clipped)):
            here = leave_out.closed(d, clipped[row, i], top[i])
            counts[row] += np.bincount(j[here], minlength=real.n)
    share = np.minimum(counts / k, 1)
    share[1 + label, np.arange(real.n)] = 0
    return share.sum(axis=1) / np.isfinite(clipped).sum(axis=1)


def _own_pairs(real: Statistics, reach: np.ndarray, k: int) -> Iterator[leave_out.Pairs]:
    """Pairs of different real samples (i, j) with j in the closed ball of i."""
    near = neighbours.within(real, min(2 * k + 5, real.n - 1))
    here = near.distances <= neighbours.closed(real, reach)[:, None]
    if near.distances.shape[1] == real.n - 1 or not here[:, -1].any():
        yield np.nonzero(here)[0], near.indices[here], near.distances[here]
        return
    # Ties: more samples lie inside than the neighbours that are known.
    for i, j, d in leave_out.batches(neighbours.inside(real, real, reach)):
        other = i != j
        yield i[other], j[other], d[other]


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, Replicates]:
    real.needed("real")
    fake.needed("fake")
    k = options.k_dc
    leave_out.check_left(", ".join(names), {"real": real.n}, k, options.groups)
    cuts = (
        split(real.n, options.groups, options.seed, REAL),
        split(fake.n, options.groups, options.seed, FAKE),
    )
    options.tick("clipped", 0, 1)
    balls = leave_out.radii(real, cuts[0], k)
    medians = np.array([np.median(row[np.isfinite(row)]) for row in balls])
    clipped = np.minimum(balls, medians[:, None])
    counts, inside = _counts(real, fake, balls, clipped, cuts[1])
    found = {}
    if "clipped_density" in names:
        best = real_density(real, cuts[0], clipped, k)
        scores = np.minimum(counts / k, 1)
        theta = leave_out.means(scores, cuts[1]) / best[:, None]
        found["clipped_density"] = theta, leave_out.draws(scores[0] / best[0], rate=True)
    if "clipped_coverage" in names:
        found["clipped_coverage"] = _coverage(inside, cuts, k), real.n
    for theta, _ in found.values():
        theta[0, 0] = min(theta[0, 0], 1)
    options.tick("clipped", 1, 1)
    return {name: Replicates(theta, draws, "capped", k) for name, (theta, draws) in found.items()}


def _counts(
    real: Statistics, fake: Statistics, balls: np.ndarray, clipped: np.ndarray, cut: Groups
) -> tuple[np.ndarray, np.ndarray]:
    """((1 + G, M) n(y_j), (1 + G, N, H) number of fakes of each group in the whole balls)."""
    label, h, top = cut.labels(), len(cut.cut) - 1, balls.max(axis=0)
    counts = np.zeros((len(balls), fake.n), np.int64)
    inside = np.zeros((*balls.shape, h), np.int32)
    for i, j, d in leave_out.batches(neighbours.inside(real, fake, top)):
        if not len(i):
            continue
        low, high = int(i.min()), int(i.max()) + 1
        cell = (i - low) * h + label[j]
        for row in range(len(balls)):
            here = leave_out.closed(d, clipped[row, i], top[i])
            counts[row] += np.bincount(j[here], minlength=fake.n)
            here = leave_out.closed(d, balls[row, i], top[i])
            found = np.bincount(cell[here], minlength=(high - low) * h)
            inside[row, low:high] += found.reshape(-1, h).astype(np.int32)
    return counts, inside


def _coverage(inside: np.ndarray, cuts: tuple[Groups, Groups], k: int) -> np.ndarray:
    """θ (1 + G, 1 + H) of clipped_coverage from the numbers inside (1 + G, N, H)."""
    total = inside.sum(axis=2)
    sizes = [len(cut.order) - np.concatenate([[0], cut.sizes]) for cut in cuts]
    theta = np.empty((len(sizes[0]), len(sizes[1])))
    for column, m in enumerate(sizes[1]):
        left = total if column == 0 else total - inside[:, :, column - 1]
        coverage = np.minimum(left, k).sum(axis=1) / (k * sizes[0])
        for n in np.unique(sizes[0]):
            here = sizes[0] == n
            theta[here, column] = calibrated(coverage[here], int(n), int(m), k)
    return theta


FAMILY = Family("clipped", NAMES, NAMES.__contains__, _replicates)
