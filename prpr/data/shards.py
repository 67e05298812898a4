"""Prepared shards: decoded, resized images that are read back as they are.

A folder holds one subfolder a split ("all" where the source has none), and each of these

  images-00000.npy ...   (n, r, r, C) uint8, about 1 GB each
  labels-00000.npy ...   (n,) int32
  meta.json              what it was made from, class names, SHA-256 of every finished shard

Plain .npy, because an image is then one read at a known place: measured here (128 × 128, one
thread) 140,000 to 180,000 images a second, against 14,000 from array_record.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prpr import errors
from prpr.data.dataset import FileDataset

FORMAT = "prpr-shards-1"
SHARD_BYTES = 1 << 30
_META = "meta.json"
_CHUNK = 256  # images decoded between two writes


def splits(folder: Path) -> tuple[str, ...]:
    """The splits in a prepared folder, sorted; DataError if there is none."""
    found = tuple(sorted(path.parent.name for path in folder.glob(f"*/{_META}")))
    if not found:
        what = "no prepared shards in" if folder.is_dir() else "no folder"
        raise errors.DataError(
            f"{what} {folder}: make them with scripts/prepare_data, or mend data.path"
        )
    return found


def made_from(folder: Path) -> str:
    """The name of the data set that a prepared split was made from."""
    return _read_meta(folder)["dataset"]


class Shards:
    """The items of one prepared split; see `dataset.Items`.

    Raises:
      DataError: unfinished, missing or cut-off shards.
    """

    def __init__(self, folder: Path):
        self._folder, meta = folder, _read_meta(folder)
        if not meta["complete"]:
            raise errors.DataError(
                f"{folder} is not finished ({len(meta['sha256']) // 2} of {_count(meta)} shards "
                "are): run the same scripts/prepare_data command again, it goes on where it stopped"
            )
        self.meta = meta
        height, width, channels = meta["shape"]
        self.shape: tuple[int, int, int] = (height, width, channels)
        self.class_names: Sequence[str] = meta["class_names"]
        names = [_names(shard) for shard in range(_count(meta))]
        self._paths = [folder / images for images, _ in names]
        labels = [_labels(folder / labels) for _, labels in names]
        self._starts = np.cumsum([0, *(len(part) for part in labels)])
        self.labels: np.ndarray | None = np.concatenate(labels)
        self._offsets = [_offset(path, self.shape) for path in self._paths]
        self._files: dict[int, int] = {}
        self._lock = threading.Lock()

    def __del__(self) -> None:
        for fd in getattr(self, "_files", {}).values():
            os.close(fd)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def place(self, row: int) -> str:
        shard, inside = self._find(row)
        return f"{self._paths[shard]}, image {inside}"

    def fill(self, row: int, out: np.ndarray, crop: float | None) -> int:
        del crop  # made when the shards were
        assert self.labels is not None
        shard, inside = self._find(row)
        start = self._offsets[shard] + inside * out.nbytes
        if os.preadv(self._open(shard), [out.data], start) != out.nbytes:
            raise EOFError(f"{self._paths[shard]} ends within an image")
        return int(self.labels[row])

    def _find(self, row: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        return shard, row - int(self._starts[shard])

    def _open(self, shard: int) -> int:
        if shard not in self._files:
            with self._lock:
                if shard not in self._files:
                    self._files[shard] = os.open(self._paths[shard], os.O_RDONLY)
        return self._files[shard]


def write(
    items: FileDataset,
    folder: Path,
    settings: dict[str, Any],
    *,
    shard_bytes: int = SHARD_BYTES,
    on_images: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Writes a prepared split; goes on after the last whole shard if it was stopped.

    Args:
      items: the images, in the order in which they are written.
      folder: of the split.
      settings: at least the name "dataset"; a folder
        that holds shards already must have the same.
      shard_bytes: size of a shard.
      on_images: called with the number of images that have become done.

    Returns:
      What meta.json holds.

    Raises:
      WorkdirError: the folder holds shards with other settings, or cannot be written.
      DataError: too many images that cannot be read.
    """
    rows = max(1, shard_bytes // int(np.prod(items.shape)))
    meta = {
        "format": FORMAT,
        **settings,
        "shape": list(items.shape),
        "size": items.size,
        "rows_per_shard": rows,
        "class_names": list(items.class_names),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sums, replaced = _finished(folder, meta)
        for shard, start in enumerate(range(0, items.size, rows)):
            stop = min(start + rows, items.size)
            if _names(shard)[0] in sums:
                on_images(stop - start)
                continue
            _write_meta(folder, meta, sums, replaced, complete=False)
            sums.update(_write_shard(items, folder, shard, start, stop, on_images))
            replaced = sorted({*replaced, *items.corrupt})
            _write_meta(folder, meta, sums, replaced, complete=False)
        return _write_meta(folder, meta, sums, replaced, complete=True)
    except OSError as error:
        raise errors.WorkdirError(f"{folder} cannot be written: {error}") from None


def check(folder: Path, on_bytes: Callable[[int], None] = lambda _: None) -> int:
    """Compares every file of a prepared split with its checksum; the number of images.

    Raises:
      DataError: names every file that is missing or damaged.
    """
    meta = _read_meta(folder)
    if not meta["complete"]:
        raise errors.DataError(f"{folder} is not finished: run its scripts/prepare_data again")
    bad = []
    for name, digest in meta["sha256"].items():
        path = folder / name
        if not path.is_file():
            bad.append(f"{name} is missing")
        elif _digest(path) != digest:
            bad.append(f"{name} does not have its checksum")
        else:
            on_bytes(path.stat().st_size)
    if bad:
        raise errors.DataError(
            f"{folder}: {'; '.join(bad)}. Run its scripts/prepare_data again to mend them"
        )
    return len(Shards(folder))


def _names(shard: int) -> tuple[str, str]:
    return f"images-{shard:05d}.npy", f"labels-{shard:05d}.npy"


def _write_shard(
    items: FileDataset,
    folder: Path,
    shard: int,
    start: int,
    stop: int,
    on_images: Callable[[int], None],
) -> dict[str, str]:
    """Writes images and labels of a shard; {file name: SHA-256}."""
    shape = (stop - start, *items.shape)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    labels = np.empty(stop - start, np.int32)
    part, part_labels = (folder / f"{name}.part" for name in _names(shard))
    # Not a memory map: on a full disk writing to one is a signal, not an error.
    with open(part, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for at in range(start, stop, _CHUNK):
            batch = items.read(np.arange(at, min(at + _CHUNK, stop)))
            file.write(batch["image"].data)
            labels[at - start : at - start + _CHUNK] = batch["label"]
            on_images(len(batch["label"]))
    with open(part_labels, "wb") as file:
        np.save(file, labels)
    sums = {}
    for path in (part, part_labels):
        final = path.with_suffix("")
        sums[final.name] = _digest(path)
        path.replace(final)
    return sums


def _finished(folder: Path, meta: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """({file: SHA-256} of the whole shards in the folder, images that were replaced)."""
    if not (folder / _META).exists():
        return {}, []
    old = _read_meta(folder)
    for key, value in meta.items():
        if old.get(key) != value:
            raise errors.WorkdirError(
                f"{folder} holds shards with {key} = {old.get(key)!r}, and now it is {value!r}: "
                "choose another --out, or remove that folder"
            )
    whole = {}
    for shard in range(_count(old)):
        sums = {name: old["sha256"].get(name) for name in _names(shard)}
        if all((folder / n).is_file() and _digest(folder / n) == sums[n] for n in sums):
            whole.update(sums)
    return whole, old["replaced"]


def _count(meta: dict[str, Any]) -> int:
    return -(-meta["size"] // meta["rows_per_shard"])


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / _META
    try:
        meta = json.loads(path.read_text())
        if meta["format"] != FORMAT or not isinstance(meta["sha256"], dict):
            raise ValueError(f"format {meta['format']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.DataError(
            f"{path} is not the table of prepared shards of format {FORMAT}: {error}"
        ) from None
    return meta


def _write_meta(
    folder: Path, meta: dict[str, Any], sums: dict[str, str], replaced: list[str], complete: bool
) -> dict[str, Any]:
    content = {**meta, "complete": complete, "replaced": replaced, "sha256": sums}
    part = folder / f"{_META}.part"
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(folder / _META)
    return content


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _labels(path: Path) -> np.ndarray:
    try:
        return np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> errors.DataError:
    return errors.DataError(f"{path} is damaged: {error}; see scripts/prepare_data --check")


def _offset(path: Path, shape: tuple[int, int, int]) -> int:
    """Where the images of a shard begin; DataError for a file of another shape or size."""
    try:
        array = np.load(path, mmap_mode="r")
        if array.shape[1:] != shape or array.dtype != np.uint8:
            raise ValueError(f"it holds {array.dtype} {array.shape}")
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, error) from None
    return int(array.offset) if isinstance(array, np.memmap) else 0
