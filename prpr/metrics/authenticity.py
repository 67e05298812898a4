"""Authenticity: the share of generated samples that are not copies of training samples.

Alaa, van Breugel, Saveliev, van der Schaar, "How Faithful is your Synthetic Data? Sample-level
Metrics for Evaluating and Auditing Generative Models", ICML 2022 (arXiv:2102.08921).

Notation
  x_i   N TRAINING samples (real, always first),  y_j  M generated samples
  i(j)  the training sample nearest to y_j,  ρ(i)  distance of x_i to its nearest other x

  authenticity = 1/M Σ_j 1{ |y_j − x_i(j)| > ρ(i(j)) }

A sample that is as near to a training sample as that one is to its own nearest neighbour counts
as memorised, so a training set against itself has authenticity 0. Where several training samples
are equally near, any one of them decides.

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

from prpr.metrics import checks, leave_out, neighbours
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE, REAL, split
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

NAMES = ("authenticity",)


class Memorised(NamedTuple):
    """Generated samples beside their nearest training samples, the most suspect first.

    Attributes:
      samples: (C,) which of the generated samples.
      nearest: (C, K) its K nearest training samples, ascending in distance.
      distances: (C, K) to these.
      spacing: (C,) ρ of the nearest one.
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
    near = _nearest(real, fake, 1)
    spacing = neighbours.closed(real, neighbours.within(real, 1).distances[:, 0])
    return near.distances[:, 0] > spacing[near.indices[:, 0]]


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
    near = _nearest(real, fake, k)
    spacing = neighbours.within(real, 1).distances[near.indices[:, 0], 0]
    distance = near.distances[:, 0]
    ratio = np.where(distance > 0, np.inf, 0.0)
    np.divide(distance, spacing, out=ratio, where=spacing > 0)
    first = np.lexsort((distance, ratio))[:count]
    return Memorised(
        first, near.indices[first, :k], near.distances[first, :k], spacing[first], ratio[first]
    )


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, Replicates]:
    del names
    real.needed("real")
    fake.needed("fake")
    leave_out.check_left("authenticity", {"real": real.n}, 1, options.groups)
    cut = split(real.n, options.groups, options.seed, REAL)
    near, at = leave_out.kept(lambda k: _nearest(real, fake, k), real.n, 1, cut)
    distance = np.take_along_axis(near.distances, at.T, axis=1).T
    index = np.take_along_axis(near.indices, at.T, axis=1).T
    spacing = neighbours.closed(real, leave_out.radii(real, cut, 1))
    authentic = distance > np.take_along_axis(spacing, index, axis=1)
    theta = leave_out.means(authentic, split(fake.n, options.groups, options.seed, FAKE))
    return {"authenticity": Replicates(theta, fake.n, "proportion", 1)}


def _nearest(real: Statistics, fake: Statistics, k: int) -> neighbours.Nearest:
    """The k <= N training samples nearest to each generated one, however few of these."""
    m = fake.n
    if m < k:
        fake = fake.take(np.arange(k) % m)  # `across` asks for k samples of both
    near = neighbours.across(real, fake, k)[1]
    return neighbours.Nearest(near.distances[:m], near.indices[:m])


FAMILY = Family("authenticity", NAMES, NAMES.__contains__, _replicates)
