"""Precision and recall of distributions by clustering: Sajjadi et al. 2018 (arXiv:1806.00035).

Notation
  P, Q    real data (always first) and the model; N, M samples
  p, q    shares of each set's samples in each of K = 20 clusters of their union, (K,)
  α(λ)    Σ_k min(λ p_k, q_k), precision;    β(λ) = α(λ)/λ, recall
  λ       tan θ of 1001 angles θ evenly spaced from 1e-10 to π/2 − 1e-10

Both sets together are clustered by mini-batch k-means RUNS = 10 times; α and β are means over
these runs, and

  precision_sajjadi = max over λ of F_{1/8},    recall_sajjadi = max over λ of F_8,
  F_b = (1 + b²) αβ / (b² α + β) = (1 + b²) α / (1 + b² λ)

Precision is about the model's samples: its F has b = 1/8, and outliers lower it. Recall is about
the real ones: b = 8, and dropped modes lower it. The authors' code (msmsajjadi/
precision-recall-distributions, prd_score.py df840ad) takes the model's features FIRST and
returns the pair (F_8, F_{1/8}), recall first; swapping either swaps the two numbers.

Against that code: the same curve and scores from given histograms; here sets of different
size weigh the same in the clustering (the authors refuse them); features are centred before
they are rounded to float32; at most FITTED samples of each set make the centres, all are counted.

The clusters are coarse: what differs inside one is not seen, so the numbers err upwards, and on
two samples of one distribution they are a little below 1. Replicates: the clusters are held
fixed, each group of samples is left out of the shares.
"""

import warnings
from collections.abc import Iterator

import numpy as np

from prpr import errors
from prpr.metrics.family import Family, Options
from prpr.metrics.groups import FAKE, REAL, split
from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

NAMES = ("precision_sajjadi", "recall_sajjadi")
CLUSTERS, RUNS, ANGLES, EDGE, B = 20, 10, 1001, 1e-10, 8.0
FITTED = 10_000
TILE = 2**22  # numbers centred at once


def slopes(angles: int = ANGLES) -> np.ndarray:
    """λ of evenly spaced angles, (angles,), ascending; ConfigError below 3 of them."""
    if angles < 3:
        raise errors.ConfigError(f"angles={angles!r} of a curve must be at least 3")
    return np.tan(np.linspace(EDGE, np.pi / 2 - EDGE, angles))


