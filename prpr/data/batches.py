"""Batches as a pure function of (seed, step)."""

import operator
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from prpr import errors
from prpr.data import randomness
from prpr.data.dataset import AnyDataset, Batch


class _Epoch(NamedTuple):
    order: np.ndarray  # (N,) int64, a permutation
    words: np.ndarray | None  # (N,) uint64, the random bits of each position, where needed


def balanced_rows(dataset: AnyDataset) -> np.ndarray:
    """Rows in which every class that has items is as frequent as the largest: (classes · n,) int64.

    The items of a smaller class are repeated in turn, so no two of a class differ by more than one.

    Raises:
      ConfigError: labels that are known only once the images are read.
    """
    labels = dataset.labels
    if labels is None:
        raise errors.ConfigError(
            f"balance=True: the labels of {dataset.name!r} are known only once its images are "
            "read; prepare it as shards (scripts/prepare_data), or turn it off"
        )
    order = np.argsort(labels, kind="stable")
    each = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    most = max(map(len, each))
    return np.concatenate([np.resize(rows, most) for rows in each])


class Batches:
    """Batches of a data set as a pure function of (seed, step): resuming needs the step only.

    Epochs are put end to end, each a permutation of (seed, epoch), and step s takes the
    samples s·B to (s+1)·B − 1 of that stream. So a batch may straddle two epochs, no sample is
    ever dropped, and all samples are seen equally often over whole epochs. Mirroring and
    random crops are functions of (seed, epoch, position).

    Args:
      dataset: a `Dataset` or a `FileDataset`; if its crop is "random", crops are drawn here.
      batch_size: B, of all processes together.
      seed: any integer.
      flip: mirror each image left to right with probability 1/2.
      balance: all classes equally often; see `balanced_rows`, over which an epoch then goes.
      shard: (i, n): this object gives part i of n of every batch, rows i·B/n to (i+1)·B/n − 1.
        The parts do not overlap, and together they are the batch of (0, 1).
    """

    def __init__(
        self,
        dataset: AnyDataset,
        batch_size: int,
        seed: int = 0,
        *,
        flip: bool = False,
        balance: bool = False,
        shard: tuple[int, int] = (0, 1),
    ):
        """Raises ConfigError unless 1 <= batch_size <= the number of samples, and n divides it."""
        if batch_size < 1:
            raise errors.ConfigError(f"batch_size={batch_size!r} must be at least 1")
        if batch_size > dataset.size:
            raise errors.ConfigError(
                f"batch_size={batch_size} is larger than the {dataset.size} samples of "
                f"{dataset.name!r}: choose at most {dataset.size}"
            )
        index, count = shard
        if not 0 <= index < count or batch_size % count:
            raise errors.ConfigError(
                f"shard={shard!r} of batch_size={batch_size}: need 0 <= index < count and a "
                f"batch that {count} processes divide evenly"
            )
        if flip and len(dataset.shape) != 3:
            raise errors.ConfigError(
                f"flip=True mirrors images, and {dataset.name!r} holds items of shape "
                f"{dataset.shape}: turn it off"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.flip = flip
        self.shard = (index, count)
        self._rows = balanced_rows(dataset) if balance else None
        self._n = dataset.size if self._rows is None else len(self._rows)
        self._crop = getattr(dataset, "crop", "center") == "random"
        self._epochs: dict[int, _Epoch] = {}  # of the last epochs: a memo, not a state
        self._lock = threading.Lock()  # a Loader asks from several threads

    @property
    def per_epoch(self) -> int:
        """Steps that see every sample once (or its share, with `balance`): N/B, rounded up."""
        return -(-self._n // self.batch_size)

    def _epoch(self, epoch: int) -> _Epoch:
        with self._lock:
            if epoch not in self._epochs:
                if len(self._epochs) > 1:
                    self._epochs.clear()
                n = self._n
                words = None
                if self.flip or self._crop:
                    words = randomness.philox(self.seed, randomness.AUGMENT, epoch).random_raw(n)
                order = randomness.permutation(n, self.seed, randomness.SHUFFLE, epoch)
                if self._rows is not None:
                    order = self._rows[order]
                self._epochs[epoch] = _Epoch(order, words)
            return self._epochs[epoch]

    def _positions(self, step: int) -> list[tuple[_Epoch, slice]]:
        """Where this shard of the batch lies in the stream: one epoch, or two."""
        step, n = operator.index(step), self._n
        if step < 0:
            raise errors.ConfigError(f"step={step} of a batch must be 0 or more")
        index, count = self.shard
        length = self.batch_size // count
        epoch, start = divmod(step * self.batch_size + index * length, n)
        pieces = [(self._epoch(epoch), slice(start, min(start + length, n)))]
        if start + length > n:
            pieces.append((self._epoch(epoch + 1), slice(0, start + length - n)))
        return pieces

    def indices(self, step: int) -> np.ndarray:
        """Rows of the data set in this shard of the batch of this step: (B/n,) int64."""
        return np.concatenate([epoch.order[at] for epoch, at in self._positions(step)])

    def batch(self, step: int) -> Batch:
        """{"image": (B/n, ...), "label": (B/n,) int32} of this step, counted from 0.

        Images are float32 in [−1, 1] from memory and uint8 from files.
        """
        pieces = self._positions(step)
        rows = np.concatenate([epoch.order[at] for epoch, at in pieces])
        words = [epoch.words[at] for epoch, at in pieces if epoch.words is not None]
        if not words:
            return self.dataset.read(rows)
        bits = np.concatenate(words)
        return self.dataset.read(
            rows,
            flips=(bits & np.uint64(1)).astype(bool) if self.flip else None,
            # The high 53 bits as a number in [0, 1); the lowest bit is the flip's.
            crops=(bits >> np.uint64(11)) * 2.0**-53 if self._crop else None,
        )

    def start(self, step: int = 0) -> Iterator[Batch]:
        """Endless batches from this step on; equal to never having stopped before it."""
        while True:
            yield self.batch(step)
            step += 1
