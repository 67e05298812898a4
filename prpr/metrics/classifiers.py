"""Held-out log-ratios: every sample is scored by classifiers that never saw its label.

Notation: log r̂ estimates log p/q at a sample; K folds of each set; B classifiers of four kinds.

A classifier trained to tell P from Q by the logistic loss has the logit log r plus the log of the
training sizes' ratio. No kind is best everywhere (measured below), so several are fitted and
their logits added with weights >= 0, fitted by the logistic loss too.

Held out in a ring. Model j is fitted on all folds but j and j + 1 and scores both. The weights for
fold j are fitted on fold j + 1 as model j scores it and fold j − 1 as model j − 1 does; fold j's
score is the mean of these two models'. So neither the classifiers nor the weights of a fold saw its
labels. Stacking on scores of K ordinary folds does leak: P = Q in 16 dimensions, N = 500, 30
draws, gave α(1) = 0.973 ± 0.008 without a cap, the ring 0.993 ± 0.006.

Features are first turned into principal components of a subsample of the pooled samples. Neither
the subsample nor its mean looks at which set a sample is from, which keeps a bound of held-out
error a bound: given all features, the held-out labels are still independent of the classifier.
A centre of equal parts of two unequal sets would put the difference of their means, held-out
samples included, among the components; and with equal numbers of both sets more of the smaller
one is in the subsample, whose samples lie farther out along its components than others do. Hence
a set that is a small part of all samples is a small part of what chooses the components, too.

  linear   logistic, on at most 256 whitened components
  kernel   logistic, on 300 Nyström features of a Gaussian kernel, 64 components
  trees    100 extremely randomised trees, 32 components
  network  one hidden layer of 64, stopped early, 64 components

Measured: mean |error| of α(λ)/min(1, λ) over λ = .1, .3, 1, 3, 10 (the value of `curves`),
nine pairs of Gaussians and mixtures in rotated axes (equal, shifted by 1 and 2.5, narrowed in all
or one direction, modes dropped, invented, reweighted, dropped and shifted), N of each set:

  D, N        linear  kernel  trees  network   all four
  2, 500       .093    .021    .021   .054      .018
  16, 500      .091    .064    .046   .090      .042
  16, 2000     .086    .037    .025   .033      .018
  64, 500      .112    .072    .069   .124      .061
  64, 2000     .085    .046    .048   .055      .026
"""

import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from prpr import errors
from prpr.metrics.family import Options
from prpr.metrics.groups import FAKE, REAL, split
from prpr.metrics.statistics import Statistics

FOLDS = 10
LEAST = 40  # samples of a set: below, the network's own validation set has too few
BASIS = 4096  # of all samples, that the principal components are fitted to, at most,
WIDEST = 2**25  # and numbers in them
COMPONENTS = 256
FITTED = 10_000  # samples of each set that one classifier is fitted to, at most
ROWS = 4096  # scored at once
TILE = 2**22  # numbers projected at once
CLIP = 8.0  # of a logit, before logits are added
RIDGE = 1e-3  # on the weights
_UNTRAINED = 1e-6  # the closest that a share of trees or a network's output is taken to 0 or 1


class Scores(NamedTuple):
    """log r̂ of each real (N,) and fake (M,) sample, held out, and the fold of each."""

    real: np.ndarray
    fake: np.ndarray
    real_fold: np.ndarray
    fake_fold: np.ndarray
    notes: tuple[str, ...] = ()


# features (n, d), labels (n,), seed -> (features -> logits)
Fit = Callable[[np.ndarray, np.ndarray, int], Callable[[np.ndarray], np.ndarray]]

_KEPT: weakref.WeakKeyDictionary[
    Statistics, weakref.WeakKeyDictionary[Statistics, dict[tuple, Scores]]
] = weakref.WeakKeyDictionary()


def held_out(
    real: Statistics,
    fake: Statistics,
    options: Options | None = None,
    kinds: tuple[Fit, ...] | None = None,
    folds: int = FOLDS,
) -> Scores:
    """Held-out log-ratios of both sets; kept with the statistics, for the next question.

    Args:
      real, fake: N and M samples with features.
      options: seed (of folds, subsamples and classifiers) and progress.
      kinds: the classifiers; `KINDS` by default.
      folds: K >= 3.

    Returns:
      Scores. `notes` say what was subsampled.

    Raises:
      DataError: fewer than LEAST samples in a set, or no features.
      ConfigError: fewer than 3 folds.
    """
    options, kinds = options or Options(), KINDS if kinds is None else kinds
    if folds < 3:
        raise errors.ConfigError(f"folds={folds!r} of held-out classifiers must be at least 3")
    check_enough(real, fake)
    kept = _KEPT.setdefault(real, weakref.WeakKeyDictionary()).setdefault(fake, {})
    key = (options.seed, kinds, folds)
    if key not in kept:
        kept[key] = _ring(real, fake, options, kinds, folds)
    return kept[key]


