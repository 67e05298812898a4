"""One figure a data set: data, each model's samples and density at three λ, and the frontier."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr import data, plotting, train
from prpr.planar.grid import Trained, take
from prpr.planar.truth import Measured, densities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 1500  # points in a panel
SIDE = 4.0  # of the panels, from −SIDE to SIDE
PIXELS = 160


def _lattice() -> np.ndarray:
    line = (np.arange(PIXELS) + 0.5) / PIXELS * 2 * SIDE - SIDE
    return np.stack(np.meshgrid(line, line, indexing="xy"), axis=-1).reshape(-1, 2)


def _plane(ax: "Axes", title: str) -> None:
    ax.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), aspect="equal", xticks=[], yticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_title(title)


def _density(ax: "Axes", log_density: np.ndarray, title: str) -> None:
    image = np.exp(log_density - log_density.max()).reshape(PIXELS, PIXELS) ** 0.5
    ax.imshow(image, extent=(-SIDE, SIDE, -SIDE, SIDE), origin="lower", cmap="Greys")
    _plane(ax, title)


def _points(ax: "Axes", points: np.ndarray, color: Any, title: str) -> None:
    ax.scatter(points[:, 0], points[:, 1], s=1.0, color=color, linewidths=0, rasterized=True)
    _plane(ax, title)


def samples(trained: Trained, lam: int, n: int = SHOWN) -> np.ndarray:
    """(n, 2) of the first seed's model at the λ of that number."""
    net = take(take(trained.states.ema, 0), lam)
    z = jax.random.normal(jax.random.key(1), (n, trained.system.dim_z))
    y = jnp.zeros(n, jnp.int32)
    return np.asarray(train.apply_frozen(trained.system.generator, net, z, y))


@plotting.styled
def draw(
    name: str,
    lams: Sequence[float],
    models: Mapping[str, tuple[Trained, Measured]],
    oracle: Measured | None,
) -> "Figure":
    """Rows: the data and the frontier; then each model's samples (and density) at three λ."""
    chosen = sorted({0, len(lams) // 2, len(lams) - 1}, key=lambda i: lams[i])
    rows = 1 + sum(1 + train.has_density(t.system.generator) for t, _ in models.values())
    fig, flat = plotting.subplots(rows, 3, (plotting.PAGE, rows * plotting.PAGE / 3))
    axes = [flat[i : i + 3] for i in range(0, len(flat), 3)]
    for ax in (ax for row in axes[1:] for ax in row[len(chosen) :]):
        ax.set_axis_off()
    law = data.law(name)
    points, _ = law.sample(np.random.default_rng(0), SHOWN)
    _points(axes[0][0], points, plotting.BLACK, f"{name}: data")
    lattice = _lattice().astype(np.float32)
    _density(axes[0][1], np.asarray(law.log_density(jnp.asarray(lattice))), "density (square root)")
    _frontier(axes[0][2], lams, {key: found for key, (_, found) in models.items()}, oracle)
    row = 1
    for key, (trained, _) in models.items():
        for column, i in enumerate(chosen):
            color = plotting.lam_color(lams[i])
            title = f"{key}, λ = {lams[i]:g}"
            _points(axes[row][column], samples(trained, i), color, title)
        row += 1
        if train.has_density(trained.system.generator):
            nets = take(trained.states.ema, 0)
            log_q = np.asarray(jax.jit(densities(trained.system, nets))(lattice))
            for column, i in enumerate(chosen):
                _density(axes[row][column], log_q[i], f"its density, λ = {lams[i]:g}")
            row += 1
    return fig


def _frontier(
    ax: "Axes", lams: Sequence[float], models: Mapping[str, Measured], oracle: Measured | None
) -> None:
    if oracle is not None:
        order = np.argsort(lams)
        ax.plot(
            oracle.recall.mean(axis=0)[order],
            oracle.precision.mean(axis=0)[order],
            color=plotting.GREY,
            linewidth=1.0,
            label="flow, true ratio",
            zorder=1,
        )
    for marker, (key, found) in zip("osD^", models.items(), strict=False):
        colors = [plotting.lam_color(lam) for lam in lams]
        for recall, precision in zip(found.recall, found.precision, strict=True):
            ax.scatter(recall, precision, c=colors, marker=marker, s=14, linewidths=0, zorder=2)
        ax.scatter([], [], color=plotting.GREY, marker=marker, s=14, label=key)
    ax.set(xlabel="true recall  $\\beta(1/20)$", ylabel="true precision  $\\alpha(20)$")
    ax.legend(loc="best", handletextpad=0.3)
    ax.set_title("frontier; colour: λ, dark is low")
