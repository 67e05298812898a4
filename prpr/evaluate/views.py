"""More views of the same features: precision and recall per class, a sheet of memorised samples.

Per class: the samples of a class on both sides, cut to equal numbers where the convention asks for
it, are measured as if they were all there is. Of C classes the worst is low partly by chance; its
interval does not correct for having been chosen.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prpr.errors import ConfigError, DataError
from prpr.evaluate import conventions
from prpr.evaluate.inputs import Input
from prpr.metrics import Options, Statistics, measure
from prpr.metrics.groups import FAKE, REAL
from prpr.metrics.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_CLASS = ("precision", "recall")


class PerClass(NamedTuple):
    """{class: {metric: Estimate}}, {class: (real, fake samples)}, {metric: worst class}, and the
    classes that have too few samples."""

    classes: Mapping[str, Mapping[str, Estimate]]
    sizes: Mapping[str, tuple[int, int]]
    worst: Mapping[str, str]
    left_out: tuple[str, ...]


def per_class(
    real: tuple[str, Statistics], fake: tuple[str, Statistics], options: Options, equal: bool
) -> PerClass:
    """Precision and recall of each class.

    Args:
      real, fake: (name for messages, statistics with labels).
      options: neighbours, level, seed.
      equal: whether both sides of a class are cut to the smaller.

    Raises:
      DataError: a side without classes, or no class with enough samples on both.
    """
    names = _names(real, fake)
    options = options._replace(k_dc=options.k, progress=None)
    classes, sizes, left_out = {}, {}, []
    for name, (number, its_number) in names.items():
        rows = [
            np.flatnonzero(labels_of(*side) == label)
            for side, label in ((real, number), (fake, its_number))
        ]
        if equal:
            n = min(map(len, rows))
            rows = [
                own[conventions.shuffled(n, len(own), options.seed, side)]
                for own, side in zip(rows, (REAL, FAKE), strict=True)
            ]
        if min(map(len, rows)) < options.k + 2:
            left_out.append(name)
            continue
        both = [side[1].take(own) for side, own in zip((real, fake), rows, strict=True)]
        classes[name] = measure(PER_CLASS, both[0], both[1], options).metrics
        sizes[name] = len(rows[0]), len(rows[1])
    if not classes:
        raise DataError(
            f"no class of {real[0]} and {fake[0]} has the {options.k + 2} samples on both sides "
            f"that k={options.k} needs: give more samples, or leave --per_class out"
        )
    worst = {
        metric: min(classes, key=lambda name: classes[name][metric].value) for metric in PER_CLASS
    }
    return PerClass(classes, sizes, worst, tuple(left_out))


def labels_of(name: str, stats: Statistics) -> np.ndarray:
    """The labels; DataError where there are none."""
    if stats.labels is None:
        raise DataError(
            f"{name} has no classes, which --per_class needs: give class folders, or 'labels' "
            "beside the samples of an .npz"
        )
    return stats.labels


def _names(
    real: tuple[str, Statistics], fake: tuple[str, Statistics]
) -> dict[str, tuple[int, int]]:
    """{class: (its number on the real side, on the fake side)}.

    By name where both have names; where one side has numbers alone, its numbers count the other
    side's names in order.
    """
    found = [_named(*side) for side in (real, fake)]
    if set(found[0]) & set(found[1]):
        return {name: (n, found[1][name]) for name, n in found[0].items() if name in found[1]}
    for named, numbered in ((0, 1), (1, 0)):
        if all(name.isdecimal() for name in found[numbered]):
            numbers = set(found[numbered].values())
            return {name: (n, n) for name, n in found[named].items() if n in numbers}
    raise DataError(
        f"{real[0]} and {fake[0]} have no class in common: {', '.join(list(found[0])[:3])} ... and "
        f"{', '.join(list(found[1])[:3])} ...: name the class folders alike"
    )


def _named(place: str, stats: Statistics) -> dict[str, int]:
    present = np.unique(labels_of(place, stats)).tolist()
    names = stats.about.get("class_names")
    return {str(names[n]) if names else str(n): n for n in present}


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
