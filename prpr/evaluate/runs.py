"""Samples of a prpr run: what it stored when it was scored, or new ones from its checkpoint.

    WORKDIR?lam=5&seed=0      the run of a λ
    WORKDIR?run=control       its control; run=base: the base run, which may lie elsewhere
    WORKDIR?real              the held-out data that its scores are against
    WORKDIR?train             its training data

Without a seed it is the first of the configuration. Stored samples are taken where they are
enough, by a seeded shuffle, since they are sorted as the held-out data are; else new ones are
drawn as for the scores of WORKDIR: the averaged generator (the best checkpoint where
`score.checkpoint` says so), standing statistics and truncation as configured, classes as they
are held out, by a shuffle where there are fewer. Which of both is said. Through a sampler
(`prpr.samplers`) new ones are always drawn: of the same generator, judged by the critic of its
checkpoint. New latents are those of the run's seed: runs of one seed share them, as all stored
samples do, and a comparison that takes both runs' samples for independent errs on the wide side;
of several seeds `seeds` knows.
"""

import json
import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from prpr import (
    build,
    checkpoint,
    config,
    data,
    record,
    run,
    samplers,
    sampling,
    score,
    train,
    weights,
)
from prpr.checkpoint.files import damaged, read_table, steps
from prpr.errors import CheckpointError, ConfigError, DataError, unknown_name
from prpr.evaluate import arrays, conventions
from prpr.evaluate.images import Array, Loaded
from prpr.evaluate.inputs import Input
from prpr.evaluate.notes import Notes
from prpr.jobs import DIAL, Job, base_home, check_same, dial_job, settings
from prpr.metrics import statistics
from prpr.metrics.groups import FAKE
from prpr.samplers import drawing
from prpr.samplers.settings import text as sampler_text
from prpr.sweep.tasks import from_plain
from prpr.systems import WITH_RATIO

_PARTS = ("lam", "run", "seed", "real", "train")
_SEEDS = 2  # what is folded into the latents' key before a seed; standing statistics have 1
_STARTS = 2048  # validation items that chains start at, at most
_SYSTEMS: dict[str, train.System] = {}  # by what they are of


class _Source(NamedTuple):
    """Where a run's generator is: checkpoints, or converted weights; `cfg` is what it is of."""

    cfg: config.Config
    where: Path
    converted: bool = False

    def best(self) -> int | None:
        """The best step, where it is the one to be scored and there is one; else None."""
        asked = self.cfg.score.checkpoint == "best" and not self.converted
        return checkpoint.best(self.where) if asked else None

    def step(self) -> int | None:
        """The step that is scored; None where there is no checkpoint of it."""
        if self.converted:
            return None
        best = self.best()
        return checkpoint.latest(self.where) if best is None else best

    def told(self) -> str:
        """The generator in words."""
        if self.converted:
            return f"the weights in {self.where}"
        step, which = self.step(), "last" if self.best() is None else "best"
        return f"the {which} checkpoint" + (f", step {step}" if step is not None else "")


def open_run(
    folder: Path,
    query: dict[str, str],
    notes: Notes,
    n: int = 0,
    truncation: float | None = None,
    seed: int = 0,
    sampler: samplers.Sampler | None = None,
) -> Input:
    """Opens what a query asks of a run's workdir; see the module's head.

    Args:
      folder: the workdir.
      query: the parts after the "?".
      notes: of this input.
      n: how many samples; 0 is as many as were stored or are held out.
      truncation: of the latents; None is the configuration's.
      seed: of the shuffle.
      sampler: how the samples are drawn; None takes the generator's as they come.

    Raises:
      ConfigError: a query that cannot be understood, no such run, or one without the ratio that
        the sampler needs.
      CheckpointError: no checkpoint, a damaged one, or one of an unfinished run.
      DataError: data that cannot be loaded, or labels that the sampler could not fill.
    """
    asked = _asked(folder, query, notes.name)
    cfg = configuration(folder)
    if asked in ("real", "train"):
        if truncation is not None or sampler is not None:
            raise _is_data(notes.name, sampler)
        parts = build.splits(cfg)
        held_out = asked == "real"
        return _data(parts.held_out(cfg.score.split) if held_out else parts.train, notes)
    job = _job(folder, cfg, query)
    # The base's samples are stored here, too, as this workdir scored them.
    stored = folder / "samples" / f"{job.run}.npz"
    if truncation is None and sampler is None and stored.is_file():
        found = _stored(stored, _source(folder, cfg, job), notes, n, seed)
        if found is not None:
            return found
    source = _source(folder, cfg, job, needed=True)
    return _drawn(source, job, notes, n, truncation, seed, sampler)


