"""Closed balls around the samples of one set, and which samples of another lie in them.

Notation: centres i of n balls, cut into G groups; m other samples, cut into H. An array of
(1 + G, ...) has the whole set in row 0, and in row 1 + g what holds without the centres of
group g: their balls are gone, and the others' balls have grown to the next neighbour.

The balls of row 0 are the least. What lies in them is counted once, by the centre's group, and
only the shell between them and the largest balls is looked at row by row.
"""

import numpy as np

from prpr.metrics import leave_out, neighbours
from prpr.metrics.groups import Groups
from prpr.metrics.statistics import Statistics

Parts = tuple[np.ndarray, list[np.ndarray]]


class Balls:
    """Closed balls of one set, on the whole set and without each group.

    radii (1 + G, n): row 0 of the whole set, the least of all; −∞ for those left out. With
    one group nothing is left out: (1, n).
    """

    def __init__(self, stats: Statistics, cut: Groups, k: int):
        if len(cut.cut) == 2:
            radii = neighbours.within(stats, k).distances[None, :, -1]
        else:
            radii = leave_out.radii(stats, cut, k)
        self.radii = neighbours.closed(stats, radii)
        self.top = self.radii.max(axis=0)
        self.label = cut.labels()

    def undecided(self, at: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Whether bounds of distances from centres `at` leave open what lies in a ball."""
        whole = self.radii[0, at]
        out = (lower <= whole) & (upper > whole)
        shell = np.flatnonzero((upper > whole) & (lower <= self.top[at]))
        at, lower, upper = at[shell], lower[shell], upper[shell]
        for row in self.radii[1:]:
            radius = row[at]
            out[shell] |= (lower <= radius) & (upper > radius)
        return out

    def parts(self, at: np.ndarray, d: np.ndarray) -> Parts:
        """Which pairs lie in the whole set's ball, and so in every row's that has the centre; and
        for each group, which lie in the ball only when the group is left out."""
        inner = d <= self.radii[0, at]
        shell = np.flatnonzero(~inner & (d <= self.top[at]))
        d, at = d[shell], at[shell]
        return np.flatnonzero(inner), [shell[d <= row[at]] for row in self.radii[1:]]


class Members:
    """In how many balls each of m other samples lies."""

    def __init__(self, balls: Balls, m: int):
        self._label = balls.label
        self._whole = np.zeros((max(len(balls.radii) - 1, 1), m), np.int64)  # by centres' group
        self._more = np.zeros((len(balls.radii) - 1, m), np.int64)

    def add(self, at: np.ndarray, others: np.ndarray, parts: Parts) -> None:
        m, (inner, shells) = self._whole.shape[1], parts
        cell = self._label[at[inner]] * m + others[inner]
        self._whole += np.bincount(cell, minlength=self._whole.size).reshape(self._whole.shape)
        for more, here in zip(self._more, shells, strict=True):
            more += np.bincount(others[here], minlength=m)

    def counts(self) -> np.ndarray:
        """(1 + G, m), or (1, m) where nothing is left out."""
        total = self._whole.sum(axis=0, keepdims=True)
        return (
            total if not len(self._more) else np.vstack([total, total - self._whole + self._more])
        )


class Covered:
    """Which groups of the others have a sample in each ball."""

    def __init__(self, balls: Balls, cut: Groups):
        self._balls, self._label = balls, cut.labels()
        n, h = balls.radii.shape[1], len(cut.sizes)
        self._whole = np.zeros((n, h), bool)
        self._more = np.zeros((len(balls.radii) - 1, n, h), bool)

    def add(self, at: np.ndarray, others: np.ndarray, parts: Parts) -> None:
        inner, shells = parts
        self._whole[at[inner], self._label[others[inner]]] = True
        for more, here in zip(self._more, shells, strict=True):
            more[at[here], self._label[others[here]]] = True

    def any(self) -> np.ndarray:
        """(n,) whether the whole set's balls hold one of the others."""
        return np.logical_or.reduce(self._whole, axis=1)

    def shares(self) -> np.ndarray:
        """(1 + G, 1 + H) share of the balls that hold one of the others."""
        out = []
        for row, radii in enumerate(self._balls.radii):
            kept = radii > -np.inf
            held = (self._whole | self._more[row - 1] if row else self._whole)[kept]
            groups = held.sum(axis=1)
            # Without group h the balls go that hold samples of h alone.
            lost = held[groups == 1].sum(axis=0)
            covered = np.count_nonzero(groups)
            out.append(np.concatenate([[covered], covered - lost]) / len(held))
        return np.array(out)


class Tally:
    """What the pairs in the balls add up to."""

    def __init__(self, real: Balls, real_dc: Balls, fake: Balls, cuts: tuple[Groups, Groups]):
        n, m = len(real.top), len(fake.top)
        self.precise, self.dense = Members(real, m), Members(real_dc, m)
        self.recalled, self.covered = Members(fake, n), Covered(real_dc, cuts[1])
        self._balls = real, real_dc, fake

    def add(self, pairs: neighbours.Pairs) -> None:
        real, real_dc, fake = self._balls

        def undecided(x: neighbours.Pairs) -> np.ndarray:
            return (
                real.undecided(x.i, x.lower, x.upper)
                | real_dc.undecided(x.i, x.lower, x.upper)
                | fake.undecided(x.j, x.lower, x.upper)
            )

        i, j, _, d, _ = pairs.decided(undecided)
        self.precise.add(i, j, real.parts(i, d))
        parts = real_dc.parts(i, d)
        self.dense.add(i, j, parts)
        self.covered.add(i, j, parts)
        self.recalled.add(j, i, fake.parts(j, d))


def tally(
    pair: tuple[Statistics, Statistics],
    cuts: tuple[Groups, Groups],
    k: int,
    k_dc: int,
    tile: int | None,
    backend: str,
    tick: neighbours.Tick | None = None,
) -> Tally:
    """Counts of both sets at k and k_dc; a pass over each set's own distances and one across.

    Args:
      pair: real and fake statistics.
      cuts: their groups; one group where nothing is left out.
      k, k_dc: neighbours for precision and recall, and for density and coverage.
      tile, backend: see `neighbours.within`.
      tick: called with (done, of 100).
    """

    def stage(first: int, share: int) -> neighbours.Tick:
        """Of 100 steps a pass is `share`, from `first` on."""

        def step(done: int, total: int) -> None:
            if tick is not None:
                tick(first + share * done // total, 100)

        return step

    for number, (one, cut) in enumerate(zip(pair, cuts, strict=True)):
        # The largest k first: the smaller ones come with it.
        most = min(2 * max(k, k_dc) + 5, one.n - 1) if len(cut.cut) > 2 else max(k, k_dc)
        neighbours.within(one, most, tile=tile, backend=backend, tick=stage(25 * number, 25))
    real, real_dc = (Balls(pair[0], cuts[0], x) for x in (k, k_dc))
    fake, fake_dc = (Balls(pair[1], cuts[1], x) for x in (k, k_dc))
    found = Tally(real, real_dc, fake, cuts)
    # As far as either k on both sides: metrics that look from the fakes need no further pass.
    reach = np.maximum(real.top, real_dc.top), np.maximum(fake.top, fake_dc.top)
    for some in neighbours.pairs(*pair, reach, tile=tile, backend=backend, tick=stage(50, 50)):
        found.add(some)
    return found
