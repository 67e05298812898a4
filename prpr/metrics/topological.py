"""TopP and TopR: precision and recall of supports that stand above a confidence band.

Kim, Jang, Kim, Yoo, "TopP&R: Robust Support Estimation Approach for Evaluating Fidelity and
Diversity in Generative Models", NeurIPS 2023 (arXiv:2306.08013). Their package calls TopP
"fidelity" and TopR "diversity".

Notation
  x_i, y_j    N real and M generated samples, projected to d = min(D, 32) dimensions
  p̂(z)        Σ_i K(|z − x_i| / h) / N, the real density up to a constant; q̂ with the fakes
  K(t)        cos(πt/2) for t <= 1, else 0
  h           bandwidth of a set: median over its samples of the distance to the k-th nearest
              of the samples that come AFTER it in a random order, k = 5d ("balloon" estimate)
  c           band of a set: the 1 − a quantile (a = 0.1), over B = 10 bootstrap samples, of
              max_z |density of the bootstrap sample − density| over the set's own samples z

  topp = #{j: p̂(y_j) > c_p, q̂(y_j) > c_q} / #{j: q̂(y_j) > c_q}
  topr = #{i: q̂(x_i) > c_q, p̂(x_i) > c_p} / #{i: p̂(x_i) > c_p}

k, a, B, d, the kernel and the bandwidth are what the authors' package does by default (top-pr
0.2.1), but for the order of the samples, which there is the order in which they come: a set that
is sorted by class gets another bandwidth. The density's constant cancels and is left out. The
package stops with an error where D <= 3; here h is the same for every D.
Projection, order and bootstrap come from the seed and are the same for both sets, so a set against
itself has topp = topr = 1.

Replicates: densities and bands are recomputed exactly without each group, from the same
bootstrap draws; the bandwidths and the projection stay those of the whole sets.

Memory: tiles of TILE kernel values, and (1 + G)(N + M) densities.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from prpr import errors
from prpr.metrics import distances, leave_out
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE, REAL, Groups
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

NAMES = ("topp", "topr")
WIDTH = 32  # d; narrower features are not projected
NEIGHBOURS = 5  # k = NEIGHBOURS · d
LEVEL = 0.1  # a
DRAWS = 10  # B
TILE = 2**20
_PROJECTION, _ORDER = 11, 12  # streams of the seed, beside those of the groups


class Support(NamedTuple):
    """A set's density, ready to be evaluated anywhere, and the band that its support exceeds.

    Attributes:
      points: (n, d).
      groups: what is left out in turn.
      h: bandwidth, in the units of the points.
      own: (1 + G, n) the density at the points; row 1 + g is without group g.
      band: (1 + G,) c.
    """

    points: np.ndarray
    groups: Groups
    h: float
    own: np.ndarray
    band: np.ndarray

    def above(self, density: np.ndarray) -> np.ndarray:
        """(1 + G, m) whether a density of this set is that of its support."""
        return density > self.band[:, None]


def project(features: tuple[np.ndarray, ...], seed: int, rows: int = 8192) -> list[np.ndarray]:
    """Sets of (n, D) features in d dimensions, float64, less the first set's mean.

    They are scaled by one power of two, so that squares neither overflow nor underflow, and
    where D > WIDTH mapped by a Gaussian matrix of variance 1/d. The authors' Xavier
    initialisation differs by a factor, which the bandwidth takes up.
    """
    exponent = int(np.frexp(max(float(distances.largest(x).max()) for x in features))[1])
    width = features[0].shape[1]
    weights = None
    if width > WIDTH:
        rng = np.random.Generator(np.random.Philox(key=[seed % 2**64, _PROJECTION]))
        weights = rng.normal(scale=WIDTH**-0.5, size=(width, WIDTH))

    def blocks(x: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(x), rows):
            yield np.ldexp(x[start : start + rows].astype(np.float64), -exponent)

    centre = sum(block.sum(axis=0) for block in blocks(features[0])) / len(features[0])
    return [
        np.concatenate(
            [b - centre if weights is None else (b - centre) @ weights for b in blocks(x)]
        )
        for x in features
    ]


def bandwidth(points: np.ndarray, k: int) -> float:
    """h of (n, d) points, n > k, in the order in which they come: see the module's head."""
    n = len(points)
    points, squares, tolerance = _centred(points, points.mean(axis=0))
    turned = (-2 * points).T
    nearest = np.empty(n - k)
    start = 0
    while start < n - k:
        stop = min(n - k, start + max(1, TILE // (n - start)))
        some = points[start:stop], squares[start:stop]
        block = _squared(*some, turned[:, start:], squares[start:])
        block[np.tri(stop - start, n - start, dtype=bool)] = np.inf
        nearest[start:stop] = np.partition(block, k - 1, axis=1)[:, k - 1]
        start = stop
    # As the package takes it: the lower of two middle ones, the one below a single middle one.
    at = max(len(nearest) // 2 - 1, 0)
    middle = float(np.partition(nearest, at)[at])
    return 0.0 if middle <= 2 * tolerance * float(squares.max()) else math.sqrt(middle)


def support(points: np.ndarray, groups: Groups, seed: int) -> Support:
    """Bandwidth, own density and band of (n, d) points; the groups change the replicates alone."""
    n, cut, label = len(points), groups.cut, groups.labels()
    rng = np.random.Generator(np.random.Philox(key=[seed % 2**64, _ORDER]))
    h = bandwidth(points[rng.permutation(n)], NEIGHBOURS * points.shape[1])
    drawn = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(DRAWS)]
    weights = np.stack([np.ones(n), *drawn])[:, groups.order]
    sizes = _leave(np.add.reduceat(weights, cut[:-1], axis=1))
    own = np.empty((len(cut), n))
    furthest = np.zeros((DRAWS, len(cut)))
    for rows, sums in _kernel_sums(points, points[groups.order], h, cut, weights):
        density = _leave(sums) / sizes
        own[:, rows] = density[:, 0].T
        away = np.abs(density[:, 1:] - density[:, :1])
        # A sample that is left out is no place to compare at either.
        away[np.arange(len(away)), :, 1 + label[rows]] = 0
        furthest = np.maximum(furthest, away.max(axis=0))
    return Support(points, groups, h, own, np.quantile(furthest, 1 - LEVEL, axis=0))


def density(of: Support, at: np.ndarray) -> np.ndarray:
    """(1 + G, m) the density of the set `of` at (m, d) points; row 1 + g is without group g."""
    groups, out = of.groups, np.empty((len(of.band), len(at)))
    ones = np.ones((1, len(of.points)))
    sizes = _leave(groups.sizes.astype(np.float64))
    for rows, sums in _kernel_sums(at, of.points[groups.order], of.h, groups.cut, ones):
        out[:, rows] = (_leave(sums[:, 0]) / sizes).T
    return out


def share(of: Support, within: Support) -> tuple[np.ndarray, np.ndarray]:
    """(share (1 + G of `of`, 1 + G of `within`), how many samples of `of` are in its support).

    The share of the samples in the support of `of` that the support of `within` also holds;
    0 where a left-out group takes all of the support of `of`.
    """
    held = of.above(of.own)
    held[1 + of.groups.labels(), np.arange(len(of.points))] = False
    both = held.astype(np.float64) @ within.above(density(within, of.points)).T
    count = held.sum(axis=1)
    return both / np.maximum(count, 1)[:, None], count


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, Replicates]:
    groups = leave_out.cuts(real, fake, options)
    features = real.needed("real"), fake.needed("fake")
    k = NEIGHBOURS * min(real.width, WIDTH)
    for side, n in (("real", real.n), ("fake", fake.n)):
        if n <= k:
            raise errors.DataError(
                f"topp and topr need more than {k} {side} samples, {NEIGHBOURS} for each of "
                f"{k // NEIGHBOURS} dimensions, got {n}: give more samples"
            )
    points = project(features, options.seed)
    sides = []
    for side in (REAL, FAKE):
        options.tick("supports", side, 4)
        sides.append(support(points[side], groups[side], options.seed))
    p, q = sides
    found = {}
    for step, (name, of, within) in enumerate((("topp", q, p), ("topr", p, q))):
        if name in names:
            options.tick("supports", 2 + step, 4)
            theta, count = share(of, within)
            if count[0] == 0:
                side = "real" if of is p else "fake"
                raise errors.DataError(
                    f"{name} is not defined: no density of the {side} samples is above its "
                    f"confidence band at N={len(of.points)}; give more samples"
                )
            theta = theta.T if of is q else theta
            found[name] = Replicates(theta, int(count[0]), "proportion", k)
    options.tick("supports", 4, 4)
    return found


FAMILY = Family("TopP&R", NAMES, NAMES.__contains__, _replicates)


def _leave(sums: np.ndarray) -> np.ndarray:
    """(..., G) sums over groups -> (..., 1 + G): over all, and without each."""
    total = sums.sum(axis=-1, keepdims=True)
    return np.concatenate([total, total - sums], axis=-1)


def _centred(x: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """x less a mean, its squared norms, and the relative rounding of |a − b|² from these."""
    x = x - mean
    tolerance = 4 * math.sqrt(x.shape[1]) * float(np.finfo(np.float64).eps)
    return x, np.einsum("nd,nd->n", x, x), tolerance


def _squared(a: np.ndarray, aa: np.ndarray, turned: np.ndarray, bb: np.ndarray) -> np.ndarray:
    """|a − b|² (r, c) of a (r, d) and `turned`, −2bᵀ (d, c), with the squared norms of both."""
    block = a @ turned
    block += aa[:, None]
    block += bb
    return block


def _kernel_sums(
    at: np.ndarray, data: np.ndarray, h: float, cut: list[int], weights: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (rows of `at`, Σ over each group of the data of weight · K: (rows, C, G)).

    `data` (n, d) and `weights` (C, n) are in the order of the groups. With h = 0, K is 1 for
    points that are equal to rounding and 0 for others.
    """
    mean = data.mean(axis=0)
    data, bb, tolerance = _centred(data, mean)
    turned = (-2 * data).T
    step = max(1, TILE // len(data))
    for start in range(0, len(at), step):
        rows = slice(start, min(start + step, len(at)))
        points, aa, _ = _centred(at[rows], mean)
        block = _squared(points, aa, turned, bb).ravel()
        if h > 0:
            inside = np.flatnonzero(block <= h * h)
            t = np.sqrt(np.maximum(block[inside], 0)) / h
            values = np.cos(math.pi / 2 * np.minimum(t, 1))
        else:
            limit = tolerance * (aa[:, None] + bb)
            inside, values = np.flatnonzero(block <= limit.ravel()), 1.0
        block[:] = 0
        block[inside] = values
        block = block.reshape(len(points), len(data))
        sums = np.empty((len(points), len(weights), len(cut) - 1))
        for g, (first, last) in enumerate(itertools.pairwise(cut)):
            sums[:, :, g] = block[:, first:last] @ weights[:, first:last].T
        yield rows, sums
