"""TFRecord files by row, without TensorFlow.

A record is its length (8 bytes, little endian), a checksum of it (4), the data, and a checksum
of that (4): https://www.tensorflow.org/tutorials/load_data/tfrecord. There is no index, so
one is built once by hopping from length to length, and kept in the cache folder. The checksums
are CRC-32C, which the standard library lacks: damage shows when a record is decoded.
"""

import hashlib
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from prpr import errors
from prpr.data import cache

_HEADER, _FOOTER = 12, 4


class TFRecords:
    """The records of several files, one after another, as bytes.

    Args:
      paths: the files.
      lengths: records that each should hold; None if not known.

    Raises:
      DataError: a file that ends within a record, or holds another number of them.
    """

    def __init__(self, paths: Sequence[Path], lengths: Sequence[int] | None = None):
        self._paths = list(paths)
        self._index = self._load()
        counts = np.bincount(self._index[:, 0], minlength=len(self._paths))
        for path, count, want in zip(self._paths, counts, lengths or counts, strict=True):
            if count != want:
                raise errors.DataError(
                    f"{path} holds {count} records and should hold {want}: copy it again"
                )

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: int) -> bytes:
        file, start, length = self._index[row].tolist()
        # Opened for each record: thousands of files kept open meet the system's limit.
        with open(self._paths[file], "rb", buffering=0) as stream:
            data = os.pread(stream.fileno(), length, start)
        if len(data) != length:
            raise EOFError(f"{self._paths[file]} ends within a record")
        return data

    def place(self, row: int) -> str:
        file = self._index[row, 0]
        return f"{self._paths[file]}, record {row - int(np.argmax(self._index[:, 0] == file))}"

    def _load(self) -> np.ndarray:
        """(N, 3) int64: file, start and length of every record."""
        digest = hashlib.sha256()
        for path in self._paths:
            stat = path.stat()
            digest.update(f"{path.resolve()}\n{stat.st_size} {stat.st_mtime_ns}\n".encode())
        kept = cache.folder() / "tfrecord" / f"{digest.hexdigest()[:32]}.npy"
        try:
            return np.load(kept)
        except (OSError, ValueError, EOFError):
            pass
        with ThreadPoolExecutor(16) as pool:
            parts = list(pool.map(_scan, self._paths))
        index = np.concatenate(
            [np.insert(part, 0, i, axis=1) for i, part in enumerate(parts)], axis=0
        )
        cache.save_array(kept, index)
        return index


def _scan(path: Path) -> np.ndarray:
    """(N, 2) int64: start and length of the records of a file."""
    found, at, size = [], 0, path.stat().st_size
    with open(path, "rb", buffering=0) as stream:
        while at < size:
            header = os.pread(stream.fileno(), _HEADER, at)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER else size
            after = at + _HEADER + length + _FOOTER
            if after > size:
                raise errors.DataError(
                    f"{path} ends within record {len(found)}: it is cut off, or no TFRecord file "
                    "(compressed ones are not read); copy it again"
                )
            found.append((at + _HEADER, length))
            at = after
    return np.array(found, np.int64).reshape(-1, 2)
