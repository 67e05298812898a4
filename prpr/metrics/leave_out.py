"""Nearest neighbours, pairs and means without each group of samples: what exact replicates need.

Notation: a set of n samples is cut into G groups. Arrays of (1 + G, n) hold a value a sample, in
the samples' own order: row 0 on the whole set, row 1 + g without group g.

A sample's neighbours without a group are among its K nearest on the whole set, unless nearly all
of these are in that group: with K = 2k + 5 and G = 20 that has a probability below 1e-9 for each
sample and group, and K grows until all are found.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from prpr import errors
from prpr.metrics import checks, neighbours
from prpr.metrics.family import Options
from prpr.metrics.groups import FAKE, REAL, Groups, split
from prpr.metrics.neighbours import Nearest
from prpr.metrics.statistics import Statistics

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
BATCH = 2**20


def cuts(real: Statistics, fake: Statistics, options: Options) -> tuple[Groups, Groups]:
    """The groups of both sets.

    Raises:
      DataError: a set without features.
      ConfigError: fewer than two groups.
    """
    real.needed("real")
    fake.needed("fake")
    return (
        split(real.n, options.groups, options.seed, REAL),
        split(fake.n, options.groups, options.seed, FAKE),
    )


def left(cut: Groups) -> int:
    """How many samples there are at least when a group is left out; all, of one group."""
    return len(cut.order) - (int(cut.sizes.max()) if len(cut.sizes) > 1 else 0)


def check_left(
    names: Iterable[str], sets: tuple[Groups, Groups], ks: tuple[dict[str, int], dict[str, int]]
) -> None:
    """DataError unless both sets are enough still when a group is left out.

    Args:
      names: of the metrics.
      sets: the groups of the real and of the fake samples.
      ks: for each side the neighbours that are asked for in its own set, {setting: k}; a set of
        which none is asked is only counted, and one sample must be left.

    Raises: also ConfigError for a k that is no whole number >= 1.
    """
    checks.check_settings(ks[0] | ks[1])
    for side, cut, asked in zip(("real", "fake"), sets, ks, strict=True):
        n, groups = len(cut.order), len(cut.sizes)
        least = max(asked.values(), default=0) + 1
        found = left(cut) if groups > 1 else 0
        if found < least:
            settings = ", ".join(f"{name}={k}" for name, k in asked.items())
            raise errors.DataError(
                f"{', '.join(names)}{' with ' + settings if asked else ''} needs at least {least} "
                f"{side} sample{'s' * (least > 1)} when one of {groups} groups is left out, got "
                f"{found} of {n}: give more samples{' or groups' if n > least else ''}"
            )


def radii(
    stats: Statistics, groups: Groups, k: int, *, tile: int | None = None, backend: str = "auto"
) -> np.ndarray:
    """(1 + G, n) distance to the k-th nearest other; −∞ for the samples that are left out."""
    label = groups.labels()

    def ask(asked: int) -> Nearest:
        return neighbours.within(stats, asked, tile=tile, backend=backend)

    near, at = kept(ask, stats.n - 1, k, groups)
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
