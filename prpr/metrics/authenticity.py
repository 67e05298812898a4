"""Authenticity: the share of generated samples that are not copies of training samples.

Alaa, van Breugel, Saveliev, van der Schaar, "How Faithful is your Synthetic Data? Sample-level
Metrics for Evaluating and Auditing Generative Models", ICML 2022 (arXiv:2102.08921).

Notation
  x_i   N TRAINING samples (real, always first),  y_j  M generated samples
  i(j)  the training sample nearest to y_j,  ρ(i)  distance of x_i to its nearest other x

  authenticity = 1/M Σ_j 1{ |y_j − x_i(j)| > ρ(i(j)) }

A sample that is as near to a training sample as that one is to its own nearest neighbour counts
as memorised, so a training set against itself has authenticity 0. Where several training samples
are equally near (up to rounding, `neighbours.closed`), the one with the largest ρ decides: a sample
is authentic if it is so beside each of them.

Perfect new samples do not have 1 but the probability that a sample and its nearest neighbour are
NOT each other's nearest: 1/3 in one dimension, 0.38 in two, 0.60 for Gaussians in eight (N = 400),
more where some samples are the nearest of many. Held-out real samples, as many as there are fakes,
give the number to compare with; a number below theirs is a sign of copies.

The authors' code (metrics/evaluation.py) takes the nearest generated sample of every real one and
looks ρ up by the number of that generated sample, which belongs to another set; `authpct` of
dgm-eval and this module follow the paper.

Replicates: exact, recomputed without each group from every sample's nearest neighbours.
"""

from typing import NamedTuple

import numpy as np

from prpr.metrics import balls, checks, leave_out, neighbours
from prpr.metrics.balls import Balls, Parts
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

NAMES = ("authenticity",)


class Memorised(NamedTuple):
    """Generated samples beside their nearest training samples, the most suspect first.

    Attributes:
      samples: (C,) which of the generated samples.
      nearest: (C, K) its K nearest training samples, ascending in distance.
      distances: (C, K) to these.
      spacing: (C,) ρ of the nearest one, the largest where several are equally near.
      ratio: (C,) distances[:, 0] / spacing, ascending: memorised where <= 1.
    """

    samples: np.ndarray
    nearest: np.ndarray
    distances: np.ndarray
    spacing: np.ndarray
    ratio: np.ndarray


def authentic(real: Statistics, fake: Statistics) -> np.ndarray:
    """(M,) bool, whether each generated sample is authentic: their mean is the metric.

    Raises:
      DataError: fewer than two training samples.
    """
    near = neighbours.nearest(real, fake, min(neighbours.LEAST, real.n))
    least, spacing = near.distances[:, :1].T, neighbours.within(real, 1).distances.T
    return least[0] > _decisive(real, fake, near, least, neighbours.closed(real, spacing))[0]


def memorised(real: Statistics, fake: Statistics, count: int = 16, k: int = 4) -> Memorised:
    """The `count` generated samples that are nearest to training samples for these's spacing.

    They are ordered by |y − x| / ρ(x) to the nearest x, copies of duplicated training samples
    (0/0) first; a sheet of pictures shows each with its k nearest training samples.

    Args:
      real: statistics of the TRAINING samples.
      fake: statistics of the generated samples.
      count: C, at most M are returned.
      k: K, at most N.

    Raises:
      ConfigError: count or k below 1.
      DataError: fewer than two training samples.
    """
    checks.check_settings({"count": count, "k": k})
    k = min(k, real.n)
    near = neighbours.nearest(real, fake, min(max(k, neighbours.LEAST), real.n))
    least = near.distances[:, :1].T
    spacing = _decisive(real, fake, near, least, neighbours.within(real, 1).distances.T)[0]
    distance = least[0]
    ratio = np.where(distance > 0, np.inf, 0.0)
    np.divide(distance, spacing, out=ratio, where=spacing > 0)
    first = np.lexsort((distance, ratio))[:count]
    return Memorised(
        first, near.indices[first, :k], near.distances[first, :k], spacing[first], ratio[first]
    )


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, Replicates]:
    cuts, backend = leave_out.cuts(real, fake, options), options.backend
    leave_out.check_left(names, cuts, ({"k": 1}, {}))

    def ask(k: int) -> neighbours.Nearest:
        k = min(max(k, neighbours.LEAST), real.n)
        return neighbours.nearest(real, fake, k, backend=backend)

    near, at = leave_out.kept(ask, real.n, 1, cuts[0])
    least = np.take_along_axis(near.distances, at.T, axis=1).T
    spacing = neighbours.closed(real, leave_out.radii(real, cuts[0], 1, backend=backend))
    authentic = least > _decisive(real, fake, near, least, spacing, backend)
    theta = leave_out.means(authentic, cuts[1])
    return {"authenticity": Replicates(theta, fake.n, "proportion", 1)}


class _Largest:
    """The largest spacing among the training samples in each generated sample's ball."""

    def __init__(self, spacing: np.ndarray, m: int):
        self._spacing = spacing
        self.found = np.full((len(spacing), m), -np.inf)

    def add(self, at: np.ndarray, others: np.ndarray, parts: Parts) -> None:
        inner, shells = parts
        for found, spacing, shell in zip(self.found, self._spacing, shells, strict=True):
            for here in (inner, shell):
                np.maximum.at(found, at[here], spacing[others[here]])


def _decisive(
    real: Statistics,
    fake: Statistics,
    near: neighbours.Nearest,
    least: np.ndarray,
    spacing: np.ndarray,
    backend: str = "auto",
) -> np.ndarray:
    """(R, M) the largest spacing among the training samples that are as near as the nearest.

    Args:
      near: (M, K) the nearest training samples, all N or as many as are seldom equally near.
      least: (R, M) the distance to the nearest of those that count in a row.
      spacing: (R, N), −∞ for those that do not.
    """
    tied = Balls(fake, balls.whole(fake.n), least)
    largest = _Largest(spacing, fake.n)
    at, column = np.nonzero(near.distances <= tied.top[:, None])
    parts = tied.parts(at, near.distances[at, column])
    largest.add(at, near.indices[at, column], parts)
    more = near.distances[:, -1] <= tied.top
    if near.distances.shape[1] < real.n and more.any():
        reach = np.where(more, tied.top, -np.inf)
        pairs = neighbours.pairs(real, fake, (None, reach), backend=backend)
        balls.count(pairs, [balls.Use(FAKE, tied, [largest])])
    return largest.found


FAMILY = Family("authenticity", NAMES, NAMES.__contains__, _replicates)
