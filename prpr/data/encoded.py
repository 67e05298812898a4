"""Encoded images (files, records) as the items of a `FileDataset`."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from prpr import errors
from prpr.data import decode

_PEEK = 64  # images whose headers tell the size of all, where it is not declared


class Records(Protocol):
    """Encoded images with labels, by row."""

    @property
    def class_names(self) -> Sequence[str]: ...

    @property
    def labels(self) -> np.ndarray | None:
        """(N,) int32 where they are known without reading, else None."""
        ...

    def __len__(self) -> int: ...

    def place(self, row: int) -> str: ...

    def record(self, row: int) -> tuple[bytes, int]:
        """(encoded image, label)."""
        ...


class Encoded:
    """The items of `Records`, decoded; see `dataset.Items`.

    Args:
      records: the encoded images.
      decoder: how they become pixels.
      shape: (H, W, C) of all, where the source declares it; else read from headers if needed.

    Raises:
      ConfigError: images of several sizes that are to be kept as stored.
      DataError: no image whose size could be read.
    """

    def __init__(
        self,
        records: Records,
        decoder: decode.Decoder,
        shape: tuple[int, int, int] | None = None,
    ):
        decode.ready()
        self._records, self._decoder = records, decoder
        r = decoder.resolution
        self.shape = (r, r, decoder.channels) if r else shape or self._peek()

    @property
    def class_names(self) -> Sequence[str]:
        return self._records.class_names

    @property
    def labels(self) -> np.ndarray | None:
        return self._records.labels

    def __len__(self) -> int:
        return len(self._records)

    def place(self, row: int) -> str:
        return self._records.place(row)

    def fill(self, row: int, out: np.ndarray, crop: float | None) -> int:
        encoded, label = self._records.record(row)
        pixels = self._decoder(encoded, crop)
        if pixels.shape != out.shape:
            raise self._several(self.shape[:2], "others", pixels.shape[:2], self.place(row))
        out[...] = pixels
        return label

    def _peek(self) -> tuple[int, int, int]:
        first: tuple[tuple[int, int], str] | None = None
        count = len(self._records)
        for row in sorted({int(i) for i in np.linspace(0, count - 1, min(_PEEK, count))}):
            try:
                width, height = decode.size_of(self._records.record(row)[0])
            except Exception:  # counted when it is read; here only sizes are wanted
                continue
            if first is None:
                first = ((height, width), self.place(row))
            elif first[0] != (height, width):
                raise self._several(*first, (height, width), self.place(row))
        if first is None:
            raise errors.DataError(f"no image can be read, such as {self.place(0)}")
        return (*first[0], self._decoder.channels)

    @staticmethod
    def _several(
        one: tuple[int, ...], place: str, other: tuple[int, ...], at: str
    ) -> errors.ConfigError:
        return errors.ConfigError(
            f"resolution=0 keeps images as stored, and they have several sizes: "
            f"{one[0]} × {one[1]} ({place}), {other[0]} × {other[1]} ({at}). "
            "Set the resolution (data.resolution), such as 128"
        )
