"""A metric over log λ: between the values of λ that were trained, and made monotone if asked.

Notation: m values of λ, (n, m) draws of what the metric may be there.
"""

from collections.abc import Sequence

import numpy as np

from prpr.choosing.points import Point

DRAWS = 2000
GRID = 161  # values of log λ between the ends


def grid(lams: Sequence[float]) -> np.ndarray:
    """λ at even steps of log λ, those that were trained among them, ascending."""
    fine = np.exp(np.linspace(np.log(lams[0]), np.log(lams[-1]), GRID))
    return np.unique(np.concatenate([fine[1:-1], lams]))


def between(lams: Sequence[float], values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(..., m) at λ -> (..., len(at)), linear in log λ between neighbours."""
    x, new = np.log(lams), np.log(at)
    right = np.clip(np.searchsorted(x, new), 1, len(x) - 1) if len(x) > 1 else np.zeros(1, int)
    left = np.maximum(right - 1, 0)
    width = np.where(right > left, x[right] - x[left], 1.0)
    share = np.clip((new - x[left]) / width, 0.0, 1.0)
    return values[..., left] * (1 - share) + values[..., right] * share


def monotone(values: np.ndarray, points: Sequence[Point], way: int) -> np.ndarray:
    """Each row (..., m) as the nearest curve that rises (way = 1) or falls (−1); 0: as it is.

    Nearest in squares weighted by the points' inverse variances: what pooling adjacent violators
    gives, here by its closed form for all rows at once (Robertson, Wright & Dykstra 1988, 1.4.4),

      g_j = max over i <= j of min over k >= j of the weighted mean of v_i..v_k.
    """
    if way == 0:
        return values
    variances = np.asarray([one.variance for one in points])
    floor = variances[variances > 0].min(initial=np.inf)
    weights = 1 / np.maximum(variances, floor if np.isfinite(floor) else 1.0)
    m = values.shape[-1]
    out = np.full(values.shape, -np.inf)
    for i in range(m):
        sums = np.cumsum((way * values * weights)[..., i:], axis=-1)
        means = sums / np.cumsum(weights[i:])
        least = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        out[..., i:] = np.maximum(out[..., i:], least)
    return way * out
