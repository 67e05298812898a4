"""Statistics of a set of samples, made once and used again: what scripts/reference_stats writes.

Beside the encoder and the resize their `about` holds what they depend on: "convention" and "seed";
"of", how many samples there were; and "warnings", which `evaluate` shows again.
"""

import dataclasses

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
      n: how many samples, by a shuffle; 0 is all, also where the convention has a number, which
        `evaluate` takes of them.

    Raises:
      As `evaluate`; and DataError for a file of moments alone.
    """
    choose.check_numbers(n=n, batch=batch, workers=workers)
    choose.check_seed(seed)
    chosen = conventions.choose(convention, encoder=encoder, resize=resize)
    choose.check_encoder(chosen.encoder, chosen.resize)
    given = open_input(data, "real", n, seed=seed)
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
    said = [*chosen.said, *choose.other_resize([given], chosen.resize)]
    if len(rows) < given.size:
        said.append(
            f"{len(rows)} of the {given.size} samples of {given.name}, by a shuffle of seed {seed}"
        )
    said += [line for one in (given, trained) if one for line in one.notes.lines()]
    about = {
        **made.about,
        "convention": convention,
        "seed": seed,
        "of": given.size,
        "warnings": said,
    }
    return dataclasses.replace(made, about=about)  # the caller's own stays as it was


def encode_images(images: Given, encoder: str = "inception", **settings) -> np.ndarray:
    """Features (N, D) float32 of images: `reference(...).features`."""
    return reference(images, encoder=encoder, **settings).needed("given")
