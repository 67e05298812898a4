"""The folder for what can be made again: $PRPR_CACHE, else ~/.cache/prpr."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np


def folder() -> Path:
    return Path(os.environ.get("PRPR_CACHE") or Path.home() / ".cache/prpr")


def save_array(path: Path, array: np.ndarray) -> None:
    """Writes an array whole or not at all; a cache that cannot be written is done without."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(fd, "wb") as file:
                np.save(file, array)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise


def made(path: Path, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills: made whole once, reused if it is there.

    Processes may ask for it at once: the first to finish wins, the others use its folder.
    """
    if path.is_dir():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        make(part)
        with contextlib.suppress(OSError):  # another process was first
            part.rename(path)
        if not path.is_dir():
            raise OSError(f"cannot make {path}")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path
