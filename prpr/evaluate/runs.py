"""Samples of a prpr run: what it stored when it was scored, or new ones from its checkpoint.

    WORKDIR?lam=5&seed=0      the run of a λ
    WORKDIR?run=control       its control; run=base: the base run, which may lie elsewhere
    WORKDIR?real              the held-out data that its scores are against
    WORKDIR?train             its training data

Without a seed it is the first of the configuration. Stored samples are taken where they are
enough; else new ones are drawn as for its scores: the averaged generator (the best checkpoint
where `score.checkpoint` says so), standing statistics and truncation as configured, classes as
they are held out, and the same latents for all runs.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prpr import build, checkpoint, config, data, record, run, sampling, score, train
from prpr.errors import CheckpointError, ConfigError, DataError, unknown_name
from prpr.evaluate import arrays
from prpr.evaluate.images import Array, Loaded
from prpr.evaluate.inputs import Input
from prpr.evaluate.notes import Notes
from prpr.jobs import Job, check_same, settings
from prpr.metrics import statistics
from prpr.sweep.tasks import from_plain

_PARTS = ("lam", "run", "seed", "real", "train")


def open_run(
    folder: Path, query: dict[str, str], notes: Notes, n: int = 0, truncation: float | None = None
) -> Input:
    """Opens what a query asks of a run's workdir; see the module's head.

    Args:
      folder: the workdir.
      query: the parts after the "?".
      notes: of this input.
      n: how many samples; 0 is as many as were stored or are held out.
      truncation: of the latents; None is the configuration's.

    Raises:
      ConfigError: a query that cannot be understood, or no such run.
      CheckpointError: no checkpoint, a damaged one, or one of an unfinished run.
      DataError: data that cannot be loaded.
    """
    for part in query:
        if part not in _PARTS:
            raise unknown_name(f"part of {notes.name!r} after the '?',", part, _PARTS)
    asked = [part for part in ("lam", "run", "real", "train") if part in query]
    if len(asked) != 1:
        held = ", ".join(runs_of(folder)) or "none"
        raise ConfigError(
            f"{folder} is the workdir of a run: say which samples with one of ?lam=5, "
            f"?run=control, ?run=base, ?real, ?train; it holds {held}"
        )
    cfg = configuration(folder)
    if asked[0] in ("real", "train"):
        if truncation is not None:
            raise ConfigError(f"{notes.name} is data: truncation needs a generator, ?lam=5")
        parts = build.splits(cfg)
        held_out = asked[0] == "real"
        return _data(parts.held_out(cfg.score.split) if held_out else parts.train, notes)
    job = _job(folder, cfg, query)
    if job.name == "base":
        folder, cfg = _base(folder, cfg, job)
    stored = folder / "samples" / f"{job.run}.npz"
    if truncation is None and stored.is_file():
        found = _stored(stored, notes, n)
        if found.size >= n:
            return found
    return _drawn(folder, cfg, job, notes, n, truncation)


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
    if job.name != "base" and job.run not in runs:
        raise unknown_name(f"run in {folder},", job.run, runs)
    return job


def _base(folder: Path, cfg: config.Config, job: Job) -> tuple[Path, config.Config]:
    """(the base run's workdir, its configuration)."""
    home = Path(cfg.base.path).expanduser() if cfg.base.path else folder / "base"
    if (folder / "checkpoints" / job.run).is_dir():
        return folder, cfg  # a workdir of experiments/train_gan.py
    if not (home / "config.json").is_file():
        raise CheckpointError(
            f"the base run of {folder} is not in {home}: name the workdir that holds it"
        )
    return home, configuration(home)


def _points(x: np.ndarray, labels: np.ndarray | None, notes: Notes) -> Input:
    """Points in the plane are their own features."""
    stats = statistics(x, encoder="pixels", labels=labels, place=notes.name)
    return Input(notes.name, notes, stats=stats)


def _data(dataset: data.AnyDataset, notes: Notes) -> Input:
    if isinstance(dataset, data.FileDataset):
        source: Any = Loaded(dataset, notes)
        return Input(notes.name, notes, source, class_names=source.class_names)
    labels = dataset.labels if dataset.num_classes > 1 else None
    if len(dataset.shape) == 1:
        return _points(dataset.images, labels, notes)
    source = Array(score.to_stored(dataset.images)["images"], notes, labels)
    return Input(notes.name, notes, source, class_names=source.class_names)


def _stored(path: Path, notes: Notes, n: int) -> Input:
    """The first n samples (0: all) that were stored, which are sets like the held-out items."""
    held = arrays.read(path)
    name = arrays.chosen(held, str(path))
    if name not in ("images", "points"):
        raise DataError(f"{path} holds neither images nor points: score the run again")
    labels = arrays.labels(held, len(held[name]), str(path))
    x = held[name][: n or None]
    labels = None if labels is None else labels[: len(x)]
    if name == "points":
        return _points(x, labels, notes)
    source = arrays.images(x, notes, labels)
    return Input(notes.name, notes, source, class_names=source.class_names)


def _drawn(
    folder: Path,
    cfg: config.Config,
    job: Job,
    notes: Notes,
    n: int,
    truncation: float | None,
) -> Input:
    """Samples of a generator, made as they are read."""
    if job.name == "control":
        cfg = config.control_of(cfg)
    parts = build.splits(cfg)
    system = build.system(cfg, parts.train)
    net = _restored(folder, cfg, job, system, parts)
    bound = cfg.score.truncation if truncation is None else truncation
    net, key = score.ready(cfg, system, net, bound)
    held_out = parts.held_out(cfg.score.split)
    count = n or held_out.size
    labels = np.resize(_classes(held_out, notes), count).astype(np.int32)
    drawn = {"truncation": bound, "batch": cfg.score.batch}
    own = labels if held_out.num_classes > 1 else None
    if len(held_out.shape) == 1:
        return _points(sampling.sample(system, net, labels, key, **drawn), own, notes)
    z = np.asarray(sampling.latents(key, count, system.dim_z, bound))
    names = None if own is None else tuple(map(str, range(held_out.num_classes)))
    if names is not None and isinstance(held_out, data.FileDataset):
        names = tuple(held_out.class_names)
    source = Generated(system, net, z, labels, cfg.score.batch, held_out.shape[2], names, notes)
    return Input(notes.name, notes, source, class_names=names)


def _restored(
    folder: Path, cfg: config.Config, job: Job, system: train.System, parts: build.Splits
) -> train.Net:
    """The averaged generator of a finished run of this configuration's data and model."""
    where = folder / "checkpoints" / job.run
    if checkpoint.latest(where) is None:
        raise CheckpointError(
            f"no checkpoint of {job.run} in {where}, and no stored samples that are enough: train "
            "it, or ask for fewer samples with --n_fake"
        )
    example = jax.ShapeDtypeStruct((2, *parts.train.shape), "float32")
    dials = build.dials(cfg, None)
    like = jax.eval_shape(
        lambda key, x: train.init(system, key, x, dials), jax.random.key(0), example
    )
    step = checkpoint.best(where) if cfg.score.checkpoint == "best" else None
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
    return state.ema


def _classes(held_out: data.AnyDataset, notes: Notes) -> np.ndarray:
    """Classes to draw: those of the held-out items, or each as often where they are not known."""
    if isinstance(held_out, data.Dataset):
        return held_out.labels
    known = held_out.items.labels
    if known is not None:
        return known[held_out.rows]
    notes.say("classes were drawn each as often: those of the held-out images are not known")
    return np.arange(held_out.num_classes)


class Generated:
    """Images that a generator makes when they are read; one batch at a time.

    Args:
      system, net: the generator.
      z, labels: (N, dim_z) and (N,): what each image is made of.
      batch: images at once.
      channels: of an image.
      class_names: of the labels, or None where there is one class.
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
