"""From sweep() to runs: ids, expansion, and the files that carry a run to another process."""

import hashlib
import json
import os
import runpy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prpr import config, record, run, trainer
from prpr.errors import ConfigError, DataError, unknown_name

_DIGITS = 10


class Task(NamedTuple):
    """One workdir of a sweep: a run (λ or control, one seed) or a base run (all seeds).

    `family` is shared by runs that differ in λ and seed only; `knobs` are what sweep() set
    besides those two; `config` is the whole configuration.
    """

    id: str
    name: str
    lam: float | None
    seeds: tuple[int, ...]
    base: str
    family: str
    knobs: Mapping[str, Any]
    config: config.Config

    @property
    def is_base(self) -> bool:
        return self.name == "base"

    @property
    def label(self) -> str:
        """Who it is, in a line of output."""
        return f"{self.id} {self.name} seed {','.join(map(str, self.seeds))}"

    @property
    def jobs(self) -> list[trainer.Job]:
        """What `prpr.trainer` calls these runs."""
        return [trainer.Job(self.name, self.lam, seed) for seed in self.seeds]


# ---- ids --------------------------------------------------------------------------------------


def digest(value: Any) -> str:
    """The first 10 hexadecimal digits of SHA-256 over a value's canonical JSON."""
    text = json.dumps(record.to_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_DIGITS]


def differences(cfg: config.Config) -> dict[str, Any]:
    """The settings that decide what a run computes, where they differ from the defaults."""
    default = _flatten(config.defaults().to_dict())
    return {
        knob: value
        for knob, value in trainer.settings(cfg).items()
        if record.to_plain(default.get(knob)) != value
    }


def base_id(cfg: config.Config) -> str:
    """The id of a fine-tune's base run; its seeds are no part of it."""
    return f"base-{digest({'settings': differences(config.base_of(cfg))})}"


def run_id(cfg: config.Config, lam: float | None, seed: int, base: str) -> str:
    """The id of the run of a fine-tune at `lam` (None: its control) and `seed`."""
    settings = differences(trained(cfg, lam is None))
    return digest({"base": base, "lam": lam, "seed": seed, "settings": settings})


def trained(cfg: config.Config, control: bool) -> config.Config:
    """The configuration that a run is trained by."""
    return config.control_of(cfg) if control else cfg


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


# ---- expansion --------------------------------------------------------------------------------


def points(path: str) -> list[dict[str, Any]]:
    """What sweep() of a config file yields.

    Args:
      path: FILE.py or FILE.py:ARGUMENT; the argument is get_config's and is not passed on.

    Raises:
      ConfigError: the file has no sweep(), or it fails or yields something else than dicts.
    """
    file = path.split(":", 1)[0]
    try:
        generator = runpy.run_path(file).get("sweep")
        if generator is None:
            raise ConfigError(f"{file} has no function sweep(); see configs/digits.py for one.")
        found = list(generator())
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"sweep() of {file} fails: {type(error).__name__}: {error}") from error
    for point in found:
        if not isinstance(point, dict) or not all(isinstance(name, str) for name in point):
            raise ConfigError(
                f"sweep() of {file} yields {point!r}: must be a dict of knobs, such as "
                '{"lams": (0.2,), "critic.lr": 1e-3}.'
            )
    if not found:
        raise ConfigError(f"sweep() of {file} yields nothing: there is nothing to run.")
    return found


def expand(
    cfg: config.Config,
    found: Iterable[Mapping[str, Any]],
    root: str | os.PathLike,
    fixed: Iterable[str] = (),
) -> list[Task]:
    """The base runs, then the runs, that the dicts of a sweep mean.

    Args:
      cfg: the configuration that they change.
      found: dotted knob -> value, one dict a point.
      root: base runs are placed below it.
      fixed: knobs that the command line has set; a sweep may not set them again.

    Raises:
      ConfigError: a knob that there is not, that cannot have its value, that is set twice, or
        two points that differ only in how one and the same run is scored.
    """
    bases: dict[str, Task] = {}
    runs: dict[str, Task] = {}
    fixed = set(fixed)
    for point in found:
        for knob in fixed & set(point):
            raise ConfigError(
                f"--config.{knob} is set on the command line and by sweep() too; leave it out, "
                "or change sweep()."
            )
        for task in _runs_of(_changed(cfg, point), point, Path(root), bases):
            known = runs.setdefault(task.id, task)
            if scoring(known.config) != scoring(task.config):
                raise ConfigError(
                    f"sweep() yields {task.name} at seed {task.seeds[0]} twice, with other knobs "
                    "under config.score: a run is scored in one way."
                )
    return [*bases.values(), *runs.values()]


