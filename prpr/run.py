"""The narrative of a run: train many runs side by side, resume, sample, score, report.

    workdir/
      config.json environment.json metrics.jsonl      the record (`prpr.record`)
      base/                                           the workdir of the base run, if made here
      checkpoints/<run>/<step>/                       one run is one (λ or control, seed)
      samples/<run>.npz, samples/real.npz             what was scored
      summary.json figures/ report.html               the result

A run's checkpoint carries the settings that made it: the same command resumes, other settings in
the same workdir are refused, and what is finished is reused.
"""

import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import (
    build,
    checkpoint,
    config,
    data,
    objectives,
    parallel,
    progress,
    record,
    report,
    score,
    train,
)
from prpr.errors import CheckpointError, ConfigError, PrprError, WorkdirError

# Knobs that do not change what a run computes: they may differ when it is resumed.
_FREE = ("name", "lams", "seeds", "control", "control_recipe", "score", "base")
_INTERVALS = ("log_every", "diagnose_every", "checkpoint_every")
_FREE_TRAIN = (*_INTERVALS, "keep", "tensorboard", "devices")


class Job(NamedTuple):
    """One run to train: its name, its λ (None without one), its seed."""

    name: str
    lam: float | None
    seed: int

    @property
    def run(self) -> str:
        """The run's name in the record, in checkpoints/ and in samples/."""
        return f"{self.name}-seed{self.seed}"


class Trained(NamedTuple):
    """A finished run; `seconds` is its share of its group's time, all calls together."""

    job: Job
    state: train.TrainState
    seconds: float


def lam_name(lam: float) -> str:
    """The name of a λ: as short as tells it from every other float."""
    short = f"{lam:g}"
    return f"lam_{short if float(short) == lam else repr(float(lam))}"


def settings(cfg: config.Config) -> dict[str, Any]:
    """The settings that decide what a run computes, as {dotted knob: value}.

    Dials that the objective does not read are left out.
    """
    flat: dict[str, Any] = {}

    def walk(tree: Any, prefix: str) -> None:
        for name, value in tree.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")
            elif prefix + name not in free:
                flat[prefix + name] = record.to_plain(value)

    read = objectives.get(cfg.objective).dials
    free = {f"train.{name}" for name in _FREE_TRAIN}
    free |= {f"dials.{name}" for name in cfg.dials if name not in read}
    walk({k: v for k, v in cfg.to_dict().items() if k not in _FREE}, "")
    return flat


