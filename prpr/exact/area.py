"""The area that a set of precisions and recalls dominates."""

import numpy as np
from numpy.typing import ArrayLike

from prpr.errors import DataError


def hypervolume(precision: ArrayLike, recall: ArrayLike) -> float:
    """Area of ∪_k [0, recall_k] × [0, precision_k]: what some of the points (K,) dominate.

    Of points on a frontier it is at most `frontier.area_under` of their curve, which joins them.

    Raises:
      DataError: the two have different shapes, no points, or a value outside [0, 1] (1e-6 of
        rounding is forgiven).
    """
    both = [np.asarray(x, np.float64) for x in (precision, recall)]
    if both[0].ndim != 1 or both[0].shape != both[1].shape or both[0].size == 0:
        shapes = " and ".join(str(x.shape) for x in both)
        raise DataError(f"precision and recall need one shape (K,), K >= 1, not {shapes}")
    for name, x in zip(("precision", "recall"), both, strict=True):
        bad = ~((x >= 0) & (x <= 1 + 1e-6))
        if bad.any():
            raise DataError(f"{name} has {x[bad][0]} at {int(bad.argmax())}: not in [0, 1]")
    first, second = (np.minimum(x, 1) for x in both)
    order = np.argsort(-first)
    reach = np.maximum.accumulate(second[order])
    return float(np.sum(-np.diff(first[order], append=0) * reach))