def check_generator(
    folder: Path, query: dict[str, str], name: str, sampler: samplers.Sampler | None = None
) -> None:
    """Raises unless a query asks for a run whose generator is there, and what a sampler needs.

    Raises:
      ConfigError: a query that cannot be understood, of data, or of no such run; a run without the
        ratio that the sampler needs.
      CheckpointError: no checkpoint.
    """
    if _asked(folder, query, name) in ("real", "train"):
        raise _is_data(name, sampler)
    cfg = configuration(folder)
    job = _job(folder, cfg, query)
    source = _source(folder, cfg, job, needed=True)
    if not source.converted and checkpoint.latest(source.where) is None:
        raise _no_checkpoint(source.where, job)
    _check_ratio(source, name, sampler)


def generator_stamp(folder: Path, query: dict[str, str]) -> str:
    """What tells the generator (and critic) that would be drawn from another's: step and checksum.

    Raises:
      As `check_generator`.
    """
    check_generator(folder, query, str(folder))
    cfg = configuration(folder)
    source = _source(folder, cfg, _job(folder, cfg, query), needed=True)
    if source.converted:
        sums = sorted(f"{p.name}:{p.stat().st_mtime_ns}" for p in source.where.iterdir())
        return "weights " + ",".join(sums)
    step = source.step()
    assert step is not None  # `check_generator` has looked
    found = steps(source.where)
    try:
        held = read_table(found[step])["files"]
    except Exception as error:
        raise damaged(found, step, error) from error
    return f"step {step}, {zlib.crc32(json.dumps(held, sort_keys=True).encode()):08x}"


def _check_ratio(origin: _Source, name: str, sampler: samplers.Sampler | None) -> None:
    """ConfigError for a sampler that needs a ratio where the run has none."""
    if sampler is None or not sampler.needs_ratio:
        return
    if origin.converted:
        raise ConfigError(
            f"{name} is of converted weights, whose generator alone is read: every sampler but "
            "truncation needs a critic. Take truncation:at=.7, or a run at a λ"
        )
    has_ratio = build.route_of(origin.cfg) in WITH_RATIO
    samplers.check_ratio(sampler, name, loss=origin.cfg.critic.loss, has_ratio=has_ratio)


def _asked(folder: Path, query: dict[str, str], name: str) -> str:
    """Which one of "lam", "run", "real" and "train" a query asks for; ConfigError for another."""
    for part in query:
        if part not in _PARTS:
            raise unknown_name(f"part of {name!r} after the '?',", part, _PARTS)
    asked = [part for part in ("lam", "run", "real", "train") if part in query]
    if len(asked) != 1:
        held = ", ".join(runs_of(folder)) or "none"
        raise ConfigError(
            f"{folder} is the workdir of a run: say which samples with one of ?lam=5, "
            f"?run=control, ?run=base, ?real, ?train; it holds {held}"
        )
    return asked[0]


def _is_data(name: str, sampler: samplers.Sampler | None) -> ConfigError:
    what = "truncation" if sampler is None else f"the sampler {sampler_text(sampler)}"
    return ConfigError(f"{name} is data: {what} needs a generator, ?lam=5")


def _no_checkpoint(where: Path, job: Job) -> CheckpointError:
    return CheckpointError(
        f"no checkpoint of {job.run} in {where}, and no stored samples that are enough: train "
        "it, or ask for fewer samples with --n_fake"
    )


