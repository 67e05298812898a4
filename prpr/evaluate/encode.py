"""Images -> features: read and prepared in threads, computed in batches, kept in one array.

Only the features (N, D) float32 and the batches on their way are in memory: two batches and a
piece for each thread, whatever N is.
"""

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from prpr.encoders import Encoder
from prpr.errors import DataError
from prpr.evaluate.images import Images
from prpr.metrics import Statistics, statistics
from prpr.metrics.family import Progress

_BATCH = 256  # of encoders that take any number


class Example(NamedTuple):
    """An image that all others must be like: its shape as it is prepared, and where it is."""

    shape: tuple[int, ...]
    place: str


class _Ready(NamedTuple):
    """A prepared image, the number of its class, and its row."""

    prepared: np.ndarray
    label: int
    row: int


def encode(
    images: Images,
    encoder: Encoder,
    *,
    rows: np.ndarray | None = None,
    channels: int = 0,
    like: Example | None = None,
    batch: int = 0,
    workers: int = 0,
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
    what: str = "encode",
) -> Statistics:
    """Statistics of the features of some images, in the order of `rows`.

    Args:
      images: where they come from.
      encoder: what computes the features.
      rows: which images; all by default.
      channels: to which grey images are repeated, where others have 3; 0 leaves them.
      like: the image whose shape the encoder was made for, where it was made for one; None for
        the first of these images.
      batch: images computed at once; 0 is the encoder's own number.
      workers: threads that read and prepare; 0 is one a core.
      about: kept with the statistics.
      progress: called as images are done, with `what`.

    Raises:
      DataError: an image that cannot be read or has another size than the others where the
        encoder does not resize, in whichever batch; names it. Features that are not finite.
    """
    from prpr.data import dataset

    rows = np.arange(images.size) if rows is None else rows
    size, threads = batch or encoder.batch or _BATCH, workers or dataset.cores()
    ahead = -(-2 * size // images.chunk) + threads
    features = probabilities = None
    labels, done = np.empty(len(rows), np.int64), 0
    tell = progress or (lambda *_: None)
    tell(what, 0, len(rows))
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        ready = _prepared(images, encoder, rows, channels, pool, ahead)
        try:
            while block := list(itertools.islice(ready, size)):
                like = _check(block, images, encoder, like)
                found = encoder.forward(np.stack([one.prepared for one in block]))
                if features is None:
                    features = np.empty((len(rows), found.features.shape[1]), np.float32)
                features[done : done + len(block)] = found.features
                if found.probabilities is not None:
                    if probabilities is None:
                        shape = (len(rows), found.probabilities.shape[1])
                        probabilities = np.empty(shape, np.float32)
                    probabilities[done : done + len(block)] = found.probabilities
                labels[done : done + len(block)] = [one.label for one in block]
                done += len(block)
                tell(what, done, len(rows))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    assert features is not None  # a source holds at least one image
    about = dict(about or {})
    if images.class_names:
        about["class_names"] = list(images.class_names)
    return statistics(
        features,
        encoder=encoder.name,
        labels=None if images.class_names is None else labels,
        probabilities=probabilities,
        about=about,
        place=f"the features of {images.notes.name}",
    )


def repeated(image: np.ndarray, channels: int) -> np.ndarray:
    """A grey image (H, W, 1) as one of `channels`; others stay as they are."""
    return np.repeat(image, channels, axis=2) if channels > image.shape[2] else image


def _prepared(
    images: Images,
    encoder: Encoder,
    rows: np.ndarray,
    channels: int,
    pool: ThreadPoolExecutor,
    ahead: int,
) -> Iterator[_Ready]:
    """Prepared images in order, up to `ahead` pieces before their use."""

    def work(some: np.ndarray) -> list[_Ready]:
        out = []
        for row, (image, label) in zip(some, images.read(some), strict=True):
            image = repeated(image, channels)
            out.append(_Ready(encoder.prepare(image), label, int(row)))
        return out

    pieces = (rows[i : i + images.chunk] for i in range(0, len(rows), images.chunk))
    waiting: deque[Future[list[_Ready]]] = deque(
        pool.submit(work, piece) for piece in itertools.islice(pieces, ahead)
    )
    while waiting:
        yield from waiting.popleft().result()
        waiting.extend(pool.submit(work, piece) for piece in itertools.islice(pieces, 1))


def _check(block: list[_Ready], images: Images, encoder: Encoder, like: Example | None) -> Example:
    """The example that all prepared images are alike; DataError for one that is not."""
    if like is None:
        like = Example(block[0].prepared.shape, images.place(block[0].row))
    for one in block:
        if one.prepared.shape != like.shape:
            raise differs(one.prepared, images.place(one.row), like, encoder.name)
    return like


def differs(image: np.ndarray, place: str, like: Example, encoder: str) -> DataError:
    """The error for an image of another size than the first."""
    sizes = [" × ".join(map(str, shape)) for shape in (image.shape, like.shape)]
    return DataError(
        f"{place} is {sizes[0]} (height, width, channels) and {like.place} is {sizes[1]}: the "
        f"encoder {encoder!r} does not resize, so give images of one size (?resolution=64 of a "
        "folder), or take an encoder that resizes, such as inception"
    )


def read_all(
    images: Images, rows: np.ndarray, encoder: str, channels: int = 0, workers: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(pixels (N, H, W, C) uint8 of some images, read in threads into one array; labels (N,)).

    Args:
      images: where they come from.
      rows: which images.
      encoder: that takes one size, for the message.
      channels, workers: as `encode`.

    Raises:
      DataError: an image that cannot be read, or has another size than the first.
    """
    from prpr.data import dataset

    first = repeated(images.read(rows[:1])[0][0], channels)
    like = Example(first.shape, images.place(int(rows[0])))
    x, labels = np.empty((len(rows), *first.shape), np.uint8), np.empty(len(rows), np.int64)

    def work(start: int) -> None:
        some = rows[start : start + images.chunk]
        for at, (image, label) in enumerate(images.read(some), start):
            image = repeated(image, channels)
            if image.shape != like.shape:
                raise differs(image, images.place(int(rows[at])), like, encoder)
            x[at], labels[at] = image, label

    threads = workers or dataset.cores()
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        for _ in pool.map(work, range(0, len(rows), images.chunk)):
            pass
    return x, labels
