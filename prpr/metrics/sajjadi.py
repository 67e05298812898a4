"""Precision and recall of distributions by clustering: Sajjadi et al. 2018 (arXiv:1806.00035).

Notation
  P, Q    real data (always first) and the model; N, M samples
  p, q    shares of each set's samples in each of K = 20 clusters of their union, (K,)
  α(λ)    Σ_k min(λ p_k, q_k), precision;    β(λ) = α(λ)/λ, recall
  λ       tan θ of 1001 angles θ evenly spaced from 1e-10 to π/2 − 1e-10

Equal numbers S = min(N, M) of both sets are clustered together by mini-batch k-means RUNS = 10
times, of the larger set another random S in each run, and p and q are shares of these; α and β
are means over the runs, and

  precision_sajjadi = max over λ of F_{1/8},    recall_sajjadi = max over λ of F_8,
  F_b = (1 + b²) αβ / (b² α + β) = (1 + b²) α / (1 + b² λ)

Precision is about the model's samples: its F has b = 1/8, and outliers lower it. Recall is about
the real ones: b = 8, and dropped modes lower it. The authors' code (msmsajjadi/
precision-recall-distributions, prd_score.py df840ad) takes the model's features FIRST and
returns the pair (F_8, F_{1/8}), recall first; swapping either swaps the two numbers.

Against that code: the same curve and scores from given histograms; sets of different size are
cut to one size (the authors refuse them); features are centred before they are rounded to float32;
at most FITTED of the S samples of each set make the centres, all S are counted.

Why S of both: clusters lie where the samples are that made them. N = 60 and M = 1000 samples of
one distribution in 100 dimensions have, with S of both, 0.82 and 0.85 (60 and 60: 0.83 and 0.87);
where all of both make the clusters, with weights, 0.88 and 0.62; where 60 of each make them and
all are counted, 0.97 and 0.81, and so 0.99 and 0.92 for 1000 and 10,000 in 1000 dimensions.

The clusters are coarse: what differs inside one is not seen, so the numbers err upwards. On two
samples of one distribution they are about 1 − 10/S, in 2 to 1000 dimensions; a note says so below
FEW samples a cluster. Replicates: the clusters are held fixed, each group of samples is left out
of the shares.
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
FEW = 50  # samples a cluster, of each set
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
    # A rounding error below 1 would be taken for the spread of a proportion.
    theta = {name: np.where(one > 1 - 1e-9, 1.0, one) for name, one in theta.items()}
    draws, notes = min(real.n, fake.n), ()
    if draws < FEW * CLUSTERS:
        notes = (
            f"precision_sajjadi and recall_sajjadi: {draws} samples of each set are few for "
            f"{CLUSTERS} clusters: two sets of one distribution have about "
            f"{1 - CLUSTERS / 2 / draws:.2g}; compare at equal numbers, or give more samples",
        )
    return {name: Replicates(theta[name], draws, notes=notes) for name in names}


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
            counted = labels[side][run] >= 0
            cell = (cut.labels() * CLUSTERS + labels[side][run])[counted]
            flat = np.bincount(cell, minlength=len(cut.sizes) * CLUSTERS)
            counts = flat.reshape(-1, CLUSTERS)
            total = counts.sum(axis=0)
            left = total.sum() - counts.sum(axis=1, keepdims=True)
            out[side][run, 0] = total / total.sum()
            out[side][run, 1:] = (total - counts) / left
    return out[0], out[1]


def _clusterings(
    real: Statistics, fake: Statistics, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of each real (RUNS, N) and fake sample (RUNS, M), −1 where a run has it not."""
    from sklearn.cluster import MiniBatchKMeans

    features = real.needed("real"), fake.needed("fake")
    rng = np.random.Generator(np.random.Philox(key=[options.seed % 2**64, 4]))
    centre = np.mean([x.mean(axis=0, dtype=np.float64) for x in features], axis=0)
    size = min(real.n, fake.n)
    models = []
    left = tuple(np.ones((RUNS, len(x)), bool) for x in features)
    for run in range(RUNS):
        union = []
        for x, out in zip(features, left, strict=True):
            rows = rng.permutation(len(x))[:size]
            out[run, rows] = False
            union += _centred(x, centre, np.sort(rows[:FITTED]))
        model = MiniBatchKMeans(
            CLUSTERS,
            n_init=10,  # pyright: ignore[reportArgumentType]
            random_state=(options.seed + run) % 2**32,
        )
        with warnings.catch_warnings():
            # Fewer distinct points than clusters leave clusters empty, which the shares can bear.
            warnings.simplefilter("ignore")
            models.append(model.fit(np.concatenate(union)))
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
    for labels, out in zip(found, left, strict=True):
        labels[out] = -1
    return found[0], found[1]


def _centred(x: np.ndarray, centre: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """x[rows] − centre, float32, some rows at a time."""
    step = max(TILE // x.shape[1], 1)
    for start in range(0, len(rows), step):
        some = x[rows[start : start + step]].astype(np.float64)
        yield (some - centre).astype(np.float32)