def check_enough(real: Statistics, fake: Statistics) -> None:
    """DataError unless both sets have features of at least LEAST samples."""
    for place, stats in (("real", real), ("fake", fake)):
        stats.needed(place)
        if stats.n < LEAST:
            raise errors.DataError(
                f"a frontier by classifiers needs at least {LEAST} samples of each set, got "
                f"{stats.n} {place}: give more samples"
            )


def _ring(
    real: Statistics, fake: Statistics, options: Options, kinds: tuple[Fit, ...], folds: int
) -> Scores:
    sets = _components(real, fake, options.seed)
    fold = tuple(
        split(stats.n, folds, options.seed, side).labels()
        for side, stats in ((REAL, real), (FAKE, fake))
    )
    # logits[side] (2, n, B): a sample of fold j by model j, and by model j − 1.
    logits = tuple(np.zeros((2, len(x), len(kinds)), np.float32) for x in sets)
    for j in range(folds):
        both = (j, (j + 1) % folds)
        for b, kind in enumerate(kinds):
            model, offset = _fit(kind, sets, fold, both, options.seed + j)
            for side, x in enumerate(sets):
                for turn, one in enumerate(both):
                    rows = np.flatnonzero(fold[side] == one)
                    for some in _pieces(rows):
                        logits[side][turn, some, b] = model(x[some]) - offset
            options.tick("held-out classifiers", j * len(kinds) + b + 1, folds * len(kinds))
    np.clip(logits[0], -CLIP, CLIP, out=logits[0])
    np.clip(logits[1], -CLIP, CLIP, out=logits[1])
    notes = _notes(real, fake, sets[0].shape[1], folds)
    return Scores(*_stack(logits, fold, folds), fold[0], fold[1], notes)


def _fit(
    kind: Fit,
    sets: tuple[np.ndarray, ...],
    fold: tuple[np.ndarray, ...],
    left: tuple[int, int],
    seed: int,
) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """(a classifier fitted without two folds, the log-odds of its training labels)."""
    rng = np.random.Generator(np.random.Philox(key=[seed % 2**64, 2]))
    rows = [np.flatnonzero(~np.isin(one, left)) for one in fold]
    rows = [np.sort(rng.permutation(one)[:FITTED]) for one in rows]
    x = np.concatenate([part[some] for part, some in zip(sets, rows, strict=True)])
    y = np.repeat([1.0, 0.0], [len(rows[0]), len(rows[1])])
    with warnings.catch_warnings():
        # A fit that is stopped at its bound of steps is as valid as another: it is held out.
        warnings.simplefilter("ignore")
        model = kind(x, y, seed % 2**32)
    return model, float(np.log(len(rows[0]) / len(rows[1])))


def _stack(
    logits: tuple[np.ndarray, ...], fold: tuple[np.ndarray, ...], folds: int
) -> tuple[np.ndarray, np.ndarray]:
    """The weighted sums (N,) and (M,); weights of a fold are fitted on its two neighbours."""
    out = [np.empty(len(one)) for one in fold]
    for j in range(folds):
        after, before = (j + 1) % folds, (j - 1) % folds
        parts = [
            np.concatenate([z[1, f == after], z[0, f == before]]).astype(np.float64)
            for z, f in zip(logits, fold, strict=True)
        ]
        weights = _weights(*parts)
        for side in (REAL, FAKE):
            here = fold[side] == j
            mean = logits[side][:, here].mean(axis=0, dtype=np.float64)
            out[side][here] = mean @ weights[:-1] + weights[-1]
    return out[0], out[1]


