"""Distances of feature sets: screened by matrix products, decided by differences.

Notation
  a_i, b_j  features of two sets, D columns each; c a centre near both
  d         |a_i − b_j|, from float64 differences of the features as they were given. It is
            symmetric bit for bit, 0 for equal rows, and whoever needs it exactly asks `exact`
  s         |a−c|² + |b−c|² − 2(a−c)·(b−c), one matrix product in float32 or float64
  β, floor  |s − d²| <= β (|a−c|² + |b−c|²) + floor for products that are summed in blocks

β for a unit roundoff u: a sum of D products has an error of at most D·u·Σ|a||b| (Higham 2002,
eq. 3.5), whatever its order. Sums of blocks of B terms, then added, have (B + D/B)·u. The matrix
products of a CPU's BLAS have blocks of at most some 400 columns, what its caches hold; where
nothing is known of a product's order `accelerated` adds blocks of `chunk(D)` columns itself. So D
counts as 400 until 8√D, eight standard deviations of a random walk, is more. Ten further u are
for the cast, the squares and the last two sums. tests/test_neighbours.py measures what is left.

Panels hold [−2(a−c), |a−c|², 1] and [b−c, 1, |b−c|²], so their product is s itself.
"""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from prpr import errors

_SAFE = 20  # exponents of features that need no scaling before float32 products
_SQUARABLE = 400  # exponents of features whose squared differences float64 holds
_BLOCK = 2**17  # numbers in a block that stays in a core's cache
_MANY = 2**19  # pairs among which equal rows are looked for

_TERMS = 400  # of a sum that a processor's blocks leave

_SINGLE = (np.float16, np.float32)

Rows = slice | np.ndarray


@functools.cache
def workers() -> int:
    """Threads for what numpy does on one core: as many as its products may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores or 1, int(asked) if asked.isdigit() and int(asked) > 0 else 16, 16)


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(workers(), "prpr-distances")


if hasattr(os, "register_at_fork"):  # a forked process has the pool, but none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def spread(function: Callable, pieces: Iterable, work: float) -> list[Any]:
    """[function(piece) ...]; in threads where there are `work` numbers enough to pay for them."""
    pieces = list(pieces)
    if len(pieces) < 2 or workers() < 2 or work < 2**20:
        return [function(piece) for piece in pieces]
    return list(_pool().map(function, pieces))


class Points:
    """Features (n, D) as they were given, and where they lie; nothing is copied."""

    def __init__(self, features: np.ndarray):
        self.features = features = np.asarray(features)  # a memory map's own kind is slow
        self.n, self.width = features.shape
        self.largest = largest(features)  # |a_i|∞
        self.exponent = int(np.frexp(self.largest.max())[1])
        # A median of some rows: a few samples far away do not move it. It is the mean of two
        # numbers, whose sum must not overflow.
        some = features[np.linspace(0, self.n - 1, min(self.n, 255)).astype(int)]
        some = np.ldexp(some.astype(np.float64), -self.exponent)
        self.centre = np.ldexp(np.median(some, axis=0), self.exponent)

    @functools.cached_property
    def kinds(self) -> np.ndarray:
        """(n,) equal numbers for equal rows, and only for them."""
        keys = np.empty(self.n, np.uint64)
        odd = np.random.default_rng(0).integers(2**63, size=self.width, dtype=np.uint64) * 2 + 1
        rows = max(1, _BLOCK // self.width)
        for start in range(0, self.n, rows):
            x = self.features[start : start + rows].astype(np.float64) + 0.0  # −0 is 0
            keys[start : start + rows] = (x.view(np.uint64) * odd).sum(axis=1)
        _, first, kinds = np.unique(keys, return_index=True, return_inverse=True)
        same = first[kinds]
        apart = exact(self, np.arange(self.n), self, same, look=False) > 0
        kinds[apart] = self.n + np.flatnonzero(apart)  # two keys met by chance
        return kinds


def largest(features: np.ndarray) -> np.ndarray:
    """(n,) |a_i|∞ of (n, D) features of any real dtype, by blocks: a memory map stays one."""
    features = np.asarray(features)
    n, width = features.shape
    out = np.empty(n)
    rows = max(1, _BLOCK // width)

    def block(start: int) -> None:
        x = features[start : start + rows]
        # Not abs first: −128 has no positive int8.
        top, bottom = (np.asarray(f(x, axis=1), np.float64) for f in (np.max, np.min))
        out[start : start + rows] = np.maximum(abs(top), abs(bottom))

    spread(block, range(0, n, rows), n * width)
    return out


def exact(a: Points, i: np.ndarray, b: Points, j: np.ndarray, look: bool = True) -> np.ndarray:
    """d(a_i, b_j) of pairs: float64, from differences. Memory: blocks of pairs.

    Many pairs among few different rows are computed once each (`look`).

    Raises:
      DataError: a distance is beyond what float64 holds.
    """
    if look and len(i) > min(16 * (a.n + b.n), _MANY):
        ka, kb = a.kinds, b.kinds
        key = ka[i] * (2 * b.n) + kb[j]
        _, first, back = np.unique(key, return_index=True, return_inverse=True)
        if 2 * len(first) < len(i):
            return exact(a, i[first], b, j[first], look=False)[back]
    exponent = max(a.exponent, b.exponent)
    scaled = abs(exponent) > _SQUARABLE

    def differences(start: int) -> np.ndarray:
        some = slice(start, start + rows)
        x = a.features[i[some]].astype(np.float64)
        y = b.features[j[some]]
        if y.dtype.itemsize > x.dtype.itemsize:  # both are cast, or d would not be symmetric
            y = y.astype(np.float64)
        if not scaled:
            x -= y
            return np.sqrt(np.vecdot(x, x))
        x = np.ldexp(x, -exponent) - np.ldexp(y.astype(np.float64), -exponent)
        with np.errstate(over="ignore"):
            d = np.ldexp(np.sqrt(np.vecdot(x, x)), exponent)
        if not np.isfinite(d).all():
            raise errors.DataError(
                f"features as large as {max(a.largest.max(), b.largest.max()):.3g} have distances "
                "beyond float64: divide all of them by a power of ten"
            )
        return d

    rows = max(1, _BLOCK // a.width)
    found = spread(differences, range(0, len(i), rows), len(i) * a.width)
    return np.concatenate(found) if found else np.empty(0)


class Frame(NamedTuple):
    """Where a product's numbers are small: features are scaled by 2^−exponent, then centred."""

    centre: np.ndarray
    single: np.ndarray | None  # the centre in float32, where that is the same
    exponent: int
    dtype: np.dtype
    beta: float
    floor: float


