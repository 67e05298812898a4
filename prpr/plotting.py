"""The one place that knows how figures look: sizes, fonts, colours, files.

λ has a colour (`lam_color`): dark purple for small λ (recall) through teal to green for large λ
(precision), ordered in log λ and in lightness, so that it survives grey print. Everything without
an order takes the colours of Okabe and Ito (jfly.uni-koeln.de/color), which colour-blind readers
can tell apart; `LINES` pairs them with dash patterns for grey print. Recall is the horizontal
axis, precision the vertical one.

    @plotting.styled
    def figure():
        fig, axes = plotting.subplots(1, 2)
        ...
        return fig

    plotting.save(figure(), "out/name")

Figures are drawn without pyplot: no global state, no display. Matplotlib (.5 s) is imported only
when the first figure is made.
"""

import contextlib
import functools
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from prpr.errors import WorkdirError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Args = ParamSpec("Args")
Result = TypeVar("Result")

COLUMN, PAGE = 3.3, 6.9  # inches: one column of a two-column page, and both

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#8A8A8A"
# Yellow is left out: it is too light for a line on white.
PALETTE = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.2, 1, 1.2)), (0, (3, 1, 1, 1, 1, 1)))
LINES = tuple({"color": c, "linestyle": DASHES[i % len(DASHES)]} for i, c in enumerate(PALETTE))

RECALL, PRECISION = "recall  $\\beta$", "precision  $\\alpha$"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
    "mathtext.fontset": "dejavusans",
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlelocation": "left",
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # embeds TrueType: text stays text
    "svg.hashsalt": "prpr",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the house style within this block."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def styled(draw: Callable[Args, Result]) -> Callable[Args, Result]:
    """`style` as a decorator of a function that draws a figure."""

    @functools.wraps(draw)
    def inner(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        with style():
            return draw(*args, **kwargs)

    return inner


def subplots(
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = (PAGE, 2.7),
    **options: Any,
) -> "tuple[Figure, list[Axes]]":
    """A figure of `size` inches and its axes, row by row; `options` as of Figure.subplots."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=size, layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False, **options)
    return fig, list(axes.ravel())


def lam_color(lam: float, low: float = 0.05, high: float = 20.0) -> tuple[float, float, float]:
    """The colour of λ (RGB): its place in [low, high] on a log scale, clipped, in viridis.

    The last fifth of viridis is left out: it is too light for a line on white.
    """
    import matplotlib

    place = (math.log(lam) - math.log(low)) / (math.log(high) - math.log(low))
    red, green, blue, _ = matplotlib.colormaps["viridis"](0.8 * float(np.clip(place, 0, 1)))
    return red, green, blue


def frontier_axes(ax: "Axes", limit: float = 1.0) -> None:
    """Make ax a precision-recall plane: recall to the right, precision upwards, square."""
    ax.set(xlim=(0, limit), ylim=(0, limit), xlabel=RECALL, ylabel=PRECISION)
    ax.set_aspect("equal")


def save(
    fig: "Figure", path: str | os.PathLike[str], formats: Sequence[str] = ("png", "pdf")
) -> list[Path]:
    """Write fig to path.png and path.pdf; returns the paths.

    Each file appears whole or not at all, and the same figure gives the same bytes: no dates, no
    version of matplotlib.

    Raises:
      WorkdirError: the folder cannot be made or written to.
    """
    plain = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}}
    target = Path(path)
    written = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for kind in formats:
            final = target.parent / f"{target.name}.{kind}"
            handle, draft = tempfile.mkstemp(dir=target.parent, prefix=".figure-")
            try:
                with os.fdopen(handle, "wb") as file, style():
                    fig.savefig(file, format=kind, metadata=plain.get(kind))
                # mkstemp's files are private; a figure is for everyone the folder is for.
                os.chmod(draft, 0o644)
                os.replace(draft, final)
            except BaseException:
                os.unlink(draft)
                raise
            written.append(final)
    except OSError as error:
        raise WorkdirError(
            f"cannot write the figure {target}: {error.strerror or error}. Choose another folder."
        ) from error
    return written