def _weights(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """(B + 1,) weights >= 0 and a constant: the least balanced logistic loss and a ridge."""
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z, y = real @ w[:-1] + w[-1], fake @ w[:-1] + w[-1]
        value = np.logaddexp(0, -z).mean() + np.logaddexp(0, y).mean() + RIDGE * (w @ w)
        dz, dy = -expit(-z) / len(z), expit(y) / len(y)
        slope = np.append(real.T @ dz + fake.T @ dy, dz.sum() + dy.sum())
        return float(value), slope + 2 * RIDGE * w

    kinds = real.shape[1]
    start = np.append(np.full(kinds, 1 / kinds), 0.0)
    bounds = [(0, None)] * kinds + [(None, None)]
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x


# --- features --------------------------------------------------------------------------


def _components(real: Statistics, fake: Statistics, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components (n, d) float32 of both sets, the first with variance 1.

    At most `COMPONENTS`, of at most `BASIS` of all samples, drawn without regard to their set;
    one, zero, where all are constant. And a tenth of these samples: in as many whitened components
    as samples, all samples are equally far from each other, whatever they were.
    """
    features = real.needed("real"), fake.needed("fake")
    rng = np.random.Generator(np.random.Philox(key=[seed % 2**64, 3]))
    size = min(BASIS, max(WIDEST // real.width, 4))
    drawn = np.sort(rng.permutation(real.n + fake.n)[:size])
    parts = features[0][drawn[drawn < real.n]], features[1][drawn[drawn >= real.n] - real.n]
    basis = np.concatenate([part.astype(np.float64) for part in parts])
    centre = basis.mean(axis=0)
    basis -= centre
    scale = np.abs(basis).max()
    if scale == 0:
        return np.zeros((real.n, 1), np.float32), np.zeros((fake.n, 1), np.float32)
    basis /= scale
    # The smaller of the two Gram matrices has the same eigenvalues.
    wide = basis.shape[1] > len(basis)
    values, vectors = np.linalg.eigh(basis @ basis.T if wide else basis.T @ basis)
    most = min(COMPONENTS, max(len(basis) // 10, 1))
    keep = np.flatnonzero(values > 1e-10 * values[-1])[::-1][:most]
    axes = vectors[:, keep]
    if wide:
        axes = basis.T @ (axes / np.sqrt(values[keep]))
    axes /= scale * np.sqrt(values[keep[0]] / len(basis))
    out = [np.empty((len(x), len(keep)), np.float32) for x in features]
    rows = max(TILE // real.width, 1)
    for x, z in zip(features, out, strict=True):
        for start in range(0, len(x), rows):
            z[start : start + rows] = (x[start : start + rows].astype(np.float64) - centre) @ axes
    return out[0], out[1]


def _pieces(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), ROWS):
        yield rows[start : start + ROWS]


def _notes(real: Statistics, fake: Statistics, width: int, folds: int) -> tuple[str, ...]:
    out = []
    if width < real.width:
        out.append(f"classifiers see {width} principal components of {real.width} features")
    sizes = {"real": real.n, "fake": fake.n}
    left = {place: n * (folds - 2) // folds for place, n in sizes.items()}
    cut = [f"{FITTED} of {n} {place}" for place, n in left.items() if n > FITTED]
    if cut:
        out.append(f"each classifier is fitted to {' and '.join(cut)} samples outside its folds")
    return tuple(out)


# --- classifiers -----------------------------------------------------------------------


def linear(x: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Logistic regression on whitened components; the penalty shrinks as samples grow."""
    del seed
    return _logistic(lambda z: z, x, y, 0.003)


def kernel(x: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Logistic regression on Nyström features of exp(−3 d²/median d²)."""
    from scipy.spatial.distance import pdist
    from sklearn.kernel_approximation import Nystroem

    x = x[:, :64]
    some = np.random.default_rng(seed).permutation(len(x))[:500]
    apart = pdist(x[some], "sqeuclidean")
    median = np.median(apart[apart > 0]) if (apart > 0).any() else 1.0
    features = Nystroem(
        gamma=float(3 / median), n_components=min(300, len(x)), random_state=seed
    ).fit(x)
    return _logistic(lambda z: features.transform(z[:, :64]), x, y, 0.03)


def trees(x: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """The log-odds of the mean share of 100 extremely randomised trees."""
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(100, min_samples_leaf=5, random_state=seed).fit(x[:, :32], y)
    return lambda z: _log_odds(model.predict_proba(z[:, :32]))


def network(x: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """One hidden layer of 64, by Adam, until its own validation set is no longer told better."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        (64,),
        alpha=0.1,
        learning_rate_init=3e-3,
        early_stopping=True,
        n_iter_no_change=6,
        max_iter=60,
        random_state=seed,
    ).fit(x[:, :64], y)
    return lambda z: _log_odds(model.predict_proba(z[:, :64]))


KINDS: tuple[Fit, ...] = (linear, kernel, trees, network)


def _logistic(
    features: Callable[[np.ndarray], Any], x: np.ndarray, y: np.ndarray, c: float
) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    f = np.asarray(features(x))
    centre, spread = f.mean(axis=0), f.std(axis=0)
    # A constant feature stays 0 rather than a blown-up rounding error.
    spread = np.where(spread > 1e-6 * max(spread.max(), 1e-30), spread, np.inf)
    model = LogisticRegression(C=c, max_iter=200).fit((f - centre) / spread, y)
    return lambda z: model.decision_function((np.asarray(features(z)) - centre) / spread)


def _log_odds(shares: Any) -> np.ndarray:
    p = np.clip(np.asarray(shares)[:, 1], _UNTRAINED, 1 - _UNTRAINED)
    return np.log(p) - np.log1p(-p)
