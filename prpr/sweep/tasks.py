"""From sweep() to runs: ids, expansion, and the files that carry a run to another process."""

import hashlib
import json
import os
import runpy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from prpr import config, record, run
from prpr.errors import ConfigError, DataError, unknown_name
from prpr.jobs import Job, settings

_DIGITS = 10
# Of these data sets, data.path is not where the data set lies: it says which one it is.
_NAMED_BY_PATH = ("folder", "prepared")
# A λ run does not read them; the control, and a base run or a fitted critic, do.
_FOR_OTHERS = ("base.", "control_recipe")


class Task(NamedTuple):
    """One workdir of a sweep: a run (λ or control, one seed) or a base run (all seeds).

    `family` is shared by runs that one call of `run.finetune` can train: they differ in λ and
    seed only, and their controls are trained and scored alike; `knobs` are what sweep() set
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
    def jobs(self) -> list[Job]:
        """What `prpr.trainer` calls these runs."""
        return [Job(self.name, self.lam, seed) for seed in self.seeds]


# ---- ids --------------------------------------------------------------------------------------


def digest(value: Any) -> str:
    """The first 10 hexadecimal digits of SHA-256 over a value's canonical JSON."""
    text = json.dumps(record.to_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_DIGITS]


def differences(cfg: config.Config) -> dict[str, Any]:
    """The knobs that decide what a run computes, where they differ from the defaults."""
    knobs = settings(cfg)
    if cfg.data.name in _NAMED_BY_PATH and not cfg.data.miniature:
        knobs = {**knobs, "data.path": cfg.data.path}
    return _changed_knobs(knobs)


def _fit(cfg: config.Config) -> dict[str, Any]:
    """The same for how a critic is fitted to a base that comes without one."""
    knobs = config.flatten(cfg.base, "base.") if cfg.base.path else {}
    return _changed_knobs({k: v for k, v in knobs.items() if k.startswith("base.fit_")})


def _changed_knobs(knobs: Mapping[str, Any]) -> dict[str, Any]:
    default = record.to_plain(config.flatten(config.defaults()))
    return {knob: value for knob, value in knobs.items() if default.get(knob) != value}


def base_id(cfg: config.Config) -> str:
    """The id of a fine-tune's base run; its seeds are no part of it."""
    return f"base-{digest({'settings': differences(config.base_of(cfg))})}"


def run_id(cfg: config.Config, lam: float | None, seed: int) -> str:
    """The id of the run of a fine-tune at `lam` (None: its control) and `seed`.

    `cfg.base.path` is what the user gives, empty where the sweep makes the base run.
    """
    base = cfg.base.path or base_id(cfg)
    settings = differences(trained(cfg, lam is None)) | _fit(cfg)
    return digest({"base": base, "lam": lam, "seed": seed, "settings": settings})


def family_id(cfg: config.Config) -> str:
    """The id of what one call of `run.finetune` can train together; see `Task`."""
    return digest(
        {
            "base": cfg.base.path or base_id(cfg),
            "settings": differences(cfg) | _fit(cfg),
            "control": differences(trained(cfg, control=True)),
            "score": scoring(cfg),
        }
    )


def trained(cfg: config.Config, control: bool) -> config.Config:
    """The configuration that a run is trained by."""
    return config.control_of(cfg) if control else cfg


# ---- expansion --------------------------------------------------------------------------------


# Arguments of config files whose configuration is one that `run.train_base` trains.
_FROM_SCRATCH = ("base", "scratch")


def points(path: str) -> list[dict[str, Any]]:
    """What sweep() of a config file yields.

    Args:
      path: FILE.py or FILE.py:ARGUMENT; the argument is get_config's and is not passed on.

    Raises:
      ConfigError: an argument whose configuration is no fine-tune's; the file has no sweep(), or
        it fails or yields something else than dicts.
    """
    file, _, argument = path.partition(":")
    if argument in _FROM_SCRATCH:
        raise ConfigError(
            f"--config={path}: sweep() fine-tunes; :{argument} is for experiments/train_gan.py. "
            f"Write --config={file}."
        )
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
        two points that mean one and the same run in spite of a knob that differs.
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
        made = _runs_of(_changed(cfg, point), point, Path(root), bases)
        _check_known(made, runs)
        for task in made:
            runs.setdefault(task.id, task)
    return [*bases.values(), *runs.values()]


def _check_known(made: Sequence[Task], runs: Mapping[str, Task]) -> None:
    """Refuses a point where a knob of it would be dropped without a word.

    Points share controls, which do not read the fine-tune's knobs, and λ runs, which do not
    read the control's. What no new run of a point reads is a mistake.
    """
    nothing_new = all(task.id in runs for task in made)
    for task in made:
        if task.id not in runs:
            continue
        now, before = (config.flatten(of.config) for of in (task, runs[task.id]))
        other = sorted(knob for knob in now if now[knob] != before[knob])
        who = f"sweep() yields {task.name} at seed {task.seeds[0]} twice"
        if any(knob.startswith("score.") for knob in other):
            raise ConfigError(
                f"{who}, with other knobs under config.score: a run is scored in one way."
            )
        if not nothing_new:
            is_control = task.lam is None
            other = [k for k in other if not (is_control or k.startswith(_FOR_OTHERS))]
        if other:
            shown = ", ".join(f"{knob} = {before[knob]!r} and {now[knob]!r}" for knob in other)
            raise ConfigError(
                f"{who}, with {shown}: that changes no result of this run; leave it out, or set "
                "it on the command line."
            )


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
    known = config.flatten(cfg)
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
    if cfg.dial:
        raise ConfigError(
            f"config.dial = {tuple(cfg.dial)!r} in a sweep: one model for every λ is one run; "
            "train it with experiments/finetune_biggan.py, or set dial to ()."
        )
    asked = cfg.copy_and_resolve_references()
    base = cfg.base.path
    config.check_base(cfg)
    if not base:
        base = base_id(cfg)
        seeds = tuple(sorted({*cfg.seeds, *(bases[base].seeds if base in bases else ())}))
        of = config.base_of(cfg)
        of.seeds, of.name = seeds, base
        bases[base] = Task(base, "base", None, seeds, "", "", {}, of)
        cfg.base.path = str(root / base)
    family = family_id(asked)
    knobs = {name: point[name] for name in sorted(point) if name not in ("lams", "seeds")}
    made = []
    for seed in cfg.seeds:
        for lam in [*([None] if cfg.control else []), *map(float, cfg.lams)]:
            of = cfg.copy_and_resolve_references()
            of.seeds, of.control = (seed,), lam is None
            of.lams = () if lam is None else (lam,)
            name = "control" if lam is None else run.lam_name(lam)
            key = run_id(asked, lam, seed)
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


def family_folder(root: Path, task: Task) -> Path:
    """Where a task is trained among others of its family; see `prpr.sweep.here`."""
    return root / f"family-{task.family}"


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
    for knob, value in config.flatten(ConfigDict(stored)).items():
        _set(cfg, knob, value)
    return cfg


def write_index(root: Path, tasks: Sequence[Task]) -> None:
    """Writes ROOT/sweep.json."""
    rows = [{name: getattr(t, name) for name in ("id", *_SHOWN, "base")} for t in tasks]
    root.mkdir(parents=True, exist_ok=True)
    record.write_json(root / "sweep.json", {"runs": rows})


_SHOWN = ("name", "lam", "seeds", "knobs")
