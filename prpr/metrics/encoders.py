"""Encoders: what turns images into the features that a metric measures.

Notation: images (N, H, W, C) in [−1, 1]; features (N, D) float32.

An encoder is fitted on the TRAINING split only: a metric that has seen the samples it scores
prefers the model that copied them. Its name belongs in every table, because numbers under
two encoders cannot be compared.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from prpr import errors

HIDDEN = (64, 32)  # widths of the classifier; the last is the features' D


class Encoder(NamedTuple):
    """`encode(images) -> (N, D) float32`; `name` for the table; `accuracy` held-out, or None."""

    name: str
    encode: Callable[[ArrayLike], np.ndarray]
    accuracy: float | None = None


HeldOut = tuple[ArrayLike, ArrayLike]
Fit = Callable[[ArrayLike, ArrayLike, int, HeldOut | None], Encoder]


def _flat(images: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Images of the fitted shape as (N, H·W·C) float32, or DataError."""
    x = np.asarray(images)
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


def _pixels(images: ArrayLike, labels: ArrayLike, seed: int, held_out: HeldOut | None) -> Encoder:
    del labels, seed, held_out
    shape = np.shape(images)[1:]
    return Encoder("pixels", lambda x: _flat(x, shape))


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
    return Encoder(f"classifier(train split, {'-'.join(map(str, HIDDEN))} MLP)", encode, accuracy)


def _layers(net: object) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(net.coefs_, net.intercepts_, strict=True))  # pyright: ignore[reportAttributeAccessIssue]


def _standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column; 1 where the column does not vary."""
    scale = x.std(axis=0, dtype=np.float64)
    # A pixel that is lit in one training image would dominate every distance: a floor.
    floor = 0.1 * float(np.sqrt(np.mean(scale**2)))
    scale = np.where(scale > 0, np.maximum(scale, floor), floor or 1.0)
    return x.mean(axis=0, dtype=np.float64).astype(np.float32), scale.astype(np.float32)


ENCODERS: dict[str, Fit] = {"pixels": _pixels, "classifier": _classifier}


def get(name: str) -> Fit:
    """The function that fits the encoder `name`; ConfigError for a name not in ENCODERS."""
    if name not in ENCODERS:
        raise errors.unknown_name("encoder", name, ENCODERS)
    return ENCODERS[name]


def fit(
    name: str,
    images: ArrayLike,
    labels: ArrayLike,
    seed: int = 0,
    *,
    held_out: HeldOut | None = None,
) -> Encoder:
    """Fits an encoder on training images; the same seed gives the same features.

    Args:
      name: of ENCODERS: "pixels" (the image as a row; nothing is fitted) or "classifier".
      images: (N, H, W, C) of the TRAINING split.
      labels: (N,) integers; not used by "pixels".
      seed: of the classifier's initialisation and order of batches.
      held_out: (images, labels) on which the classifier's accuracy is measured.

    Raises:
      ConfigError: an unknown name.
      DataError: labels that do not match, fewer than two classes, images with NaN; and from
        `encode`, images of another shape than the fitted ones.
    """
    return get(name)(images, labels, seed, held_out)
