"""Data sets by name: SOURCES, and `load`, which cuts one into train, valid and test."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prpr import errors
from prpr.data import decode, folders, made_up, planar, shards, synthetic, tfds
from prpr.data.dataset import AnyDataset, Dataset, FileDataset, Items
from prpr.data.encoded import Encoded
from prpr.data.splits import FRACTIONS, SPLITS, check_fractions, hold_out, parts_of, split_indices

_VALID = ("valid", "val", "validation")  # names of a source's own held-out split


class Options(NamedTuple):
    """How a data set on disk is read; those in memory take none of it but the checks.

    Attributes:
      path: where it is. A TFDS data_dir or a folder in it; an image folder; a folder that
        scripts/prepare_data wrote. "" is TFDS's own default folder.
      resolution: side r of the square images; 0 keeps them as stored.
      crop: "center" (the original's default: the centre square, side = short edge), or "random"
        along the long edge, for training batches only. Not for prepared shards, which are cut.
      workers: decoding threads; 0 is one a core.
      max_corrupt: images of a split that may be unreadable.
      miniature: use a tiny made-up copy in the real format instead of `path`; see `miniature`.
      classes: how many there must be; 0 accepts what is there. 1 makes a folder one class,
        whatever its subfolders.
    """

    path: str = ""
    resolution: int = 0
    crop: str = "center"
    workers: int = 0
    max_corrupt: int = 10
    miniature: bool = False
    classes: int = 0


class Catalogue(NamedTuple):
    """A data set on disk: the splits that it should have, and how one is opened."""

    splits: tuple[str, ...]
    open: Callable[[str], Items]


def check_options(options: Options) -> None:
    """ConfigError for an option that cannot be used."""
    decode.check_resolution(options.resolution)
    if options.crop not in decode.CROPS:
        raise errors.unknown_name("crop", options.crop, decode.CROPS)
    for key in ("workers", "max_corrupt", "classes"):
        if getattr(options, key) < 0:
            raise errors.ConfigError(f"{key}={getattr(options, key)!r} must be 0 or more")


# --- sources ---------------------------------------------------------------------------


def _tfds(name: str, options: Options) -> Catalogue:
    copy, layout = tfds.Copy(name, options.path), tfds.LAYOUTS[name]
    decoder = decode.Decoder(options.resolution, copy.channels, layout.pad)
    return Catalogue(layout.splits, lambda split: Encoded(copy.records(split), decoder, copy.shape))


def _folder(name: str, options: Options) -> Catalogue:
    root = _existing(options.path, name)
    decoder = decode.Decoder(options.resolution)
    inside = {path.name for path in root.iterdir() if path.is_dir()}
    held = tuple(s for s in (*_VALID, "test") if s in inside)
    splits = ("train", *held) if "train" in inside and held else ("all",)
    if inside == {"train"}:
        root = root / "train"  # a split that nothing was held out from, and not a class

    def open_split(split: str) -> Items:
        one = options.classes == 1
        where = root if split == "all" else root / split
        names = None
        if split in held and not one:
            names = folders.FolderRecords(root / "train").class_names
            names = None if names == ("all",) else names
        return Encoded(folders.FolderRecords(where, names, one), decoder)

    return Catalogue(splits, open_split)


def _prepared(name: str, options: Options) -> Catalogue:
    root = _existing(options.path, name)
    there = shards.splits(root)

    def open_split(split: str) -> Items:
        if split not in there:
            raise errors.DataError(
                f"{root} has no split {split!r}, only {', '.join(there)}: prepare it too "
                "(scripts/prepare_data --split)"
            )
        items = shards.Shards(root / split)
        if options.resolution not in (0, items.shape[0]):
            raise errors.ConfigError(
                f"resolution={options.resolution}: the shards in {root / split} hold images of "
                f"{items.shape[0]} pixels; set data.resolution to that or 0, or prepare others"
            )
        return items

    made_from = shards.made_from(root / there[0])
    layout = tfds.LAYOUTS.get(made_from)
    return Catalogue(layout.splits if layout else there, open_split)


def _existing(path: str, name: str) -> Path:
    if not path:
        raise errors.ConfigError(f"data.name = {name!r} needs data.path, the folder of the images")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise errors.DataError(f"no folder {root}: mend data.path")
    return root


FILES: dict[str, Callable[[str, Options], Catalogue]] = {
    **dict.fromkeys(tfds.LAYOUTS, _tfds),
    "folder": _folder,
    "prepared": _prepared,
}

# What `load` knows: (name, seed) -> Dataset in memory, or {split: Dataset} where it has splits of
# its own; (name, Options) -> Catalogue on disk.
SOURCES: dict[str, Callable[..., Any]] = {
    "digits": synthetic.digits,
    **dict.fromkeys(planar.LAWS, planar.points),
    **FILES,
}


# --- splits ----------------------------------------------------------------------------


def load(
    name: str,
    split: str,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    *,
    options: Options = Options(),  # noqa: B008 (a tuple)
) -> AnyDataset:
    """A split of a data set, the same for the same (name, split, seed, fractions).

    In memory, all samples are cut by `fractions`, unless the source has its own three splits. On
    disk a source's own splits count: "test" is its test split, else its validation split; "valid"
    is its validation split where there is a test split too, else a random tenth of its training
    split, at most 10,000 (`hold_out`); "train" is the rest. A source without splits is cut by
    `fractions`.

    Args:
      name: of SOURCES. In memory: "digits" (scikit-learn's 1797 images, 8 × 8 × 1), or POINTS
        samples in the plane, labelled by component, arm or square: "ring8", "grid25", "skewed",
        "two_moons", "spirals", "checkerboard", "pinwheel" (see `planar`). On
        disk: "imagenet2012", "celeb_a", "cifar10", "mnist", "fashion_mnist" as TFDS prepares
        them, "imagenet32" and "imagenet64", which are its imagenet_resized/32x32 and /64x64,
        "folder" (FFHQ, ImageNet in class folders), "prepared" (scripts/prepare_data).
        celeb_a is one class; its 178 × 218 pixels are cut to the centre 178 × 178.
        The mnists are padded with zeros to a resolution above 28.
      split: "train", "valid", "test", or several joined by "+", such as "train+valid".
      seed: of the split, and of the samples in the plane.
      fractions: of train, valid and test.
      options: for data on disk.

    Raises:
      ConfigError: an unknown name or split, fractions that do not sum to 1, or options that
        do not fit the source.
      DataError: data that is missing or damaged, another number of classes, a split that is
        not there, or one that is empty with these fractions.
    """
    if name not in SOURCES:
        raise errors.unknown_name("data set", name, SOURCES)
    parts = parts_of(split)
    check_options(options)
    if name in FILES:
        return _from_files(name, parts, seed, fractions, options)
    check_fractions(fractions)
    held: Dataset | Mapping[str, Dataset] = SOURCES[name](name, seed)
    for each in [held] if isinstance(held, Dataset) else held.values():
        if options.resolution not in (0, each.shape[0]):
            raise errors.ConfigError(
                f"resolution={options.resolution}: {name!r} holds items of shape {each.shape}; set "
                "data.resolution to 0"
            )
        _check_classes(each, options.classes)
    if isinstance(held, Dataset):
        indices = split_indices(held.labels, seed, fractions)
        found = held.take(np.concatenate([indices[part] for part in parts]))
    else:
        found = _stacked([held[part] for part in parts])
    if not found.size:
        raise _empty(split, name, fractions)
    return found


def _stacked(parts: Sequence[Dataset]) -> Dataset:
    """The items of all parts, in their order."""
    images = np.concatenate([part.images for part in parts])
    return parts[0]._replace(images=images, labels=np.concatenate([part.labels for part in parts]))


def pool(name: str, options: Options) -> dict[str, Callable[[], FileDataset]]:
    """{a source's own split: opens all of it}: what scripts/prepare_data copies.

    Raises ConfigError for a name that is not on disk, DataError as `load`.
    """
    if name not in FILES:
        raise errors.unknown_name("data set on disk", name, FILES)
    check_options(options)
    catalogue = FILES[name](name, options)

    def opener(split: str) -> Callable[[], FileDataset]:
        def open_whole() -> FileDataset:
            items = catalogue.open(split)
            return _dataset(items, np.arange(len(items)), name, options)

        return open_whole

    return {split: opener(split) for split in catalogue.splits}


def _from_files(
    name: str, parts: list[str], seed: int, fractions: Sequence[float], options: Options
) -> FileDataset:
    if options.miniature:
        options = options._replace(path=str(made_up.cached(name, options.classes)))
    check_fractions(fractions)
    catalogue = FILES[name](name, options)
    opened: dict[str, Items] = {}
    pieces = []
    for part in parts:
        own, cut = _own(catalogue.splits, part)
        if own not in opened:
            opened[own] = catalogue.open(own)
        items = opened[own]
        rows = np.arange(len(items))
        if cut == "fractions":
            # Only folders and shards have no held-out split, and their labels are known.
            labels = np.zeros(len(items), np.int32) if items.labels is None else items.labels
            rows = split_indices(labels, seed, fractions)[part]
        elif cut == "hold_out":
            rows = hold_out(len(items), seed)[SPLITS.index(part)]
        if not rows.size:
            raise _empty(part, name, fractions)
        pieces.append((items, rows))
    return _dataset(*_join(pieces), name, options)


def _own(splits: Sequence[str], part: str) -> tuple[str, str]:
    """(the source's split that a part comes from, how it is cut from it)."""
    valid = [split for split in splits if split in _VALID]
    test = ["test"] if "test" in splits else []
    if not valid and not test:
        return ("train" if "train" in splits else "all"), "fractions"
    if part == "test":
        return (test or valid)[0], "whole"
    if valid and test:
        return (valid[0] if part == "valid" else "train"), "whole"
    return "train", "hold_out"


def _dataset(items: Items, rows: np.ndarray, name: str, options: Options) -> FileDataset:
    dataset = FileDataset(
        items,
        rows,
        name,
        crop=options.crop,
        workers=options.workers,
        max_corrupt=options.max_corrupt,
    )
    _check_classes(dataset, options.classes)
    return dataset


def _check_classes(dataset: AnyDataset, classes: int) -> None:
    if classes and dataset.num_classes != classes:
        raise errors.DataError(
            f"{dataset.name!r} has {dataset.num_classes} classes, and the model has {classes}: "
            "mend data.path, or choose a model with as many classes"
        )


def _empty(split: str, name: str, fractions: Sequence[float]) -> errors.DataError:
    return errors.DataError(
        f"split {split!r} of {name!r} is empty with fractions={tuple(fractions)!r}: "
        "give it a larger fraction"
    )


class _Joined:
    """The items of several source splits, one after another."""

    def __init__(self, parts: Sequence[Items]):
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.shape, self.class_names = parts[0].shape, parts[0].class_names
        self.labels: np.ndarray | None = None
        for part in parts[1:]:
            if (part.shape, len(part.class_names)) != (self.shape, len(self.class_names)):
                raise errors.DataError(
                    f"splits differ: {self.shape} and {len(self.class_names)} classes, "
                    f"{part.shape} and {len(part.class_names)} classes; set data.resolution"
                )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _find(self, row: int) -> tuple[Items, int]:
        i = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._parts[i], row - int(self._starts[i])

    def place(self, row: int) -> str:
        part, inside = self._find(row)
        return part.place(inside)

    def fill(self, row: int, out: np.ndarray, crop: float | None) -> int:
        part, inside = self._find(row)
        return part.fill(inside, out, crop)


def _join(pieces: list[tuple[Items, np.ndarray]]) -> tuple[Items, np.ndarray]:
    """Items and rows of all pieces; pieces of one source stay rows of that source."""
    distinct = list({id(items): items for items, _ in pieces}.values())
    if len(distinct) == 1:
        return distinct[0], np.concatenate([rows for _, rows in pieces])
    joined = _Joined(distinct)
    starts = {id(items): start for items, start in zip(distinct, joined._starts, strict=False)}
    return joined, np.concatenate([rows + starts[id(items)] for items, rows in pieces])
