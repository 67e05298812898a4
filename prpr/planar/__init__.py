"""Controlled experiments in the plane: models trained over λ, against the true frontier.

    WORKDIR/
      <data>/figure.png, .pdf      data, samples and densities at three λ, the frontier
      <data>/<model>.json          the numbers of one model (`truth.summary`) and its settings
      summary.json                 {"results": {data: {model: numbers}}}

A model is "gan" or "flow", with a configuration each; "oracle" is the flow again, trained with
the true log p − log q in its critic's place: the best frontier that this family of models and
this optimiser reach, whatever the estimate of the ratio costs. A GAN's density is not known, so
it is compared with the flow's oracle too.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prpr import config, data, jobs, parallel, plotting, processes, record, train
from prpr.errors import ConfigError, DataError, unknown_name
from prpr.planar import figure
from prpr.planar.grid import (
    Trained,
    check_start,
    points_of,
    settings_of,
    train_bases,
    train_grid,
    with_data,
)
from prpr.planar.truth import CELLS, Measured, measure, summary

MODELS = ("gan", "flow")
ORACLE = "oracle"


def run(
    configs: Mapping[str, config.Config],
    names: Sequence[str],
    workdir: str | Path,
    cells: int = CELLS,
) -> dict[str, Any]:
    """Trains and measures every model on every data set; draws a figure each.

    Args:
      configs: model ("gan", "flow") -> configuration; all of the same λ and seeds.
      names: of the data, laws of the plane.
      workdir: where everything is written; what is there with the same settings is drawn anew
        only if a model of its data set is missing.
      cells: in a row of the finest grid that α is integrated on.

    Returns:
      The summary, as written to summary.json.

    Raises:
      ConfigError: unknown data or models, configurations that differ in λ or seeds.
      PrprError: as `train_grid`.
    """
    _check(configs, names)
    folder = Path(workdir).expanduser()
    first = next(iter(configs.values()))
    devices = parallel.setup(first.train.devices, len(first.seeds) * len(first.lams))
    results: dict[str, Any] = {}
    for name in names:
        of_data = {key: with_data(cfg, name) for key, cfg in configs.items()}
        results[name] = _known(folder / name, of_data, cells)
        if results[name] is None:
            results[name] = _one(name, of_data, folder / name, devices, cells)
        record.write_json(folder / "summary.json", {"results": results})
    return {"results": results}


def _check(configs: Mapping[str, config.Config], names: Sequence[str]) -> None:
    if not configs or not names:
        raise ConfigError("nothing to do: name at least one model and one data set.")
    for key, cfg in configs.items():
        if key not in MODELS:
            raise unknown_name("model", key, MODELS)
        config.validate(cfg)
        check_start(key, cfg)
    first, *others = configs.values()
    for knob in ("lams", "seeds"):
        if any(tuple(cfg[knob]) != tuple(first[knob]) for cfg in others):
            raise ConfigError(f"the models' configurations differ in {knob}; give them the same.")
    if len(first.lams) < 2:
        raise ConfigError(f"config.lams = {tuple(first.lams)!r}: an order of λ needs at least two.")
    for name in names:
        data.law(name)


def _settings(cfg: config.Config, cells: int) -> dict[str, Any]:
    own = {"lams": list(cfg.lams), "seeds": list(cfg.seeds), "cells": cells}
    return {**settings_of(cfg), **own}


def _known(folder: Path, configs: Mapping[str, config.Config], cells: int) -> dict[str, Any] | None:
    """The numbers of a data set if they are all there, made with these settings."""
    found = {}
    for key, cfg in configs.items():
        path = folder / f"{key}.json"
        try:
            held = record.read_json(path) if path.exists() else None
        except DataError:
            held = None
        now = record.to_plain(_settings(cfg, cells))
        if held is None or jobs.different(held.get("settings", {}), now):
            return None
        found[key] = held["numbers"]
    return found if (folder / "figure.png").exists() else None


def _one(
    name: str, configs: Mapping[str, config.Config], folder: Path, devices: int, cells: int
) -> dict[str, Any]:
    """Everything of one data set."""
    trained: dict[str, tuple[Trained, Measured]] = {}
    oracle: Measured | None = None
    seconds: dict[str, float] = {}
    for key in sorted(configs, key=MODELS.index):
        cfg, start = configs[key], time.monotonic()
        points = {part: points_of(cfg, part) for part in ("train", "test")}
        processes.say(f"{name}, {key}: {len(cfg.seeds)} seeds x {len(cfg.lams)} λ")
        bases = train_bases(cfg, points["train"], devices)
        found = train_grid(cfg, points["train"], bases, devices)
        held_out, lams = points["test"].images, tuple(cfg.lams)
        trained[key] = found, measure(found, name, lams, held_out, cells)
        if train.has_density(found.system.generator):
            best = train_grid(cfg, points["train"], bases, devices, oracle=True)
            oracle = measure(best, name, lams, held_out, cells)
        seconds[key] = time.monotonic() - start
    numbers = {}
    for key, (_, found) in trained.items():
        cfg = configs[key]
        numbers[key] = {**summary(found, tuple(cfg.lams), oracle), "seconds": seconds[key]}
    if oracle is not None:
        lams = tuple(configs["flow"].lams)
        numbers["flow"][ORACLE] = summary(oracle, lams, None)
    drawn = figure.draw(name, tuple(next(iter(configs.values())).lams), trained, oracle)
    plotting.save(drawn, folder / "figure")
    for key, cfg in configs.items():
        record.write_json(
            folder / f"{key}.json", {"settings": _settings(cfg, cells), "numbers": numbers[key]}
        )
    return numbers


def table(result: Mapping[str, Any]) -> str:
    """The numbers of `run` as text, a row a data set and model."""
    columns = (
        ("ρ precision", "spearman_precision"),
        ("ρ recall", "spearman_recall"),
        ("hypervolume", "hypervolume"),
        ("/ oracle", "hypervolume_ratio"),
        ("|α̂ - α|", "alpha_error"),
        ("bound - α", "bound_excess"),
    )
    lines = [f"{'data':13}{'model':6}" + "".join(f"{title:>16}" for title, _ in columns)]
    for name, models in result["results"].items():
        for key, numbers in models.items():
            cells = [_cell(numbers, column) for _, column in columns]
            lines.append(f"{name:13}{key:6}" + "".join(f"{cell:>16}" for cell in cells))
    lines.append("means over seeds ± their standard deviation; ρ is Spearman's with λ")
    return "\n".join(lines)


def _cell(numbers: Mapping[str, Any], column: str) -> str:
    if column not in numbers:
        return "-"
    value, sd = float(numbers[column]), float(numbers[f"{column}_sd"])
    return f"{value:.3f}" + ("" if sd != sd else f" ± {sd:.3f}")
