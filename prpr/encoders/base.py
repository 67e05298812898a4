"""What an encoder is, whatever computes its features."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from prpr.errors import DataError


class Encoded(NamedTuple):
    """features: (B, D) float32; probabilities: (B, C) float32 of C classes, or None."""

    features: np.ndarray
    probabilities: np.ndarray | None = None


class Encoder(NamedTuple):
    """An encoder; `encode` is all of it for images in memory.

    Attributes:
      name: for tables: encoder, weights and resize.
      prepare: an image (H, W, C) of bytes -> an array of the size that `forward` takes. It holds
        no state, so threads may share it.
      forward: prepared images, stacked, any number of them -> Encoded of as many rows.
      accuracy: held-out accuracy of an encoder that was trained on labels.
      batch: how many images `forward` computes at once; whole multiples of it waste nothing.
        0: as many as it is given, and `prepare` takes a whole stack as well as one image.
    """

    name: str
    prepare: Callable[[np.ndarray], np.ndarray]
    forward: Callable[[np.ndarray], Encoded]
    accuracy: float | None = None
    batch: int = 0

    def encode(self, images: ArrayLike) -> np.ndarray:
        """The features (N, D) of images (N, H, W, C); see `encode_all`."""
        return self.encode_all(images).features

    def encode_all(self, images: ArrayLike) -> Encoded:
        """Features and probabilities of images (N, H, W, C), the next batch prepared in threads.

        Images are bytes; the encoders that are fitted also take floats in [−1, 1].

        Raises:
          DataError: no images, images of another type or shape than the encoder takes.
        """
        x = np.asarray(images)
        if not self.batch:
            return self.forward(self.prepare(x))
        if x.ndim != 4 or not len(x):
            raise DataError(
                f"images have shape {x.shape}: {self.name} takes (N, height, width, channels), "
                "at least one image"
            )
        parts, size = [], self.batch
        with ThreadPoolExecutor() as pool:
            ahead = pool.map(self.prepare, x[:size])
            for start in range(0, len(x), size):
                ready, ahead = ahead, pool.map(self.prepare, x[start + size : start + 2 * size])
                parts.append(self.forward(np.stack(list(ready))))
        return joined(parts)


def joined(parts: list[Encoded]) -> Encoded:
    """The rows of several `Encoded` of one encoder, one after another."""
    features = np.concatenate([part.features for part in parts])
    if parts[0].probabilities is None:
        return Encoded(features)
    kept = [part.probabilities for part in parts if part.probabilities is not None]
    return Encoded(features, np.concatenate(kept))


def check_bytes(image: np.ndarray) -> np.ndarray:
    """An image of bytes, (H, W, 3); one channel is repeated to three.

    Raises:
      DataError: another type, shape or number of channels.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise DataError(
            f"an image has type {image.dtype}: networks take bytes (uint8) from 0 to 255; "
            "prpr.score.to_stored makes them of floats in [−1, 1]"
        )
    if image.ndim != 3 or not image.size or image.shape[2] not in (1, 3):
        raise DataError(
            f"an image has shape {image.shape}: networks take (height, width, 3), or 1 channel "
            "for grey; drop an alpha channel first"
        )
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
