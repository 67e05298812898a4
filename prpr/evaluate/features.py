"""The features of sets of samples, made once for each encoder."""

from typing import NamedTuple

import numpy as np

from prpr.encoders import Encoder
from prpr.evaluate import choose
from prpr.evaluate.encode import Example, encode
from prpr.evaluate.inputs import Input
from prpr.metrics import Statistics
from prpr.metrics.family import Progress


class Settings(NamedTuple):
    """How features are made.

    Attributes:
      encoder: of images; None where all features are given.
      resize: of networks; None where all features are given.
      seed: of fitted encoders.
      batch, workers: images at once, and threads; 0 is as many as is usual.
      train: what a fitted encoder is fitted on.
      channels: of all images; grey ones are repeated to it.
      progress: called as images are done.
    """

    encoder: str | None
    resize: str | None
    seed: int = 0
    batch: int = 0
    workers: int = 0
    train: Input | None = None
    channels: int = 3
    progress: Progress | None = None


class Features:
    """Makes and keeps the statistics of sets of samples.

    Args:
      settings: how.
      first: the input whose first image gives the shape where an encoder takes one shape only.
    """

    def __init__(self, settings: Settings, first: Input):
        self.settings, self._first = settings, first
        self._encoders: dict[str, tuple[Encoder, Example]] = {}
        self._made: dict[tuple[int, str], tuple[Input, Statistics]] = {}

    def of(self, one: Input, rows: np.ndarray, side: str, encoder: str | None) -> Statistics:
        """The statistics of some rows of an input: encoded, or as they were given.

        Args:
          one: the input; asked for with the same rows each time.
          rows: which of its samples; not used where only moments are known.
          side: "real", "fake", ..., for the progress.
          encoder: by name, for images.
        """
        key = (id(one), encoder or "")
        if key not in self._made:
            # With its input, whose id could otherwise be given to another.
            self._made[key] = one, self._make(one, rows, side, encoder)
        return self._made[key][1]

    def forget(self, one: Input) -> None:
        """Frees what was made of an input."""
        for key in [key for key in self._made if key[0] == id(one)]:
            del self._made[key]

    def _make(self, one: Input, rows: np.ndarray, side: str, encoder: str | None) -> Statistics:
        if one.images is None:
            stats = one.needed
            return stats if stats.features is None or len(rows) == stats.n else stats.take(rows)
        assert encoder is not None  # `choose.encoder_name` has one where there are images
        made, like = self.encoder(encoder, one)
        return encode(
            one.images,
            made,
            rows=rows,
            channels=self.settings.channels,
            like=None if made.batch else like,
            batch=self.settings.batch,
            workers=self.settings.workers,
            about={
                "encoder_flag": encoder,
                "resize": self.settings.resize,
                "source": one.name,
            },
            progress=self.settings.progress,
            what=f"encode {side}",
        )

    def encoder(self, name: str, one: Input) -> tuple[Encoder, Example]:
        """The encoder `name` and what its images must be like; loaded once."""
        if name not in self._encoders:
            s = self.settings
            first = self._first if self._first.images is not None else one
            image, like = choose.example_of(first, s.channels)
            made = choose.load(
                name,
                s.resize or "clean",
                seed=s.seed,
                batch=s.batch,
                workers=s.workers,
                train=s.train,
                example=image,
            )
            self._encoders[name] = made, like
        return self._encoders[name]


def channels_of(*inputs: Input | None) -> int:
    """3 where any has colour, 1 where all are grey."""
    return max((one.images.channels for one in inputs if one and one.images), default=3)
