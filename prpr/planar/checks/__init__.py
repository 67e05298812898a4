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
figure) and `table` (numbers -> lines of text), and `settings`, the constants that its numbers
rest on. Data, flow and GAN are those of `prpr.planar`.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from prpr import (
    build,
    config,
    data,
    parallel,
    plotting,
    processes,
    record,
    train,
)
from prpr.errors import ConfigError, DataError, WorkdirError, unknown_name
from prpr.planar.checks import bound, implied, lipschitz, plug_in, tau
from prpr.planar.checks.runs import Setting
from prpr.planar.grid import check_start, settings_of
from prpr.planar.truth import CELLS, SAMPLES

CHECKS: dict[str, ModuleType] = {
    "implied": implied,
    "plug_in": plug_in,
    "bound": bound,
    "tau": tau,
    "lipschitz": lipschitz,
}


def run(
    configs: Mapping[str, config.Config],
    checks: Sequence[str],
    name: str,
    workdir: str | Path,
    cells: int = CELLS,
) -> dict[str, Any]:
    """Makes the checks of that name on one law; what is there with the same settings is kept.

    Args:
      configs: {"flow": ..., "gan": ...}, with the same λ, seeds and split of the data, and with the
        objective "envelope".
      checks: of `CHECKS`.
      name: of the data, a law of the plane.
      workdir: where everything is written.
      cells: in a row of the finest grid that is integrated over, even.

    Returns:
      {check: numbers}.

    Raises:
      ConfigError: unknown checks or data, configurations that are no flow and GAN, that differ in
        λ, seeds or the split, or that cannot be built or checked.
      WorkdirError: a folder that cannot be made, or a summary.json there that is not of checks.
      PrprError: a run that is no longer finite.
    """
    _check(configs, checks, name, cells)
    folder = Path(workdir).expanduser()
    flow, gan = configs["flow"], configs["gan"]
    held = _held(folder / "summary.json")
    # No check trains more runs at once: plug_in has 2·L a seed, implied L and its divergences, tau
    # and lipschitz four for every other λ.
    most = len(gan.seeds) * (2 * len(gan.lams) + len(implied.NAMES))
    devices = parallel.setup(gan.train.devices, most)
    setting = Setting(name, flow, gan, cells, devices)
    _check_systems(setting)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(
            f"cannot make {folder}: {error.strerror}; name another --workdir."
        ) from error
    for check in checks:
        module, known = CHECKS[check], held.get(check, {})
        own = {"constants": {"samples": SAMPLES, **module.settings()}}
        settings = record.to_plain({**_settings(setting), **own})
        if known.get("settings") != settings or "numbers" not in known:
            processes.say(f"{name}: {check}")
            known = {"settings": settings, "numbers": record.to_plain(module.compute(setting))}
        held[check] = known
        # Before anything is drawn: a figure can be made again in a second, the numbers cannot.
        record.write_json(folder / "summary.json", {"checks": held})
        plotting.save(module.draw(name, _floats(known["numbers"])), folder / check)
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
        check_start(key, configs[key])
        if configs[key].objective != "envelope":
            raise ConfigError(
                f"the configuration of {key!r} has objective = {configs[key].objective!r}: the "
                "checks compare objectives themselves, and start from 'envelope'."
            )
    flow, gan = configs["flow"], configs["gan"]
    if flow.route not in ("data", "balanced"):
        raise ConfigError(
            f"the flow's route = {flow.route!r}: with the true ratio it learns by 'data' or "
            "'balanced'."
        )
    if gan.model.name != "mlp" or gan.model.dim_z != 2:
        raise ConfigError(
            f"the GAN has model.name = {gan.model.name!r}, model.dim_z = {gan.model.dim_z}: its "
            "true frontier is known for 'mlp' with 2 latents."
        )
    for knob in ("lams", "seeds", "data.split_seed", "data.fractions"):
        if config.flatten(flow)[knob] != config.flatten(gan)[knob]:
            raise ConfigError(f"flow and GAN differ in {knob}; give them the same.")
    if len(flow.lams) < 2:
        raise ConfigError(f"config.lams = {tuple(flow.lams)!r}: an order of λ needs at least two.")
    data.law(name)


def _check_systems(setting: Setting) -> None:
    """ConfigError for models or batches that would fail only when their check comes."""
    points = setting.points()
    for cfg in (setting.flow, setting.gan):
        for one in (config.base_of(cfg), cfg):
            build.share(one, 1)
            system = build.system(one, points)
            start = functools.partial(train.init, system, dials=build.dials(one, None))
            jax.eval_shape(start, jax.random.key(0), build.example(system, points))


def _settings(setting: Setting) -> dict[str, Any]:
    out: dict[str, Any] = {
        "data": setting.name,
        "lams": list(setting.lams),
        "seeds": list(setting.seeds),
        "cells": setting.cells,
    }
    for key, cfg in (("flow", setting.flow), ("gan", setting.gan)):
        out[key] = settings_of(cfg)
    return out


def _held(path: Path) -> dict[str, Any]:
    """What an earlier run has left, or nothing."""
    if not path.exists():
        return {}
    try:
        found = record.read_json(path)
    except DataError:
        found = None
    held = found.get("checks") if isinstance(found, dict) else None
    if not isinstance(held, dict) or not all(isinstance(one, dict) for one in held.values()):
        raise WorkdirError(f"{path} is not a summary of checks; choose another --workdir.")
    return held


def _floats(numbers: Any) -> Any:
    """Numbers as they are written, "nan" and the infinities as floats again."""
    if isinstance(numbers, dict):
        return {key: _floats(value) for key, value in numbers.items()}
    if isinstance(numbers, list):
        return [_floats(value) for value in numbers]
    return float(numbers) if numbers in ("nan", "inf", "-inf") else numbers


def table(results: Mapping[str, Any]) -> str:
    """The numbers of `run` as text, a block a check."""
    blocks = [
        [f"[{check}]", *CHECKS[check].table(_floats(found))] for check, found in results.items()
    ]
    return "\n".join("\n".join(block) for block in blocks)
