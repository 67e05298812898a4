"""Which encoder and which metrics, where they are not named."""

import dataclasses
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from prpr import encoders
from prpr.errors import CheckpointError, ConfigError, DataError, unknown_name
from prpr.evaluate import conventions
from prpr.evaluate.encode import Example, read_all, repeated
from prpr.evaluate.inputs import Input
from prpr.metrics import Statistics, checks, frechet
from prpr.metrics.statistics import UNNAMED

_INCEPTION = encoders.NETWORKS["inception"].file.rpartition("-")[0]
_BATCH = 64  # images that a network computes at once
_KNN = ("precision", "recall", "density", "coverage")
# Name of a metric -> the first word of the encoder that publications use for it.
_STANDS_FOR = {**frechet.ENCODERS, "kid": "inception", "is": "inception"}
_DINOV2 = tuple(name for name, word in _STANDS_FOR.items() if word == "dinov2")
_WIDE = 4096  # D of given features up to which their Fréchet distance is a default
_FITTED = 10_000  # training images that an encoder is fitted to, at most
_VALUES = 2**29  # their pixels in all, 2 GiB as float32
_TRAIN = 2  # beside REAL and FAKE: which shuffle


def check_numbers(least: int = 0, **settings: object) -> None:
    """ConfigError unless all settings are whole numbers, `least` or more."""
    for name, value in settings.items():
        if not checks.is_whole(value) or value < least:  # pyright: ignore[reportOperatorIssue]
            raise ConfigError(f"{name}={value!r} must be a whole number >= {least}")


def check_seed(seed: object) -> None:
    """ConfigError unless it is a whole number."""
    if not checks.is_whole(seed):
        raise ConfigError(f"seed={seed!r} must be a whole number")


def check_encoder(name: str | None, resize: str | None) -> None:
    """ConfigError for an unknown encoder or resize, or an encoder that takes no resize."""
    if resize is not None and resize not in encoders.RESIZES:
        raise unknown_name("resize", resize, encoders.RESIZES)
    if name is None or name in encoders.NETWORKS:
        return
    if name not in encoders.ENCODERS and ".py:" not in name:
        known = [*encoders.NETWORKS, *encoders.ENCODERS, "FILE.py:FUNCTION"]
        raise unknown_name("encoder", name, known)
    if resize is not None:
        raise ConfigError(f"--resize={resize}: the encoder {name!r} takes images as they are")


def encoder_name(
    names: Sequence[str], inputs: Iterable[Input], given: str | None, resize: str | None
) -> tuple[str | None, str | None]:
    """(encoder, resize) for the images among the inputs; None where there are none, or none is.

    What is given goes first, then what made the features beside the images, then "inception", or
    "dinov2" where only its metrics are asked for.

    Raises:
      ConfigError: features of an encoder that is not known beside images.
    """
    inputs = tuple(inputs)
    if all(one.images is None for one in inputs):
        return None, None
    if given is not None:
        return given, (resize or "clean") if given in encoders.NETWORKS else None
    for one in inputs:
        if one.stats is not None:
            made_by = one.stats.about.get("encoder_flag")
            if made_by is None:
                raise ConfigError(
                    f"{one.name} holds features of {one.stats.encoder!r}, and the others images: "
                    "say with --encoder what made the features, so that the images get the same"
                )
            made_by, resize = str(made_by), resize or str(one.stats.about.get("resize") or "clean")
            return made_by, resize if made_by in encoders.NETWORKS else None
    name = "dinov2" if names and set(names) <= set(_DINOV2) else "inception"
    return name, resize or "clean"


def metric_names(names: Iterable[str], inputs: Iterable[Input], encoder: str | None) -> list[str]:
    """The metrics asked for; by default those that are cheap and fit the encoder."""
    names = list(names)
    if names:
        return names
    given = [one.stats for one in inputs if one.stats is not None]
    moments = any(stats.features is None for stats in given)
    found: list[str] = [] if moments else list(_KNN)
    made_by = encoder or known(*given)
    cheap = encoder in encoders.NETWORKS or (encoder is None and given[0].width <= _WIDE)
    if cheap or moments:
        distances = {"inception": "fid", "dinov2": "fd_dinov2"}
        found.append(distances.get(first_word(made_by), "fd"))
    return found


def encoder_of(encoder: str | None, metric: str) -> str | None:
    """The encoder that a metric of images is computed on: its own, where its name has one."""
    return "dinov2" if encoder is not None and metric in _DINOV2 else encoder


def not_published(encoders: Mapping[str, str]) -> list[str]:
    """Warnings for metrics whose name stands for an encoder that is not known to be theirs.

    Args:
      encoders: {metric: what made its features}.
    """
    said = []
    for name, made_by in encoders.items():
        stands_for = _STANDS_FOR.get(name, "")
        if made_by == UNNAMED and stands_for:
            said.append(
                f"{name} on {made_by}: to be compared with published numbers only if {stands_for} "
                "made them"
            )
        # The Fréchet distances say the rest themselves.
        elif stands_for not in ("", first_word(made_by)) and name not in frechet.ENCODERS:
            said.append(
                f"{name}: the features come from {made_by!r}, and published numbers from "
                f"{stands_for}: not to be compared with them"
            )
        elif stands_for == first_word(made_by) == "inception" and _INCEPTION not in made_by:
            said.append(
                f"{name}: the weights of {made_by!r} are not known to be {_INCEPTION}, which "
                "published numbers use"
            )
    return said


