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
    objectives,
    parallel,
    preempt,
    processes,
    progress,
    ratio,
    record,
    recovery,
    train,
)
from prpr.errors import CheckpointError, Preempted, PrprError
from prpr.jobs import Job, check_same, settings, shaped_as
from prpr.models.flows import bits_per_dim

_TRAINING = 2**10  # place of the checks on training data, behind those on held-out data
_FEW = 16  # held-out items, of which neighbours say nothing
_OF_RATIO = ("heldout_", "moved_share", "normalisation", "log_r_")
_INTERVALS = ("log_every", "diagnose_every", "checkpoint_every")


class Trained(NamedTuple):
    """A finished run; `seconds` is its share of its group's time, all calls together."""

    job: Job
    state: train.TrainState
    seconds: float


class _Underway(NamedTuple):
    """A run between two steps: its state, seconds so far, what its watch remembers, its falls."""

    job: Job
    state: train.TrainState
    seconds: float
    watch: health.Watch
    falls: tuple[recovery.Fall, ...] = ()


class _Fallen(NamedTuple):
    """A run that a fatal alarm ended; `alarms` are those of this attempt."""

    run: _Underway
    alarms: tuple[health.Alarm, ...]


class Trainer:
    """Trains the jobs of one program (they differ in λ and seed only) to the end.

    Args:
      cfg: a valid configuration.
      parts: its data, from `build.check`.
      workdir: where checkpoints go.
      devices: from `parallel.setup`.
      stop: the command's.

    Attributes:
      given_up: {run: its falls} of the runs that `run` could not keep healthy.
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
        if not self.system.log_prior:  # the knob changes nothing here
            self.settings.pop("conditional_ratio", None)
        self.given_up: dict[str, tuple[recovery.Fall, ...]] = {}
        self._batches: dict[tuple[int, int], data.Batches] = {}
        self._bases: Mapping[int, int] = {}
        self._checks = health.CHECKS
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
        self._auc = jax.jit(ratio.auc)
        self._spectral = self.fleet.map(_spectral)

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

    def _begun(self, job: Job, begin: Callable[[Job], train.TrainState]) -> _Underway:
        """A run at its newest checkpoint, or at step 0."""
        folder, meta = self.folder(job), {}
        falls = recovery.but(recovery.read(folder, self.settings), self.cfg.recovery.ignore)
        if checkpoint.latest(folder) is None:
            state = begin(job)
        else:
            state, meta = checkpoint.restore(folder, self.like())
        state = jax.device_get(recovery.resumed(state, meta, falls))
        watch = health.Watch.from_state(meta.get("watch", {}), self._checks).rearm()
        return _Underway(job, state, float(meta.get("seconds", 0.0)), watch, falls)

    # ---- training ----------------------------------------------------------------------

    def run(
        self,
        jobs: Sequence[Job],
        begin: Callable[[Job], train.TrainState],
        rec: record.Record,
        bases: Mapping[int, int] | None = None,
    ) -> list[Trained]:
        """Trains every job, resuming or reusing what is there; a fatal alarm sends one back.

        Args:
          jobs: what to train.
          begin: job -> its state at step 0; called only for a job without checkpoint.
          rec: the open record.
          bases: seed -> fingerprint of what the runs start from, kept in their checkpoints.

        Returns:
          The finished runs, in the order of `jobs`; the others are in `given_up`.

        Raises:
          Preempted: the system asked for an end (SIGTERM); everything is saved.
        """
        self._bases = bases or {}
        checks = recovery.checks(self.cfg.recovery.ignore, fine_tuned=bases is not None)
        self._checks = checks
        states = [self._begun(job, begin) for job in jobs]
        # Processes that see several file systems would go on from several steps.
        at = {f"step of {one.job.run}": int(one.state.step) for one in states}
        processes.agree({**at, **{f"falls of {one.job.run}": len(one.falls) for one in states}})
        done: dict[str, Trained] = {}
        waiting: list[_Underway] = []
        for one in states:
            ended = int(one.state.step) >= self.total
            if not ended and len(one.falls) > self.cfg.recovery.attempts:
                self._give_up(one, rec)
                continue
            # What a run finds at its start it finds again; but its falls to there are kept.
            rec.rewind(int(one.state.step) or (0 if one.falls else -1), one.job.run)
            if ended:
                done[one.job.run] = Trained(one.job, one.state, one.seconds)
                continue
            if one.falls and int(one.state.step) == one.falls[-1].to:
                recovery.say_once(rec, one.job.run, len(one.falls), one.falls[-1])
            waiting.append(one)
        if waiting:
            todo = sum(self.total - int(one.state.step) for one in waiting)
            names = ", ".join(dict.fromkeys(one.job.name for one in waiting))
            with progress.Progress(todo, desc=f"train {names}") as bar, plain_errors():
                while waiting:
                    groups = self._groups(waiting)
                    outcomes = [one for group in groups for one in self._together(group, rec, bar)]
                    waiting = []
                    for one in outcomes:
                        if isinstance(one, Trained):
                            done[one.job.run] = one
                        elif (again := self._fell(one, begin, rec)) is not None:
                            bar.add(self.total - int(again.state.step))
                            waiting.append(again)
        return [done[job.run] for job in jobs if job.run in done]

    def _groups(self, waiting: Sequence[_Underway]) -> list[list[_Underway]]:
        """Runs that go side by side: of one step, since a kill between two saves can leave them
        at several; and of one program, since after a fall a state has a rate."""
        alike: dict[tuple[int, bool], list[_Underway]] = {}
        for one in waiting:
            key = (int(one.state.step), one.state.rate is not None)
            alike.setdefault(key, []).append(one)
        width = self.fleet.width
        return [
            items[i : i + width]
            for _, items in sorted(alike.items())
            for i in range(0, len(items), width)
        ]

    def _fell(
        self, fallen: _Fallen, begin: Callable[[Job], train.TrainState], rec: record.Record
    ) -> _Underway | None:
        """A run at its last checkpoint, to be tried again; None if it is given up."""
        one, folder = fallen.run, self.folder(fallen.run.job)
        to = checkpoint.latest(folder) or 0
        rate = self.cfg.recovery.rate ** (len(one.falls) + 1)
        fall = recovery.Fall(fallen.alarms, to, rate)
        falls = (*one.falls, fall)
        if processes.first():
            recovery.write(folder, falls, self.settings)
        processes.wait("fallen")  # the others read what the first has written
        if len(falls) > self.cfg.recovery.attempts:
            return self._give_up(one._replace(falls=falls), rec)
        rec.rewind(to, one.job.run)
        rec.scalars(to, fall.row(len(falls)), one.job.run)
        processes.say(
            f"{one.job.run}: back to step {to} after {fall.cause.check} at step "
            f"{fall.cause.step}: other random numbers, rates x {rate:g}; attempt {len(falls)} of "
            f"{self.cfg.recovery.attempts}."
        )
        return self._begun(one.job, begin)._replace(seconds=one.seconds)

    def _give_up(self, one: _Underway, rec: record.Record) -> None:
        self.given_up[one.job.run] = one.falls
        recovery.say_once(rec, one.job.run, len(one.falls), one.falls[-1], given_up=True)
        folder = self.folder(one.job)
        step, best = checkpoint.latest(folder), checkpoint.best(folder)
        kept = f"its last healthy checkpoint, step {step}, is in {folder}"
        if step is None:
            kept = "it had no checkpoint yet (config.train.checkpoint_every)"
        elif best is not None:
            kept += f", and so is its best, step {best}"
        processes.say(recovery.manual(one.job.run, one.falls, kept))

    def stream(
        self,
        jobs: Sequence[Job],
        updates: range,
        place: Callable[[int], tuple[int, bool]],
        attempts: Sequence[int] = (),
    ) -> data.Loader:
        """The batches of a group's critic updates, on the devices ahead of their use.

        Args:
          jobs: the group.
          updates: counted over all steps.
          place: update -> (its number within the step, whether it ends the step).
          attempts: of each, how often it fell before; then its data come in another order.
        """
        each = [(job.seed, n) for job, n in zip(jobs, attempts or [0] * len(jobs), strict=True)]
        for seed, attempt in each:
            if (seed, attempt) not in self._batches:
                stream = seed + attempt * 2**32  # seeds of runs are smaller than that
                made = build.batches(self.cfg, self.parts.train, stream)
                self._batches[seed, attempt] = made
        sources = [self._batches[key] for key in each]
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
        self, items: Sequence[_Underway], rec: record.Record, bar: progress.Progress
    ) -> list[Trained | _Fallen]:
        """Trains one group, a run a device (or one run on all), from its step to the end.

        One that falls is neither recorded nor saved any more; it goes along while the others do.
        """
        jobs, n = [one.job for one in items], len(items)
        placed = self.fleet.place([one.state for one in items])
        t, each, start = self.cfg.train, self.system.reads, time.monotonic()
        at = now = int(items[0].state.step)
        alarms: list[list[health.Alarm]] = [[] for _ in items]
        scores: list[float | None] = [None] * n

        def well() -> list[int]:
            return [i for i in range(n) if not any(a.severity == "fatal" for a in alarms[i])]

        def hear(now: int, values: Sequence[train.Scalars]) -> None:
            for i in well():
                if now or not items[i].falls:  # the start is in the record since the first attempt
                    rec.scalars(now, values[i], jobs[i].run)
                alarms[i] += self._watch(rec, items[i].watch, jobs[i], now, values[i])

        def seconds(i: int) -> float:
            return items[i].seconds + record.since(start) / n

        with contextlib.ExitStack() as stack:
            updates = range(at * each, self.total * each)
            attempts = [len(one.falls) for one in items]
            stream = stack.enter_context(self.stream(jobs, updates, self._place, attempts))
            savers = [self.saver(job, stack) for job in jobs]

            def save(now: int) -> None:
                copies = self.fleet.copies(placed, n)
                for i in well():
                    # What a fatal check suspects is nothing to go back to.
                    if not items[i].watch.healthy and now < self.total:
                        continue
                    about = {**self.meta(jobs[i], seconds(i)), **recovery.about(items[i].falls)}
                    about["watch"] = items[i].watch.state()
                    savers[i].save(now, copies[i].replace(rate=None), about, scores[i])

            if at == 0 and self._bases and t.warmup < t.diagnose_every:
                hear(0, self.check_ratio(placed, jobs))  # what alarms compare with, before it moves
            for step in range(at, self.total):
                placed, scalars = self._step(stream, placed, step)
                bar.update(n)
                now = step + 1
                due = {name: now % t[name] == 0 or now == self.total for name in _INTERVALS}
                if due["log_every"] or due["checkpoint_every"]:
                    hear(now, self.fleet.fetch(scalars, n))
                    rate = stream.images_per_second * jax.process_count()
                    bar.set({"images/s": rate, "waiting for data": stream.waiting})
                # A checkpoint is gone back to: it has been checked as it is, not as it was.
                scores = [None] * n
                if (due["diagnose_every"] or due["checkpoint_every"]) and well():
                    checked = self.check_ratio(placed, jobs)
                    hear(now, checked)
                    scores = [self._score(values) for values in checked]
                if t.replica_check_every and now % t.replica_check_every == 0:
                    self._check_replicas(placed, now)
                if due["checkpoint_every"]:
                    save(now)
                if self.stop.should_stop():
                    if not due["checkpoint_every"]:
                        # No record was due: what is not finite must not become the newest.
                        for one, values in zip(items, self.fleet.fetch(scalars, n), strict=True):
                            one.watch.see(now, {"finite": values["finite"]})
                        save(now)
                    break
                if not well():
                    break
            states = self.fleet.fetch(placed, n)
        processes.wait("saved")  # the others may read what the first has written
        if self.stop.requested:
            # A run that is not well was saved before.
            saved = min(checkpoint.latest(self.folder(job)) or 0 for job in jobs)
            raise Preempted(f"saved at step {saved} in {self.workdir}")
        bar.add(-n * (self.total - now))  # steps that were not done
        return [
            Trained(jobs[i], states[i].replace(rate=None), seconds(i))
            if i in well()
            else _Fallen(items[i]._replace(seconds=seconds(i)), tuple(alarms[i]))
            for i in range(n)
        ]

    def check_ratio(self, placed: Any, jobs: Sequence[Job]) -> list[train.Scalars]:
        """Held-out checks of every run's log-ratio and density; see `train.diagnose`."""
        found = self._over(self.parts.valid, placed, jobs)
        values = [
            self._checked(whole, 1.0 if job.lam is None else job.lam)
            for job, whole in zip(jobs, found, strict=True)
        ]
        for job, one in zip(jobs, values, strict=True):
            if not self._has_window(job):
                one.pop("moved_share", None)
        if self.system.has_ratio:
            seen = self._over(self.parts.train, placed, jobs, _TRAINING)
            for one, whole in zip(values, seen, strict=True):
                one["train_auc"] = jax.device_get(self._auc(whole["data"], whole["samples"]))
        for one, norms in zip(
            values, self.fleet.fetch(self._spectral(placed), len(jobs)), strict=True
        ):
            one |= norms
        return values

    def _over(
        self, part: data.AnyDataset, placed: Any, jobs: Sequence[Job], first: int = 0
    ) -> list[dict[str, np.ndarray]]:
        """`train.held_out` of every run over items spread evenly over a part of the data."""
        share = self.fleet.share * (1 if self.fleet.axis_name is None else jax.process_count())
        size = min(self.cfg.train.diagnose_size, part.size)
        # In pieces as large as those of training: memory, and the batch norm that the critic sees.
        piece = min(self._n // self.system.accumulate * share, size // share * share)
        rows = build.spread(part.size, size // piece * piece)
        if self.cfg.train.balance:  # as the critic sees them
            among = data.balanced_rows(part)
            rows = among[build.spread(len(among), len(rows))]
        found = []
        for index, some in enumerate(np.split(rows, len(rows) // piece)):
            batch = {**part.read(self._own(some)), "index": np.int32(first + index)}
            log_r = self._held_out(placed, self.fleet.batch([batch] * len(jobs)))
            found.append(self.fleet.fetch(log_r, len(jobs)))
        return [
            {name: np.concatenate([piece[i][name] for piece in found]) for name in found[0][i]}
            for i in range(len(jobs))
        ]

    def _checked(self, found: Mapping[str, np.ndarray], lam: float) -> train.Scalars:
        """Scalars of one run from what `train.held_out` gave of it."""
        values: train.Scalars = {}
        if "log_likelihood" in found:
            mean = jnp.float32(found["log_likelihood"].mean())
            values["heldout_log_likelihood"] = mean
            if self.system.levels:
                values["heldout_bits_per_dim"] = bits_per_dim(mean, self.parts.train.shape)
        if "data" in found:
            priors = found["data_prior"], found["samples_prior"]
            judged = self._diagnose(found["data"], found["samples"], jnp.float32(lam), *priors)
            dials = self.cfg.dials
            reads = objectives.get(self.cfg.objective).dials
            width = dials.width if "width" in reads else None
            well = self._health(found, jnp.float32(lam), jnp.float32(dials.tau), width)
            values |= jax.device_get({**judged, **well})
        return values

    def _has_window(self, job: Job) -> bool:
        """Whether the samples near r = 1/λ are those that move."""
        has_tau = "tau" in objectives.get(self.cfg.objective).dials
        return has_tau and job.lam is not None and self.system.dial is None

    def _watch(
        self, rec: record.Record, watch: health.Watch, job: Job, now: int, values: train.Scalars
    ) -> list[health.Alarm]:
        """Says and records the alarms that a run's scalars make ring, and returns them."""
        if not self.system.critic_loss.identified:  # a ratio that means nothing alarms nobody
            values = {k: v for k, v in values.items() if not k.startswith(_OF_RATIO)}
        schedule = self.system.schedule
        if max(schedule.lam_from, schedule.tau_from) and now < self.system.warmup + schedule.steps:
            values = {k: v for k, v in values.items() if k != "moved_share"}  # not yet there
        alarms = watch.see(now, values)
        for alarm in alarms:
            rec.scalars(now, {"alarm": alarm.check, "severity": alarm.severity}, job.run)
            processes.say(f"{job.run}, step {now}: {alarm.severity}: {alarm.text()}")
        return alarms

    def _score(self, values: train.Scalars) -> float | None:
        """How good a checkpoint is, for `train.keep_best`: α as far as the critic can be believed.

        α is bounded from above by what the critic knows: one that knows nothing gives the largest
        α, one that is not calibrated any α. Neither makes a checkpoint the best. Where likelihood
        is what is trained, it is held-out likelihood.
        """
        if self.system.route == "likelihood":
            value = float(values["heldout_log_likelihood"])
            return value if np.isfinite(value) else None
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


def _health(
    found: Mapping[str, Any], lam: jax.Array, tau: jax.Array, width: float | None = None
) -> train.Scalars:
    """The scalars of `prpr.health` from what `train.held_out` gave of a run."""
    moved = found["samples"] - found["samples_prior"]
    values = {
        "heldout_saturation": health.saturation(found["data"], found["samples"]),
        "critic_spread": health.spread(found["data"], found["samples"]),
        "moved_share": health.moved_share(moved, lam, tau, width),
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


def _spectral(state: train.TrainState) -> train.Scalars:
    return {
        "generator_spectral_norm": health.largest_spectral_norm(state.generator.params),
        "critic_spectral_norm": health.largest_spectral_norm(state.critic.params),
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
