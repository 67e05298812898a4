"""Statistics of a set of samples, made once and used again: what scripts/reference_stats writes."""

import numpy as np

from prpr.errors import DataError
from prpr.evaluate import choose, conventions
from prpr.evaluate.features import Features, Settings, channels_of
from prpr.evaluate.inputs import Given, open_input
from prpr.metrics import Statistics
from prpr.metrics.family import Progress
from prpr.metrics.groups import REAL


def reference(
    data: Given,
    *,
    encoder: str | None = None,
    resize: str | None = None,
    convention: str = "prpr",
    train: Given | None = None,
    n: int = 0,
    seed: int = 0,
    batch: int = 0,
    workers: int = 0,
    progress: Progress | None = None,
) -> Statistics:
    """The statistics of samples, with the encoder's name and all that was met on the way.

    Args:
      data: see `inputs`.
      encoder, resize, convention, train, seed, batch, workers, progress: as `evaluate`.
      n: how many samples, by a shuffle; 0 is all.

    Raises:
      As `evaluate`; and DataError for a file of moments alone.
    """
    chosen = conventions.choose(convention, encoder=encoder, resize=resize)
    choose.check_encoder(chosen.encoder, chosen.resize)
    given = open_input(data, "real", n)
    trained = None if train is None else open_input(train, "train")
    if given.stats is not None and given.stats.features is None:
        raise DataError(f"{given.name} holds mu and sigma alone: there is nothing to be made of it")
    spec, resized = choose.encoder_name((), [given], chosen.encoder, chosen.resize)
    if n > given.size:
        raise DataError(f"n={n}: {given.name} holds {given.size} samples; 0 takes all")
    channels = channels_of(given, trained)
    settings = Settings(spec, resized, seed, batch, workers, trained, channels, progress)
    rows = conventions.shuffled(n or given.size, given.size, seed, REAL)
    made = Features(settings, given).of(given, rows, "data", spec)
    warnings = [line for one in (given, trained) if one for line in one.notes.lines()]
    made.about["warnings"] = warnings  # pyright: ignore[reportIndexIssue]
    return made


def encode_images(images: Given, encoder: str = "inception", **settings) -> np.ndarray:
    """Features (N, D) float32 of images: `reference(...).features`."""
    return reference(images, encoder=encoder, **settings).needed("given")