def _most_terms(width: int) -> float:
    """How many terms of a sum the error of a product counts: see the module's head."""
    return max(float(_TERMS), 8 * np.sqrt(width))


def chunk(width: int) -> int:
    """B columns in a block of a product, such that B + D/B terms are no more than β counts."""
    return max(256, int(_most_terms(width)) // 2)


def frame(a: Points, b: Points, dtype: np.dtype) -> Frame:
    """The frame of two sets: a's centre, and one scale."""
    exponent = max(a.exponent, b.exponent)
    exponent = 0 if abs(exponent) <= _SAFE else exponent
    centre = np.ldexp(a.centre, -exponent) if exponent else a.centre
    single = None
    if not exponent and a.features.dtype in _SINGLE:
        single = centre.astype(np.float32)
        centre = single.astype(np.float64)
    unit = float(np.finfo(dtype).eps) / 2
    terms = min(a.width, _most_terms(a.width))
    floor = 4 * a.width * float(np.finfo(dtype).tiny)
    return Frame(centre, single, exponent, np.dtype(dtype), (terms + 10) * unit, floor)


def centred(points: Points, some: Rows, to: Frame, out: np.ndarray) -> None:
    """Writes the rows in the frame, cast once."""
    x = points.features[some]
    if to.exponent:
        x = np.ldexp(x.astype(np.float64), -to.exponent)
    elif x.dtype.kind not in "fiu":
        x = x.astype(np.float64)
    # Float32 minus a float32 centre is rounded once, as the float64 difference cast is.
    single = to.single if out.dtype == np.float32 and x.dtype in _SINGLE else None
    np.subtract(x, to.centre if single is None else single, out=out, casting="same_kind")


def squares(points: Points, to: Frame) -> np.ndarray:
    """(n,) |a − c|² in the frame, float64."""
    rows = max(1, _BLOCK // points.width)

    def block(start: int) -> np.ndarray:
        x = np.empty((min(rows, points.n - start), points.width))
        centred(points, slice(start, start + len(x)), to, x)
        return np.vecdot(x, x)

    blocks = spread(block, range(0, points.n, rows), points.n * points.width)
    return np.concatenate(blocks)


def panel(points: Points, some: Rows, norms: np.ndarray, to: Frame, left: bool) -> np.ndarray:
    """(rows, D + 2) of the head's left or right kind."""
    norms = norms[some]
    out = np.empty((len(norms), points.width + 2), to.dtype)
    values = out[:, :-2]
    rows = max(1, _BLOCK // points.width)

    def block(start: int) -> None:
        stop = min(start + rows, len(norms))
        if isinstance(some, slice):
            here = slice(some.start + start, some.start + stop)
        else:
            here = some[start:stop]
        centred(points, here, to, values[start:stop])
        if left:
            values[start:stop] *= -2

    spread(block, range(0, len(norms), rows), values.size)
    out[:, -2], out[:, -1] = (norms, 1) if left else (1, norms)
    return out