def _changed(cfg: config.Config, point: Mapping[str, Any]) -> config.Config:
    """A copy of `cfg` with a point's knobs; refused as a whole if it cannot be run."""
    out = cfg.copy_and_resolve_references()
    for knob, value in point.items():
        _set(out, knob, value)
    try:
        config.validate(out)
    except ConfigError as error:
        raise ConfigError(f"sweep() yields {dict(point)}: {error}") from error
    return out


def _set(cfg: config.Config, knob: str, value: Any) -> None:
    known = _flatten(cfg.to_dict())
    if knob not in known:
        raise unknown_name("knob in sweep(),", knob, known)
    *groups, last = knob.split(".")
    for group in groups:
        cfg = cfg[group]
    try:
        cfg[last] = tuple(value) if isinstance(value, list) else value
    except TypeError as error:
        example = known[knob]
        raise ConfigError(f"sweep() yields {knob} = {value!r}: must be like {example!r}") from error


def _runs_of(
    cfg: config.Config, point: Mapping[str, Any], root: Path, bases: dict[str, Task]
) -> list[Task]:
    """The runs of one point; adds the base run that they need to `bases`."""
    base = cfg.base.path
    if cfg.base.required and not base:
        raise ConfigError(
            "config.base.path is empty, and this configuration starts from pre-trained weights: "
            "give --config.base.path=DIR, or train a base here with --config.base.required=false."
        )
    if not base:
        base = base_id(cfg)
        seeds = tuple(sorted({*cfg.seeds, *(bases[base].seeds if base in bases else ())}))
        of = config.base_of(cfg)
        of.seeds, of.name = seeds, base
        bases[base] = Task(base, "base", None, seeds, "", "", {}, of)
        cfg.base.path = str(root / base)
    family = digest({"base": base, "settings": differences(cfg), "score": scoring(cfg)})
    knobs = {name: point[name] for name in sorted(point) if name not in ("lams", "seeds")}
    made = []
    for seed in cfg.seeds:
        for lam in [*([None] if cfg.control else []), *map(float, cfg.lams)]:
            of = cfg.copy_and_resolve_references()
            of.seeds, of.control = (seed,), lam is None
            of.lams = () if lam is None else (lam,)
            name = "control" if lam is None else run.lam_name(lam)
            key = run_id(cfg, lam, seed, base)
            made.append(Task(key, name, lam, (seed,), base, family, knobs, of))
    return made


def scoring(cfg: config.Config) -> Any:
    return record.to_plain(cfg.score)


# ---- tasks as files ---------------------------------------------------------------------------


def write_task(root: Path, task: Task) -> Path:
    """Writes ROOT/<id>/task.json, for another process to read; returns the folder."""
    folder = root / task.id
    folder.mkdir(parents=True, exist_ok=True)
    record.write_json(folder / "task.json", {**task._asdict(), "config": task.config.to_dict()})
    return folder


def read_task(folder: str | os.PathLike) -> Task:
    """The inverse of `write_task`.

    Raises:
      DataError: missing, damaged, or of another version.
    """
    path = Path(folder) / "task.json"
    stored = record.read_json(path)
    try:
        values = {**stored, "seeds": tuple(stored["seeds"]), "config": from_plain(stored["config"])}
        return Task(**values)
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise DataError(f"{path} is damaged or of another version: {error}") from error


def from_plain(stored: Mapping[str, Any]) -> config.Config:
    """A configuration from its JSON form; a knob that it does not know has its default."""
    cfg = config.defaults()
    for knob, value in _flatten(stored).items():
        _set(cfg, knob, value)
    return cfg


def write_index(root: Path, tasks: Sequence[Task]) -> None:
    """Writes ROOT/sweep.json."""
    rows = [{name: getattr(t, name) for name in ("id", *_SHOWN, "base")} for t in tasks]
    root.mkdir(parents=True, exist_ok=True)
    record.write_json(root / "sweep.json", {"runs": rows})


_SHOWN = ("name", "lam", "seeds", "knobs")