def workdir(text: str) -> tuple[Path, config.Config]:
    """The folder of a run and its configuration; ConfigError for a folder that is none."""
    folder = Path(text).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is no workdir of a run: it has no config.json")
    return folder, configuration(folder)


def configuration(folder: Path) -> config.Config:
    """What a workdir's run was made with."""
    return from_plain(record.read_json(folder / "config.json"))


def runs_of(folder: Path) -> list[str]:
    """The runs that a workdir holds checkpoints or samples of."""
    made = [path.name for path in (folder / "checkpoints").glob("*-seed*")]
    return sorted({*made, *(path.stem for path in (folder / "samples").glob("*-seed*.npz"))})


def _job(folder: Path, cfg: config.Config, query: dict[str, str]) -> Job:
    try:
        seed = int(query["seed"]) if "seed" in query else int(cfg.seeds[0])
        lam = float(query["lam"]) if "lam" in query else None
    except ValueError as error:
        raise ConfigError(f"{folder}: λ and seed are numbers, as in ?lam=5&seed=0 ({error})") from (
            None
        )
    job = Job(query.get("run", "") if lam is None else run.lam_name(lam), lam, seed)
    runs = runs_of(folder)
    if cfg.dial and lam is not None:
        low, high = cfg.dial
        if not low <= lam <= high:
            raise ConfigError(
                f"{folder}: λ = {lam:g} is outside of what its model was trained for, {low:g} to "
                f"{high:g} (config.dial)"
            )
        trained = dial_job(seed).run
        if trained not in runs:
            raise unknown_name(f"run in {folder},", trained, runs)
        return job
    if cfg.dial and job.name == DIAL:
        raise ConfigError(f"{folder}: say at which λ its model is to stand, as in ?lam=5")
    if job.name != "base" and job.run not in runs:
        raise unknown_name(f"run in {folder},", job.run, runs)
    return job


def _source(folder: Path, cfg: config.Config, job: Job, *, needed: bool = False) -> _Source:
    """Where the generator of a job is; CheckpointError for a base that is not there if `needed`."""
    trained = dial_job(job.seed) if cfg.dial and job.lam is not None else job
    where = folder / "checkpoints" / trained.run
    if job.name == "control":
        return _Source(config.control_of(cfg), where)
    if job.name != "base" or where.is_dir():  # experiments/train_gan.py's workdir has its base
        return _Source(cfg, where)
    home = base_home(cfg, folder)
    if cfg.base.path and weights.is_weights(home):
        return _Source(cfg, home, converted=True)
    if not (home / "config.json").is_file():
        if needed:
            raise CheckpointError(
                f"the base run of {folder} is not in {home}: name the workdir that holds it"
            )
        return _Source(cfg, home)
    own = configuration(home)
    # It is drawn as this workdir scores it, on this one's data, which is the same.
    own.score, own.data = cfg.score, cfg.data
    return _Source(own, home / "checkpoints" / job.run)


def _points(x: np.ndarray, labels: np.ndarray | None, notes: Notes) -> Input:
    """Points in the plane are their own features."""
    stats = statistics(x, encoder="pixels", labels=labels, place=notes.name)
    return Input(notes.name, notes, stats=stats)


def _data(dataset: data.AnyDataset, notes: Notes) -> Input:
    if isinstance(dataset, data.FileDataset):
        return Input(notes.name, notes, Loaded(dataset, notes))
    labels = dataset.labels if dataset.num_classes > 1 else None
    if len(dataset.shape) == 1:
        return _points(dataset.images, labels, notes)
    return Input(notes.name, notes, Array(score.to_stored(dataset.images)["images"], notes, labels))


