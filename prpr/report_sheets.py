"""Samples as pictures of the page: sheets of images as PNG data URIs, points as SVG.

Nothing is read or written here; the same samples give the same characters.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prpr import report_figures, report_svg
from prpr.report_figures import Group, Samples

SIDE = 128  # pixels of an image at most; larger ones are shown smaller


class Sheets(NamedTuple):
    """HTML of samples.

    Attributes:
      whole, short: {name: HTML}, the sheet of a group, and one of half as many images.
      shared: HTML that stands once on the page, before all of them.
      alike: whether all generators were given the same labels in the same order, so that the
        same place in two sheets is the same input.
    """

    whole: Mapping[str, str]
    short: Mapping[str, str]
    shared: str
    alike: bool


def sheets(
    groups: Sequence[Group], stored: Mapping[str, Samples], colors: Mapping[str, str]
) -> Sheets:
    """The samples of all groups that have some.

    Args:
      groups: the rows of the report.
      stored: {name: samples}, all images or all points.
      colors: {name: "#rrggbb"}, of points.
    """
    shown = [g for g in groups if g.name in stored and len(stored[g.name].values)]
    made = [stored[g.name].labels for g in shown if g.name != "real"]
    alike = all(np.array_equal(labels, made[0]) for labels in made)
    if not shown:
        return Sheets({}, {}, "", alike)
    if stored[shown[0].name].values.ndim == 4:
        whole = {g.name: _images(g.label, stored[g.name], short=False) for g in shown}
        short = {g.name: _images(g.label, stored[g.name], short=True) for g in shown}
        return Sheets(whole, short, "", alike)
    real = stored["real"].values if "real" in stored else None
    seen = report_svg.window(stored[shown[0].name].values if real is None else real)
    shared, behind = "", ""
    if real is not None:
        # Once: every other cloud lies over it.
        cloud = report_svg.cloud(real, seen).replace("<path ", '<path id="real-points" ', 1)
        shared = f'<svg width="0" height="0" class="store" aria-hidden="true">{cloud}</svg>'
        behind = '<use href="#real-points"/>'
    clouds = {
        g.name: report_svg.scatter(
            stored[g.name].values,
            seen,
            colors[g.name],
            behind,
            f"{min(len(stored[g.name].values), report_svg.POINTS)} points: {g.label}"
            + (", over real data in grey" if behind and g.name != "real" else ""),
        )
        for g in shown
    }
    return Sheets(clouds, clouds, shared, alike)


def _images(label: str, samples: Samples, *, short: bool) -> str:
    picture = shrunk(report_figures.sheet(samples, short=short), max(samples.values.shape[1:3]))
    scale = max(1, (400 if short else 330) // picture.shape[1])
    classes = len(np.unique(samples.labels))
    columns = f", a column a class of {classes}" if 1 < classes <= report_figures.COLUMNS else ""
    return image(picture, f"Samples of {label}{columns}", scale)


def shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture of images of `side` pixels, smaller where these are above `SIDE`."""
    from PIL import Image

    if side <= SIDE:
        return picture
    height, width = (max(1, round(n * SIDE / side)) for n in picture.shape[:2])
    grey = picture.shape[2] == 1
    made = Image.fromarray(picture[..., 0] if grey else picture)
    array = np.asarray(made.resize((width, height), Image.Resampling.BOX))
    return array[..., None] if grey else array


def image(picture: np.ndarray, alt: str, scale: int = 1) -> str:
    """An <img> of (H, W, C) bytes, each pixel shown as `scale` by `scale` of the screen's."""
    height, width = picture.shape[:2]
    source = base64.b64encode(png(picture)).decode()
    return (
        f'<img class="pixels" src="data:image/png;base64,{source}" alt="{html.escape(alt)}" '
        f'width="{width * scale}" height="{height * scale}">'
    )


def png(picture: np.ndarray) -> bytes:
    """(H, W, 1 or 3) bytes as PNG, grey where all channels are one."""
    from PIL import Image

    grey = picture.shape[2] == 1 or bool((picture == picture[..., :1]).all())
    out = io.BytesIO()
    Image.fromarray(picture[..., 0] if grey else picture).save(out, "PNG", optimize=True)
    return out.getvalue()
