"""The two kinds of data set, in memory and on disk, with the same members.

size, shape, num_classes, name      how many items, the shape of one, its classes
read(rows, flips, crops)            a batch {"image", "label"}
take(rows)                          these items in memory, as a `Dataset`
"""

import os
import sys
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from prpr import errors

Batch = dict[str, np.ndarray]


class Dataset(NamedTuple):
    """Images (N, H, W, C) in [−1, 1] or points (N, D), float32, with labels (N,) int32.

    `levels`: equally far values in [−1, 1] that an image's entries can have; 0: any.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    name: str
    levels: int = 0

    @property
    def size(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one item: (H, W, C) or (D,)."""
        return self.images.shape[1:]

    def read(
        self, rows: ArrayLike, flips: np.ndarray | None = None, crops: np.ndarray | None = None
    ) -> Batch:
        """{"image": (B, ...) float32, "label": (B,) int32} of these rows.

        Args:
          rows: (B,) integers in [0, size).
          flips: (B,) bool, which images to mirror left to right; None mirrors none.
          crops: not used: what is in memory is cropped already.
        """
        del crops
        rows = np.asarray(rows)
        images = self.images[rows]
        if flips is not None:
            images[flips] = images[flips][:, :, ::-1]
        return {"image": images, "label": self.labels[rows]}

    def take(self, rows: ArrayLike) -> "Dataset":
        """These rows as a data set."""
        rows = np.asarray(rows)
        return self._replace(images=self.images[rows], labels=self.labels[rows])


