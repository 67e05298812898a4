"""Checks of the theory as experiments in the plane, a small figure each.

    WORKDIR/
      <check>.png, .pdf     the figure
      summary.json          {"checks": {check: {"settings": ..., "numbers": ...}}}

    implied     which trade-off an f-divergence stands for, by its mixture weight
    plug_in     the published plug-in objective against the envelope gradient
    bound       the error of a critic against that of D_λ, with the bound
    tau         the temperature of the envelope: bias against signal
    lipschitz   a limit on the slope of the critic

Each is a module with `compute` (trains and measures -> plain numbers), `draw` (numbers ->
figure) and `table` (numbers -> lines of text). Data, flow and GAN are those of `prpr.planar`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from prpr import config, data, jobs, objectives, parallel, plotting, processes, record
from prpr.errors import ConfigError, DataError, unknown_name
from prpr.planar.checks import bound, implied, lipschitz, plug_in, tau
from prpr.planar.checks.runs import Setting

CHECKS: dict[str, ModuleType] = {
    "implied": implied,
    "plug_in": plug_in,
    "bound": bound,
    "tau": tau,
    "lipschitz": lipschitz,
}
CELLS = 256


def run(
    configs: Mapping[str, config.Config],
    checks: Sequence[str],
    name: str,
    workdir: str | Path,
    cells: int = CELLS,
) -> dict[str, Any]:
    """Makes the checks of that name on one law; what is there with the same settings is kept.

    Args:
      configs: {"flow": ..., "gan": ...}, with the same λ and seeds.
      checks: of `CHECKS`.
      name: of the data, a law of the plane.
      workdir: where everything is written.
      cells: in a row of the grids that are integrated over, even.

    Returns:
      {check: numbers}.

    Raises:
      ConfigError: unknown checks or data, configurations that are no flow and GAN, or differ in λ
        or seeds.
      PrprError: a run that is no longer finite.
    """
    _check(configs, checks, name, cells)
    folder = Path(workdir).expanduser()
    flow, gan = configs["flow"], configs["gan"]
    devices = parallel.setup(flow.train.devices, len(flow.seeds) * len(flow.lams))
    setting = Setting(name, flow, gan, cells, devices)
    settings = record.to_plain(_settings(setting))
    held = _held(folder / "summary.json")
    for check in checks:
        module, known = CHECKS[check], held.get(check, {})
        if known.get("settings") != settings or "numbers" not in known:
            processes.say(f"{name}: {check}")
            known = {"settings": settings, "numbers": record.to_plain(module.compute(setting))}
        # Drawn from the numbers: a figure that is missing, or was made by other code, is made anew.
        plotting.save(module.draw(name, known["numbers"]), folder / check)
        held[check] = known
        record.write_json(folder / "summary.json", {"checks": held})
    return {check: held[check]["numbers"] for check in checks}


def _check(
    configs: Mapping[str, config.Config], checks: Sequence[str], name: str, cells: int
) -> None:
    if not checks:
        raise ConfigError(f"no check is named; choose some of {', '.join(CHECKS)}.")
    for check in checks:
        if check not in CHECKS:
            raise unknown_name("check", check, CHECKS)
    if cells < 8 or cells % 2:
        raise ConfigError(f"cells = {cells}: give an even number, 8 at least.")
    for key in ("flow", "gan"):
        config.validate(configs[key])
        if (configs[key].base.loss == objectives.LIKELIHOOD) != (key == "flow"):
            raise ConfigError(
                f"the configuration of {key!r} has base.loss = {configs[key].base.loss!r}: a flow "
                "starts from likelihood, a GAN does not."
            )
    flow, gan = configs["flow"], configs["gan"]
    for knob in ("lams", "seeds"):
        if tuple(flow[knob]) != tuple(gan[knob]):
            raise ConfigError(f"flow and GAN differ in {knob}; give them the same.")
    if len(flow.lams) < 2:
        raise ConfigError(f"config.lams = {tuple(flow.lams)!r}: an order of λ needs at least two.")
    data.law(name)


def _settings(setting: Setting) -> dict[str, Any]:
    out: dict[str, Any] = {
        "data": setting.name,
        "lams": list(setting.lams),
        "seeds": list(setting.seeds),
        "cells": setting.cells,
    }
    for key, cfg in (("flow", setting.flow), ("gan", setting.gan)):
        base = {f"base.{knob}": record.to_plain(value) for knob, value in cfg.base.items()}
        out[key] = {**jobs.settings(cfg), **base}
    return out


def _held(path: Path) -> dict[str, Any]:
    """What an earlier run has left, or nothing."""
    if not path.exists():
        return {}
    try:
        return dict(record.read_json(path).get("checks", {}))
    except DataError:
        return {}


def table(results: Mapping[str, Any]) -> str:
    """The numbers of `run` as text, a block a check."""
    blocks = [[f"[{check}]", *CHECKS[check].table(found)] for check, found in results.items()]
    return "\n".join("\n".join(block) for block in blocks)