def first_word(made_by: str) -> str:
    """What is said of an encoder before its weights and resize: "dinov2" and "dinov2_vitb14"."""
    return made_by.partition(" ")[0].lower()


def other_resize(inputs: Iterable[Input], wanted: str | None) -> list[str]:
    """Warnings for given features whose images were not resized as is wanted.

    Args:
      inputs: of any kind.
      wanted: what is asked for, or the convention's; None for any.
    """
    said = []
    for one in inputs:
        made = None if one.stats is None else one.stats.about.get("resize")
        if None not in (made, wanted) and made != wanted:
            said.append(
                f"the features of {one.name} are of images that were resized as {made!r}, and "
                f"{wanted!r} is asked for: not to be compared with numbers under it; encode the "
                "images anew"
            )
    return said


def load(
    name: str,
    resize: str,
    *,
    seed: int,
    batch: int,
    workers: int,
    train: Input | None,
    example: np.ndarray,
) -> encoders.Encoder:
    """The encoder, ready.

    Args:
      name: of a network, of one that is fitted, or FILE.py:FUNCTION.
      resize: of networks.
      seed: of what is fitted.
      batch: images at once; 0 is the encoder's own number.
      workers: threads that read training images; 0 is one a core.
      train: images (and their classes) that pca and the classifier are fitted on.
      example: one image (H, W, C), whose shape "pixels" takes, and whose number of channels all
        are to have.

    Raises:
      ConfigError: an encoder that needs `train` without it.
      CheckpointError: missing weights; says how to get them.
    """
    if name == "pixels":
        return encoders.fit("pixels", example[None], ())
    if name in encoders.ENCODERS:
        return _fitted(name, seed, workers, train, example.shape[2])
    try:
        return encoders.load(name, resize, batch=batch or _BATCH)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. --encoder=pixels works without weights") from error


def _fitted(
    name: str, seed: int, workers: int, train: Input | None, channels: int
) -> encoders.Encoder:
    if train is None or train.images is None:
        raise ConfigError(
            f"--encoder={name} is fitted on training images, never on what it scores: name them "
            "with --train"
        )
    one, _ = example_of(train, channels)
    size = train.images.size
    n = min(size, _FITTED, max(2, _VALUES // one.size))
    if n < size:
        train.notes.say(f"{name} was fitted to {n} of its {size} images, by a seeded shuffle")
    rows = conventions.shuffled(n, size, seed, _TRAIN)
    x, labels = read_all(train.images, rows, name, channels, workers)
    made = encoders.fit(name, x, labels, seed)
    # Two fits are two encoders: what a saved reference was encoded with can be told from others.
    return made._replace(name=f"{made.name}, fit {zlib.crc32(x.data):08x}")


def example_of(one: Input, channels: int) -> tuple[np.ndarray, Example]:
    """The first image of a source, with as many channels as all are to have."""
    assert one.images is not None  # callers ask for images alone
    image = repeated(one.images.read(np.arange(1))[0][0], channels)
    return image, Example(image.shape, one.images.place(0))


def not_used(asked: str | None, used: str | None, made_by: str) -> list[str]:
    """The warning that an encoder was named and features were given."""
    if asked is None or used is not None or made_by.startswith(asked):
        return []
    return [f"features were given, of {made_by!r}, so the encoder {asked!r} was not used"]


def check_widths(name: str, width: int, other: str, its_width: int) -> None:
    """DataError unless two sets have features of one width."""
    if width != its_width:
        raise DataError(
            f"{name} has features of D={width} and {other} of D={its_width}: both must come from "
            "the same encoder"
        )


def adopted(name: str, made: Statistics, real: Statistics, said: list[str]) -> Statistics:
    """The statistics under the reference's name, where one of the two has no name.

    Raises:
      DataError: both are named, and differently.
    """
    if UNNAMED not in (made.encoder, real.encoder):
        raise DataError(
            f"{name} has features of {made.encoder!r} and the reference of {real.encoder!r}: "
            "numbers under two encoders cannot be compared; encode both with one"
        )
    said.append(
        f"what made the features of {name} or of the reference is not known: taken to be "
        f"{known(made, real)!r}, which made the other's"
    )
    return dataclasses.replace(made, encoder=real.encoder)


def known(*stats: Statistics) -> str:
    """The name of what made the features, as far as one of them knows it."""
    return next((one.encoder for one in stats if one.encoder != UNNAMED), UNNAMED)


def moments(one: Input, encoder: str) -> Statistics:
    """The statistics of the μ and Σ that a file holds beside its images; DataError for bad ones."""
    assert one.moments is not None  # callers have looked
    mean, cov = checks.check_moments(*one.moments, one.name)
    return Statistics(0, len(mean), encoder, None, known_moments=(mean, cov))
