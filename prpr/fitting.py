"""A critic for a generator that comes without one: fitted with the generator at rest.

A fine-tune needs a log-ratio from its first step on. Published BigGAN-deep generators have no
critic; theirs is made here, once for all λ.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from prpr import checkpoint, processes, progress, record, train
from prpr.errors import Preempted, PrprError
from prpr.jobs import Job, check_same
from prpr.trainer import Trained, Trainer, plain_errors

_AUC = 0.002  # of AUC: a gain that is none
# What decides when a fit has ended: it may change until it has.
_RULE = ("base.fit_error", "base.fit_every")


def _settings(trainer: Trainer, source: int) -> dict[str, Any]:
    """What decides a fitted critic, as {knob: value}."""
    read = ("data.", "model.", "critic.", "augment.")
    read += ("train.batch", "train.accumulate", "train.balance")
    kept = {knob: value for knob, value in trainer.settings.items() if knob.startswith(read)}
    b = trainer.cfg.base
    return {**kept, "source": source, **dict(zip(_RULE, (b.fit_error, b.fit_every), strict=True))}


def check(trainer: Trainer, jobs: Sequence[Job], source: int) -> None:
    """Raises WorkdirError if a job's folder holds a critic fitted otherwise; reads only.

    Args:
      trainer, source: as for `fit_critic`.
      jobs: the bases' jobs.
    """
    for job in jobs:
        meta = checkpoint.read_meta(trainer.folder(job))
        if meta is None:
            continue
        saved, now = meta.get("settings", {}), _settings(trainer, source)
        if not meta.get("fitted"):
            now |= {knob: saved.get(knob) for knob in _RULE}
        check_same(saved, now, trainer.folder(job))


def fit_critic(
    trainer: Trainer,
    job: Job,
    begin: Callable[[Job], train.TrainState],
    source: int,
    rec: record.Record,
    *,
    by_order: bool = False,
) -> Trained:
    """Fits a fresh critic to a generator that rests, until its log-ratio can be used.

    The rule, on held-out images at every `base.fit_every` updates: it ends when the
    calibration error is at most `base.fit_error` while the held-out loss of classification has
    not fallen by more than 1 % in the last three checks. (A critic that has learned nothing is
    calibrated too: hence the second condition.) The result is a checkpoint, shared by all λ.

    Args:
      trainer: of the fine-tune, whose critic's loss and rate are taken.
      job: the base's job, which `check` has passed.
      begin: job -> the state whose generator is given.
      source: fingerprint of that generator's file; another one is fitted anew elsewhere.
      rec: the open record.
      by_order: the caller calibrates afterwards, so only the order that the critic gives counts:
        held-out 1 − AUC stands in the loss' place, no calibration is asked for, `base.fit_steps`
        are an end like any other, and the best check's critic is the result. The trainer's
        `train.keep_best` must be at least 1.

    Raises:
      Preempted: the system asked for an end (SIGTERM); everything is saved.
      PrprError: not reached within `base.fit_steps` updates.
    """
    b, folder = trainer.cfg.base, trainer.folder(job)
    if checkpoint.latest(folder) is None:
        state, meta = begin(job), {"seconds": 0.0, "losses": [], "error": None, "fitted": False}
    else:
        state, meta = checkpoint.restore(folder, trainer.like())
    at, losses, error = int(state.step), list(meta["losses"]), meta["error"]
    # Processes that see several file systems would go on from several updates.
    processes.agree({f"fitting of {job.run}": (at, meta["fitted"])})
    if meta["fitted"]:
        settled = meta.get("settled", True) or at >= b.fit_steps
        if not by_order or settled:  # else it ended by fit_steps, and there are more of them now
            return _result(trainer, job, state, float(meta["seconds"]), by_order)
    kept, fitted, settled, now = _settings(trainer, source), False, False, at
    rec.rewind(at, job.run)
    start, placed = time.monotonic(), trainer.fleet.place([state])
    processes.say(
        f"{job.run}: fitting a critic with the generator at rest, until "
        + (
            "it separates held-out data no better"
            if by_order
            else f"its held-out calibration error is at most {b.fit_error:g} and its held-out "
            "loss has stopped falling"
        )
        + f" (at most {b.fit_steps} updates)."
    )
    with contextlib.ExitStack() as stack:
        updates = range(at, b.fit_steps)
        stream = stack.enter_context(trainer.stream([job], updates, lambda _: (0, True)))
        saver = trainer.saver(job, stack)
        bar = stack.enter_context(progress.Progress(b.fit_steps, f"fit {job.run}", at))
        stack.enter_context(plain_errors())
        for now in range(at + 1, b.fit_steps + 1):
            placed, scalars = trainer.critic_step(stream, placed)
            bar.update()
            score, checked = None, now % b.fit_every == 0 or now == b.fit_steps
            due = now % trainer.cfg.train.checkpoint_every == 0
            stopped = trainer.stop.should_stop()
            if checked or due or stopped:  # nothing else is saved
                (logged,) = trainer.fleet.fetch(scalars, 1)
                if checked:
                    rec.scalars(now, logged, job.run)
                if not logged["finite"]:
                    raise PrprError(
                        f"{job.run}: the critic's parameters are no longer finite at update {now}. "
                        f"The last whole checkpoint is kept in {folder}. In another --workdir, "
                        "lower config.critic.lr or raise config.critic.r1."
                    )
            if checked:
                (values,) = trainer.check_ratio(placed, [job])
                rec.scalars(now, values, job.run)
                error = float(values["heldout_calibration_error"])
                if by_order:
                    score = float(values["heldout_auc"])
                    losses.append(1 - score)
                    settled = _settled(losses, least=_AUC)
                    fitted = settled or now == b.fit_steps
                else:
                    losses.append(float(values["heldout_loss"]))
                    fitted = error <= b.fit_error and _settled(losses)
            ends = stopped or fitted or now == b.fit_steps
            if ends or due or score is not None:
                seconds = meta["seconds"] + record.since(start)
                about = {"fitted": fitted, "losses": losses, "error": error, "settings": kept}
                about["settled"] = settled
                (state,) = trainer.fleet.copies(placed, 1)
                saver.save(now, state, {**trainer.meta(job, seconds), **about}, score)
            if ends:
                break
    processes.wait("fitted")  # the others may read what the first has written
    if trainer.stop.requested:
        raise Preempted(f"saved at update {now} of the critic's fit in {trainer.workdir}")
    if not fitted:
        raise PrprError(
            f"{job.run}: after {now} updates the critic's held-out calibration error is "
            f"{np.nan if error is None else error:.3f} (config.base.fit_error = {b.fit_error:g}) "
            f"and its loss {'has settled' if _settled(losses) else 'is still falling'}: raise "
            "config.base.fit_steps or fit_error; the same command then goes on. Or, in another "
            "--workdir, lower config.critic.lr."
        )
    processes.say(
        f"{job.run}: critic fitted after {now} updates; held-out calibration error "
        f"{error:.3f}, "
        + (
            f"AUC {1 - min(losses):.3f} at best (.5 knows nothing)."
            if by_order
            else f"loss {losses[-1]:.3f} (log 2 = .693 knows nothing)."
        )
    )
    (state,) = trainer.fleet.fetch(placed, 1)
    return _result(trainer, job, state, meta["seconds"] + record.since(start), by_order)


def _result(
    trainer: Trainer, job: Job, state: train.TrainState, seconds: float, by_order: bool
) -> Trained:
    """The last state, or that of the best check."""
    if by_order:
        folder = trainer.folder(job)
        state, _ = checkpoint.restore(folder, trainer.like(), checkpoint.best(folder))
    return Trained(job, jax.device_get(state), seconds)


def _settled(losses: Sequence[float], checks: int = 3, least: float | None = None) -> bool:
    """Whether the last `checks` losses are hardly below the best before them: 1 %, or `least`."""
    if len(losses) <= checks:
        return False
    before = min(losses[:-checks])
    wanted = 0.01 * before if least is None else least
    return min(losses[-checks:]) > before - wanted
