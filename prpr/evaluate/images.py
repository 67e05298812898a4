"""Sources of images: folders, arrays, records, data sets. They are read in pieces, never whole.

Notation: a source has `size` images, numbered from 0; `read(rows)` gives some of them, each
(H, W, C) uint8 with C = 1 or 3, and the number of its class (-1 where there are none).
"""

import array
import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from prpr.errors import DataError, PrprError
from prpr.evaluate import pixels
from prpr.evaluate.notes import Notes

Picture = tuple[np.ndarray, int]  # (H, W, C) uint8, the number of its class


class Images(Protocol):
    """What is read of images, wherever they are.

    Attributes:
      size: how many there are.
      channels: 1 where all are known to be grey, else 3.
      class_names: names of the classes by number; empty where the numbers are all there is;
        None where images have no classes.
      chunk: how many images one thread should read at once.
      notes: what was met on the way.
    """

    size: int
    channels: int
    class_names: Sequence[str] | None
    chunk: int
    notes: Notes

    def read(self, rows: np.ndarray) -> list[Picture]:
        """These images; safe to call from several threads. Raises DataError, naming the image."""
        ...

    def place(self, row: int) -> str:
        """Where an image is, for a message."""
        ...


class Folder:
    """The images below a folder, in the order of their paths; first-level subfolders are classes.

    As `prpr.data.folders`: images directly in the folder make everything one class. Paths are
    held as bytes in one block, so that a million of them take their own length and 12 bytes each.
    Folders that links lead to twice are read once; files that are no images are left out.

    Args:
      root: the folder.
      notes: of this source.
      resolution: side of a square that images are cut and resized to as for training
        (`prpr.data.decode`), after the rules of `pixels`; 0 leaves them as they are.

    Raises:
      DataError: no image in it.
    """

    channels, chunk = 3, 4

    def __init__(self, root: Path, notes: Notes, resolution: int = 0):
        self.notes, self._root = notes, os.fsencode(root)
        self._decode = _decoder(resolution)
        self._paths, self._ends = bytearray(), array.array("q", [0])
        labels, self._others, self._other, self._seen = array.array("i"), 0, b"", set()
        try:
            files, folders = self._entries(b"")
            loose = any(pixels.is_image(os.fsdecode(name)) for name in files)
            self._add(b"", files, labels, 0)
            found: list[str] = []
            for name in folders:
                before = len(labels)
                self._walk(name, labels, 0 if loose else len(found))
                if len(labels) > before:
                    found.append(os.fsdecode(name))
        except OSError as error:
            raise DataError(f"cannot read the folder {root}: {error}") from None
        self.size = len(labels)
        if not self.size:
            raise DataError(
                f"no image in {root}: looked for {', '.join(sorted(pixels.EXTENSIONS))} there and "
                f"below, and found {self._others} other files; mend the path, or name the .npz or "
                ".npy file itself"
            )
        if self._others:
            notes.say(
                f"{self._others} files that are no images were left out, such as "
                f"{os.fsdecode(self._other)}"
            )
        classes = len(found) > 1 and not loose
        self.class_names: Sequence[str] | None = tuple(found) if classes else None
        self._labels = np.frombuffer(labels, np.int32)

    def _entries(self, inside: bytes) -> tuple[list[bytes], list[bytes]]:
        """(files, folders) of root/inside, sorted; none if it was read before."""
        folder = os.path.join(self._root, inside)
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in self._seen:
            return [], []
        self._seen.add((stat.st_dev, stat.st_ino))
        files: list[bytes] = []
        folders: list[bytes] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir():
                    files.append(entry.name)
                elif not entry.name.startswith(b"."):
                    folders.append(entry.name)
        return sorted(files), sorted(folders)

    def _walk(self, inside: bytes, labels: "array.array[int]", label: int) -> None:
        files, folders = self._entries(inside)
        self._add(inside, files, labels, label)
        for name in folders:
            self._walk(os.path.join(inside, name), labels, label)

    def _add(
        self, inside: bytes, files: list[bytes], labels: "array.array[int]", label: int
    ) -> None:
        for name in files:
            if pixels.is_image(os.fsdecode(name)):
                self._paths += os.path.join(inside, name)
                self._ends.append(len(self._paths))
                labels.append(label)
            else:
                self._others += 1
                self._other = self._other or os.path.join(inside, name)

    def _path(self, row: int) -> bytes:
        inside = self._paths[self._ends[row] : self._ends[row + 1]]
        return os.path.join(self._root, bytes(inside))

    def place(self, row: int) -> str:
        return os.fsdecode(self._path(row))

    def read(self, rows: np.ndarray) -> list[Picture]:
        return [self._read(int(row)) for row in rows]

    def _read(self, row: int) -> Picture:
        place = self.place(row)
        try:
            with open(self._path(row), "rb") as file:
                encoded = file.read()
        except OSError as error:
            raise DataError(f"cannot read the image {place}: {error.strerror}") from None
        label = -1 if self.class_names is None else int(self._labels[row])
        return self._decode(encoded, place, self.notes), label