def _stored(path: Path, origin: _Source, notes: Notes, n: int, seed: int) -> Input | None:
    """n samples (0: all) of those that were stored, by a shuffle; None where they are fewer."""
    held = arrays.read(path, notes)
    name = arrays.chosen(held, str(path))
    if name not in ("images", "points"):
        raise DataError(f"{path} holds neither images nor points: score the run again")
    labels, x = arrays.labels(held, len(held[name]), str(path)), held[name]
    if len(x) < n:
        return None
    step = origin.step()
    older = step is not None and path.stat().st_mtime < os.path.getmtime(steps(origin.where)[step])
    if older:
        notes.say(
            f"the stored samples are older than the checkpoint of step {step}: score the run "
            f"again, or remove {path} and new ones are drawn"
        )
    of, taken = len(x), n or len(x)
    if taken < of:
        rows = conventions.shuffled(taken, of, seed, FAKE)
        x, labels = x[rows], None if labels is None else labels[rows]
    notes.say(
        f"{taken} of the {of} samples that were stored for its score"
        + (", by a seeded shuffle" if taken < of else "")
        + f": of {origin.told()}, {_bounded(origin.cfg.score.truncation)}"
    )
    if name == "points":
        return _points(x, labels, notes)
    return Input(notes.name, notes, arrays.images(x, notes, labels))


def _bounded(truncation: float) -> str:
    return f"truncation {truncation:g}" if truncation else "without truncation"


def _drawn(
    origin: _Source,
    job: Job,
    notes: Notes,
    n: int,
    truncation: float | None,
    seed: int,
    sampler: samplers.Sampler | None,
) -> Input:
    """Samples of a generator, made as they are read; those of a sampler are chosen here."""
    _check_ratio(origin, notes.name, sampler)
    cfg = origin.cfg
    parts = build.splits(cfg)
    system = _system(cfg, parts.train)
    state = None if origin.converted else _restored(origin, job, system, parts)
    if state is not None and system.dial is not None and job.lam is not None:
        system, state = train.turned(system, state, job.lam)
    net = _converted(origin, parts) if state is None else state.ema
    bound = cfg.score.truncation if truncation is None else truncation
    if sampler is not None:
        # A ratio is that to the generator without truncation.
        bound = sampler.at if isinstance(sampler, samplers.Truncation) else 0.0
    net, key = score.ready(cfg, system, net, bound)
    key = jax.random.fold_in(jax.random.fold_in(key, _SEEDS), job.seed)
    held_out = parts.held_out(cfg.score.split)
    count = n or held_out.size
    labels = _spread(_classes(held_out, notes), count, seed)
    through = "" if sampler is None else f" through {sampler_text(sampler)}"
    notes.say(f"{count} samples, drawn anew{through}: of {origin.told()}, {_bounded(bound)}")
    batch, cost = cfg.score.batch, None
    if state is None or sampler is None or not sampler.needs_ratio:
        z = np.asarray(sampling.latents(key, count, system.dim_z, bound))
        cost = None if sampler is None else samplers.Cost(count, count)
    else:
        valid = parts.valid.take(build.spread(parts.valid.size, _STARTS))
        drawn = state.replace(generator=net)
        held = drawing.Held(valid.images, valid.labels)
        try:
            chosen = drawing.latents(system, drawn, labels, key, sampler, held=held, batch=batch)
        except DataError as error:
            raise DataError(f"{notes.name}: {error}") from error
        z, cost = chosen.z, chosen.cost
        for line in chosen.notes:
            notes.say(line)
    own = labels if held_out.num_classes > 1 else None
    if len(held_out.shape) == 1:
        x = sampling.of_latents(system, net, z, labels, batch=batch)
        return _points(x, own, notes)._replace(cost=cost)
    names: Sequence[str] | None = None if own is None else ()
    if names is not None and isinstance(held_out, data.FileDataset):
        names = tuple(held_out.class_names)
    source = Generated(system, net, z, labels, batch, held_out.shape[2], names, notes)
    return Input(notes.name, notes, source, cost=cost)


def _system(cfg: config.Config, dataset: data.AnyDataset) -> train.System:
    """The same object for runs of one configuration, whose programs are then compiled once."""
    shape = (dataset.shape, dataset.num_classes, dataset.levels)
    key = json.dumps([record.to_plain(cfg), shape], sort_keys=True)
    if key not in _SYSTEMS:
        _SYSTEMS[key] = build.system(cfg, dataset)
    return _SYSTEMS[key]


