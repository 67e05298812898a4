"""One model for every λ against a model for each, in the plane, at equal compute.

Notation: L values of λ, B = L · train.steps generator updates in all.

  separate   L models of B/L updates each
  one        one model with a dial, of B updates, turned to each λ
  full       L models of B updates each: L times the compute; if asked for

All start from the same base. Written are WORKDIR/<data>/figure.png and .pdf, and
summary.json: {"results": {data: {side: numbers}}}, the numbers of `truth.summary`, with the
hypervolume's ratio to the other sides'.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prpr import config, data, parallel, plotting, processes, record
from prpr.errors import ConfigError
from prpr.planar import figure
from prpr.planar.grid import (
    Trained,
    check_start,
    points_of,
    train_bases,
    train_grid,
    train_one,
    with_data,
)
from prpr.planar.truth import CELLS, Measured, hypervolume, measure, summary


def run(
    key: str,
    cfg: config.Config,
    names: Sequence[str],
    workdir: str | Path,
    cells: int = CELLS,
    *,
    full: bool = False,
) -> dict[str, Any]:
    """Trains and measures the sides on every data set.

    Args:
      key: "gan" or "flow", what the configuration is of.
      cfg: the configuration; its λ and steps are the separate models'.
      names: of the data, laws of the plane.
      workdir: where everything is written.
      cells: in a row of the finest grid that α is integrated on.
      full: whether the separate models are also trained with the whole budget each.

    Returns:
      The summary, as written to summary.json.

    Raises:
      ConfigError: unknown data, too few λ, or a configuration that cannot be built.
      PrprError: as `train_grid`.
    """
    config.validate(cfg)
    check_start(key, cfg)
    if len(cfg.lams) < 2:
        raise ConfigError(f"config.lams = {tuple(cfg.lams)!r}: a comparison needs at least two.")
    for name in names:
        data.law(name)
    folder, results = Path(workdir).expanduser(), {}
    devices = parallel.setup(cfg.train.devices, len(cfg.seeds) * len(cfg.lams))
    for name in names:
        results[name] = _one(name, with_data(cfg, name), folder / name, devices, cells, full)
        record.write_json(folder / "summary.json", {"results": results})
    return {"results": results}


def _sides(cfg: config.Config, full: bool) -> dict[str, config.Config]:
    """{side: its configuration}, of equal budgets (`full`: for each model)."""
    count = len(cfg.lams)
    larger = cfg.copy_and_resolve_references()
    larger.train.steps, larger.train.warmup = count * cfg.train.steps, count * cfg.train.warmup
    one = larger.copy_and_resolve_references()
    one.dial = (float(min(cfg.lams)), float(max(cfg.lams)))
    config.validate(one)
    sides = {"separate": cfg, "one": one}
    return {**sides, "full": larger} if full else sides


def _one(
    name: str, cfg: config.Config, folder: Path, devices: int, cells: int, full: bool
) -> dict[str, Any]:
    points = {part: points_of(cfg, part) for part in ("train", "test")}
    lams, start = tuple(cfg.lams), time.monotonic()
    bases = train_bases(cfg, points["train"], devices)
    found: dict[str, tuple[Trained, Measured]] = {}
    numbers: dict[str, Any] = {}
    for side, own in _sides(cfg, full).items():
        processes.say(f"{name}, {side}: {len(cfg.seeds)} seeds, {own.train.steps} steps a model")
        trained = (train_one if own.dial else train_grid)(own, points["train"], bases, devices)
        found[side] = trained, measure(trained, name, lams, points["test"].images, cells)
        numbers[side] = summary(found[side][1], lams, None)
        numbers[side]["seconds"] = round(time.monotonic() - start, 1)
        start = time.monotonic()
    for other in ("separate", "full"):
        if other in found:
            ratios = hypervolume(found["one"][1]) / hypervolume(found[other][1])
            numbers["one"][f"hypervolume_over_{other}"] = float(ratios.mean())
            sd = float(np.std(ratios, ddof=1)) if len(ratios) > 1 else float("nan")
            numbers["one"][f"hypervolume_over_{other}_sd"] = sd
    plotting.save(figure.draw(name, lams, found, None), folder / "figure")
    return numbers
