"""What a model needs to know of its data, without reading a data set from disk."""

import os
from pathlib import Path
from typing import NamedTuple

from prpr import build, config
from prpr.data import tfds
from prpr.errors import ConfigError, DataError


class Shape(NamedTuple):
    """What a model needs to know of its data; stands in for a data set in `build.system`.

    Attributes:
      shape: of one item.
      num_classes, size: of the training split.
      held_out: images that a row is scored against.
      stored: whether items come as bytes from files.
      note: for the card, where the data themselves were not looked at.
      levels: see `data.Dataset`.
    """

    shape: tuple[int, ...]
    num_classes: int
    size: int
    held_out: int
    stored: bool = False
    note: str = ""
    levels: int = 0

    @property
    def labels(self) -> None:
        """Not looked at: what is taken out of the ratio for them (`System.log_prior`) is free."""


# (side as stored or 0, channels, classes or 0, training images, held-out images), of the data
# sets' own papers: used where the files are not at hand. "prepared" may be any of them.
KNOWN: dict[str, tuple[int, int, int, int, int]] = {
    "imagenet2012": (0, 3, 1000, 1_271_167, 50_000),
    "cifar10": (32, 3, 10, 45_000, 10_000),
    "celeb_a": (178, 3, 1, 162_770, 19_962),
    "mnist": (28, 1, 10, 54_000, 10_000),
    "fashion_mnist": (28, 1, 10, 54_000, 10_000),
    "imagenet32": (32, 3, 1000, 1_271_167, 50_000),
    "imagenet64": (64, 3, 1000, 1_271_167, 50_000),
    "folder": (0, 3, 1, 70_000, 10_000),  # FFHQ
    "prepared": (0, 3, 0, 70_000, 10_000),
}
_READ = 10_000  # held-out images that `prpr.score` reads from a disk where none is said


def shape_of(cfg: config.Config) -> Shape:
    """The shape of a configuration's data: of the data where they are at hand, else known.

    Raises:
      ConfigError: a resolution or number of classes that is neither said nor known.
      DataError: data that are there and cannot be used.
    """
    name, split, d = cfg.data.name, cfg.score.split, cfg.data
    stored = name in KNOWN
    if stored and not d.miniature and not _here(cfg):
        side, channels, classes, size, held_out = KNOWN[name]
        side = d.resolution or side
        if not side:
            raise ConfigError(
                f"config.data.resolution = 0: the images of {name!r} have several sizes; set it, "
                "such as 128."
            )
        classes = d.classes or classes
        if not classes:
            raise ConfigError(
                f"config.data.classes = 0: the data, {name!r} in config.data.path = {d.path!r}, "
                "are not here to say how many there are; set it, such as 1000, or mend the path."
            )
        note = (
            f"the data are not here; {size:,} training images, {side} x {side} x {channels}, "
            f"classes: {classes}"
        )
        found = Shape((side, side, channels), classes, size, held_out, True, note, 256)
    else:
        parts = build.splits(cfg)
        first, held_out = parts.train, parts.held_out(split).size
        found = Shape(first.shape, first.num_classes, first.size, held_out, stored)
        found = found._replace(levels=first.levels)
    limit = cfg.score.n_real or (_READ if stored else found.held_out)
    return found._replace(held_out=min(found.held_out, limit))


def _here(cfg: config.Config) -> bool:
    """Whether something is where the data should be; what is there and damaged is an error."""
    name, path = cfg.data.name, cfg.data.path
    if path:
        return Path(path).expanduser().exists()
    if name in ("folder", "prepared"):
        return False
    root = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    try:
        tfds.version_folder(root, name)
    except DataError:  # not a copy; but what has its name is one that is damaged
        place = tfds.LAYOUTS[name].place(name)
        return (root / place).exists() or root.name == place.name
    return True
