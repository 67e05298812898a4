"""Closed balls around the samples of one set, and which samples of another lie in them.

Notation: centres i of n balls, cut into G groups; m other samples, cut into H. An array of
(1 + G, ...) has the whole set in row 0, and in row 1 + g what holds without the centres of
group g: their balls are gone, and the others' balls have grown to the next neighbour.

What lies in the least ball of a centre, over the rows, is counted once, by the centre's group, and
only the shell between it and the largest is looked at row by row. Whether a sample lies in a ball
is decided exactly, with the ties of `neighbours.closed`, for every row.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from prpr.metrics import leave_out, neighbours
from prpr.metrics.groups import FAKE, REAL, Groups
from prpr.metrics.statistics import Statistics

Parts = tuple[np.ndarray, list[np.ndarray]]


def whole(n: int) -> Groups:
    """One group of all samples: nothing is left out."""
    return Groups(np.arange(n), [0, n])


class Balls:
    """Closed balls of one set, on the whole set and without each group.

    Attributes:
      radii: (1 + G, n), −∞ for those left out. With one group nothing is left out: (1, n).
      least, top: (n,) the least and the largest ball of each centre, in the rows that have it.
    """

    def __init__(self, stats: Statistics, cut: Groups, radii: np.ndarray):
        """`radii` are distances, that is without what makes balls closed."""
        self.radii = neighbours.closed(stats, radii)
        self.top = self.radii.max(axis=0)
        self.least = np.where(self.radii > -np.inf, self.radii, np.inf).min(axis=0)
        self.label = cut.labels()

    @classmethod
    def around(
        cls, stats: Statistics, cut: Groups, k: int, tile: int | None = None, backend: str = "auto"
    ) -> "Balls":
        """Balls to the k-th nearest other of a set, without each group of more than one."""
        if len(cut.sizes) == 1:
            near = neighbours.within(stats, k, tile=tile, backend=backend)
            return cls(stats, cut, near.distances[None, :, -1])
        return cls(stats, cut, leave_out.radii(stats, cut, k, tile=tile, backend=backend))

    def undecided(self, at: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Whether bounds of distances from centres `at` leave open what lies in a ball."""
        least = self.least[at]
        out = (lower <= least) & (upper > least)
        shell = np.flatnonzero((upper > least) & (lower <= self.top[at]))
        at, lower, upper = at[shell], lower[shell], upper[shell]
        for row in self.radii:
            radius = row[at]
            out[shell] |= (lower <= radius) & (upper > radius)
        return out

    def parts(self, at: np.ndarray, d: np.ndarray) -> Parts:
        """Which pairs lie in a centre's least ball, and so in that of every row that has it; and
        for each row, which of the others lie in its ball."""
        inner = d <= self.least[at]
        shell = np.flatnonzero(~inner & (d <= self.top[at]))
        d, at = d[shell], at[shell]
        return np.flatnonzero(inner), [shell[d <= row[at]] for row in self.radii]


class Members:
    """In how many balls each of the other samples lies."""

    def __init__(self, balls: Balls, others: Groups):
        m = len(others.order)
        self._label = balls.label
        rows = len(balls.radii)
        self._inner = np.zeros((max(rows - 1, 1), m), np.int64)  # by centres' group
        self._more = np.zeros((rows, m), np.int64)

    def add(self, at: np.ndarray, others: np.ndarray, parts: Parts) -> None:
        m, (inner, shells) = self._inner.shape[1], parts
        cell = self._label[at[inner]] * m + others[inner]
        self._inner += np.bincount(cell, minlength=self._inner.size).reshape(self._inner.shape)
        for more, here in zip(self._more, shells, strict=True):
            if len(here):
                more += np.bincount(others[here], minlength=m)

    def counts(self) -> np.ndarray:
        """(1 + G, m), or (1, m) where nothing is left out."""
        total = self._inner.sum(axis=0, keepdims=True)
        if len(self._more) > 1:
            total = np.vstack([total, total - self._inner])
        return total + self._more


class Covered:
    """Which groups of the others have a sample in each ball."""

    def __init__(self, balls: Balls, others: Groups):
        self._balls, self._label = balls, others.labels()
        shape = balls.radii.shape[1], len(others.sizes)
        self._inner = np.zeros(shape, bool)
        self._more = np.zeros((len(balls.radii), *shape), bool)

    def add(self, at: np.ndarray, others: np.ndarray, parts: Parts) -> None:
        inner, shells = parts
        self._inner[at[inner], self._label[others[inner]]] = True
        for more, here in zip(self._more, shells, strict=True):
            more[at[here], self._label[others[here]]] = True

    def any(self) -> np.ndarray:
        """(n,) whether the whole set's balls hold one of the others."""
        return np.logical_or.reduce(self._inner | self._more[0], axis=1)

    def shares(self) -> np.ndarray:
        """(1 + G, 1 + H) share of the balls that hold one of the others."""
        out = []
        for more, radii in zip(self._more, self._balls.radii, strict=True):
            held = (self._inner | more)[radii > -np.inf]
            groups = held.sum(axis=1)
            # Without group h the balls go that hold samples of h alone.
            lost = held[groups == 1].sum(axis=0)
            covered = np.count_nonzero(groups)
            out.append(np.concatenate([[covered], covered - lost]) / len(held))
        return np.array(out)


