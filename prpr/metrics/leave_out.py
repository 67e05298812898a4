"""Nearest neighbours, pairs and means without each group of samples: what exact replicates need.

Notation: a set of n samples is cut into G groups. Arrays of (1 + G, n) hold a value a sample, in
the samples' own order: row 0 on the whole set, row 1 + g without group g.

A sample's neighbours without a group are among its K nearest on the whole set, unless nearly all
of these are in that group: with K = 2k + 5 and G = 20 that has a probability below 1e-9 for each
sample and group, and K grows until all are found.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from prpr import errors
from prpr.metrics import checks, neighbours
from prpr.metrics.groups import Groups
from prpr.metrics.neighbours import Nearest
from prpr.metrics.statistics import Statistics

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
BATCH = 2**20
SLACK = 1e-9  # relative: two computations of one distance agree to less than this


def check_left(name: str, sizes: dict[str, int], k: int, groups: int) -> None:
    """ConfigError unless k is a whole number, DataError unless every set has a k-th neighbour
    still when a group is left out."""
    checks.check_settings({"k": k, "groups": groups})
    for side, n in sizes.items():
        left = n - math.ceil(n / min(groups, n))
        if left < k + 1:
            raise errors.DataError(
                f"{name} with k={k} and groups={groups} needs at least {k + 1} {side} samples "
                f"when a group is left out, got {left} of {n}: give more samples"
            )


def radii(stats: Statistics, groups: Groups, k: int) -> np.ndarray:
    """(1 + G, n) distance to the k-th nearest other; −∞ for the samples that are left out."""
    label = groups.labels()
    near, at = kept(lambda asked: neighbours.within(stats, asked), stats.n - 1, k, groups)
    out = np.take_along_axis(near.distances, at.T, axis=1).T.copy()
    out[1 + label, np.arange(stats.n)] = -np.inf
    return out


def kept(
    ask: Callable[[int], Nearest], most: int, k: int, groups: Groups
) -> tuple[Nearest, np.ndarray]:
    """Neighbours, and (1 + G, n) the column of the k-th of them that is not left out.

    Args:
      ask: K -> at least K nearest, in the set that is cut into `groups`.
      most: how many neighbours there are; k of them outside every group.
      k: which neighbour.
      groups: of the set that the neighbours are in.
    """
    label = groups.labels()
    asked = min(2 * k + 5, most)
    while True:
        near = ask(asked)
        theirs = label[near.indices]
        at = np.empty((len(groups.cut), len(theirs)), np.int64)
        found = True
        for row in range(len(at)):
            reached = np.cumsum(theirs != row - 1, axis=1) >= k
            at[row] = np.argmax(reached, axis=1)
            found &= bool(reached[:, -1].all())
        if found:
            return near, at
        if asked >= most:
            raise errors.DataError(
                f"fewer than k={k} of {most} neighbours are left without a group: give more samples"
            )
        asked = min(2 * asked, most)


def closed(distances: np.ndarray, radii: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Which of the pairs that `neighbours.inside` gave for `reach` lie in smaller closed balls.

    All three are one number a pair. What is known to be within reach stays inside a ball of that
    radius, whatever the rounding of its distance: of duplicates too.
    """
    return (distances <= radii * (1 + SLACK)) | (radii >= reach)


def batches(pairs: Iterable[Pairs], least: int = BATCH) -> Iterator[Pairs]:
    """The same pairs (i, j, d) in pieces of at least `least`, but for the last."""
    held: list[Pairs] = []
    size = 0
    for piece in pairs:
        held.append(piece)
        size += len(piece[0])
        if size >= least:
            yield _join(held)
            held, size = [], 0
    if held:
        yield _join(held)


def means(values: np.ndarray, groups: Groups) -> np.ndarray:
    """(R, n) -> (R, 1 + G): means over all n samples, and over those outside each group."""
    total = values.sum(axis=1, dtype=np.float64, keepdims=True)
    inside = np.add.reduceat(values[:, groups.order], groups.cut[:-1], axis=1, dtype=np.float64)
    n = values.shape[1]
    return np.concatenate([total / n, (total - inside) / (n - groups.sizes)], axis=1)


def draws(values: np.ndarray, rate: bool = False) -> float:
    """How many draws of 0 or 1 (of a Poisson count) have a mean as sure as that of n values.

    mean(1 − mean) / (var/n), or mean / (var/n) of a rate: n where all values are 0 or 1, and more
    where they lie between.
    """
    n, mean, variance = len(values), float(np.mean(values)), float(np.var(values))
    spread = mean if rate else mean * (1 - mean)
    return max(n, n * spread / variance) if variance > 0 and spread > 0 else n


def _join(held: list[Pairs]) -> Pairs:
    i, j, d = (np.concatenate(parts) for parts in zip(*held, strict=True))
    return i, j, d
