"""Tiles of screened squared distances, and what is looked for in them.

Notation as in `distances`: s is a squared distance in the frame up to β (|a−c|² + |b−c|²) + floor.
With |b−c|² <= 2|a−c|² + 2d² that is an error of at most β (3|a−c|² + 2d²) + floor, in which b
does not occur; so a bound for a sample's distances becomes one for its s, and back.
"""

import copy
import functools
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from prpr.metrics.distances import Points, exact, frame, panel, spread, squares, workers

NARROW = 64  # below this width float64 products cost little beside the selection
_STRIPE = 2**20  # distances that are looked through at a time
_WIDE = 1024  # new candidates of a row that are merged at once
_MERGED = 2**20  # places for candidates, old and new, that are merged at once
_PENDING = 2**20  # candidates that wait to be merged
_LEAST_SIDE = 1024  # of a tile, where panels still cost little beside the product
_FEW = 2**14  # pairs that are soon told apart one by one
_DENSE = 8  # a product of all rows and columns for one pair in so many is worth it

Entries = tuple[np.ndarray, np.ndarray, np.ndarray]
Tick = Callable[[int, int], None]


class Host:
    """Tiles of s by numpy: a product, and what is below thresholds in it."""

    side = 4096

    def __init__(self, width: int, side: int | None = None, double: bool = False):
        self.dtype = np.dtype(np.float64 if double or width < NARROW else np.float32)
        self.side = side or (2048 if self.dtype == np.float64 else Host.side)
        self._buffer = np.empty(0, self.dtype)
        self._left = self._s = self._buffer

    def rows(self, left: np.ndarray) -> None:
        """The left panel of the products that follow."""
        self._left = left

    def product(self, right: np.ndarray, own: np.ndarray | None) -> None:
        """s (r, c) of the left and this right panel; infinite at (t, own[t]) where own >= 0."""
        r, c = len(self._left), len(right)
        if self._buffer.size < r * c:
            self._buffer = np.empty(r * c, self.dtype)
        self._s = self._buffer[: r * c].reshape(r, c)
        np.matmul(self._left, right.T, out=self._s)
        if own is not None:
            at = np.flatnonzero(own >= 0)
            self._s[at, own[at]] = np.inf

    def release(self) -> None:
        """Gives the memory back."""
        self._left = self._s = self._buffer = np.empty(0, self.dtype)

    def at(self, t: np.ndarray, u: np.ndarray) -> np.ndarray:
        """s of some places of the tile."""
        return self._s[t, u]

    def start(self, k: int, axis: int) -> np.ndarray:
        """For each row (axis 1) or column (0) a number that at least k of its s are below."""
        step = stride(self._s.shape[axis], k)
        sample = self._s[:, ::step] if axis else self._s[::step].T
        if sample.shape[1] < k:
            return np.full(len(sample), np.inf, self.dtype)
        pieces = [sample[t : t + 256] for t in range(0, len(sample), 256)]
        found = spread(lambda x: np.partition(x, k - 1, axis=1)[:, k - 1], pieces, sample.size)
        return above(np.concatenate(found))

    def below(self, rows: np.ndarray, columns: np.ndarray) -> Iterator[Entries]:
        """(t, u, s) with s[t, u] < rows[t] or < columns[u], t rising; at most _STRIPE each."""
        s = self._s
        width = s.shape[-1]
        height = max(1, _STRIPE // width)
        both = bool((columns > -np.inf).any())

        def stripe(start: int) -> Entries:
            part = s[start : start + height]
            mask = part < rows[start : start + height, None]
            if both:
                mask |= part < columns
            flat = np.flatnonzero(mask)
            t, u = np.divmod(flat, width)
            return t + start, u, part.ravel()[flat]

        starts = range(0, len(s), height)
        for some in range(0, len(starts), workers()):
            window = list(starts[some : some + workers()])
            yield from spread(stripe, window, len(window) * height * width)


def stride(size: int, k: int) -> int:
    """Every how many of `size` numbers to look at for a bound on the k-th smallest."""
    return int(np.clip(size // (32 * k), 1, 16))


def above(x: np.ndarray) -> np.ndarray:
    """The next number above each: x < above(y) is x <= y.

    Around 0 it is the least normal number: devices take what is smaller for 0.
    """
    out, tiny = np.nextafter(x, np.array(np.inf, x.dtype)), np.finfo(x.dtype).tiny
    return np.where(np.abs(out) < tiny, tiny, out)


class Near:
    """The k smallest s of each of n samples so far, and whose they are (−1: none yet)."""

    def __init__(self, n: int, k: int, dtype: np.dtype | type):
        self.s = np.full((n, k), np.inf, dtype)
        self.index = np.full((n, k), -1, np.int32)
        self.limit = np.full(n, np.inf, dtype)  # a candidate is below it
        self._pending: list[Entries] = []

    def begin(self, some: slice, start: Callable[[int], np.ndarray]) -> None:
        """Bounds for samples of which nothing is known: `start(k)`."""
        if np.isinf(self.limit[some]).any():
            self.limit[some] = np.minimum(self.limit[some], start(self.s.shape[1]))

    def add(self, at: np.ndarray, index: np.ndarray, s: np.ndarray) -> None:
        """Candidates (index, s) of the samples `at`, in any order."""
        new = s < self.limit[at]
        self._pending.append((at[new], index[new], s[new]))
        if sum(len(one[0]) for one in self._pending) > _PENDING:
            self.merge()

    def merge(self) -> None:
        """Takes in what waits; the limits fall."""
        if not any(len(one[0]) for one in self._pending):
            self._pending = []
            return
        at, index, s = (np.concatenate(x) for x in zip(*self._pending, strict=True))
        self._pending = []
        order = np.argsort(at, kind="stable")
        at, index, s = at[order], index[order], s[order]
        first = np.flatnonzero(np.diff(at, prepend=-1))
        cut = np.append(first, len(at))
        # One sample may have far more candidates than the others: few samples at a time.
        longest = min(int(np.diff(cut).max()), _WIDE)
        step = max(1, _MERGED // (self.s.shape[1] + longest))
        for start in range(0, len(first), step):
            bounds = cut[start : start + step + 1]
            some = slice(bounds[0], bounds[-1])
            self._take(at[bounds[:-1]], np.diff(bounds), index[some], s[some])

    def _take(self, whose: np.ndarray, sizes: np.ndarray, index: np.ndarray, s: np.ndarray) -> None:
        """Takes in the candidates of the samples `whose`, which lie one after the other."""
        place = np.repeat(np.arange(len(whose)), sizes)
        rank = np.arange(len(s)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        k = self.s.shape[1]
        for low in range(0, int(sizes.max()), _WIDE):
            some = (rank >= low) & (rank < low + _WIDE)
            columns = k + rank[some] - low
            wide = np.full((len(whose), int(columns.max()) + 1), np.inf, self.s.dtype)
            names = np.full(wide.shape, -1, np.int32)
            wide[:, :k], names[:, :k] = self.s[whose], self.index[whose]
            wide[place[some], columns], names[place[some], columns] = s[some], index[some]
            keep = np.argpartition(wide, k - 1, axis=1)[:, :k]
            self.s[whose] = np.take_along_axis(wide, keep, axis=1)
            self.index[whose] = np.take_along_axis(names, keep, axis=1)
        self.limit[whose] = np.minimum(self.limit[whose], self.s[whose].max(axis=1))


class Screen:
    """Two sets in one frame: their s tile by tile, and what s says about d."""

    def __init__(self, a: Points, b: Points, tiles: Host):
        self.a, self.b, self.tiles = a, b, tiles
        self._straight: Screen | None = None  # what this one is `turned` of
        self.frame = frame(a, b, tiles.dtype)
        self.norms_a = squares(a, self.frame)
        self.norms_b = self.norms_a if a is b else squares(b, self.frame)

    def limits(self, radii: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """Numbers that s is below wherever d <= radius; −∞ where the radius is."""
        with np.errstate(over="ignore"):
            squared = np.ldexp(radii, -self.frame.exponent) ** 2
            error = self.frame.beta * (3 * norms + 2 * squared) + self.frame.floor
            top = above(above(((squared + error) * (1 + 1e-12)).astype(self.tiles.dtype)))
        return np.where(radii >= 0, top, -np.inf).astype(self.tiles.dtype)

    def certain(self, s: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """Distances that are reached wherever a sample's s is at least `s`."""
        f = self.frame
        least = (s - 3 * f.beta * norms - f.floor) / (1 + 2 * f.beta)
        with np.errstate(over="ignore"):
            return np.ldexp(np.sqrt(np.maximum(least, 0)) * (1 - 1e-12), f.exponent)

    def bounds(self, i: np.ndarray, j: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(lower, upper) of the distances of pairs."""
        f = self.frame
        error = f.beta * (self.norms_a[i] + self.norms_b[j]) + f.floor
        lower = np.sqrt(np.maximum(s - error, 0)) * (1 - 1e-12)
        upper = np.sqrt(np.maximum(s + error, 0)) * (1 + 1e-12)
        if f.exponent:
            with np.errstate(over="ignore"):
                lower, upper = np.ldexp(lower, f.exponent), np.ldexp(upper, f.exponent)
        return lower, upper

    def narrow(self, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(lower, upper) of the distances of pairs, far closer than `bounds`.

        Both are the exact distance, unless the pairs are so many of so few samples that
        float64 products of these are the cheaper way.
        """
        rows, t = np.unique(i, return_inverse=True)
        columns, u = np.unique(j, return_inverse=True)
        if len(i) < _FEW or _DENSE * len(i) < len(rows) * len(columns):
            return self.exact(i, j)
        double, s = self.double, np.empty(len(i))
        side = double.tiles.side
        for left in cuts(len(rows), side):
            double.tiles.rows(panel(self.a, rows[left], double.norms_a, double.frame, left=True))
            for right in cuts(len(columns), side):
                some = panel(self.b, columns[right], double.norms_b, double.frame, left=False)
                double.tiles.product(some, None)
                here = np.flatnonzero(
                    (t >= left.start) & (t < left.stop) & (u >= right.start) & (u < right.stop)
                )
                s[here] = double.tiles.at(t[here] - left.start, u[here] - right.start)
        double.tiles.release()
        return double.bounds(i, j, s)

    def exact(self, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """d(a_i, b_j) of pairs, twice: as bounds that have met."""
        d = exact(self.a, i, self.b, j)
        return d, d

    def turned(self) -> "Screen":
        """The same with a and b in each other's place; both share their tiles."""
        out = copy.copy(self)
        out.a, out.b, out.norms_a, out.norms_b = self.b, self.a, self.norms_b, self.norms_a
        out.__dict__.pop("double", None)
        out._straight = self
        return out

    @functools.cached_property
    def double(self) -> "Screen":
        if self._straight is not None:
            return self._straight.double.turned()
        return Screen(self.a, self.b, Host(self.a.width, double=True))

    def sweep(
        self,
        near: tuple[Near | None, Near | None] = (None, None),
        limits: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
        rows: np.ndarray | None = None,
        own: bool = False,
        tick: Tick | None = None,
    ) -> Iterator[Entries]:
        """All tiles once: candidates go to `near`, pairs with s below a limit are yielded.

        Args:
          near: of a's samples and of b's.
          limits: (n,) of a's samples and (m,) of b's, as `limits` makes them.
          rows: a's samples that are meant; all by default. The first of `near` and `limits` and
            the i that are yielded go by the position in `rows`.
          own: a and b are one set, whose samples are not their own neighbours. Without `rows`
            each tile serves its rows and its columns, which share near[0].
          tick: called with (tiles done, tiles in all).

        Yields: (i, j, s), by tiles.
        """
        symmetric = own and rows is None
        n, side = self.a.n if rows is None else len(rows), self.tiles.side
        if symmetric:  # tiles of the diagonal are computed whole: there should not be few others
            side = min(side, max(n // 10, _LEAST_SIDE))
        lefts, rights = cuts(n, side), cuts(self.b.n, side)
        pairs = list(itertools.product(range(len(lefts)), range(len(rights))))
        if symmetric:  # the diagonal first: it gives every row a bound to start from
            pairs = [(t, t) for t in range(len(lefts))] + [(t, u) for t, u in pairs if t < u]
        there, some = -1, slice(0, 0)
        for done, (t, u) in enumerate(pairs, start=1):
            left, right = lefts[t], rights[u]
            if t != there:
                there, some = t, left if rows is None else rows[left]
                self.tiles.rows(panel(self.a, some, self.norms_a, self.frame, left=True))
            self.tiles.product(
                panel(self.b, right, self.norms_b, self.frame, left=False),
                self._own(some, right, own and (t == u or not symmetric)),
            )
            sides = (near[0], near[1])
            if symmetric:
                sides = (near[0], near[0] if t != u else None)
            yield from self._look(left, right, sides, limits)
            if tick is not None:
                tick(done, len(pairs))

    @staticmethod
    def _own(some: slice | np.ndarray, right: slice, own: bool) -> np.ndarray | None:
        """Each row's own column in the tile, −1 for none; None where no row has one."""
        if not own:
            return None
        index = np.arange(some.start, some.stop) if isinstance(some, slice) else some
        inside = (index >= right.start) & (index < right.stop)
        return np.where(inside, index - right.start, -1)

    def _look(
        self,
        left: slice,
        right: slice,
        near: tuple[Near | None, Near | None],
        limits: tuple[np.ndarray | None, np.ndarray | None],
    ) -> Iterator[Entries]:
        """One tile: its candidates, and its pairs."""
        seen, wanted = [], []
        for axis, some, one, limit in (
            (1, left, near[0], limits[0]),
            (0, right, near[1], limits[1]),
        ):
            if one is not None:
                one.begin(some, lambda k, axis=axis: self.tiles.start(k, axis))
            none = np.full(some.stop - some.start, -np.inf, self.tiles.dtype)
            wanted.append(none if limit is None else limit[some])
            seen.append(np.maximum(wanted[-1], none if one is None else one.limit[some]))
        for t, u, s in self.tiles.below(seen[0], seen[1]):
            i, j = t + left.start, u + right.start
            if near[0] is not None:
                near[0].add(i, j, s)
            if near[1] is not None:
                near[1].add(j, i, s)
            if any(limit is not None for limit in limits):
                here = (s < wanted[0][t]) | (s < wanted[1][u])
                yield i[here], j[here], s[here]
        for one in near:
            if one is not None:
                one.merge()


def cuts(n: int, side: int) -> list[slice]:
    """n samples in blocks of at most `side`, of nearly equal size."""
    blocks = -(-n // side)
    bounds = [n * t // blocks for t in range(blocks + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