class Numbers:
    """How many samples of each group of the others lie in each ball."""

    def __init__(self, balls: Balls, others: Groups):
        self._radii, self._label = balls.radii, others.labels()
        self._h = len(others.sizes)
        size = balls.radii.shape[1] * self._h
        self._inner = np.zeros(size, np.int32)
        self._more = np.zeros((len(balls.radii), size), np.int32)

    def add(self, at: np.ndarray, others: np.ndarray, parts: Parts) -> None:
        inner, shells = parts
        cell = at.astype(np.int64) * self._h + self._label[others]
        np.add.at(self._inner, cell[inner], 1)
        for more, here in zip(self._more, shells, strict=True):
            np.add.at(more, cell[here], 1)

    def rows(self) -> Iterator[np.ndarray]:
        """For each row (n, H); 0 for the balls of a group that is left out."""
        for more, radii in zip(self._more, self._radii, strict=True):
            yield (self._inner + more).reshape(-1, self._h) * (radii > -np.inf)[:, None]


class Counter(Protocol):
    """What adds up pairs of a centre and another sample; see `Balls.parts`."""

    def add(self, at: np.ndarray, others: np.ndarray, parts: Parts) -> None: ...


class Use(NamedTuple):
    """Balls around the samples of one side, REAL or FAKE, and what is counted in them."""

    side: int
    balls: Balls
    counters: Sequence[Counter]


def count(pairs: Iterable[neighbours.Pairs], uses: Sequence[Use]) -> None:
    """Adds all pairs of two sets to the counters; bounds are made as close as the balls ask."""

    def undecided(x: neighbours.Pairs) -> np.ndarray:
        found = [use.balls.undecided((x.i, x.j)[use.side], x.lower, x.upper) for use in uses]
        return np.logical_or.reduce(found)

    for some in pairs:
        i, j, _, d, _ = some.decided(undecided)
        for use in uses:
            at, others = (i, j) if use.side == REAL else (j, i)
            parts = use.balls.parts(at, d)
            for counter in use.counters:
                counter.add(at, others, parts)


class Asked(NamedTuple):
    """Balls around the samples of one side, to their k-th neighbour, and what is counted there."""

    side: int
    k: int
    counter: type[Members] | type[Covered]


def tally(
    pair: tuple[Statistics, Statistics],
    cuts: tuple[Groups, Groups],
    asked: Mapping[str, Asked],
    ks: Collection[int],
    tile: int | None = None,
    backend: str = "auto",
    tick: neighbours.Tick | None = None,
) -> dict[str, Any]:
    """{name: counter} of what is asked; a pass over each set's own distances and one across.

    Args:
      pair: real and fake statistics.
      cuts: their groups; one group where nothing is left out.
      asked: by name; the sets must be large enough.
      ks: neighbours that other metrics will ask for: the passes reach for them too, on each side
        that is large enough.
      tile, backend: see `neighbours.within`.
      tick: called with (done, of 100).
    """

    def stage(first: int, share: int) -> neighbours.Tick:
        """Of 100 steps a pass is `share`, from `first` on."""

        def step(done: int, total: int) -> None:
            if tick is not None:
                tick(first + share * done // total, 100)

        return step

    made: dict[tuple[int, int], Balls] = {}
    reach: list[np.ndarray | None] = [None, None]
    for side, one, cut in zip((REAL, FAKE), pair, cuts, strict=True):
        own = {x.k for x in asked.values() if x.side == side}
        own |= {k for k in ks if k < leave_out.left(cut)}
        if not own:
            continue
        # The largest k first: the smaller ones come with it.
        most = min(2 * max(own) + 5, one.n - 1) if len(cut.sizes) > 1 else max(own)
        neighbours.within(one, most, tile=tile, backend=backend, tick=stage(25 * side, 25))
        for k in own:
            made[side, k] = Balls.around(one, cut, k, tile, backend)
        reach[side] = np.max([made[side, k].top for k in own], axis=0)
    counters = {
        name: x.counter(made[x.side, x.k], cuts[FAKE if x.side == REAL else REAL])
        for name, x in asked.items()
    }
    uses = [
        Use(at[0], one, [counters[name] for name, x in asked.items() if (x.side, x.k) == at])
        for at, one in made.items()
    ]
    pairs = neighbours.pairs(
        *pair, (reach[0], reach[1]), tile=tile, backend=backend, tick=stage(50, 50)
    )
    count(pairs, [use for use in uses if use.counters])
    return counters
