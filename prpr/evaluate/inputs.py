"""What can be evaluated: a name or an array becomes a source of images, or features.

    DIR                               images below a folder, first-level subfolders are classes
    FILE.npz, FILE.npy                images or features; see `arrays`
    tfds:NAME/SPLIT                   a prepared TFDS copy; ?data_dir=DIR says where it is
    WORKDIR?lam=5&seed=0              samples of a prpr run; ?run=control, ?run=base; see `runs`
    WORKDIR?real, WORKDIR?train       a prpr run's held-out data, and its training data

Folders and TFDS copies also take resolution=R: images are then cut and resized as for training,
after the rules of `pixels`.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prpr.errors import ConfigError, DataError, unknown_name
from prpr.evaluate import arrays
from prpr.evaluate.images import Folder, Images, Records
from prpr.evaluate.notes import Notes
from prpr.metrics import Statistics, statistics
from prpr.metrics.statistics import from_arrays
from prpr.samplers.settings import Cost, Sampler, text

Given = Any  # a name, a path, an array, `Statistics`, or a source of images


class Input(NamedTuple):
    """One set of samples, opened: images, or statistics of features or moments.

    Attributes:
      name: for tables and messages.
      notes: what was met on the way.
      images: the source, or None where features are given.
      stats: features or moments as they were given, or None.
      moments: μ and Σ that a file holds beside its images.
      cost: what a sampler took to draw them; None where there was none.
    """

    name: str
    notes: Notes
    images: Images | None = None
    stats: Statistics | None = None
    moments: tuple[np.ndarray, np.ndarray] | None = None
    cost: Cost | None = None

    @property
    def size(self) -> int:
        """How many samples there are; 0 where only moments of unknown number are known."""
        return self.images.size if self.images is not None else self.needed.n

    @property
    def needed(self) -> Statistics:
        assert self.stats is not None  # one of the two is always there
        return self.stats


def open_input(
    given: Given,
    side: str,
    n: int = 0,
    truncation: float | None = None,
    seed: int = 0,
    sampler: Sampler | None = None,
) -> Input:
    """Opens a set of samples; reads no image yet.

    Args:
      given: see the module's head; or an array (N, D), (N, H, W) or (N, H, W, C), or
        `Statistics`.
      side: what it is to the caller ("real", "fake", "train"), for messages.
      n: how many samples a generator should make; 0 is as many as its run scored.
      truncation: of a generator's latents; None is the run's own.
      seed: of the shuffle, where a run's samples are more than n.
      sampler: how a run's generator is drawn from; see `prpr.samplers`.

    Raises:
      ConfigError: a name that cannot be understood, or truncation or a sampler of what is no
        generator.
      DataError: nothing there, or nothing that can be used; names the file and the mend.
    """
    if isinstance(given, str | Path):
        return _named(str(given), n, truncation, seed, sampler)
    if truncation is not None or sampler is not None:
        raise _no_generator(f"the {side} set", sampler)
    if isinstance(given, Statistics):
        return _features(given, Notes(side))
    notes = Notes(f"the {side} array")
    if hasattr(given, "read") and hasattr(given, "chunk"):
        return _images(given)
    try:
        x = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"the {side} samples are a {type(given).__name__} and no array ({error}): give (N, D) "
            "features or (N, H, W, C) images"
        ) from None
    if x.ndim == 2:
        return _features(statistics(x, place=f"the {side} features"), notes)
    return _images(arrays.images(x, notes))


def names(given: Given) -> list[Given]:
    """One or several sets of samples: "WORKDIR?lam=5&seed=0,1" are two, and so is a list."""
    if isinstance(given, list | tuple):
        return [one for part in given for one in names(part)]
    if not isinstance(given, str) or "?" not in given or Path(given).exists():
        return [given]
    head, _, query = given.partition("?")
    parts = query.split("&")
    for i, part in enumerate(parts):
        if part.startswith("seed=") and "," in part:
            seeds = part.removeprefix("seed=").split(",")
            return [f"{head}?{'&'.join([*parts[:i], f'seed={s}', *parts[i + 1 :]])}" for s in seeds]
    return [given]


def check_truncation(values: Iterable[float], given: Iterable[Given], side: str) -> None:
    """Raises where these truncations cannot be measured, before anything is.

    Args:
      values: bounds of the latents.
      given: sets of samples, which must be of runs that can draw anew.
      side: what they are to the caller, for messages.

    Raises:
      ConfigError: a bound that is not above 0, or samples of no generator.
      CheckpointError: a run without a checkpoint.
    """
    values = list(values)
    for value in values:
        if not isinstance(value, int | float | np.number) or not value > 0:
            raise ConfigError(f"--truncation={value!r} must be a number above 0")
    if values:
        _check_generators(given, side, None)


def check_sampler(sampler: Sampler | None, given: Iterable[Given], side: str) -> None:
    """Raises where sets cannot be drawn through a sampler, before anything is.

    Raises:
      ConfigError: samples of no generator, or of one without the ratio that the sampler needs.
      CheckpointError: a run without a checkpoint.
    """
    if sampler is not None:
        _check_generators(given, side, sampler)


def _check_generators(given: Iterable[Given], side: str, sampler: Sampler | None) -> None:
    for one in given:
        path, query = _split(str(one)) if isinstance(one, str | Path) else (None, {})
        if path is None or not _is_run(path):
            name = str(one) if isinstance(one, str | Path) else f"the {side} set"
            raise _no_generator(name, sampler)
        from prpr.evaluate import runs  # JAX, which images and features do not need

        runs.check_generator(path, query, str(one), sampler)


def _no_generator(name: str, sampler: Sampler | None) -> ConfigError:
    what = "truncation" if sampler is None else f"the sampler {text(sampler)}"
    return ConfigError(f"{name} is no run of prpr: {what} needs a generator, WORKDIR?lam=5")


def _split(text: str) -> tuple[Path, dict[str, str]]:
    """(the path, the parts after the "?")."""
    path = Path(text).expanduser()
    if "?" not in text or path.exists():
        return path, {}
    head, _, rest = text.partition("?")
    return Path(head).expanduser(), dict(_pair(part) for part in rest.split("&") if part)


def _named(
    name: str, n: int, truncation: float | None, seed: int, sampler: Sampler | None
) -> Input:
    notes = Notes(name)
    if name.startswith("tfds:"):
        return _only_images(_tfds(name, notes), truncation, sampler)
    path, query = _split(name)
    if _is_run(path):
        from prpr.evaluate import runs  # JAX, which images and features do not need

        return runs.open_run(path, query, notes, n, truncation, seed, sampler)
    if path.is_dir():
        _known(query, ("resolution",), name)
        resolution = arrays.check_resolution(query.get("resolution", ""), name)
        return _only_images(_images(Folder(path, notes, resolution)), truncation, sampler)
    _known(query, (), name)
    if not path.exists():
        near = difflib.get_close_matches(path.name, _beside(path), n=1, cutoff=0.6)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise DataError(f"there is no file or folder {path}: mend the path{hint}")
    return _only_images(_file(path, notes), truncation, sampler)


def _only_images(found: Input, truncation: float | None, sampler: Sampler | None) -> Input:
    if truncation is not None or sampler is not None:
        raise _no_generator(found.name, sampler)
    return found


def _is_run(path: Path) -> bool:
    below = ("checkpoints", "samples")
    return (path / "config.json").is_file() and any((path / name).is_dir() for name in below)


def _beside(path: Path) -> list[str]:
    try:
        return [other.name for other in path.parent.iterdir()]
    except OSError:
        return []


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name, value


def _known(query: dict[str, str], known: Iterable[str], place: str) -> None:
    """ConfigError for a part of ?... that is not known."""
    for name in query:
        if name not in known:
            raise unknown_name(f"part of {place!r} after the '?',", name, known)


def _images(source: Images) -> Input:
    return Input(source.notes.name, source.notes, source)


def _features(stats: Statistics, notes: Notes) -> Input:
    told = stats.about.get("warnings")
    for line in told if isinstance(told, list) else ():
        notes.say(f"told when they were made: {line}")
    return Input(notes.name, notes, stats=stats)


def _file(path: Path, notes: Notes) -> Input:
    """An .npz or .npy file."""
    held = arrays.read(path, notes)
    name = arrays.chosen(held, str(path))
    if name is None:
        return _features(from_arrays(held, str(path)), notes)
    if name == "features":
        held[name] = arrays.features(held[name], str(path))
    x, moments = held[name], None
    labels = arrays.labels(held, len(x), str(path)) if x.ndim else None
    if {"mu", "sigma"} <= held.keys():
        moments = (held["mu"], held["sigma"])
    if x.ndim == 2:
        if name == "features":
            return _features(from_arrays(held, str(path)), notes)
        given = {"features": x, "probabilities": held.get("probabilities"), "labels": labels}
        kept = {key: value for key, value in given.items() if value is not None}
        return _features(from_arrays(kept, str(path)), notes)
    source = arrays.images(x, notes, labels)
    return _images(source)._replace(moments=moments)


def _tfds(text: str, notes: Notes) -> Input:
    from prpr.data import tfds

    name, _, rest = text.removeprefix("tfds:").partition("?")
    query = dict(_pair(part) for part in rest.split("&") if part)
    _known(query, ("data_dir", "resolution"), text)
    name, _, split = name.partition("/")
    if not name or not split:
        raise ConfigError(f"{text!r}: a TFDS split is written tfds:NAME/SPLIT[?data_dir=DIR]")
    resolution = arrays.check_resolution(query.get("resolution", ""), text)
    records = tfds.Copy(name, query.get("data_dir", "")).records(split)
    layout = tfds.LAYOUTS.get(name)
    return _images(Records(records, notes, resolution, layout is not None and layout.pad))
