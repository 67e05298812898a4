"""Arrays in files: .npy and .npz, without pickles; large ones are mapped, not read.

What an array is goes by its shape and type: (N, D) are features; (N, H, W) and (N, H, W, C) are
images, of bytes, or of floats in [0, 1] or [−1, 1]. Which of the two ranges it is goes by the
least value, see `_black`; what could be either is refused, and so is what could be one image.

Which array of an .npz is taken goes by its name: "features", "images", "samples", "points",
"arr_0" (numpy's own first one, which ADM's batches have), or the only one of two dimensions or
more. Beside it may stand "labels" (or "arr_1"), "probabilities", and "mu" and "sigma".
"""

import contextlib
import pickle
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from prpr.errors import ConfigError, DataError
from prpr.evaluate import pixels
from prpr.evaluate.images import Array
from prpr.evaluate.notes import Notes

WHOLE = 2**30  # bytes of a compressed array above which its reading whole is told
NAMES = ("features", "images", "samples", "points", "arr_0")
LABELS = ("labels", "arr_1")
_SAVE = "np.save(path, np.asarray(x, np.uint8))"
_SLACK = 1e-3  # how far floats may leave their range; they round to the byte at its end
_DARK = -0.5  # what images in [−1, 1] fall below somewhere


def read(path: Path, notes: Notes | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file by name, {"arr_0": ...} of an .npy.

    Arrays of three dimensions and more are mapped where the file holds them uncompressed. A zip's
    checksum is compared of what is read, and not of what is mapped, nor has an .npy any.

    Args:
      path: of an .npz or .npy.
      notes: told of a large array that has to be read whole.

    Raises:
      DataError: no file, a truncated or damaged one, one with pickled objects, or of other type.
    """
    if pixels.is_image(path.name):
        raise DataError(f"{path} is one image: name the folder of many")
    if path.suffix not in (".npy", ".npz"):
        raise DataError(
            f"{path} is neither a folder nor an .npz or .npy file: name the folder of the images"
        )
    try:
        if path.suffix == ".npy":
            return {"arr_0": np.load(path, mmap_mode="r", allow_pickle=False)}
        # Opened here: numpy leaves a broken archive open.
        with open(path, "rb") as held, np.load(held, allow_pickle=False) as file:
            names = list(file.files)
            return {name: _member(path, file, name, notes) for name in names}
    except FileNotFoundError:
        raise DataError(f"no file {path}: mend the path") from None
    except MemoryError:
        raise DataError(
            f"{path} does not fit into memory: store it without compression, np.savez(path, "
            "images=x), and it is read in pieces"
        ) from None
    except Exception as error:  # zipfile, zlib, struct and numpy raise all kinds for what is broken
        if "pickle" in str(error).lower() or isinstance(error, pickle.UnpicklingError):
            raise DataError(
                f"{path} holds Python objects, which could run code when they are loaded and are "
                f"not: save a plain array, {_SAVE}"
            ) from None
        raise DataError(
            f"{path} is damaged or truncated ({type(error).__name__}: {error}): make it again"
        ) from None


def _member(path: Path, file: Any, name: str, notes: Notes | None) -> np.ndarray:
    with contextlib.suppress(_NotMapped):
        return _mapped(path, f"{name}.npy")
    x = file[name]
    if notes is not None and x.ndim > 2 and x.nbytes > WHOLE:
        notes.say(
            f"{name!r} ({x.nbytes / 2**30:.1f} GiB) is compressed and was read into memory whole: "
            "stored without compression, np.savez(path, images=x), it is read in pieces"
        )
    return x


class _NotMapped(Exception):
    """This array has to be read."""


def _mapped(path: Path, member: str) -> np.ndarray:
    """An uncompressed array of three dimensions or more in a zip file, mapped."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED:
        raise _NotMapped
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        # The local header: its name and extra field can be longer than the directory says.
        name, extra = struct.unpack("<26x2H", file.read(30))
        file.seek(info.header_offset + 30 + name + extra)
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise _NotMapped
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if len(shape) < 3 or dtype.hasobject:
            raise _NotMapped  # small, or to be refused; and reading checks the checksum
        order = "F" if fortran else "C"
        return np.memmap(path, dtype, "r", file.tell(), shape, order)


def chosen(arrays: dict[str, np.ndarray], place: str) -> str | None:
    """The name of the array of samples; None where there are only moments.

    Raises:
      DataError: there is none, or several of unknown names.
    """
    for name in NAMES:
        if name in arrays:
            return name
    if {"mu", "sigma"} <= arrays.keys():
        return None
    others = [name for name, x in arrays.items() if x.ndim >= 2]
    if len(others) == 1:
        return others[0]
    raise DataError(
        f"{place} holds {', '.join(sorted(arrays)) or 'nothing'}, and none of the names "
        f"{', '.join(NAMES)}: name the array of samples so"
    )


def labels(arrays: dict[str, np.ndarray], n: int, place: str) -> np.ndarray | None:
    """The labels (n,) beside the samples, or None; DataError for some that do not fit."""
    found = next((arrays[name] for name in LABELS if name in arrays), None)
    if found is None:
        return None
    if found.shape != (n,) or found.dtype.kind not in "iu" or found.min(initial=0) < 0:
        raise DataError(
            f"the labels of {place} must be {n} whole numbers >= 0, one a sample, got dtype "
            f"{found.dtype} and shape {found.shape}: mend or remove them"
        )
    return found.astype(np.int64)


def features(x: np.ndarray, place: str) -> np.ndarray:
    """An array that is named "features" as (N, D), from (N, D) or (N, D, 1, ...); or DataError."""
    shape = x.shape
    while x.ndim > 2 and x.shape[-1] == 1:
        x = x[..., 0]
    if x.ndim != 2:
        raise DataError(
            f"'features' of {place} has shape {shape}: features are (N, D), so pool or flatten "
            "each sample's; images are named 'images'"
        )
    return x


def images(x: np.ndarray, notes: Notes, labels: np.ndarray | None = None) -> Array:
    """A source of images from an array (N, H, W) or (N, H, W, C).

    Raises:
      DataError: another shape, type or range, or no image.
    """
    place = notes.name
    if x.ndim not in (3, 4):
        raise DataError(
            f"{place} has shape {x.shape}: features are (N, D), images (N, H, W) or (N, H, W, C)"
        )
    if 0 in x.shape:
        raise DataError(f"{place} has shape {x.shape} and holds no image: give one or more")
    if x.ndim == 3:
        if x.shape[2] in (3, 4) or x.shape[0] == 3:
            raise DataError(
                f"{place} has shape {x.shape}: is it one image? A set of images is (N, H, W, C): "
                "give x[None] of one image, and x[..., None] of grey ones of that size"
            )
        x = x[..., None]
    elif x.shape[2:] == (1, 1) and x.shape[1] > 1:
        raise DataError(
            f"{place} has shape {x.shape}: are they features? These are (N, D): give x[:, :, 0, 0]"
        )
    if x.shape[3] not in (1, 2, 3, 4):
        first = x.shape[1] in (1, 3)
        mend = "transpose it with x.transpose(0, 2, 3, 1)" if first else "the last axis is colour"
        raise DataError(f"{place} has shape {x.shape}, no (N, H, W, C) with C <= 4: {mend}")
    if x.dtype == np.uint8:
        return Array(x, notes, labels)
    if x.dtype.kind != "f":
        raise DataError(
            f"{place} has images of type {x.dtype}, whose range is not known: make bytes of them, "
            f"{_SAVE}"
        )
    return Array(x, notes, labels, low=_black(x, notes))


def _black(x: np.ndarray, notes: Notes) -> float:
    """The value of black in floats whose white is 1: −1 where the least is below `_DARK`, else 0.

    Between `_DARK` and −`_SLACK` it could be either, and is refused.
    """
    low, high = np.inf, -np.inf
    for start in range(0, len(x), 64):
        block = np.asarray(x[start : start + 64])
        if not np.isfinite(block).all():
            bad = start + int(np.flatnonzero(~np.isfinite(block).all(axis=(1, 2, 3)))[0])
            raise DataError(
                f"{notes.name} has NaN or infinity, first in image {bad}: look at the model that "
                "made it"
            )
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    if low < -1 - _SLACK or high > 1 + _SLACK or _DARK <= low < -_SLACK:
        either = "" if low < _DARK or high > 1 + _SLACK else ", and these could be of either"
        raise DataError(
            f"{notes.name} has float images from {low:.4g} to {high:.4g}; known ranges are [0, 1] "
            f"and [-1, 1]{either}: make bytes of them, {_SAVE}"
        )
    black = -1.0 if low < _DARK else 0.0
    notes.say(f"float images were read as from {black:g} (black) to 1 (white), rounded to bytes")
    if low < black or high > 1:
        notes.say(f"float images go from {low:.6g} to {high:.6g} and were cut to that range")
    return black


def ranges(inputs: Iterable[Any]) -> list[str]:
    """The warning that float images of two `Input`s were read as of two ranges."""
    found = {
        one.images.low: one.name
        for one in inputs
        if isinstance(one.images, Array) and one.images.low is not None
    }
    if len(found) < 2:
        return []
    return [
        f"float images of {found[0.0]} were read as from 0 to 1, and those of {found[-1.0]} as "
        f"from -1 to 1: if both are of one range, make bytes of them, {_SAVE}"
    ]


def check_resolution(text: str, place: str) -> int:
    """The resolution of "?resolution=128"; 0 for ""; ConfigError for what is none."""
    if text and (not text.isdecimal() or int(text) < 1):
        raise ConfigError(f"{place}: resolution={text!r} must be a number of pixels")
    return int(text or 0)
