"""What a run is: its name, λ and seed, and the settings by which one run is told from another."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from prpr import config, objectives, record
from prpr.errors import WorkdirError

# Knobs that do not change what a run computes: they may differ when it is resumed. (layout and
# remat change it by rounding only.)
_FREE = ("name", "lams", "seeds", "control", "control_recipe", "score", "base", "recovery")
_FREE_TRAIN = (
    *("log_every", "diagnose_every", "checkpoint_every", "diagnose_size", "replica_check_every"),
    *("keep", "keep_best", "tensorboard", "devices", "layout", "together"),
)
_FREE_DATA = ("path", "workers", "prefetch", "max_corrupt")

# Knobs that decide which leaves a state has besides its networks'.
_SHAPING = ("critic.freeze", "critic.lecam", "augment.policy", "augment.adaptive")

DIAL = "dial"  # the name of the run of a model for every λ


class Job(NamedTuple):
    """One run to train: its name, its λ (None without one), its seed."""

    name: str
    lam: float | None
    seed: int

    @property
    def run(self) -> str:
        """The run's name in the record, in checkpoints/ and in samples/."""
        return f"{self.name}-seed{self.seed}"


def dial_job(seed: int) -> Job:
    """The run of a model for every λ."""
    return Job(DIAL, None, seed)


def base_home(cfg: config.Config, workdir: Path) -> Path:
    """Where a fine-tune's base is, a workdir or converted weights; by default WORKDIR/base."""
    return Path(cfg.base.path).expanduser() if cfg.base.path else workdir / "base"


def settings(cfg: config.Config) -> dict[str, Any]:
    """The settings that decide what a run computes, as {dotted knob: value}.

    Dials that the objective does not read are left out.
    """
    read = objectives.get(cfg.objective).dials
    free = {f"train.{name}" for name in _FREE_TRAIN} | {f"data.{name}" for name in _FREE_DATA}
    if not cfg.dial:
        free |= {"model.dial", "model.dial_scale", "model.dial_items"}
    if not objectives.get(cfg.objective).needs_ratio:
        free.add("conditional_ratio")
    free |= {f"dials.{name}" for name in cfg.dials if name not in read} | {"model.remat"}
    return {
        knob: record.to_plain(value)
        for knob, value in config.flatten(cfg).items()
        if knob not in free and knob.partition(".")[0] not in _FREE
    }


# What a version that did not have a knob did, where that is not what its default does now.
_FORMERLY = {"conditional_ratio": False}


def different(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The knobs in which saved settings differ from those of now, sorted.

    A knob that was not saved, or as None, is one that the version which saved it did not have: it
    did what the default does now.
    """
    default = record.to_plain(config.flatten(config.defaults())) | _FORMERLY

    def then(knob: str) -> Any:
        value = saved.get(knob)
        return default.get(knob) if value is None and now.get(knob) is not None else value

    return [knob for knob in sorted({*saved, *now}) if then(knob) != now.get(knob)]


def check_same(saved: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Raises WorkdirError if a checkpoint was made with other settings, naming them."""
    found = [
        f"{knob}: {saved.get(knob)!r} there, {now.get(knob)!r} now"
        for knob in different(saved, now)
    ]
    if found:
        raise WorkdirError(
            f"{where} holds a run with other settings ({'; '.join(found[:4])}). "
            "Choose another --workdir or base, or delete that run to train it anew."
        )


def shaped_as(cfg: config.Config, saved: Mapping[str, Any]) -> config.Config:
    """The configuration whose states have the leaves of those that were saved with settings.

    A base may have been trained with penalties or frozen layers of its own, which its moments and
    averages show; whoever goes on from its networks alone can read it nevertheless.
    """
    out, default = cfg.copy_and_resolve_references(), config.flatten(config.defaults())
    for knob in _SHAPING:
        group, name = knob.split(".")
        value = saved.get(knob)
        out[group][name] = default[knob] if value is None else value
    return out


def fingerprint(*nets: Any) -> int:
    """A number that tells networks from others: CRC-32 of all their values."""
    total = 0
    for leaf in jax.tree.leaves(nets):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total
