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

from prpr.metrics import balls, leave_out, neighbours
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE, REAL
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

NAMES = ("precision_symmetric", "recall_symmetric", "precision_complement")


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, Replicates]:
    k, cuts = options.k_dc, leave_out.cuts(real, fake, options)
    both = set(names) != {"precision_complement"}
    leave_out.check_left(names, cuts, ({"k_dc": k} if both else {}, {"k_dc": k}))
    views = {"complement": balls.Asked(FAKE, k, balls.Covered)}
    if both:
        views["precision"] = balls.Asked(REAL, k, balls.Members)
        views["recall"] = balls.Asked(FAKE, k, balls.Members)
        views["coverage"] = balls.Asked(REAL, k, balls.Covered)
    seen = balls.tally(
        (real, fake),
        cuts,
        views,
        (k,),
        None,
        options.backend,
        lambda done, total: options.tick("symmetric", done, total),
    )
    complement = seen["complement"].shares().T
    found = {"precision_complement": (complement, fake.n)}
    if both:
        precision = leave_out.means(seen["precision"].counts() > 0, cuts[1])
        recall = leave_out.means(seen["recall"].counts() > 0, cuts[0]).T
        found["precision_symmetric"] = np.minimum(precision, complement), fake.n
        found["recall_symmetric"] = np.minimum(recall, seen["coverage"].shares()), real.n
    return {name: Replicates(*found[name], "proportion", k) for name in names}


def _expects(real: Statistics, fake: Statistics, names: tuple[str, ...]) -> int:
    """Pairs in the balls of both sets are asked for: who comes first should find them."""
    del real, fake, names
    return neighbours.LEAST


FAMILY = Family("symmetric", NAMES, NAMES.__contains__, _replicates, expects=_expects)
