"""From an encoded image to (H, W, 3) bytes, by one stated rule for every kind of file.

  grey, bilevel, palette      to RGB, without loss
  transparent pixels          over white (counted); clean-fid, torch-fidelity and dgm-eval drop the
                              alpha channel instead, which shows the colours that nobody sees
  CMYK, YCbCr, Lab, HSV       Pillow's conversion, without a colour profile (counted)
  16 bits grey                divided by 257 and rounded (counted), so that white stays white;
                              Pillow's own conversion clips at 255
  16 bits of other modes      Pillow keeps the upper byte of each channel (counted)
  32-bit or floating point    refused: what is white is not known
  animations, several pages   the first frame (counted)
  orientation in EXIF         not applied, as in those libraries (counted); but Pillow turns TIFFs

A colour profile is not applied either. A PPM of 16 bits is scaled and rounded by Pillow.
"""

import contextlib
import io
import os
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from prpr.errors import DataError
from prpr.evaluate.notes import Notes

EXTENSIONS = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
_WHITE = (255, 255, 255, 255)
_PLAIN = ("1", "L", "P", "RGB")  # modes that need no rule but Pillow's own conversion
_ORIENTATION = 0x0112


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image, by its extension in any case."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def decode(
    encoded: bytes,
    place: str,
    notes: Notes,
    cut: Callable[[bytes], np.ndarray] | None = None,
) -> np.ndarray:
    """Pixels (H, W, 3) uint8.

    Args:
      encoded: the file.
      place: where it is, for messages.
      notes: what is met is counted there.
      cut: brings an encoded image without transparency, of 8 bits, to its size
        (`prpr.data.decode.Decoder`); None leaves the size.

    Raises:
      DataError: no image, a damaged one, or one whose range is not known; names it.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            _count(image, place, notes)
            if cut is not None and image.mode in _PLAIN and "transparency" not in image.info:
                return cut(encoded)  # with its own faster way to decode a large JPEG
            x = rgb(image, place, notes)
        return x if cut is None else cut(_encoded(x))
    except DataError:
        raise
    except UnidentifiedImageError:
        reason = "the file is empty" if not encoded else f"{len(encoded)} bytes of no known format"
    except Exception as error:  # decoders raise whatever they trip over
        reason = f"{type(error).__name__}: {error}"
    raise DataError(f"cannot read the image {place} ({reason}): make it again, or remove it")


def _count(image: Image.Image, place: str, notes: Notes) -> None:
    """Counts what an image that was opened and not yet loaded has and its pixels do not say."""
    if getattr(image, "n_frames", 1) > 1:
        notes.count("files of several frames, of which the first was taken", place)
    if not image.mode.startswith("I") and ";16" in str(getattr(image, "tile", "")):
        notes.count("images of 16 bits a channel, of which Pillow keeps the upper 8", place)
    if "exif" in image.info:
        with contextlib.suppress(Exception):  # what is damaged there has no orientation
            if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
                notes.count("images with an orientation in EXIF, which was not applied", place)


def _encoded(x: np.ndarray) -> bytes:
    """Pixels as a file without compression."""
    stream = io.BytesIO()
    Image.fromarray(x).save(stream, "PPM")
    return stream.getvalue()


def rgb(image: Image.Image, place: str, notes: Notes) -> np.ndarray:
    """Pixels (H, W, 3) uint8 of an open image; see the module's head. Raises as `decode`."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _wide(np.asarray(image), mode, place, notes)
    if mode == "La":
        image = image.convert("LA")  # Pillow has no other way on
    if mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        if image.getextrema()[3][0] < 255:  # pyright: ignore
            notes.count("images with transparent pixels, laid over white", place)
            image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    elif image.mode not in ("1", "L", "P", "RGB", "RGBX"):
        notes.count(f"images of mode {mode}, converted to RGB without a colour profile", place)
    return np.asarray(image.convert("RGB"))


def _wide(x: np.ndarray, mode: str, place: str, notes: Notes) -> np.ndarray:
    """Grey of more than 8 bits."""
    # Pillow before 11 opens a PNG of 16 bits as mode "I".
    if mode == "F" or x.dtype.kind not in "iu" or x.min() < 0 or x.max() > 65535:
        raise DataError(
            f"the image {place} is of mode {mode} with values from {x.min()} to {x.max()}: what is "
            "white is not known; convert it to 8 bits"
        )
    notes.count("images of 16 bits, divided by 257 and rounded", place)
    grey = np.rint(x.astype(np.float32) / 257).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def over_white(x: np.ndarray) -> np.ndarray:
    """(..., 4) uint8 with alpha -> (..., 3) over white; (..., 2) -> (..., 1)."""
    alpha = x[..., -1:].astype(np.float32) / 255
    return np.rint(x[..., :-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)
