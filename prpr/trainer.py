"""Trains many runs of one program: side by side, resuming, with a record and checkpoints.

A run is one (λ or control, seed). Its checkpoint carries the settings that made it: the same
command resumes, other settings in the same workdir are refused, and what is finished is reused.
How devices are used is `prpr.parallel`'s business: a group of runs is placed on them, and comes
back to the host when it is scored.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    health,
    parallel,
    preempt,
    processes,
    progress,
    record,
    train,
)
from prpr.errors import CheckpointError, Preempted, PrprError
from prpr.jobs import Job, check_same, settings, shaped_as
from prpr.models.flows import bits_per_dim

_FEW = 16  # held-out items, of which neighbours say nothing
_OF_RATIO = ("heldout_", "moved_share", "normalisation", "log_r_")
_INTERVALS = ("log_every", "diagnose_every", "checkpoint_every")


class Trained(NamedTuple):
    """A finished run; `seconds` is its share of its group's time, all calls together."""

    job: Job
    state: train.TrainState
    seconds: float


class Trainer:
    """Trains the jobs of one program (they differ in λ and seed only) to the end.

    Args:
      cfg: a valid configuration.
      parts: its data, from `build.check`.
      workdir: where checkpoints go.
      devices: from `parallel.setup`.
      stop: the command's.
    """

    def __init__(
        self,
        cfg: config.Config,
        parts: build.Splits,
        workdir: Path,
        devices: int,
        stop: preempt.Preemption,
    ):
        self.cfg, self.workdir, self.stop = cfg, workdir, stop
        self.fleet = parallel.fleet(cfg.train.layout, devices, cfg.train.together)
        self.system = build.system(cfg, parts.train, self.fleet.axis_name)
        self.total = cfg.train.warmup + cfg.train.steps
        self.parts = parts
        self.settings = {**settings(cfg), "data.size": parts.train.size}
        self._batches: dict[int, data.Batches] = {}
        self._bases: Mapping[int, int] = {}
        # For what is not mapped: initial states, samples.
        self.alone = build.system(cfg, parts.train)
        self._example = build.example(self.alone, parts.train)
        self._fresh = lambda key, dials: train.init(self.alone, key, self._example, dials)
        self._init = jax.jit(self._fresh)
        # Each program is compiled once, for all λ and seeds; see train.make_step.
        self._critic_update = self.fleet.map(
            lambda state, batch: train.critic_update(self.system, state, batch), donate=True
        )
        self._n = build.share(cfg, self.fleet.share)
        self._generator_update = self.fleet.map(build.generator_step(self.system, self._n), True)
        self._held_out = self.fleet.map(
            lambda state, batch: train.held_out(self.system, state, batch)
        )
        self._diagnose = jax.jit(train.diagnose)
        self._health = jax.jit(_health)

    # ---- states ------------------------------------------------------------------------

    def folder(self, job: Job) -> Path:
        return self.workdir / "checkpoints" / job.run

    def like(self, saved: Mapping[str, Any] | None = None) -> train.TrainState:
        """The shapes of a state, without arrays: what a checkpoint must fit.

        With settings that were saved it is the state of a run that may have been steadied otherwise
        than this one; see `jobs.shaped_as`.
        """
        fresh = self._fresh
        if saved is not None:
            system = build.system(shaped_as(self.cfg, saved), self.parts.train)
            fresh = lambda key, dials: train.init(system, key, self._example, dials)  # noqa: E731
        return jax.eval_shape(fresh, jax.random.key(0), build.dials(self.cfg, None))

    def fresh(self, job: Job) -> train.TrainState:
        """A state from scratch."""
        return self._init(jax.random.key(job.seed), build.dials(self.cfg, job.lam))

    def from_base(self, job: Job, base: train.TrainState) -> train.TrainState:
        """A state that goes on from a base run's networks, with fresh optimisers."""
        critic, generator, ema = base.critic, base.generator, base.ema
        if self.system.dial is not None:
            new = self.fresh(job)
            critic, ema = train.grafted(new.critic, critic), train.grafted(new.ema, ema)
            generator = train.grafted(new.generator, generator)
        return train.start(
            self.system,
            jax.random.fold_in(jax.random.key(job.seed), 1),
            critic,
            generator,
            ema,
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
            saved, now = meta.get("settings", {}), self.settings
            if bases is not None:
                saved, now = {**saved, "base": meta.get("base")}, {**now, "base": bases[job.seed]}
            check_same(saved, now, self.folder(job))

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
        saved = (checkpoint.read_meta(folder) or {}).get("settings", {})
        state, meta = checkpoint.restore(folder, self.like(saved))
        total = saved.get("train.steps", 0) + saved.get("train.warmup", 0)
        if int(state.step) < total:
            raise CheckpointError(
                f"{folder} holds step {int(state.step)} of {total}: that base run was interrupted; "
                "finish it with the command that began it."
            )
        shared = [k for k in self.settings if k.startswith(("data.", "model."))]
        check_same({k: saved.get(k) for k in shared}, {k: self.settings[k] for k in shared}, folder)
        return Trained(job, jax.device_get(state), float(meta.get("seconds", 0.0)))

    def best(self, job: Job) -> train.Net | None:
        """The averaged generator of a run's best checkpoint; None if none has a score."""
        folder = self.folder(job)
        step = checkpoint.best(folder)
        return None if step is None else checkpoint.restore(folder, self.like(), step)[0].ema

    def _restored(self, job: Job) -> "_Underway | None":
        folder = self.folder(job)
        if checkpoint.latest(folder) is None:
            return None
        state, meta = checkpoint.restore(folder, self.like())
        watch = health.Watch.from_state(meta.get("watch", {}))
        return _Underway(job, jax.device_get(state), float(meta.get("seconds", 0.0)), watch)

    # ---- training ----------------------------------------------------------------------

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
          Preempted: the system asked for an end (SIGTERM); everything is saved.
          PrprError: a run whose parameters are no longer finite; its last checkpoint stays.
        """
        self._bases = bases or {}
        states = [
            self._restored(job) or _Underway(job, begin(job), 0.0, health.Watch()) for job in jobs
        ]
        # Processes that see several file systems would go on from several steps.
        processes.agree({f"step of {one.job.run}": int(one.state.step) for one in states})
        for one in states:
            rec.rewind(int(one.state.step), one.job.run)
        done = {
            one.job.run: Trained(one.job, one.state, one.seconds)
            for one in states
            if int(one.state.step) >= self.total
        }
        # Runs at one step go side by side; a kill between two saves can leave them at several.
        by_step: dict[int, list[_Underway]] = {}
        for one in states:
            if one.job.run not in done:
                by_step.setdefault(int(one.state.step), []).append(one)
        todo = sum(len(items) * (self.total - at) for at, items in by_step.items())
        if todo:
            names = ", ".join(dict.fromkeys(job.name for job in jobs))
            with progress.Progress(todo, desc=f"train {names}") as bar, plain_errors():
                for at in sorted(by_step):
                    for i in range(0, len(by_step[at]), self.fleet.width):
                        for trained in self._together(
                            by_step[at][i : i + self.fleet.width], at, rec, bar
                        ):
                            done[trained.job.run] = trained
        return [done[job.run] for job in jobs]

    def stream(
        self, jobs: Sequence[Job], updates: range, place: Callable[[int], tuple[int, bool]]
    ) -> data.Loader:
        """The batches of a group's critic updates, on the devices ahead of their use.

        Args:
          jobs: the group.
          updates: counted over all steps.
          place: update -> (its number within the step, whether it ends the step).
        """
        for job in jobs:
            if job.seed not in self._batches:
                self._batches[job.seed] = build.batches(self.cfg, self.parts.train, job.seed)
        sources = [self._batches[job.seed] for job in jobs]
        return build.stream(self.cfg, self.fleet, sources, updates, place)

    def _place(self, update: int) -> tuple[int, bool]:
        """`stream`'s, where a step is critic updates and then one of the generator."""
        step, index = divmod(update, self.system.reads)
        last = index == self.system.reads - 1
        return index, last and step < self.cfg.train.warmup

    def _step(self, stream: data.Loader, placed: Any, step: int) -> tuple[Any, train.Scalars]:
        """`train.make_step`'s step for the runs of a group, update by update."""
        scalars: train.Scalars = {}
        moves = step >= self.cfg.train.warmup
        for _ in range(self.system.critic_steps if moves else self.system.reads):
            placed, scalars = self.critic_step(stream, placed)
        if moves:
            data = (next(stream)[1],) if self.system.reads_data else ()
            placed, more = self._generator_update(placed, *data)
            finite = scalars.get("finite", 1.0) * more["finite"]
            scalars = {**scalars, **more, "finite": finite}
        return placed, scalars

    def critic_step(self, stream: data.Loader, placed: Any) -> tuple[Any, train.Scalars]:
        """One critic update of every run of a group, on the next batch."""
        return self._critic_update(placed, next(stream)[1])

    def _together(
        self,
        items: "Sequence[_Underway]",
        at: int,
        rec: record.Record,
        bar: progress.Progress,
    ) -> list[Trained]:
        """Trains one group, a run a device (or one run on all), from step `at` to the end."""
        jobs = [one.job for one in items]
        before = [one.seconds for one in items]
        placed = self.fleet.place([one.state for one in items])
        watches = {one.job.run: one.watch for one in items}
        t, each, start, now = self.cfg.train, self.system.reads, time.monotonic(), at
        scores: list[float | None] = [None] * len(jobs)
        with contextlib.ExitStack() as stack:
            updates = range(at * each, self.total * each)
            stream = stack.enter_context(self.stream(jobs, updates, self._place))
            savers = [self.saver(job, stack) for job in jobs]

            def save(now: int) -> None:
                elapsed = (time.monotonic() - start) / len(jobs)
                for job, saver, state, seconds, score in zip(
                    jobs, savers, self.fleet.copies(placed, len(jobs)), before, scores, strict=True
                ):
                    watch = watches[job.run].state()
                    about = {**self.meta(job, seconds + elapsed), "watch": watch}
                    saver.save(now, state, about, score)
                scores[:] = [None] * len(jobs)

            for step in range(at, self.total):
                placed, scalars = self._step(stream, placed, step)
                bar.update(len(jobs))
                now = step + 1
                due = {name: now % t[name] == 0 or now == self.total for name in _INTERVALS}
                if due["log_every"] or due["checkpoint_every"]:
                    logged = self.fleet.fetch(scalars, len(jobs))
                    self.log(rec, jobs, now, logged)
                    for job, values in zip(jobs, logged, strict=True):
                        self._watch(rec, watches[job.run], job, now, values)
                    rate = stream.images_per_second * jax.process_count()
                    bar.set({"images/s": rate, "waiting for data": stream.waiting})
                if due["diagnose_every"]:
                    for i, values in enumerate(self.check_ratio(placed, jobs)):
                        rec.scalars(now, values, jobs[i].run)
                        self._watch(rec, watches[jobs[i].run], jobs[i], now, values)
                        scores[i] = self._score(values)
                if t.replica_check_every and now % t.replica_check_every == 0:
                    self._check_replicas(placed, now)
                if due["checkpoint_every"]:
                    save(now)
                if self.stop.should_stop():
                    if not due["checkpoint_every"]:
                        save(now)
                    break
            states = self.fleet.fetch(placed, len(jobs))
        processes.wait("saved")  # the others may read what the first has written
        if self.stop.requested:
            raise Preempted(f"saved at step {now} in {self.workdir}")
        elapsed = (time.monotonic() - start) / len(jobs)
        return [
            Trained(job, state, seconds + elapsed)
            for job, state, seconds in zip(jobs, states, before, strict=True)
        ]

    def check_ratio(self, placed: Any, jobs: Sequence[Job]) -> list[train.Scalars]:
        """Held-out checks of every run's log-ratio and density; see `train.diagnose`."""
        valid = self.parts.valid
        share = self.fleet.share * (1 if self.fleet.axis_name is None else jax.process_count())
        size = min(self.cfg.train.diagnose_size, valid.size)
        # In pieces as large as those of training: memory, and the batch norm that the critic sees.
        piece = min(self._n // self.system.accumulate * share, size // share * share)
        rows = build.spread(valid.size, size // piece * piece)
        found = []
        for index, part in enumerate(np.split(rows, len(rows) // piece)):
            batch = {**valid.read(self._own(part)), "index": np.int32(index)}
            log_r = self._held_out(placed, self.fleet.batch([batch] * len(jobs)))
            found.append(self.fleet.fetch(log_r, len(jobs)))
        values = []
        for i, job in enumerate(jobs):
            whole = {
                name: np.concatenate([piece[i][name] for piece in found]) for name in found[0][i]
            }
            values.append(self._checked(whole, 1.0 if job.lam is None else job.lam))
        return values

    def _checked(self, found: Mapping[str, np.ndarray], lam: float) -> train.Scalars:
        """Scalars of one run from what `train.held_out` gave of it."""
        values: train.Scalars = {}
        if "log_likelihood" in found:
            mean = jnp.float32(found["log_likelihood"].mean())
            values["heldout_log_likelihood"] = mean
            if self.system.levels:
                values["heldout_bits_per_dim"] = bits_per_dim(mean, self.parts.train.shape)
        if "data" in found:
            ratio = self._diagnose(found["data"], found["samples"], jnp.float32(lam))
            tau = jnp.float32(self.cfg.dials.tau)
            well = self._health(found, jnp.float32(lam), tau)
            values |= jax.device_get({**ratio, **well})
        return values

    def _watch(
        self, rec: record.Record, watch: health.Watch, job: Job, now: int, values: train.Scalars
    ) -> None:
        """Says and records the alarms that a run's scalars make ring."""
        if not self.system.critic_loss.identified:  # a ratio that means nothing alarms nobody
            values = {k: v for k, v in values.items() if not k.startswith(_OF_RATIO)}
        for alarm in watch.see(now, values):
            rec.scalars(now, {"alarm": alarm.check, "severity": alarm.severity}, job.run)
            processes.say(f"{job.run}, step {now}: {alarm.severity}: {alarm.text()}")

    def _score(self, values: train.Scalars) -> float | None:
        """How good a checkpoint is, for `train.keep_best`: α as far as the critic can be believed.

        α is bounded from above by what the critic knows: one that knows nothing gives the largest
        α, one that is not calibrated any α. Neither makes a checkpoint the best. Where likelihood
        is what is trained, it is held-out likelihood.
        """
        if self.system.route == "likelihood":
            return float(values["heldout_log_likelihood"])
        if not self.system.has_ratio:
            return None
        calibrated = values["heldout_calibration_error"] <= self.cfg.base.fit_error
        sees = values["heldout_loss"] < 0.98 * np.log(2.0)
        return float(values["heldout_alpha"]) if calibrated and sees else None

    def _own(self, rows: np.ndarray) -> np.ndarray:
        """This process' part of the rows of a batch."""
        if self.fleet.axis_name is None:
            return rows
        return np.split(rows, jax.process_count())[jax.process_index()]

    def _check_replicas(self, placed: Any, now: int) -> None:
        if not self.fleet.equal(placed):
            raise PrprError(
                f"the devices no longer hold the same parameters at step {now}: a fault of the "
                "hardware or of the library. Resume from the last checkpoint with the same command."
            )

    def log(
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

    def saver(self, job: Job, stack: contextlib.ExitStack) -> checkpoint.Saver:
        t = self.cfg.train
        return stack.enter_context(
            checkpoint.Saver(self.folder(job), keep=t.keep, keep_best=t.keep_best)
        )

    def meta(self, job: Job, seconds: float) -> dict[str, Any]:
        return {
            "run": job.run,
            "lam": job.lam,
            "seed": job.seed,
            "base": self._bases.get(job.seed),
            "settings": self.settings,
            "seconds": seconds,
        }


class _Underway(NamedTuple):
    """A run between two steps: its state, seconds so far, and what its watch remembers."""

    job: Job
    state: train.TrainState
    seconds: float
    watch: health.Watch


def _health(found: Mapping[str, Any], lam: jax.Array, tau: jax.Array) -> train.Scalars:
    """The scalars of `prpr.health` from what `train.held_out` gave of a run."""
    values = {
        "heldout_saturation": health.saturation(found["data"], found["samples"]),
        "moved_share": health.moved_share(found["samples"], lam, tau),
        "generator_norm": found["generator_norm"].mean(),
        "critic_norm": found["critic_norm"].mean(),
    }
    if len(found["data_seen"]) <= _FEW:
        return values
    near = health.proxies(found["data_seen"], found["samples_seen"])
    return {
        **values,
        "duplicates": health.duplicates(found["data_seen"], found["samples_seen"]),
        "precision_proxy": near.precision,
        "recall_proxy": near.recall,
    }


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Says what to do where the devices' memory is full."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        first = str(error).splitlines()[0][:200]
        if "RESOURCE_EXHAUSTED" in first:
            raise PrprError(
                f"the devices' memory is full ({first}): raise config.train.accumulate, lower "
                "config.train.batch, or, where the model has it, set config.model.remat=true or "
                "model.dtype=bfloat16; --plan says what fits."
            ) from error
        raise
