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

from prpr.metrics import balls, leave_out, neighbours
from prpr.metrics.balls import Balls
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import REAL, Groups
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

NAMES = ("clipped_density", "clipped_coverage")


def expected_coverage(n: int, m: int, k: int) -> np.ndarray:
    """(m + 1,) f(0), f(1/m), .., f(1): coverage of n real samples by 0 to m good ones.

    Raises: nothing; needs n > k >= 1 and m >= 1.
    """
    return 1 - _missing(n, m, k)[0]


def _missing(n: int, m: int, k: int) -> tuple[np.ndarray, float]:
    """((m + 1,) 1 − f, f(1) − f(1 − 1/m)), to the last digits also where f is nearly 1.

    1 − f = 1/k Σ_t<k (k − t) P(n = t). One more good sample falls into a ball that holds t of
    m − 1 with probability (k + t)/(n + m − 1), and counts where t < k.
    """
    good = np.arange(m + 1)
    # P(none inside) = Π_{r < good} (n − k + r)/(n + r); then P(t inside) from P(t − 1 inside).
    steps = np.log1p(-k / (n + np.arange(m)))
    inside = np.exp(np.concatenate([[0.0], np.cumsum(steps)]))
    missing, step = k * inside, k * inside[-2]
    for t in range(1, k):
        # Where t exceeds the number of good samples, the factor is 0.
        inside = inside * np.maximum(good - t + 1, 0) / t * (t - 1 + k)
        inside = inside / np.maximum(n - k + good - t, 1)
        missing = missing + (k - t) * inside
        step = step + (k + t) * inside[-2]
    return missing / k, float(step / (n + m - 1) / k)


def calibrated(coverage: np.ndarray, n: int, m: int, k: int) -> np.ndarray:
    """f⁻¹ of coverages of n real samples by m generated ones: shares of good samples.

    Beyond f(1) it goes on with the slope of f's last step, above 1; for m far above n, where f(1)
    is 1 but for rounding, up to 1 + 1/k.
    """
    missing, step = _missing(n, m, k)
    # By what is missing: near 1, where f has no digits left, that has all of them.
    left = 1 - np.asarray(coverage, np.float64)
    beyond = np.maximum(missing[-1] - left, 0) / (m * step) if step > 0 else 0.0
    return np.interp(-left, -missing, np.arange(m + 1) / m) + beyond


def real_density(
    real: Statistics, groups: Groups, clipped: Balls, k: int, backend: str = "auto"
) -> np.ndarray:
    """(1 + G,) mean_i min(n(x_i)/k, 1) of the real samples, and without each group.

    Args:
      clipped: the balls (x_i, r(i)).
    """
    members = balls.Members(clipped, groups)
    near = neighbours.within(real, min(2 * k + 5, real.n - 1), backend=backend)
    here = near.distances <= clipped.top[:, None]
    if near.distances.shape[1] == real.n - 1 or not here[:, -1].any():
        at = np.nonzero(here)[0]
        members.add(at, near.indices[here], clipped.parts(at, near.distances[here]))
    else:  # ties: more samples lie inside than the neighbours that are known
        balls.count(_others(real, clipped.top, backend), [balls.Use(REAL, clipped, [members])])
    share = np.minimum(members.counts() / k, 1)
    share[1 + groups.labels(), np.arange(real.n)] = 0
    return share.sum(axis=1) / np.isfinite(clipped.radii).sum(axis=1)


def _others(real: Statistics, reach: np.ndarray, backend: str) -> Iterator[neighbours.Pairs]:
    """Pairs of different real samples; all that are within reach of the first are among them."""
    for some in neighbours.pairs(real, real, (reach, None), backend=backend):
        other = some.i != some.j
        i, j, lower, upper = (x[other] for x in some[:4])
        yield neighbours.Pairs(i, j, lower, upper, some.screen)


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, Replicates]:
    k, cuts = options.k_dc, leave_out.cuts(real, fake, options)
    leave_out.check_left(names, cuts, ({"k_dc": k}, {}))
    options.tick("clipped", 0, 1)
    radii = leave_out.radii(real, cuts[0], k, backend=options.backend)
    medians = np.array([np.median(row[np.isfinite(row)]) for row in radii])
    whole = Balls(real, cuts[0], radii)
    clipped = Balls(real, cuts[0], np.minimum(radii, medians[:, None]))
    numbers, members = balls.Numbers(whole, cuts[1]), balls.Members(clipped, cuts[1])
    uses = {
        "clipped_density": balls.Use(REAL, clipped, [members]),
        "clipped_coverage": balls.Use(REAL, whole, [numbers]),
    }
    # As far as the whole balls whatever is asked: who comes next may find their pairs.
    pairs = neighbours.pairs(real, fake, (whole.top, None), backend=options.backend)
    balls.count(pairs, [uses[name] for name in names])
    found = {}
    if "clipped_density" in names:
        best = real_density(real, cuts[0], clipped, k, options.backend)
        scores = np.minimum(members.counts() / k, 1)
        theta = leave_out.means(scores, cuts[1]) / best[:, None]
        found["clipped_density"] = theta, leave_out.draws(scores[0] / best[0], rate=True)
    if "clipped_coverage" in names:
        found["clipped_coverage"] = _coverage(numbers, cuts, k), real.n
    for theta, _ in found.values():
        theta[0, 0] = min(theta[0, 0], 1)
    options.tick("clipped", 1, 1)
    return {name: Replicates(theta, draws, "capped", k) for name, (theta, draws) in found.items()}


def _coverage(numbers: balls.Numbers, cuts: tuple[Groups, Groups], k: int) -> np.ndarray:
    """θ (1 + G, 1 + H) of clipped_coverage from the numbers inside."""
    sizes = [len(cut.order) - np.concatenate([[0], cut.sizes]) for cut in cuts]
    coverage = np.empty((len(sizes[0]), len(sizes[1])))
    for row, inside in enumerate(numbers.rows()):
        total = inside.sum(axis=1)
        for column in range(len(sizes[1])):
            left = total if column == 0 else total - inside[:, column - 1]
            coverage[row, column] = np.minimum(left, k).sum() / (k * sizes[0][row])
    theta = np.empty(coverage.shape)
    for column, m in enumerate(sizes[1]):
        for n in np.unique(sizes[0]):
            here = sizes[0] == n
            theta[here, column] = calibrated(coverage[here, column], int(n), int(m), k)
    return theta


FAMILY = Family("clipped", NAMES, NAMES.__contains__, _replicates)
