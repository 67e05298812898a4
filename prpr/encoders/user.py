"""An encoder of the user's own: a function in a Python file.

    # my.py
    def embed(images):                    # (N, H, W, C) uint8, N at most 64
        return features                   # (N, D) numbers

    encoders.load("my.py:embed")

The file is run as a program of the user's: name only files that you would run.
"""

import importlib.util
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from prpr.encoders.base import Encoded, Encoder
from prpr.errors import ConfigError, DataError

BATCH = 64


def is_user(name: str) -> bool:
    """Whether a name is of the form FILE.py:FUNCTION."""
    return ".py:" in name


def load(name: str) -> Encoder:
    """The encoder FILE.py:FUNCTION; its name carries the file's CRC-32.

    The function gets up to 64 images of one size, (N, H, W, C) uint8, and returns (N, D).

    Raises:
      ConfigError: no such file or function, or a file that fails when it is run.
      DataError: from `encode`, a function that fails or returns anything but (N, D) finite
        numbers of the same D for every batch.
    """
    file, _, function = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"encoder {name!r}: there is no file {file}; give FILE.py:FUNCTION")
    module = _run(path, name)
    call = getattr(module, function, None)
    if not callable(call):
        known = sorted(
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        )
        raise ConfigError(
            f"encoder {name!r}: {file} has no function {function!r}; it has "
            f"{', '.join(known) or 'none'}"
        )
    crc = zlib.crc32(path.read_bytes())
    return Encoder(
        f"{path.name}:{function} (crc {crc:08x})", _bytes, _checked(call, name), batch=BATCH
    )


def _run(path: Path, name: str) -> Any:
    # A name that hides no module of another's.
    spec = importlib.util.spec_from_file_location(f"prpr_encoder_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"encoder {name!r}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up
    # Imports beside the file work as they do when it is run as a script.
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(
            f"encoder {name!r}: {path} fails when it is run, {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _bytes(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise DataError(f"an image has type {image.dtype}: a user's encoder takes bytes (uint8)")
    return image


def _checked(call: Callable[[np.ndarray], Any], name: str) -> Callable[[np.ndarray], Encoded]:
    widths: set[int] = set()

    def one(batch: np.ndarray) -> np.ndarray:
        try:
            out = np.asarray(call(batch))
        except Exception as error:
            raise DataError(
                f"encoder {name!r} fails on images of shape {batch.shape}, "
                f"{type(error).__name__}: {error}"
            ) from error
        if out.ndim != 2 or len(out) != len(batch) or not out.shape[1]:
            raise DataError(
                f"encoder {name!r} returned an array of shape {out.shape} for {len(batch)} "
                f"images: it must return ({len(batch)}, D)"
            )
        if out.dtype.kind not in "fiu":
            raise DataError(f"encoder {name!r} returned {out.dtype}: it must return real numbers")
        out = out.astype(np.float32)
        if not np.isfinite(out).all():
            raise DataError(f"encoder {name!r} returned NaN or infinity (as float32)")
        widths.add(out.shape[1])
        if len(widths) > 1:
            raise DataError(
                f"encoder {name!r} returned features of {' and of '.join(map(str, sorted(widths)))}"
                " numbers: D must be the same for all images"
            )
        return out

    def forward(batch: np.ndarray) -> Encoded:
        starts = range(0, len(batch), BATCH)
        return Encoded(np.concatenate([one(batch[s : s + BATCH]) for s in starts]))

    return forward
