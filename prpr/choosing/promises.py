"""Which λ a wish can be promised at: a test at each λ, and no more error for there being many.

Notation: m values of λ, p_j the doubt that the wish holds at λ_j: the p-value of "it does not",
for several constraints the largest of theirs (an intersection-union test).

Where all constraints go one way with λ the tests have an order beforehand: from the λ that is
likeliest to pass. Then the fallback procedure (Wiens 2003, with the chain of Learn then Test,
arXiv:2110.01052) passes the error of each success on to the next λ, so that a chain of them is
tested at almost the whole level; λ_j's adjusted p is

  min over i <= j of max over k in i..j of p_k / (w_i + ... + w_k),

with weights w = 1/2 for the first, the rest even. Elsewhere it is Holm's. Both bound by 1 − level
the probability that anything promised is not so, whatever the curve (the order costs power only)
and however the promised λ is then chosen.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from prpr.choosing.points import Point
from prpr.choosing.wishes import Constraint, direction


def doubts(
    constraints: Sequence[Constraint], points: Sequence[Mapping[Constraint, Sequence[Point]]]
) -> np.ndarray:
    """(m,) p of each λ; 0 for a wish without constraints.

    Args:
      constraints: of the wish.
      points: of each λ, the points that a constraint is about (several for "worst").
    """
    return np.asarray(
        [
            max(
                (
                    one.doubt(constraint.bound, constraint.least)
                    for constraint in constraints
                    for one in found[constraint]
                ),
                default=0.0,
            )
            for found in points
        ]
    )


def adjusted(constraints: Sequence[Constraint], p: np.ndarray) -> np.ndarray:
    """(m,) p's of λ ascending, with their number allowed for; see the module's head."""
    ways = {direction(one.target.metric) * (1 if one.least else -1) for one in constraints}
    if ways == {1}:
        return fallback(p[::-1])[::-1]
    if ways == {-1}:
        return fallback(p)
    return holm(p)


def fallback(p: np.ndarray) -> np.ndarray:
    """Adjusted p's in the order of the tests."""
    m = len(p)
    weights = np.full(m, 1.0 if m == 1 else 0.5 / (m - 1))
    weights[0] = 1.0 if m == 1 else 0.5
    out = np.ones(m)
    for i in range(m):
        chain = np.maximum.accumulate(p[i:] / np.cumsum(weights[i:]))
        out[i:] = np.minimum(out[i:], chain)
    return out


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p's (1979)."""
    m, order = len(p), np.argsort(p, kind="stable")
    out = np.empty(m)
    out[order] = np.minimum(1.0, np.maximum.accumulate((m - np.arange(m)) * p[order]))
    return out