def _check_same(saved: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Raises WorkdirError if a checkpoint was made with other settings, naming them."""
    different = [
        f"{knob}: {saved.get(knob)!r} there, {now.get(knob)!r} now"
        for knob in sorted({*saved, *now})
        if saved.get(knob) != now.get(knob)
    ]
    if different:
        raise WorkdirError(
            f"{where} holds a run with other settings ({'; '.join(different[:4])}). "
            "Choose another --workdir or base, or delete that run to train it anew."
        )


class Trainer:
    """Trains the jobs of one program (they differ in λ and seed only) to the end.

    Args:
      cfg: a valid configuration.
      parts: its data, from `build.check`.
      workdir: where checkpoints go.
      devices: from `parallel.setup`.
    """

    def __init__(self, cfg: config.Config, parts: build.Splits, workdir: Path, devices: int):
        self.cfg, self.workdir = cfg, workdir
        self.system = build.system(cfg, parts.train)
        self.fleet = parallel.Fleet(devices)
        self.total = cfg.train.warmup + cfg.train.steps
        self._parts = parts
        self._settings = settings(cfg)
        self._batches: dict[int, data.Batches] = {}
        self._bases: Mapping[int, int] = {}
        self._heldout = {"image": parts.valid.images, "label": parts.valid.labels}
        example = jnp.asarray(parts.train.images[:2])
        self._init = jax.jit(lambda key, dials: train.init(self.system, key, example, dials))
        # Each program is compiled once, for all λ and seeds; see train.make_step.
        self._critic_update = self.fleet.map(
            lambda state, batch: train.critic_update(self.system, state, batch)
        )
        self._generator_update = self.fleet.map(
            lambda state: train.generator_update(self.system, state, cfg.train.batch)
        )
        self._diagnose = self.fleet.map(
            lambda state, heldout: train.diagnose(self.system, state, heldout), in_axes=(0, None)
        )

    def folder(self, job: Job) -> Path:
        return self.workdir / "checkpoints" / job.run

    def like(self) -> train.TrainState:
        """The shapes of a state, without arrays: what a checkpoint must fit."""
        example = jnp.zeros((2, *self._parts.train.images.shape[1:]), jnp.float32)
        dials = build.dials(self.cfg, None)
        return jax.eval_shape(lambda: train.init(self.system, jax.random.key(0), example, dials))

    def fresh(self, job: Job) -> train.TrainState:
        """A state from scratch."""
        return self._init(jax.random.key(job.seed), build.dials(self.cfg, job.lam))

    def from_base(self, job: Job, base: train.TrainState) -> train.TrainState:
        """A state that goes on from a base run's networks, with fresh optimisers."""
        return train.start(
            self.system,
            jax.random.fold_in(jax.random.key(job.seed), 1),
            base.critic,
            base.generator,
            base.ema,
            build.dials(self.cfg, job.lam),
        )

    def check(self, jobs: Sequence[Job], bases: Mapping[int, int] | None = None) -> None:
        """Raises WorkdirError if a job's folder holds another run; reads only.

        Args:
          jobs: the runs to look for.
          bases: seed -> fingerprint of the networks that the runs start from, if they do.
        """
        for job in jobs:
            meta = checkpoint.read_meta(self.folder(job))
            if meta is None:
                continue
            saved, now = meta.get("settings", {}), self._settings
            if bases is not None:
                saved, now = {**saved, "base": meta.get("base")}, {**now, "base": bases[job.seed]}
            _check_same(saved, now, self.folder(job))

    def unfinished(self, job: Job) -> bool:
        """Whether a job still has steps to do."""
        return (checkpoint.latest(self.folder(job)) or 0) < self.total

    def load(self, job: Job) -> Trained:
        """A finished run of the same data and model, from its checkpoint.

        Raises:
          CheckpointError: it is not there, damaged, of another shape, or not finished.
          WorkdirError: it was trained on other data (held-out images among them, perhaps).
        """
        folder = self.folder(job)
        if checkpoint.latest(folder) is None:
            raise CheckpointError(
                f"no checkpoint of {job.run} in {folder}: train it with experiments/train_gan.py, "
                "or mend config.base.path and config.seeds."
            )
        state, meta = checkpoint.restore(folder, self.like())
        saved = meta.get("settings", {})
        total = saved.get("train.steps", 0) + saved.get("train.warmup", 0)
        if int(state.step) < total:
            raise CheckpointError(
                f"{folder} holds step {int(state.step)} of {total}: that base run was interrupted; "
                "finish it with the command that began it."
            )
        shared = [k for k in self._settings if k.startswith(("data.", "model."))]
        _check_same(
            {k: saved.get(k) for k in shared}, {k: self._settings[k] for k in shared}, folder
        )
        return Trained(job, state, float(meta.get("seconds", 0.0)))

    def _restored(self, job: Job) -> tuple[train.TrainState, float] | None:
        folder = self.folder(job)
        if checkpoint.latest(folder) is None:
            return None
        state, meta = checkpoint.restore(folder, self.like())
        return state, float(meta.get("seconds", 0.0))

    def run(
        self,
        jobs: Sequence[Job],
        begin: Callable[[Job], train.TrainState],
        rec: record.Record,
        bases: Mapping[int, int] | None = None,
    ) -> list[Trained]:
        """Trains every job, resuming or reusing what is there.

        Args:
          jobs: what to train.
          begin: job -> its state at step 0; called only for a job without checkpoint.
          rec: the open record.
          bases: seed -> fingerprint of what the runs start from, kept in their checkpoints.

        Raises:
          PrprError: a run whose parameters are no longer finite; its last checkpoint stays.
        """
        self._bases = bases or {}
        found = [(job, self._restored(job)) for job in jobs]
        states = [(job, *(got or (begin(job), 0.0))) for job, got in found]
        for job, state, _ in states:
            rec.rewind(int(state.step), job.run)
        done = {job.run: Trained(job, s, t) for job, s, t in states if int(s.step) >= self.total}
        # Runs at one step go side by side; a kill between two saves can leave them at several.
        by_step: dict[int, list[tuple[Job, train.TrainState, float]]] = {}
        for item in states:
            if item[0].run not in done:
                by_step.setdefault(int(item[1].step), []).append(item)
        todo = sum(len(items) * (self.total - at) for at, items in by_step.items())
        if todo:
            names = ", ".join(dict.fromkeys(job.name for job in jobs))
            with progress.Progress(todo, desc=f"train {names}") as bar:
                for at in sorted(by_step):
                    for i in range(0, len(by_step[at]), self.fleet.width):
                        for trained in self._together(
                            by_step[at][i : i + self.fleet.width], at, rec, bar
                        ):
                            done[trained.job.run] = trained
        return [done[job.run] for job in jobs]

    def _batch(self, job: Job, step: int, index: int, advance: int) -> dict[str, Any]:
        """The batch of a critic update: a function of (seed, step, its place in the step)."""
        if job.seed not in self._batches:
            self._batches[job.seed] = data.Batches(
                self._parts.train, self.cfg.train.batch, job.seed
            )
        batch = self._batches[job.seed].batch(step * self.system.critic_steps + index)
        return {**batch, "index": np.int32(index), "advance": np.int32(advance)}

    def _step(
        self, jobs: Sequence[Job], stacked: train.TrainState, step: int
    ) -> tuple[train.TrainState, train.Scalars]:
        """`train.make_step`'s step for stacked runs, update by update."""
        moves = step >= self.cfg.train.warmup
        scalars: train.Scalars = {}
        for i in range(self.system.critic_steps):
            ends = i == self.system.critic_steps - 1 and not moves
            batch = self.fleet.stack([self._batch(job, step, i, int(ends)) for job in jobs])
            stacked, scalars = self._critic_update(stacked, batch)
        if moves:
            stacked, more = self._generator_update(stacked)
            scalars = {**scalars, **more, "finite": scalars["finite"] * more["finite"]}
        return stacked, scalars

    def _together(
        self,
        items: Sequence[tuple[Job, train.TrainState, float]],
        at: int,
        rec: record.Record,
        bar: progress.Progress,
    ) -> list[Trained]:
        """Trains one group, a run a device, from step `at` to the end."""
        jobs = [job for job, _, _ in items]
        before = [seconds for _, _, seconds in items]
        stacked = self.fleet.stack([state for _, state, _ in items])
        t, start = self.cfg.train, time.monotonic()
        trained: list[Trained] = []
        for step in range(at, self.total):
            stacked, scalars = self._step(jobs, stacked, step)
            bar.update(len(jobs))
            now = step + 1
            due = {name: now % t[name] == 0 or now == self.total for name in _INTERVALS}
            if due["log_every"] or due["checkpoint_every"]:
                self._log(rec, jobs, now, self.fleet.unstack(scalars, len(jobs)))
            if due["diagnose_every"]:
                found = self._diagnose(stacked, self._heldout)
                for job, values in zip(jobs, self.fleet.unstack(found, len(jobs)), strict=True):
                    rec.scalars(now, values, job.run)
            if due["checkpoint_every"]:
                elapsed = (time.monotonic() - start) / len(jobs)
                states = self.fleet.unstack(stacked, len(jobs))
                trained = [
                    Trained(job, state, seconds + elapsed)
                    for job, state, seconds in zip(jobs, states, before, strict=True)
                ]
                for item in trained:
                    self._save(item, now)
        return trained  # of the last step, which always saves

    def _log(
        self, rec: record.Record, jobs: Sequence[Job], now: int, scalars: list[train.Scalars]
    ) -> None:
        for job, values in zip(jobs, scalars, strict=True):
            rec.scalars(now, values, job.run)
            if not values["finite"]:
                raise PrprError(
                    f"{job.run}: its parameters are no longer finite at step {now}. The last "
                    f"whole checkpoint is kept in {self.folder(job)}. In another --workdir, lower "
                    "config.generator.lr and config.critic.lr or raise config.critic.r1; or leave "
                    "that λ or seed out."
                )

    def _save(self, trained: Trained, now: int) -> None:
        job, state, seconds = trained
        meta = {
            "run": job.run,
            "lam": job.lam,
            "seed": job.seed,
            "base": self._bases.get(job.seed),
            "settings": self._settings,
            "seconds": seconds,
        }
        checkpoint.save(self.folder(job), now, state, meta, keep=self.cfg.train.keep)


# --- entry points -----------------------------------------------------------------------


def train_base(cfg: config.Config, workdir: str | os.PathLike) -> dict[str, Any]:
    """Trains `cfg` from scratch at every seed (and λ, where its objective has one) and scores it.

    Returns:
      The summary, as written to summary.json.

    Raises:
      PrprError: see `build.check`, `Trainer.run`.
    """
    config.validate(cfg)
    if not cfg.lams and "lam" in objectives.get(cfg.objective).dials:
        raise ConfigError(
            f"config.lams is empty and config.objective = {cfg.objective!r} needs a λ; name "
            "one, or train with objective = 'hinge' and critic.loss = 'hinge'."
        )
    jobs = _jobs(cfg) or [Job("base", None, seed) for seed in cfg.seeds]
    devices = parallel.setup(cfg.train.devices, len(jobs))
    parts = build.check(cfg)
    folder = Path(workdir).expanduser()
    trainer = Trainer(cfg, parts, folder, devices)
    trainer.check(jobs)
    with record.Record(folder, cfg, tensorboard=cfg.train.tensorboard) as rec:
        results = trainer.run(jobs, trainer.fresh, rec)
        return _finish(cfg, parts, folder, rec, [(trainer, item) for item in results])


def finetune(cfg: config.Config, workdir: str | os.PathLike) -> dict[str, Any]:
    """Fine-tunes the base run at every λ and seed, and its control; scores and reports them.

    The base is taken from `cfg.base.path`; where that is empty, from WORKDIR/base, which is
    trained first if it is not there.

    Returns:
      The summary, as written to summary.json.

    Raises:
      CheckpointError: a base that is missing, damaged, or of another shape.
      PrprError: see `build.check`, `Trainer.run`.
    """
    config.validate(cfg)
    jobs = _jobs(cfg)
    controls = [Job("control", None, seed) for seed in cfg.seeds if cfg.control]
    bases = [Job("base", None, seed) for seed in cfg.seeds]
    devices = parallel.setup(cfg.train.devices, max(map(len, (jobs, controls, bases))))
    parts = build.check(cfg)
    folder = Path(workdir).expanduser()
    home = Path(cfg.base.path).expanduser() if cfg.base.path else folder / "base"
    base_cfg = config.base_of(cfg)
    base_trainer = Trainer(base_cfg, parts, home, devices)
    tuned = [
        (Trainer(of, parts, folder, devices), group)
        for of, group in ((config.control_of(cfg), controls), (cfg, jobs))
        if group
    ]
    # All that can be refused is refused here, before anything in the workdir changes.
    for trainer, group in tuned:
        trainer.check(group)
    if not cfg.base.path:
        base_trainer.check(bases)
        if any(map(base_trainer.unfinished, bases)):
            record.Record(folder).close()  # a workdir that cannot be written costs no training
            print(f"No finished base run in {home} yet: training it first.", flush=True)
            train_base(base_cfg, home)
    started = {job.seed: base_trainer.load(job) for job in bases}
    prints = {seed: _fingerprint(item.state) for seed, item in started.items()}
    for trainer, group in tuned:
        trainer.check(group, prints)
    with record.Record(folder, cfg, tensorboard=cfg.train.tensorboard) as rec:
        results = [(base_trainer, item) for item in started.values()]
        for trainer, group in tuned:
            begin = _from(trainer, started)
            results += [(trainer, item) for item in trainer.run(group, begin, rec, prints)]
        return _finish(cfg, parts, folder, rec, results)


def _fingerprint(state: train.TrainState) -> int:
    """A checksum of the networks that a fine-tune starts from."""
    leaves = jax.tree.leaves((state.critic, state.generator, state.ema))
    total = 0
    for leaf in leaves:
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total


def _jobs(cfg: config.Config) -> list[Job]:
    return [Job(lam_name(lam), float(lam), seed) for seed in cfg.seeds for lam in cfg.lams]


def _from(trainer: Trainer, bases: dict[int, Trained]) -> Callable[[Job], train.TrainState]:
    return lambda job: trainer.from_base(job, bases[job.seed].state)


def _finish(
    cfg: config.Config,
    parts: build.Splits,
    folder: Path,
    rec: record.Record,
    results: Sequence[tuple[Trainer, Trained]],
) -> dict[str, Any]:
    """Scores every run, writes summary.json, draws the report, prints the table."""
    start = time.monotonic()
    scorer = score.Scorer(cfg, parts, folder)
    with progress.Progress(len(results), desc="score") as bar:
        for trainer, (job, state, _) in results:
            scorer.add(trainer.system, job.name, job.lam, job.seed, state.ema)
            bar.update()
    trained = sum(item.seconds for _, item in results)
    summary = scorer.summary(round(trained + time.monotonic() - start, 2))
    rec.summary(summary)
    page = report.make(folder)
    print(report.table(summary))
    print(f"\nreport: {page}")
    return summary
