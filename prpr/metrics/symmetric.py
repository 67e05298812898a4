"""Precision and recall that do not part in high dimensions: the less of two views of each.

Khayatkhoei & AbdAlmageed, "Emergent Asymmetry of Precision and Recall for Measuring Fidelity
and Diversity of Generative Models in High Dimensions", ICML 2023 (arXiv:2306.09618).

Notation
  x_i, y_j   N real (P, always first) and M generated samples (Q)
  B(i)       closed ball around a sample, to the k-th nearest other of its OWN set

  precision            = 1/M Σ_j 1{ some i: y_j ∈ B(x_i) }      the fake is in a real ball
  precision_complement = 1/M Σ_j 1{ some i: x_i ∈ B(y_j) }      a real is in the fake's ball
  recall               = 1/N Σ_i 1{ some j: x_i ∈ B(y_j) }
  coverage             = 1/N Σ_i 1{ some j: y_j ∈ B(x_i) }      recall's complement

  precision_symmetric = min(precision, precision_complement)
  recall_symmetric    = min(recall, coverage)

One k serves all four: `k_dc`, 5 by default as in the authors' class. In high dimensions a
ball that is a little too wide holds everything: with fakes just inside the real support precision
is 1 and recall 0, with fakes just outside the reverse, and the less of both views is low each time.
Coverage and precision_complement are also the two ends of the curve of Sykes, Simon & Rabin 2024
(arXiv:2405.01611) for the classifier that they name after coverage, as precision and recall are
for that of Kynkäänniemi's balls, but for a sample's being its own neighbour there.

Replicates: exact, all four recomputed without each group from the pairs inside the balls.
"""

import numpy as np

from prpr.metrics import leave_out, neighbours
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE, REAL, Groups, split
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

NAMES = ("precision_symmetric", "recall_symmetric", "precision_complement")


def views(
    centres: Statistics, others: Statistics, cuts: tuple[Groups, Groups], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """θ (1 + G, 1 + H) of both questions to the balls of one set, see `intervals`.

    Returns:
      (share of the others that lie in a ball, share of the balls that hold one of the others):
      precision and coverage where the centres are real, recall and precision_complement where
      they are fakes; G are the centres' groups, H the others'.
    """
    balls = leave_out.radii(centres, cuts[0], k)
    label, top = cuts[1].labels(), balls.max(axis=0)
    held = np.zeros((len(balls), others.n), bool)
    holds = np.zeros((*balls.shape, len(cuts[1].cut) - 1), bool)  # one of each group
    for i, j, d in leave_out.batches(neighbours.inside(centres, others, top)):
        for row in range(len(balls)):
            here = leave_out.closed(d, balls[row, i], top[i])
            held[row, j[here]] = True
            holds[row, i[here], label[j[here]]] = True
    # The ball of a centre that is left out has radius −∞ and holds nothing.
    left = centres.n - np.concatenate([[0], cuts[0].sizes])
    groups = holds.sum(axis=2)
    covered = np.stack([groups > 0, *(groups > np.moveaxis(holds, 2, 0))], axis=2).sum(axis=1)
    return leave_out.means(held, cuts[1]), covered / left[:, None]


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, Replicates]:
    real.needed("real")
    fake.needed("fake")
    k, sizes = options.k_dc, {"real": real.n, "fake": fake.n}
    leave_out.check_left(", ".join(names), sizes, k, options.groups)
    cuts = (
        split(real.n, options.groups, options.seed, REAL),
        split(fake.n, options.groups, options.seed, FAKE),
    )
    options.tick("symmetric", 0, 2)
    recall, complement = (theta.T for theta in views(fake, real, (cuts[1], cuts[0]), k))
    found = {"precision_complement": (complement, fake.n)}
    options.tick("symmetric", 1, 2)
    if set(names) != {"precision_complement"}:
        precision, coverage = views(real, fake, cuts, k)
        found["precision_symmetric"] = np.minimum(precision, complement), fake.n
        found["recall_symmetric"] = np.minimum(recall, coverage), real.n
    options.tick("symmetric", 2, 2)
    return {name: Replicates(*found[name], "proportion", k) for name in names}


FAMILY = Family("symmetric", NAMES, NAMES.__contains__, _replicates)
