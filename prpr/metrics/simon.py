"""Precision-recall curves from a classifier's error rates: Simon et al. 2019 (arXiv:1905.05441).

Notation
  P, Q     real data (always first) and the model
  s        a classifier's score of a sample, high where it takes it for real; not fitted to it
  miss(t)  P(s < t): real samples taken for generated ones
  pass(t)  Q(s >= t): generated samples taken for real ones
  λ        tan θ of angles θ evenly spaced from 1e-10 to π/2 − 1e-10, as in `sajjadi`

    precision(λ) = min over t of  λ miss(t) + pass(t),    recall(λ) = precision(λ)/λ

For the likelihood ratio as s and without end of samples this is the frontier α(λ), β(λ): λ → ∞
leaves min pass among t without a miss, the model's mass where real samples are, and that is
precision; λ → 0 leaves recall. A curve goes on a figure with recall on x and precision on y.

What goes wrong elsewhere (DrLSimon/precision-recall-distributions-icml19, 364188ea): error rates
have no sides of their own, so precision lands on recall's axis when the folders called source and
target are exchanged; `random.shuffle` of a torch tensor's rows (its branch for stored features)
swaps views, which leaves some rows twice and others not at all; a coin for each index decides
which set's sample trains, and the other is scored, so half of all samples are. Here P is first,
and every sample of both sets is scored once, by `classifiers` that were not fitted to it.

The minimum over t is taken on the samples that make the figure, so it is biased downwards by what
it fits of their noise (P = Q, N = M: about 0.63 √(2/N) at λ = 1). The metrics "alpha_<λ>" and
`curves.curve` take off that bias.
"""

from typing import NamedTuple

import numpy as np

from prpr.metrics import curves, error_rates, sajjadi
from prpr.metrics.family import Options
from prpr.metrics.statistics import Statistics


class PrecisionRecall(NamedTuple):
    """precision(λ) for the y-axis and recall(λ) for the x-axis at each `lam`; all (L,)."""

    lam: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


def curve(
    real: Statistics,
    fake: Statistics,
    options: Options | None = None,
    *,
    angles: int = sajjadi.ANGLES,
    estimator: str = "classifier",
) -> PrecisionRecall:
    """The curve from held-out scores; concave, as the frontier is.

    Args:
      real, fake: samples with features, real first.
      options: seed, progress.
      angles: points of the curve, >= 3.
      estimator: "classifier" or "knn", see `curves`.

    Raises:
      ConfigError: fewer than 3 angles or an unknown estimator.
      DataError: too few samples, or no features.
    """
    scores = curves.log_ratios(real, fake, options or Options(), estimator)
    return of_scores(scores.real, scores.fake, sajjadi.slopes(angles))


def of_scores(real: np.ndarray, fake: np.ndarray, lam: np.ndarray) -> PrecisionRecall:
    """The curve of given scores (N,) and (M,), high where real, at λ (L,); no NaN, any order."""
    t = error_rates.thresholds(real, fake)
    miss = np.searchsorted(np.sort(real), t, side="left") / len(real)
    passed = 1 - np.searchsorted(np.sort(fake), t, side="left") / len(fake)
    precision = error_rates.least(miss[None], passed[None], lam)[:, 0, 0]
    return PrecisionRecall(lam, precision, precision / lam)
