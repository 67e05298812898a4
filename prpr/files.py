"""Files that are whole or not there; archives of arrays, closed also when they are damaged."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write; its name appears, in place of an older one, when the block is done.

    After an exception the older file stays, and nothing else does.

    Raises:
      OSError: it cannot be written; callers say what for.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of an .npz by name, without pickles; zipfile compares the CRC of each.

    Raises:
      Exception: of a dozen kinds for what is damaged or no archive; callers say which file it is.
    """
    with open(path, "rb") as file:  # np.load would leave a damaged one open
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("one array, not an archive")
        return {name: archive[name] for name in archive.files}
