"""Exact Euclidean nearest neighbours of feature sets, in bounded memory.

Notation: a_i, b_j features of two sets (N, M of them, D columns), d their Euclidean distance.

Screen and verify. Products of tiles in float32 (`distances`) give every squared distance up to
a bound; what the bound leaves open is decided by float64 differences of the features as they
were given. So neighbours, ties and duplicates are those of the plain formula, whatever the
features' offset, at the price of float32 products. A set's own tiles are computed once for their
rows and their columns. Where float32 cannot tell which neighbours are the nearest (clusters far
smaller than their distance from the centre), the rows concerned are screened again in float64,
and where that cannot either (ties), all that may be meant are verified.

Closed balls: d <= r up to the rounding of features and sums, see `closed`.

Memory: a tile, its two panels, K neighbours of each sample, and the pairs inside the balls while
they are few (`KEPT`); never N×M. What was found is kept with the Statistics and goes with them.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from prpr import errors
from prpr.metrics import checks
from prpr.metrics.distances import Points
from prpr.metrics.screening import Entries, Host, Near, Screen, Tick
from prpr.metrics.statistics import Statistics

BACKENDS = ("auto", "numpy", "jax")
LEAST = 15  # neighbours that are looked for at least: what a jackknife at k = 5 asks for
SPARE = 3  # candidates beyond those, so that few rows need another look
KEPT = 2**24  # pairs that are kept for the next question: 0.2 GB
_FLUSH = 2**18  # pairs that are handed on together
_VERIFIED = 2**18  # candidates that are verified at a time
_LARGE = 2**38  # products of so many numbers (10 s of a CPU) are worth importing JAX to ask


class Nearest(NamedTuple):
    """Distances (N, K) float64, ascending, and indices (N, K) int64.

    Which of several equally far samples come first is not specified.
    """

    distances: np.ndarray
    indices: np.ndarray


class Pairs(NamedTuple):
    """Pairs (i, j) of two sets, and lower <= d(a_i, b_j) <= upper."""

    i: np.ndarray
    j: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    screen: Screen

    def decided(self, undecided: Callable[["Pairs"], np.ndarray]) -> "Pairs":
        """The pairs with bounds as close as it takes: exact where `undecided` is still True."""
        at = np.flatnonzero(undecided(self))
        for closer in (self.screen.narrow, self.screen.exact):
            if not len(at):
                break
            some = Pairs(self.i[at], self.j[at], *closer(self.i[at], self.j[at]), self.screen)
            self.lower[at], self.upper[at] = some.lower, some.upper
            at = at[undecided(some)]
        return self


class _Across:
    """What the passes over all pairs of two sets have found."""

    def __init__(self, screen: Screen):
        self.screen = screen
        self.near: tuple[Near, ...] = ()
        self.verified: tuple[Nearest, Nearest] | None = None
        self.reach: tuple[np.ndarray, np.ndarray] | None = None  # of the pairs that are kept
        self.pairs: list[Entries] = []


_POINTS: weakref.WeakKeyDictionary[Statistics, Points] = weakref.WeakKeyDictionary()
_WITHIN: weakref.WeakKeyDictionary[Statistics, Nearest] = weakref.WeakKeyDictionary()
_EXPECTED: weakref.WeakKeyDictionary[Statistics, int] = weakref.WeakKeyDictionary()
_ACROSS: weakref.WeakKeyDictionary[Statistics, weakref.WeakKeyDictionary[Statistics, _Across]] = (
    weakref.WeakKeyDictionary()
)


def check_backend(name: str) -> None:
    """ConfigError unless it is one of BACKENDS."""
    if name not in BACKENDS:
        raise errors.unknown_name("backend", name, BACKENDS)


def expect(stats: Statistics, k: int) -> None:
    """Says that k neighbours of a set, and pairs in balls around its samples, will be asked for,
    so that the next passes find as many of both."""
    _EXPECTED[stats] = max(k, _EXPECTED.get(stats, LEAST))


def within(
    stats: Statistics,
    k: int,
    *,
    tile: int | None = None,
    backend: str = "auto",
    tick: Tick | None = None,
) -> Nearest:
    """The k nearest OTHERS of every sample in its own set, itself excluded.

    Args:
      stats: N samples.
      k: neighbours, 1 <= k < N.
      tile: side of the square tiles; by default what suits the backend.
      backend: "numpy", "jax", or "auto": jax where it has an accelerator and the sets are large.
        The distances are the same, bit for bit.
      tick: called with (tiles done, tiles in all) of a pass.

    Returns:
      Nearest (N, k); kept, with a few more neighbours, for the next question.

    Raises:
      DataError: fewer than k + 1 samples, or no features.
      ConfigError: k or tile below 1, or an unknown backend.
    """
    _check(k, tile, backend)
    checks.check_enough("", stats.n, {"k": k})
    held = _WITHIN.get(stats)
    if held is None or held.distances.shape[1] < k:
        points = _points(stats)
        wanted = min(max(k, _EXPECTED.get(stats, LEAST)), points.n - 1)
        screen = _screen(points, points, tile, backend)
        near = Near(points.n, min(wanted + SPARE, points.n - 1), screen.tiles.dtype)
        for _ in screen.sweep((near, None), own=True, tick=tick):
            pass
        held = _WITHIN[stats] = _settle(screen, near, wanted, own=True)
    return Nearest(held.distances[:, :k], held.indices[:, :k])


def across(
    real: Statistics, fake: Statistics, k: int, *, tile: int | None = None, backend: str = "auto"
) -> tuple[Nearest, Nearest]:
    """(for each real its k nearest fakes (N, k), for each fake its k nearest reals (M, k)).

    They come from the one pass that `pairs` makes over all distances of the two sets.

    Args: as `within`, with 1 <= k <= N and M.

    Raises: as `within`.
    """
    _check(k, tile, backend)
    for side, stats in (("real", real), ("fake", fake)):
        checks.check_enough(side, stats.n, {"k": k}, spare=0)
    return _both(real, fake, k, tile, backend)


def nearest(
    real: Statistics, fake: Statistics, k: int, *, tile: int | None = None, backend: str = "auto"
) -> Nearest:
    """For each fake its k nearest reals (M, k), however few fakes there are; else as `across`.

    Args: as `within`, with 1 <= k <= N.

    Raises: as `within`.
    """
    _check(k, tile, backend)
    checks.check_enough("real", real.n, {"k": k}, spare=0)
    return _both(real, fake, k, tile, backend)[1]


def _both(
    real: Statistics, fake: Statistics, k: int, tile: int | None, backend: str
) -> tuple[Nearest, Nearest]:
    """The nearest across of both sets: k, or all of a smaller set."""
    if _turned(real, fake):
        first, second = _both(fake, real, k, tile, backend)
        return second, first
    held = _across(real, fake, tile, backend)
    if not _holds(held, k):
        for _ in pairs(real, fake, (None, None), k, tile=tile, backend=backend):
            pass
    ks = min(k, fake.n), min(k, real.n)
    if held.verified is None or any(
        one.distances.shape[1] < most for one, most in zip(held.verified, ks, strict=True)
    ):
        screens = held.screen, held.screen.turned()
        first, second = (_settle(*one) for one in zip(screens, held.near, ks, strict=True))
        held.verified = first, second
    first, second = (Nearest(one.distances[:, :k], one.indices[:, :k]) for one in held.verified)
    return first, second


def inside(
    a: Statistics,
    b: Statistics,
    radii: np.ndarray,
    *,
    tile: int | None = None,
    backend: str = "auto",
) -> Iterator[Entries]:
    """All pairs with d(a_i, b_j) <= radii_i (closed balls, see `closed`), some at a time.

    Args:
      radii: (N,) of a's samples; −∞ for an empty ball.
      tile, backend: see `within`.

    Yields:
      (i, j, d): indices and distances. Whether a pair is inside is decided exactly; d is
      exact too, but where so many lie inside that it comes from products in float64: to 1e-9,
      and by no more than their rounding another number with another tile or backend.

    Raises: as `within`.
    """
    _check(1, tile, backend)
    radii = np.asarray(radii, np.float64)
    if radii.shape != (a.n,):
        raise errors.DataError(
            f"radii must be ({a.n},), one for each sample of the first set, got {radii.shape}"
        )
    tops = closed(a, radii)
    for some in pairs(a, b, (tops, None), tile=tile, backend=backend):
        some = some.decided(lambda x: (x.lower <= tops[x.i]) & (x.upper > tops[x.i]))
        here = some.upper <= tops[some.i]
        i, j = some.i[here], some.j[here]
        lower, upper = some.screen.narrow(i, j)
        loose = np.flatnonzero(upper - lower > 1e-9 * upper)
        lower[loose], upper[loose] = some.screen.exact(i[loose], j[loose])
        yield i.astype(np.int64), j.astype(np.int64), (lower + upper) / 2


def closed(stats: Statistics, radii: np.ndarray) -> np.ndarray:
    """Radii (..., N) that make balls closed: r (1 + δ) + δ |a_i|∞ with δ = 4 √D eps of float64.

    Two distances that are equal but for the rounding of the features as they were given
    (|e|₂ <= √D eps |a|∞ for each of four) and of the distances' own sums count as equal. So a
    lattice with an offset or another unit has the ties of the lattice.
    """
    points = _points(stats)
    delta = 4 * np.sqrt(points.width) * np.finfo(np.float64).eps
    return radii * (1 + delta) + delta * points.largest


def pairs(
    a: Statistics,
    b: Statistics,
    reach: tuple[np.ndarray | None, np.ndarray | None],
    k: int = LEAST,
    *,
    tile: int | None = None,
    backend: str = "auto",
    tick: Tick | None = None,
) -> Iterator[Pairs]:
    """All pairs with d(a_i, b_j) <= reach_i of a or <= reach_j of b, and some more.

    The first call makes a pass over all distances, which also finds the k nearest across in both
    directions; later calls that reach no farther are answered from what was kept.

    Args:
      reach: (N,) and (M,), see `closed`; None where nothing is asked: a pass then goes as far as
        the LEAST nearest of the set itself if these are known or expected (`expect`), else
        nowhere, and who asks later pays for another pass.
      k, tile, backend, tick: see `within`.
    """
    _check(k, tile, backend)
    if _turned(a, b):
        screen = _across(b, a, tile, backend).screen.turned()
        for one in pairs(b, a, (reach[1], reach[0]), k, tile=tile, backend=backend, tick=tick):
            yield Pairs(one.j, one.i, one.lower, one.upper, screen)
        return
    held = _across(a, b, tile, backend)
    if _holds(held, k) and _covers(held, reach):
        for entries in held.pairs:
            yield _bounded(held.screen, entries)
        return
    radii = []
    for side, (one, asked) in enumerate(zip((a, b), reach, strict=True)):
        known = None if held.reach is None else held.reach[side]
        if asked is None and known is None:
            known = _usual(one, tile, backend)
        radii.append(
            known if asked is None else asked if known is None else np.maximum(asked, known)
        )
    most = max(k, *(_EXPECTED.get(one, LEAST) for one in (a, b)))
    yield from _pass(held, (radii[0], radii[1]), most, tick)


def _pass(
    held: _Across, reach: tuple[np.ndarray, np.ndarray], k: int, tick: Tick | None
) -> Iterator[Pairs]:
    """One pass over all distances: hands on the pairs, keeps them and the nearest across."""
    screen = held.screen
    near = None, None
    if not _holds(held, k):
        n, m, most = screen.a.n, screen.b.n, k + SPARE
        near = Near(n, min(most, m), screen.tiles.dtype), Near(m, min(most, n), screen.tiles.dtype)
    limits = screen.limits(reach[0], screen.norms_a), screen.limits(reach[1], screen.norms_b)
    kept: list[Entries] | None = []
    total, waiting = 0, []

    def hand_on() -> Pairs:
        i, j, s = (np.concatenate(x) for x in zip(*waiting, strict=True))
        waiting.clear()
        entries = i.astype(np.int32), j.astype(np.int32), s
        if kept is not None:
            kept.append(entries)
        return _bounded(screen, entries)

    for entries in screen.sweep(near, limits, tick=tick):
        waiting.append(entries)
        total += len(entries[0])
        if kept is not None and total > KEPT:
            kept = None
        if sum(len(one[0]) for one in waiting) > _FLUSH:
            yield hand_on()
    if waiting:
        yield hand_on()
    screen.tiles.release()
    if near[0] is not None and near[1] is not None:
        held.near, held.verified = (near[0], near[1]), None
    if kept is not None:
        held.reach, held.pairs = reach, kept


def _bounded(screen: Screen, entries: Entries) -> Pairs:
    i, j, s = entries
    return Pairs(i, j, *screen.bounds(i, j, s), screen)


def _holds(held: _Across, k: int) -> bool:
    """Whether the k nearest across are known, in both directions."""
    others = held.screen.b.n, held.screen.a.n
    return bool(held.near) and all(
        near.s.shape[1] >= min(k + SPARE, n) for near, n in zip(held.near, others, strict=True)
    )


def _covers(held: _Across, reach: tuple[np.ndarray | None, np.ndarray | None]) -> bool:
    """Whether the pairs that are kept go as far as is asked."""
    return held.reach is not None and all(
        asked is None or bool((asked <= known).all())
        for asked, known in zip(reach, held.reach, strict=True)
    )


def _usual(stats: Statistics, tile: int | None, backend: str) -> np.ndarray:
    """(n,) how far a pass goes where nothing is asked, see `pairs`."""
    if stats.n == 1 or not (stats in _WITHIN or stats in _EXPECTED):
        return np.full(stats.n, -np.inf)
    near = within(stats, min(LEAST, stats.n - 1), tile=tile, backend=backend)
    return closed(stats, near.distances[:, -1])


def _settle(
    screen: Screen, near: Near, k: int, own: bool = False, rows: np.ndarray | None = None
) -> Nearest:
    """Exact distances of the k nearest: candidates verified, and what they leave open.

    A candidate is surely among the nearest when its d is at most what every other sample's s
    proves of theirs.
    """
    index = np.arange(screen.a.n) if rows is None else rows
    n, most = near.s.shape
    if (near.index < 0).any():
        raise errors.DataError(
            f"sample {index[np.flatnonzero((near.index < 0).any(axis=1))[0]]} has fewer than "
            f"{most} neighbours at a finite distance: products of these features are no numbers; "
            "give the features another unit, or take backend='numpy'"
        )
    d = np.empty((n, most))
    for start in range(0, n, step := max(1, _VERIFIED // most)):
        some = slice(start, start + step)
        i, j = np.repeat(index[some], most), near.index[some].ravel()
        d[some] = screen.exact(i, j)[0].reshape(-1, most)
    order = np.lexsort((near.index, d))
    d = np.take_along_axis(d, order, axis=1)[:, :k]
    found = np.take_along_axis(near.index, order, axis=1)[:, :k].astype(np.int64)
    if most < screen.b.n - own:
        certain = screen.certain(near.s.max(axis=1), screen.norms_a[index])
        opened = np.flatnonzero(d[:, -1] > certain)
        if len(opened):
            d[opened], found[opened] = _again(screen, d[opened, -1], k, own, index[opened], most)
    return Nearest(d, found)


def _again(
    screen: Screen, least: np.ndarray, k: int, own: bool, rows: np.ndarray, most: int
) -> Nearest:
    """The k nearest of rows of which candidates within `least` are known, but not all.

    In float64; where that has been tried, by verifying everything that may be within `least`.
    """
    if screen.tiles.dtype != np.float64:
        near = Near(len(rows), most, np.float64)
        for _ in screen.double.sweep((near, None), rows=rows, own=own):
            pass
        return _settle(screen.double, near, k, own, rows)
    near = Near(len(rows), k, np.float64)
    limits = screen.limits(least, screen.norms_a[rows])
    for t, j, _ in screen.sweep(limits=(limits, None), rows=rows, own=own):
        near.add(t, j, screen.exact(rows[t], j)[0])
    near.merge()
    order = np.lexsort((near.index, near.s))
    return Nearest(
        np.take_along_axis(near.s, order, axis=1),
        np.take_along_axis(near.index, order, axis=1).astype(np.int64),
    )


def _across(a: Statistics, b: Statistics, tile: int | None, backend: str) -> _Across:
    found = _ACROSS.setdefault(a, weakref.WeakKeyDictionary())
    if b not in found:
        found[b] = _Across(_screen(_points(a), _points(b), tile, backend))
    return found[b]


def _turned(a: Statistics, b: Statistics) -> bool:
    """Whether what is known of two sets is known of (b, a)."""
    return b not in _ACROSS.get(a, {}) and a in _ACROSS.get(b, {})


def _points(stats: Statistics) -> Points:
    if stats not in _POINTS:
        _POINTS[stats] = Points(stats.needed("given"))
    return _POINTS[stats]


def _screen(a: Points, b: Points, tile: int | None, backend: str) -> Screen:
    if backend == "jax" or (backend == "auto" and a.n * b.n * a.width >= _LARGE):
        # Importing JAX and asking for its devices takes seconds.
        from prpr.metrics import accelerated

        if backend == "jax" or accelerated.worthwhile():
            return Screen(a, b, accelerated.Devices(a.width, tile))
    return Screen(a, b, Host(a.width, tile))


def _check(k: int, tile: int | None, backend: str) -> None:
    check_backend(backend)
    settings = {"k": k} if tile is None else {"k": k, "tile": tile}
    checks.check_settings(settings)
