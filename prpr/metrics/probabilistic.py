"""P-precision and P-recall: how probably a sample lies on the other set's support.

Park & Kim, "Probabilistic Precision and Recall Towards Reliable Evaluation of Generative
Models", ICCV 2023 (arXiv:2309.01590).

Notation
  x_i, y_j   N real (P, always first) and M generated samples (Q)
  ρ(i)       distance of a sample to its k-th nearest other in its OWN set, k = 4
  R          a · mean of ρ over a set, a = 1.2: one radius for all of its samples; R_p, R_q

  psr_p(y)    = 1 − Π_i min(1, |y − x_i| / R_p)     one less the probability that no x vouches
  p_precision = 1/M Σ_j psr_p(y_j),   p_recall = 1/N Σ_i psr_q(x_i)

k and a are the authors' defaults (metric/pp_pr.py) and do not follow the options' k. One radius
for all makes sparse regions count for less than in precision, and an outlier nearly nothing.
Where R = 0 (more duplicates than k), equal samples vouch and others do not.

Replicates: exact. Without a group the products lack its factors, and R moves; pairs beyond the
least R and within the greatest are few, and alone are looked at for every group.
"""

import numpy as np

from prpr.metrics import leave_out, neighbours
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import Groups
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

NAMES = ("p_precision", "p_recall")
K = 4  # k
SCALE = 1.2  # a
_EQUAL = -700.0  # log of the distance of equal samples: exp of it is nothing


def common_radius(stats: Statistics, groups: Groups, backend: str = "auto") -> np.ndarray:
    """(1 + G,) R of a set, and without each group."""
    balls = leave_out.radii(stats, groups, K, backend=backend)
    kept = np.isfinite(balls)
    return SCALE * np.where(kept, balls, 0).sum(axis=1) / kept.sum(axis=1)


class Products:
    """log Π min(1, d/R) over the centres, for every probe, all and without each group.

    Args:
      probes: number of probes, m.
      groups: of the centres.
      radius: (1 + G,) R.
    """

    def __init__(self, probes: int, groups: Groups, radius: np.ndarray):
        self._label, self._radius = groups.labels(), radius
        self._log_radius = np.log(np.where(radius > 0, radius, 1))
        self._shape = probes, len(groups.cut) - 1
        self._logs, self._counts = np.zeros(self._shape), np.zeros(self._shape)
        self._rest = np.zeros((len(radius), probes))

    def add(self, centre: np.ndarray, probe: np.ndarray, d: np.ndarray) -> None:
        """Takes in pairs, each once; those beyond every R do not matter."""
        log_d = np.log(np.where(d > 0, d, 1))
        log_d[d == 0] = _EQUAL
        all_within = (d < self._radius.min()) | (d == 0)
        at = probe[all_within] * self._shape[1] + self._label[centre[all_within]]
        size = self._logs.size
        self._logs += np.bincount(at, log_d[all_within], size).reshape(self._shape)
        self._counts += np.bincount(at, minlength=size).reshape(self._shape)
        some = ~all_within & (d < self._radius.max())
        centre, probe, d, log_d = self._label[centre[some]], probe[some], d[some], log_d[some]
        for row, radius in enumerate(self._radius):
            here = (d < radius) & (centre != row - 1)
            values = log_d[here] - self._log_radius[row]
            self._rest[row] += np.bincount(probe[here], values, self._shape[0])

    def scores(self) -> np.ndarray:
        """(1 + G, m) psr = 1 − the product."""
        logs = self._logs.sum(axis=1) - np.vstack([np.zeros(self._shape[0]), self._logs.T])
        counts = self._counts.sum(axis=1) - np.vstack([np.zeros(self._shape[0]), self._counts.T])
        return -np.expm1(logs - counts * self._log_radius[:, None] + self._rest)


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, Replicates]:
    cuts = leave_out.cuts(real, fake, options)
    needed = tuple({"k": K} if name in names else {} for name in NAMES)
    leave_out.check_left(names, cuts, (needed[0], needed[1]))
    options.tick("probabilistic", 0, 1)
    products: dict[str, Products] = {}
    reach = 0.0
    for name in names:
        own, other = (0, 1) if name == "p_precision" else (1, 0)
        radius = common_radius((real, fake)[own], cuts[own], options.backend)
        reach = max(reach, float(radius.max()))
        products[name] = Products(len(cuts[other].order), cuts[own], radius)
    inside = neighbours.inside(real, fake, np.full(real.n, reach), backend=options.backend)
    for i, j, d in leave_out.batches(inside):
        for name, one in products.items():
            one.add(*((i, j) if name == "p_precision" else (j, i)), d)
    found = {}
    for name, one in products.items():
        scores = one.scores()
        theta = leave_out.means(scores, cuts[1 if name == "p_precision" else 0])
        draws = leave_out.draws(scores[0])
        theta = theta if name == "p_precision" else theta.T
        found[name] = Replicates(theta, draws, "proportion", K)
    options.tick("probabilistic", 1, 1)
    return found


FAMILY = Family("probabilistic", NAMES, NAMES.__contains__, _replicates)