class Records:
    """Encoded images with labels, as `prpr.data.encoded.Records` has them: TFDS's copies.

    Args:
      records: of `prpr.data.tfds.Copy`.
      notes, resolution: as `Folder`.
      pad: images smaller than `resolution` are put in the middle of zeros, as for training.
    """

    channels, chunk = 3, 4

    def __init__(self, records: Any, notes: Notes, resolution: int = 0, pad: bool = False):
        self.notes, self._records, self._decode = notes, records, _decoder(resolution, pad)
        self.size = len(records)
        if not self.size:
            raise DataError(f"{notes.name} holds no image: name another split")
        names = tuple(records.class_names)
        self.class_names: Sequence[str] | None = names if len(names) > 1 else None

    def place(self, row: int) -> str:
        return self._records.place(row)

    def read(self, rows: np.ndarray) -> list[Picture]:
        found = []
        for row in map(int, rows):
            try:
                encoded, label = self._records.record(row)
            except PrprError:
                raise
            except Exception as error:
                raise DataError(
                    f"cannot read {self.place(row)} ({type(error).__name__}: {error}): prepare "
                    "the data set again"
                ) from None
            label = -1 if self.class_names is None else label
            found.append((self._decode(encoded, self.place(row), self.notes), label))
        return found


class Array:
    """Images in an array, in memory or mapped from a file; see `arrays.images`.

    Args:
      values: (N, H, W, C) uint8 with C = 1 or 3, or 2 or 4 with transparency, which is laid over
        white; or floats in [`low`, 1].
      notes: of this source.
      labels: (N,) integers, or None.
      low: 0 or -1, the value of black in floats; None of bytes.
    """

    chunk = 16

    def __init__(
        self,
        values: np.ndarray,
        notes: Notes,
        labels: np.ndarray | None = None,
        low: float | None = None,
    ):
        self.notes, self._values, self._labels, self.low = notes, values, labels, low
        self.size, channels = len(values), values.shape[3]
        self.channels = channels if channels in (1, 3) else channels - 1
        self.class_names: Sequence[str] | None = None if labels is None else ()

    def place(self, row: int) -> str:
        return f"image {row} of {self.notes.name}"

    def read(self, rows: np.ndarray) -> list[Picture]:
        x = np.asarray(self._values[rows])
        if self.low is not None:
            x = (x.astype(np.float32) - self.low) * np.float32(255 / (1 - self.low))
            x = np.rint(np.clip(x, 0, 255)).astype(np.uint8)
        if x.shape[3] in (2, 4):
            for row in rows[(x[..., -1] < 255).any(axis=(1, 2))]:
                what = "images with transparent pixels, laid over white"
                self.notes.count(what, self.place(int(row)))
            x = pixels.over_white(x)
        labels = [-1] * len(rows) if self._labels is None else self._labels[rows].tolist()
        return list(zip(x, labels, strict=True))


class Loaded:
    """Images of a data set on disk, as training reads them (`prpr.data.FileDataset`).

    That replaces what cannot be read by the next image, which is counted here.
    """

    chunk = 32

    def __init__(self, dataset: Any, notes: Notes):
        self.notes, self._dataset, self.size = notes, dataset, dataset.size
        self.channels = dataset.shape[2]
        names = tuple(dataset.class_names)
        self.class_names: Sequence[str] | None = names if len(names) > 1 else None
        self._lock, self._told = threading.Lock(), set()

    def place(self, row: int) -> str:
        return self._dataset.items.place(int(self._dataset.rows[row]))

    def read(self, rows: np.ndarray) -> list[Picture]:
        batch = self._dataset.read(rows)
        with self._lock:
            new = [line for line in self._dataset.corrupt if line not in self._told]
            self._told.update(new)
        for line in new:
            self.notes.count("images that cannot be read, each replaced by the next", line)
        labels = batch["label"].tolist() if self.class_names else [-1] * len(rows)
        return list(zip(batch["image"], labels, strict=True))


def _decoder(resolution: int, pad: bool = False) -> Any:
    """(encoded, place, notes) -> pixels; at a resolution, as images are prepared for training."""
    Image.init()  # Pillow loads its formats lazily, and not safely from several threads
    if not resolution:
        return pixels.decode
    from prpr.data import decode

    return functools.partial(pixels.decode, cut=decode.Decoder(resolution, pad=pad))
