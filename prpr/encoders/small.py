"""Encoders without published weights: pixels, PCA, and a classifier trained on the spot.

Notation: images (N, H, W, C), bytes or floats in [−1, 1], which bytes are mapped to; features
(N, D) float32.

They are fitted on the TRAINING split only: a metric that has seen the samples it scores prefers
the model that copied them.
"""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from prpr import errors
from prpr.encoders.base import Encoded, Encoder

HIDDEN = (64, 32)  # widths of the classifier; the last is the features' D
COMPONENTS = 64  # D of PCA, where there are so many
_EXACT = 1024  # smaller side of the data up to which PCA is exact

HeldOut = tuple[ArrayLike, ArrayLike]
Fit = Callable[[ArrayLike, ArrayLike, int, HeldOut | None], Encoder]


def _floats(images: ArrayLike) -> np.ndarray:
    """Bytes in [−1, 1], as `score.from_stored` has them; what is no bytes stays as it is."""
    x = np.asarray(images)
    return x.astype(np.float32) / 127.5 - 1 if x.dtype == np.uint8 else x


def _flat(images: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Images of the fitted shape as (N, H·W·C) float32, or DataError."""
    x = _floats(images)
    if x.shape[1:] != shape or x.ndim < 2:
        raise errors.DataError(
            f"images have shape {x.shape}, but the encoder was fitted on (N, "
            f"{', '.join(map(str, shape))}): use the same data set and size"
        )
    x = x.reshape(len(x), -1).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
        raise errors.DataError(
            f"images to encode have NaN or infinity in {bad.size} of {len(x)}, first in image "
            f"{bad[0]}: look at the model that made them"
        )
    return x


def _encoder(
    name: str, encode: Callable[[np.ndarray], np.ndarray], accuracy: float | None = None
) -> Encoder:
    return Encoder(name, _floats, lambda x: Encoded(encode(x)), accuracy)


def _pixels(images: ArrayLike, labels: ArrayLike, seed: int, held_out: HeldOut | None) -> Encoder:
    del labels, seed, held_out
    shape = np.shape(images)[1:]
    return _encoder("pixels", lambda x: _flat(x, shape))


def _pca(images: ArrayLike, labels: ArrayLike, seed: int, held_out: HeldOut | None) -> Encoder:
    """Projection on the leading principal components, not whitened.

    Without whitening, distances between features are those between the images, as far as the
    components go, and a direction counts by its variance.
    """
    del labels, held_out
    shape = np.shape(images)[1:]
    x = _flat(images, shape)
    if len(x) < 2:
        raise errors.DataError(f"PCA needs at least 2 images to be fitted on, got {len(x)}")
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    rank = min(COMPONENTS, len(x) - 1, x.shape[1])
    axes, how = _principal(x, mean, rank, seed)
    name = f"pca(train split, {rank} of {x.shape[1]}, {how}, not whitened)"
    return _encoder(name, lambda x: (_flat(x, shape) - mean) @ axes)


def _principal(x: np.ndarray, mean: np.ndarray, rank: int, seed: int) -> tuple[np.ndarray, str]:
    """((D, rank) axes by falling variance, how they were found); the same seed, the same axes."""
    from scipy import linalg

    n, d = x.shape
    if min(n, d) <= _EXACT:
        _, _, rows = linalg.svd(x - mean, full_matrices=False)
        axes, how = rows[:rank].T, "exact"
    else:
        # Halko, Martinsson & Tropp (0909.4061, algorithm 4.4) with the mean taken off each product.
        rng = np.random.default_rng(seed % 2**32)
        basis = rng.standard_normal((d, rank + 10)).astype(np.float32)
        for _ in range(6):
            left, _ = np.linalg.qr(x @ basis - mean @ basis)
            basis, _ = np.linalg.qr(x.T @ left - np.outer(mean, left.sum(axis=0)))
        rows = np.linalg.svd(x @ basis - mean @ basis, full_matrices=False)[2]
        axes, how = basis @ rows[:rank].T, "randomised"
    # Signs are arbitrary: the largest entry of an axis is positive.
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(rank)]
    return np.ascontiguousarray(axes * np.where(largest < 0, -1, 1), dtype=np.float32), how


def _classifier(
    images: ArrayLike, labels: ArrayLike, seed: int, held_out: HeldOut | None
) -> Encoder:
    """Penultimate activations of a small MLP, standardised on the training images."""
    shape = np.shape(images)[1:]
    flat, y = _flat(images, shape), np.asarray(labels)
    if y.shape != (len(flat),):
        raise errors.DataError(
            f"the classifier needs one label per image, got {len(flat)} images and labels of "
            f"shape {y.shape}"
        )
    if len(np.unique(y)) < 2:
        raise errors.DataError(
            f"the classifier needs at least 2 classes among its {len(y)} training labels, got "
            f"{len(np.unique(y))}: use the encoder 'pixels', or more data"
        )
    # sklearn takes a second to import, and only this encoder needs it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    mean, scale = _standard(flat)
    net = MLPClassifier(HIDDEN, alpha=1e-3, max_iter=60, tol=1e-3, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # It is stopped by its budget on purpose: features, not the last digit of accuracy.
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit((flat - mean) / scale, y)
    weights = [(w.astype(np.float32), b.astype(np.float32)) for w, b in _layers(net)]

    def activations(x: ArrayLike) -> np.ndarray:
        h = (_flat(x, shape) - mean) / scale
        for w, b in weights[:-1]:
            h = np.maximum(h @ w + b, 0)
        return h

    # Units differ in scale by chance of training, and a distance should not inherit that.
    centre, spread = _standard(activations(images))

    def encode(x: ArrayLike) -> np.ndarray:
        return (activations(x) - centre) / spread

    accuracy = None
    if held_out is not None:
        logits = activations(held_out[0]) @ weights[-1][0] + weights[-1][1]
        found = (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(axis=1)
        accuracy = float(np.mean(net.classes_[found] == np.asarray(held_out[1])))
    return _encoder(f"classifier(train split, {'-'.join(map(str, HIDDEN))} MLP)", encode, accuracy)


def _layers(net: object) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(net.coefs_, net.intercepts_, strict=True))  # pyright: ignore[reportAttributeAccessIssue]


def _standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column; 1 where the column does not vary."""
    scale = x.std(axis=0, dtype=np.float64)
    # A pixel that is lit in one training image would dominate every distance: a floor.
    floor = 0.1 * float(np.sqrt(np.mean(scale**2)))
    scale = np.where(scale > 0, np.maximum(scale, floor), floor or 1.0)
    return x.mean(axis=0, dtype=np.float64).astype(np.float32), scale.astype(np.float32)


ENCODERS: dict[str, Fit] = {"pixels": _pixels, "pca": _pca, "classifier": _classifier}


def get(name: str) -> Fit:
    """The function that fits the encoder `name`; ConfigError for a name not in ENCODERS."""
    if name not in ENCODERS:
        raise errors.unknown_name("encoder", name, ENCODERS)
    return ENCODERS[name]


def fit(
    name: str,
    images: ArrayLike,
    labels: ArrayLike = (),
    seed: int = 0,
    *,
    held_out: HeldOut | None = None,
) -> Encoder:
    """Fits an encoder on training images; the same seed gives the same features.

    Args:
      name: of ENCODERS: "pixels" (the image as a row; nothing is fitted), "pca" (the leading 64
        principal components, not whitened; exact up to 1024 images or pixels, else randomised) or
        "classifier" (the last hidden layer of a small MLP).
      images: (N, H, W, C) of the TRAINING split, bytes or floats in [−1, 1].
      labels: (N,) integers; used by "classifier" only.
      seed: of the classifier's initialisation and order of batches, and of the randomised PCA.
      held_out: (images, labels) on which the classifier's accuracy is measured.

    Raises:
      ConfigError: an unknown name.
      DataError: labels that do not match, fewer than two classes, images with NaN; and from
        `encode`, images of another shape than the fitted ones.
    """
    return get(name)(images, labels, seed, held_out)
