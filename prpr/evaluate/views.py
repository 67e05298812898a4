"""More views of the same features: precision and recall per class, a sheet of memorised samples.

Per class: the samples of a class on both sides, cut to equal numbers where the convention asks for
it, are measured as if they were all there is; over several seeds it is their mean (`seeds`). Of C
classes the worst is low partly by chance; its interval does not correct for having been chosen.

Classes are the same where their names are. Where one side has numbers alone, they are the other
side's names if that has names such as "7", and else count its names from 0; either is said. A class
of one side alone is left out of the numbers and named.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prpr.errors import ConfigError, DataError
from prpr.evaluate import conventions, seeds
from prpr.evaluate.inputs import Input
from prpr.metrics import Options, Statistics, intervals, registry
from prpr.metrics.groups import FAKE, REAL
from prpr.metrics.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_CLASS = ("precision", "recall")


Side = tuple[str, Statistics]  # a name for messages, statistics with labels


class PerClass(NamedTuple):
    """The view.

    Attributes:
      classes: {class: {metric: Estimate}}.
      sizes: {class: (real, fake samples)} of these; of several seeds the fewest.
      worst: {metric: worst class}.
      left_out: the sizes of the classes that have too few samples, or none on one side.
      notes: how classes were matched, and which have no partner.
    """

    classes: Mapping[str, Mapping[str, Estimate]]
    sizes: Mapping[str, tuple[int, int]]
    worst: Mapping[str, str]
    left_out: Mapping[str, tuple[int, int]]
    notes: tuple[str, ...] = ()


def per_class(real: Side, fakes: Sequence[Side], options: Options, equal: bool) -> PerClass:
    """Precision and recall of each class, the mean over `fakes`, which are seeds of one model.

    Args:
      real: (name, statistics).
      fakes: one or several such.
      options: neighbours, level, seed.
      equal: whether all sets of a class are cut to the smallest.

    Raises:
      DataError: a side without classes, or no class with enough samples on both.
    """
    pairs, notes = _paired(real, fakes)
    sides = (real, *fakes)
    options = options._replace(k_dc=options.k, progress=None)
    need = conventions.needed(options.k, options.groups)
    classes, sizes, left_out = {}, {}, {}
    for name, numbers in pairs.items():
        rows = [_rows(side, number) for side, number in zip(sides, numbers, strict=True)]
        count = len(rows[0]), min(map(len, rows[1:]))
        if min(count) < need:
            left_out[name] = count
            continue
        if equal:
            rows = [
                own[conventions.shuffled(min(count), len(own), options.seed, side)]
                for own, side in zip(rows, (REAL, *[FAKE] * len(fakes)), strict=True)
            ]
            count = min(count), min(count)
        own_real, *own_fakes = (side[1].take(own) for side, own in zip(sides, rows, strict=True))
        found = [registry.replicates(PER_CLASS, own_real, one, options) for one in own_fakes]
        classes[name] = {
            metric: intervals.estimate(seeds.pooled([one[metric] for one in found]), options.level)
            for metric in PER_CLASS
        }
        sizes[name] = count
    if not classes:
        raise DataError(
            f"no class of {real[0]} and {_listed([one[0] for one in fakes])} has the {need} "
            f"samples on both sides that k={options.k} needs: give more samples, or leave "
            "--per_class out"
        )
    worst = {
        metric: min(classes, key=lambda name: classes[name][metric].value) for metric in PER_CLASS
    }
    for side, other, what in ((0, 1, "recall"), (1, 0, "precision")):
        missing = [name for name, count in left_out.items() if count[side] and not count[other]]
        if missing:
            where = " in one seed at least" if len(fakes) > 1 else ""
            notes.append(
                f"classes that only the {('real', 'generated')[side]} samples have{where}, so that "
                f"their {what} is 0, are in no number per class: {len(missing)}, {_listed(missing)}"
            )
    return PerClass(classes, sizes, worst, left_out, tuple(dict.fromkeys(notes)))


def _rows(side: Side, number: int | None) -> np.ndarray:
    """The samples of a class, by its number on that side; none where it has none there."""
    return np.flatnonzero(labels_of(*side) == number) if number is not None else np.arange(0)


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")


def check_classes(*inputs: Input) -> None:
    """DataError unless all inputs have classes."""
    for one in inputs:
        if one.images is not None and one.images.class_names is None:
            raise _no_classes(one.name)
        if one.images is None:
            labels_of(one.name, one.needed)


def labels_of(name: str, stats: Statistics) -> np.ndarray:
    """The labels; DataError where there are none."""
    if stats.labels is None:
        raise _no_classes(name)
    return stats.labels


def _no_classes(name: str) -> DataError:
    return DataError(
        f"{name} has no classes, which --per_class needs: give class folders, or 'labels' beside "
        "the samples of an .npz"
    )


def _paired(real: Side, fakes: Sequence[Side]) -> tuple[dict[str, list[int | None]], list[str]]:
    """({class: its number in the real set and in each fake one, None where not}, what to say)."""
    its_names, said = _names_of(real[1]), []
    sides = [_named(*real)]
    for fake in fakes:
        own, own_names = _named(*fake), _names_of(fake[1])
        if own_names and not its_names:
            sides[0], note = _renamed(real[0], sides[0], fake[0], own_names)
            its_names = own_names
            said += note
        elif its_names and not own_names:
            own, note = _renamed(fake[0], own, real[0], its_names)
            said += note
        if not set(sides[0]) & set(own):
            raise DataError(
                f"{real[0]} and {fake[0]} have no class in common: "
                f"{', '.join(list(sides[0])[:3])} ... and {', '.join(list(own)[:3])} ...: name the "
                "class folders alike"
            )
        sides.append(own)
    names = dict.fromkeys(name for side in sides for name in side)
    return {name: [side.get(name) for side in sides] for name in names}, said


def _renamed(
    place: str, numbers: dict[str, int], other: str, names: Sequence[str]
) -> tuple[dict[str, int], list[str]]:
    """({name: number} of classes that are numbers alone, by the other side's names; what to say).

    Raises:
      DataError: a number that counts none of the names.
    """
    if set(numbers) <= set(names):
        if all(names[n] == name for name, n in numbers.items() if 0 <= n < len(names)):
            return numbers, []
        return numbers, [f"the classes of {place}, numbers, were taken for the names of {other}"]
    for n in numbers.values():
        if not 0 <= n < len(names):
            raise DataError(
                f"{place} has the class {n}, a number, and {other} has {len(names)} classes by "
                f"name, which count from 0 to {len(names) - 1}: number them so, or name them"
            )
    pairs = _listed([f"{n} = {names[n]}" for n in sorted(numbers.values())])
    note = (
        f"the classes of {place}, numbers, were taken to count the names of {other} in their "
        f"order: {pairs}"
    )
    return {names[n]: n for n in numbers.values()}, [note]


def _names_of(stats: Statistics) -> list[str]:
    """The names of the classes by number; [] where classes are numbers."""
    names = stats.about.get("class_names")
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


def _named(place: str, stats: Statistics) -> dict[str, int]:
    """{class: its number} of those that are present; DataError where a number has no own name."""
    present = np.unique(labels_of(place, stats)).tolist()
    names = _names_of(stats)
    found: dict[str, int] = {}
    for n in present:
        if names and not 0 <= n < len(names):
            raise DataError(
                f"{place} has samples of label {n}, and {len(names)} class names, of labels 0 to "
                f"{len(names) - 1}: mend the labels, or drop these samples"
            )
        name = names[n] if names else str(n)
        if name in found:
            raise DataError(
                f"{place} has the class name {name!r} for the labels {found[name]} and {n}, of "
                f"{len(names)} names: name each class by itself"
            )
        found[name] = n
    return found


# ---- memorised samples ------------------------------------------------------------------------


class Drawn(NamedTuple):
    """A set whose pictures are shown: its input, which rows of it were used, their statistics."""

    input: Input
    rows: np.ndarray
    stats: Statistics


def check_sheet(path: str, *inputs: Input | None) -> None:
    """Raises where a sheet cannot be drawn: no .png, no folder, or features without images."""
    if not path.endswith(".png"):
        raise ConfigError(f"--sheet={path}: the picture is a PNG, so its name ends with .png")
    for one in inputs:
        if one is not None and one.images is None:
            raise ConfigError(
                f"--sheet={path}: {one.name} holds features, and a sheet shows images: give the "
                "images themselves"
            )


def sheet(path: str, train: Drawn, fake: Drawn, rows: int = 8, nearest: int = 3) -> str:
    """Draws the generated samples that are nearest to training samples, beside these.

    The most suspect first: by the ratio of the distance to the nearest training sample and that
    one's distance to its own nearest other, which memorised samples have at most 1
    (`prpr.metrics.authenticity`).

    Args:
      path: of the PNG.
      train: training samples.
      fake: generated samples.
      rows: how many are shown.
      nearest: training samples beside each.

    Returns:
      The path.

    Raises:
      WorkdirError: it cannot be written.
    """
    from prpr import plotting
    from prpr.metrics import authenticity

    found = authenticity.memorised(train.stats, fake.stats, count=rows, k=nearest)

    def draw() -> "Figure":
        rows, columns = found.nearest.shape
        size = (0.95 * (columns + 1), 1.15 * rows + 0.3)
        figure, axes = plotting.subplots(rows, columns + 1, size)
        for r in range(rows):
            row = axes[r * (columns + 1) : (r + 1) * (columns + 1)]
            _show(row[0], fake, int(found.samples[r]), f"ratio {found.ratio[r]:.2f}")
            for c in range(columns):
                distance = f"d = {found.distances[r, c]:.3g}"
                _show(row[c + 1], train, int(found.nearest[r, c]), distance)
        axes[0].set_title(f"generated\n{axes[0].get_title(loc='left')}")
        axes[1].set_title(f"training\n{axes[1].get_title(loc='left')}")
        return figure

    plotting.save(plotting.styled(draw)(), os.fspath(Path(path).with_suffix("")), ("png",))
    return path


def _show(axes: "Axes", side: Drawn, row: int, title: str) -> None:
    assert side.input.images is not None  # `check_sheet` has looked
    image, _ = side.input.images.read(side.rows[row : row + 1])[0]
    axes.imshow(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image)
    axes.set_title(title)
    axes.set_axis_off()