def _spread(known: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(count,) classes: all that are known as often as they go in, and of the rest a shuffle."""
    whole, rest = divmod(count, len(known))
    some = conventions.shuffled(rest, len(known), seed, FAKE)
    return np.concatenate([*[known] * whole, known[some]]).astype(np.int32)


def _converted(origin: _Source, parts: build.Splits) -> train.Net:
    """The averaged generator of a folder of converted weights of this configuration's model."""
    stored, info = weights.read_weights(origin.where)
    shape, classes = parts.train.shape, parts.train.num_classes
    model = origin.cfg.model.to_dict()
    weights.check(origin.where, info, model, shape[0], classes, channels=shape[-1])
    return train.Net(stored.ema["params"], stored.ema["extra"])


def _restored(
    origin: _Source, job: Job, system: train.System, parts: build.Splits
) -> train.TrainState:
    """A finished run of this configuration's data and model."""
    where, cfg = origin.where, origin.cfg
    if checkpoint.latest(where) is None:
        raise _no_checkpoint(where, job)
    example = jax.ShapeDtypeStruct((2, *parts.train.shape), "float32")
    dials = build.dials(cfg, None)
    like = jax.eval_shape(
        lambda key, x: train.init(system, key, x, dials), jax.random.key(0), example
    )
    step = origin.best()
    state, meta = checkpoint.restore(where, like, step)
    saved, now = meta.get("settings", {}), settings(cfg)
    shared = [knob for knob in now if knob.startswith("model.")]
    check_same({k: saved.get(k) for k in shared}, {k: now[k] for k in shared}, where)
    total = saved.get("train.steps", 0) + saved.get("train.warmup", 0)
    if step is None and int(state.step) < total:
        raise CheckpointError(
            f"{where} holds step {int(state.step)} of {total}: that run was interrupted; finish it "
            "with the command that began it"
        )
    return state


def _classes(held_out: data.AnyDataset, notes: Notes) -> np.ndarray:
    """Classes to draw: those of the held-out items, or every class once where not known."""
    if isinstance(held_out, data.Dataset):
        return held_out.labels
    known = held_out.items.labels
    if known is not None:
        return known[held_out.rows]
    notes.say(
        "classes were drawn each as often, or by a shuffle where there are more classes than "
        "samples: those of the held-out images are not known"
    )
    return np.arange(held_out.num_classes)


class Generated:
    """Images that a generator makes when they are read; one batch at a time.

    Args:
      system, net: the generator.
      z, labels: (N, dim_z) and (N,): what each image is made of.
      batch: images at once.
      channels: of an image.
      class_names: of the labels, () for numbers alone, or None where there is one class.
      notes: of this source.
    """

    def __init__(
        self,
        system: train.System,
        net: train.Net,
        z: np.ndarray,
        labels: np.ndarray,
        batch: int,
        channels: int,
        class_names: Sequence[str] | None,
        notes: Notes,
    ):
        self._system, self._net, self._z, self._labels = system, net, z, labels
        self.size, self.chunk, self.channels = len(z), batch, channels
        self.class_names, self.notes = class_names, notes
        self._lock = threading.Lock()

    def place(self, row: int) -> str:
        return f"sample {row} of {self.notes.name}"

    def read(self, rows: np.ndarray) -> list[tuple[np.ndarray, int]]:
        pad = -len(rows) % self.chunk  # one size, one compilation
        z = np.concatenate([self._z[rows], np.zeros((pad, self._z.shape[1]), self._z.dtype)])
        y = np.concatenate([self._labels[rows], np.zeros(pad, np.int32)])
        parts = []
        with self._lock:  # a batch already has all of the device
            for at in range(0, len(z), self.chunk):
                some = slice(at, at + self.chunk)
                made = sampling.draw(self._system.generator, self._net, z[some], y[some])
                parts.append(np.asarray(made))
        x = np.concatenate(parts)[: len(rows)]
        bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
        if bad.any():
            raise DataError(
                f"{self.place(int(rows[bad][0]))} holds NaN or infinity: look at the run's losses"
            )
        labels = [-1] * len(rows) if self.class_names is None else self._labels[rows].tolist()
        return list(zip(score.to_stored(x)["images"], labels, strict=True))
