"""Bringing an image to a network's size: the step that moves FID most, so it is named.

Notation: image (H, W, 3) of bytes -> (size, size, 3) float32 in [0, 255], not rounded.

| name | filter | as in |
|---|---|---|
| clean | bicubic (a = −1/2), widened when it shrinks: antialiased | clean-fid (2104.11222) |
| clean_bytes | the same, cut and rounded to bytes after each direction | torchvision's Resize |
| legacy_tf | bilinear at target · in/out, not antialiased | TensorFlow 1, torch-fidelity |
| legacy_pytorch | bilinear at (target + ½) · in/out − ½, not antialiased | pytorch-fid |

clean-fid's own mode of that name, and dgm-eval's `--clean_resize`, are "clean"; without that flag
dgm-eval (2306.04675) resizes for DINOv2 as "clean_bytes" and for Inception as "legacy_pytorch".
legacy_tf is what the first FID and StyleGAN's metrics do. On a picture of 512 × 512 brought to
299, the three others are .35, 12 and 8.9 levels of 255 (root mean square) from "clean"
(tests/test_resize.py).

An image that has the size already is left as it is, by all of them.
"""

from collections.abc import Callable

import numpy as np

from prpr.errors import unknown_name

Resize = Callable[[np.ndarray, int], np.ndarray]


def _clean(image: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    def channel(plane: np.ndarray) -> np.ndarray:
        whole = Image.fromarray(np.ascontiguousarray(plane, np.float32))
        return np.asarray(whole.resize((size, size), Image.Resampling.BICUBIC))

    # Bicubic overshoots at edges; a byte's range is all that a network has seen.
    return np.clip(np.stack([channel(image[..., c]) for c in range(3)], axis=-1), 0, 255)


def _clean_bytes(image: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    whole = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(whole.resize((size, size), Image.Resampling.BICUBIC), np.float32)


def _bilinear(image: np.ndarray, at: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The image at rows at[0] and columns at[1], which are fractional and not negative."""
    x = image.astype(np.float32)
    for axis, where in enumerate(at):
        low = where.astype(np.int64)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        share = np.expand_dims(where - low.astype(np.float32), (1, 2) if axis == 0 else (0, 2))
        first = np.take(x, low, axis)
        x = first + (np.take(x, high, axis) - first) * share
    return x


def _legacy_tf(image: np.ndarray, size: int) -> np.ndarray:
    target = np.arange(size, dtype=np.float32)
    rows, columns = (target * np.float32(n / size) for n in image.shape[:2])
    return _bilinear(image, (rows, columns))


def _legacy_pytorch(image: np.ndarray, size: int) -> np.ndarray:
    target = np.arange(size, dtype=np.float32) + np.float32(0.5)
    rows, columns = (
        np.maximum(target * np.float32(n / size) - np.float32(0.5), 0) for n in image.shape[:2]
    )
    return _bilinear(image, (rows, columns))


RESIZES: dict[str, Resize] = {
    "clean": _clean,
    "clean_bytes": _clean_bytes,
    "legacy_tf": _legacy_tf,
    "legacy_pytorch": _legacy_pytorch,
}


def get(name: str) -> Resize:
    """The function (image, size) -> resized of that name; ConfigError for one not in RESIZES."""
    if name not in RESIZES:
        raise unknown_name("resize", name, RESIZES)
    return RESIZES[name]