def prd(p: np.ndarray, q: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """α of two histograms of sum 1, (..., K) each, at λ (L,): (..., L); β is this over λ."""
    p, q = p[..., None, :], q[..., None, :]
    alpha = np.minimum(lam[:, None] * p, q).sum(axis=-1)
    return np.minimum(alpha, np.minimum(lam, 1))


def best_f(alpha: np.ndarray, lam: np.ndarray, b: float) -> np.ndarray:
    """max over λ of F_b, of α (..., L) at λ (L,)."""
    return ((1 + b * b) / (1 + b * b * lam) * alpha).max(axis=-1)


def curve(
    real: Statistics, fake: Statistics, options: Options | None = None, angles: int = ANGLES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(λ, precision, recall), (angles,) each, for a figure with recall on the x-axis.

    Raises:
      DataError: fewer than CLUSTERS samples in a set, or no features.
      ConfigError: fewer than 3 angles.
    """
    options, lam = options or Options(), slopes(angles)
    p, q = _histograms(real, fake, options)
    alpha = prd(p[:, 0], q[:, 0], lam).mean(axis=0)
    return lam, alpha, alpha / lam


def _replicates(
    real: Statistics, fake: Statistics, names: tuple[str, ...], options: Options
) -> dict[str, Replicates]:
    lam = slopes()
    p, q = _histograms(real, fake, options)
    shape = p.shape[1], q.shape[1]
    theta = {name: np.empty(shape) for name in NAMES}
    for g in range(shape[0]):
        alpha = np.sum([prd(p[run, g], q[run], lam) for run in range(RUNS)], axis=0) / RUNS
        theta["precision_sajjadi"][g] = best_f(alpha, lam, 1 / B)
        theta["recall_sajjadi"][g] = best_f(alpha, lam, B)
    draws = {"precision_sajjadi": fake.n, "recall_sajjadi": real.n}
    # A rounding error below 1 would be taken for the spread of a proportion.
    theta = {name: np.where(one > 1 - 1e-9, 1.0, one) for name, one in theta.items()}
    return {name: Replicates(theta[name], draws[name]) for name in names}


FAMILY = Family("PRD by k-means", NAMES, NAMES.__contains__, _replicates)


# --- clusters --------------------------------------------------------------------------


def _histograms(
    real: Statistics, fake: Statistics, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """p (RUNS, 1 + G, K) and q (RUNS, 1 + H, K): of all samples, and without each group."""
    sets = real, fake
    for place, one in zip(("real", "fake"), sets, strict=True):
        one.needed(place)
        if one.n < CLUSTERS:
            raise errors.DataError(
                f"precision_sajjadi and recall_sajjadi make {CLUSTERS} clusters and need as many "
                f"samples of each set, got {one.n} {place}: give more samples"
            )
    groups = [
        split(one.n, options.groups, options.seed, side)
        for one, side in zip(sets, (REAL, FAKE), strict=True)
    ]
    out = tuple(np.empty((RUNS, 1 + len(one.sizes), CLUSTERS)) for one in groups)
    labels = _clusterings(real, fake, options)
    for side, cut in enumerate(groups):
        for run in range(RUNS):
            flat = np.bincount(
                cut.labels() * CLUSTERS + labels[side][run], minlength=len(cut.sizes) * CLUSTERS
            )
            counts = flat.reshape(-1, CLUSTERS)
            total = counts.sum(axis=0)
            out[side][run, 0] = total / total.sum()
            out[side][run, 1:] = (total - counts) / (total.sum() - cut.sizes)[:, None]
    return out[0], out[1]


def _clusterings(
    real: Statistics, fake: Statistics, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of each real (RUNS, N) and fake sample (RUNS, M)."""
    from sklearn.cluster import MiniBatchKMeans

    features = real.needed("real"), fake.needed("fake")
    rng = np.random.Generator(np.random.Philox(key=[options.seed % 2**64, 4]))
    rows = [np.sort(rng.permutation(len(x))[:FITTED]) for x in features]
    centre = np.mean([x.mean(axis=0, dtype=np.float64) for x in features], axis=0)
    union = np.concatenate(
        [tile for x, some in zip(features, rows, strict=True) for tile in _centred(x, centre, some)]
    )
    # Both sets have the same weight together, of mean 1.
    sizes = np.array([len(some) for some in rows])
    weight = np.repeat(sizes.mean() / sizes, sizes)
    models = []
    for run in range(RUNS):
        model = MiniBatchKMeans(
            CLUSTERS,
            n_init=10,  # pyright: ignore[reportArgumentType]
            random_state=(options.seed + run) % 2**32,
        )
        with warnings.catch_warnings():
            # Fewer distinct points than clusters leave clusters empty, which the shares can bear.
            warnings.simplefilter("ignore")
            models.append(model.fit(union, sample_weight=weight))
        options.tick("k-means", run + 1, RUNS)
    found = [
        np.concatenate(
            [
                np.stack([model.predict(tile) for model in models])
                for tile in _centred(x, centre, np.arange(len(x)))
            ],
            axis=1,
        )
        for x in features
    ]
    return found[0], found[1]


def _centred(x: np.ndarray, centre: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """x[rows] − centre, float32, some rows at a time."""
    step = max(TILE // x.shape[1], 1)
    for start in range(0, len(rows), step):
        some = x[rows[start : start + step]].astype(np.float64)
        yield (some - centre).astype(np.float32)