class Items(Protocol):
    """Where a `FileDataset` gets its images: encoded files and records, or prepared shards."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def class_names(self) -> Sequence[str]: ...

    @property
    def labels(self) -> np.ndarray | None:
        """(N,) int32 where they are known without reading the images, else None."""
        ...

    def __len__(self) -> int: ...

    def place(self, row: int) -> str:
        """Where an item is, for a message: a file, or a record of one."""
        ...

    def fill(self, row: int, out: np.ndarray, crop: float | None) -> int:
        """Writes an image into out (H, W, C) uint8 and returns its label.

        crop in [0, 1) places a random crop along the long edge; None takes the centre. Raises
        PrprError for what ends the run, any other exception for an image that cannot be read.
        """
        ...


class FileDataset:
    """Images on disk, decoded by a pool of threads when they are read.

    Pillow and os.preadv release the interpreter's lock, so threads use all cores without
    copying images between processes. An image that cannot be read is named on standard error,
    counted, and replaced by the next one that can, always the same; more than
    `max_corrupt` of them are an error.

    Args:
      items: the whole source split.
      rows: which of its items this data set has, in order.
      name: of the data set.
      crop: what batches for training should ask for: "center" or "random".
      workers: decoding threads; 0 is one a core.
      max_corrupt: how many images may be unreadable.
    """

    levels = 256  # see `Dataset`

    def __init__(
        self,
        items: Items,
        rows: np.ndarray,
        name: str,
        *,
        crop: str = "center",
        workers: int = 0,
        max_corrupt: int = 10,
    ):
        self.items = items
        self.rows = rows
        self.name = name
        self.crop = crop
        self.max_corrupt = max_corrupt
        self._workers = workers or cores()
        self._corrupt: dict[int, str] = {}
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one item: (H, W, C)."""
        return self.items.shape

    @property
    def class_names(self) -> Sequence[str]:
        return self.items.class_names

    @property
    def num_classes(self) -> int:
        return len(self.items.class_names)

    @property
    def labels(self) -> np.ndarray | None:
        """(N,) int32, or None where the images would have to be read for them."""
        return None if self.items.labels is None else self.items.labels[self.rows]

    @property
    def corrupt(self) -> tuple[str, ...]:
        """The images that could not be read so far: "place: reason" each."""
        with self._lock:
            return tuple(self._corrupt.values())

    def read(
        self, rows: ArrayLike, flips: np.ndarray | None = None, crops: np.ndarray | None = None
    ) -> Batch:
        """{"image": (B, H, W, C) uint8, "label": (B,) int32} of these rows.

        Args:
          rows: (B,) integers in [0, size).
          flips: (B,) bool, which images to mirror left to right; None mirrors none.
          crops: (B,) in [0, 1), where along the long edge the square is cut; None is the centre.

        Raises:
          DataError: more than max_corrupt images that cannot be read, all listed.
        """
        rows = np.asarray(rows)
        images = np.empty((len(rows), *self.shape), np.uint8)
        labels = np.empty(len(rows), np.int32)

        def work(part: range) -> None:
            for i in part:
                crop = None if crops is None else float(crops[i])
                labels[i] = self._fill(int(rows[i]), images[i], crop)
                if flips is not None and flips[i]:
                    images[i] = images[i, :, ::-1].copy()

        if self._workers == 1:
            work(range(len(rows)))
        else:
            # A few parts a thread: they even out, and cost one hand-over each.
            length = max(1, -(-len(rows) // (4 * self._workers)))
            parts = (range(i, min(i + length, len(rows))) for i in range(0, len(rows), length))
            tasks = [_pool(self._workers).submit(work, part) for part in parts]
            try:
                for task in tasks:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
        return {"image": images, "label": labels}

    def take(self, rows: ArrayLike) -> Dataset:
        """These rows in memory: float32 images x/127.5 − 1."""
        batch = self.read(rows)
        images = batch["image"].astype(np.float32)
        images /= 127.5
        images -= 1
        return Dataset(images, batch["label"], self.num_classes, self.name, self.levels)

    def _fill(self, row: int, out: np.ndarray, crop: float | None) -> int:
        for step in range(self.size):
            at = int(self.rows[(row + step) % self.size])
            if at in self._corrupt:
                continue
            try:
                label = self.items.fill(at, out, crop)
                if not 0 <= label < self.num_classes:
                    raise ValueError(f"label {label} is outside 0 to {self.num_classes - 1}")
                return label
            except errors.PrprError:
                raise
            except Exception as error:
                # Decoders raise whatever they trip over: OSError, SyntaxError, struct.error ...
                self._note(at, f"{type(error).__name__}: {error}")
        raise errors.DataError(f"no image of {self.name!r} can be read: {self._listing()}")

    def _note(self, at: int, reason: str) -> None:
        with self._lock:
            if at in self._corrupt:
                return
            self._corrupt[at] = f"{self.items.place(at)}: {reason}"
            count = len(self._corrupt)
            if count <= self.max_corrupt:
                print(
                    f"warning: skipped an unreadable image of {self.name!r}, "
                    f"{count} of at most {self.max_corrupt}: {self._corrupt[at]}",
                    file=sys.stderr,
                    flush=True,
                )
                return
        raise errors.DataError(
            f"{count} images of {self.name!r} cannot be read, and max_corrupt={self.max_corrupt} "
            f"allows no more: mend or remove them, or raise it. {self._listing()}"
        )

    def _listing(self) -> str:
        return "; ".join(self.corrupt)


AnyDataset = Dataset | FileDataset


def identity(dataset: AnyDataset) -> tuple[int, ...]:
    """Numbers by which processes see that they hold the same items, as far as that is cheap.

    Sizes, and CRC-32 of class names, of which rows of the source there are, and of what is known
    without reading images.
    """
    if isinstance(dataset, Dataset):
        known: list[Any] = [dataset.images, dataset.labels]
    else:
        labels = dataset.items.labels
        names = "\n".join(dataset.class_names).encode()
        known = [names, dataset.rows, b"" if labels is None else labels]
    sums = [zlib.crc32(x if isinstance(x, bytes) else x.tobytes()) for x in known]
    return (dataset.size, dataset.num_classes, *dataset.shape, *sums)


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    # One for all data sets: train and held-out parts are not read at full speed together.
    return ThreadPoolExecutor(workers, thread_name_prefix="decode")


def check_images(images: np.ndarray, labels: np.ndarray, num_classes: int, levels: int = 0) -> None:
    """DataError unless images are finite (N, H, W, C) in [−1, 1] with labels in range.

    With `levels` each entry must be one of so many equally far values in [−1, 1], between which a
    flow puts noise.

    Raises:
      DataError: names how many samples are wrong, the first one, and the mend.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4:
        raise errors.DataError(
            f"images must be (N, H, W, C), got shape {images.shape}: grey images need C = 1"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise errors.DataError(
            f"labels must be one integer per image, got shape {labels.shape} and dtype "
            f"{labels.dtype} for {len(images)} images"
        )
    flat = images.reshape(len(images), -1)
    _check_rows(~np.isfinite(flat).all(axis=1), "images have NaN or infinity", "drop them")
    low, high = flat.min(initial=0), flat.max(initial=0)
    _check_rows(
        (np.abs(flat) > 1).any(axis=1),
        f"images leave [−1, 1] (from {low:g} to {high:g})",
        "scale bytes by x / 127.5 − 1",
    )
    if levels:
        steps = (flat + 1.0) * ((levels - 1) / 2)
        _check_rows(
            (np.abs(steps - np.round(steps)) > 1e-3).any(axis=1),
            f"images have values off their grid of {levels}",
            "round them, or declare levels = 0",
        )
    _check_rows(
        (labels < 0) | (labels >= num_classes),
        f"labels are outside 0 to {num_classes - 1}",
        "correct num_classes or the labels",
    )


def _check_rows(bad: ArrayLike, what: str, mend: str) -> None:
    bad = np.asarray(bad)
    rows = np.flatnonzero(bad)
    if rows.size:
        raise errors.DataError(f"{what} in {rows.size} of {len(bad)}, first at {rows[0]}: {mend}")
