"""A critic for a generator that comes without one: fitted with the generator at rest.

A fine-tune needs a log-ratio from its first step on. Published BigGAN-deep generators have no
critic; theirs is made here, once for all λ.
"""

import contextlib
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from prpr import checkpoint, parallel, preempt, progress, record, train
from prpr.errors import Preempted, PrprError
from prpr.trainer import TICKS, Job, Trained, Trainer, check_same, plain_errors


def fit_critic(
    trainer: Trainer,
    job: Job,
    begin: Callable[[Job], train.TrainState],
    source: int,
    rec: record.Record,
) -> Trained:
    """Fits a fresh critic to a generator that rests, until its log-ratio can be used.

    The rule, on held-out images at every `base.fit_every` updates: it ends when the
    calibration error is at most `base.fit_error` while the held-out loss of classification has
    not fallen by more than 1 % in the last three checks. (A critic that has learned nothing is
    calibrated too: hence the second condition.) The result is a checkpoint, shared by all λ.

    Args:
      trainer: of the fine-tune, whose critic's loss and rate are taken.
      job: the base's job.
      begin: job -> the state whose generator is given.
      source: fingerprint of that generator's file; another one is fitted anew elsewhere.
      rec: the open record.

    Raises:
      PrprError: not reached within `base.fit_steps` updates.
    """
    b, folder = trainer.cfg.base, trainer.folder(job)
    read = ("data.", "model.", "critic.", "train.batch", "train.accumulate")
    kept = {knob: value for knob, value in trainer.settings.items() if knob.startswith(read)}
    kept |= {"base.fit_error": b.fit_error, "base.fit_every": b.fit_every, "source": source}
    meta = checkpoint.read_meta(folder)
    if meta is not None:
        check_same(meta.get("settings", {}), kept, folder)
        state, meta = checkpoint.restore(folder, trainer.like())
        if meta["fitted"]:
            return Trained(job, jax.device_get(state), float(meta["seconds"]))
    else:
        state, meta = begin(job), {"seconds": 0.0, "losses": []}
    at, losses, error = int(state.step), list(meta["losses"]), np.nan
    rec.rewind(at, job.run)
    start, placed = time.monotonic(), trainer.fleet.place([state])
    parallel.say(
        f"{job.run} has no critic: fitting one with the generator at rest, until its held-out "
        f"calibration error is at most {b.fit_error:g} and its held-out loss has stopped "
        f"falling (at most {b.fit_steps} updates)."
    )
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(trainer.stream(job, at, b.fit_steps))]
        saver, stop = trainer.saver(job, stack), stack.enter_context(preempt.Preemption())
        bar = stack.enter_context(progress.Progress(b.fit_steps, f"fit {job.run}", at))
        stack.enter_context(plain_errors())
        for now in range(at + 1, b.fit_steps + 1):
            placed, scalars = trainer.critic_step(streams, placed, 0, True)
            bar.update()
            fitted = False
            if now % b.fit_every == 0 or now == b.fit_steps:
                trainer.log(rec, [job], now, trainer.fleet.fetch(scalars, 1))
                (values,) = trainer.check_ratio(placed, [job])
                rec.scalars(now, values, job.run)
                error = float(values["heldout_calibration_error"])
                losses.append(float(values["heldout_loss"]))
                fitted = error <= b.fit_error and _settled(losses)
            stopping = stop.should_stop(next(TICKS))
            if fitted or stopping or now % trainer.cfg.train.checkpoint_every == 0:
                seconds = meta["seconds"] + time.monotonic() - start
                about = {"fitted": fitted, "losses": losses, "settings": kept}
                (state,) = trainer.fleet.copies(placed, 1)
                saver.save(now, state, {**trainer.meta(job, seconds), **about})
            if fitted:
                parallel.say(
                    f"{job.run}: critic fitted after {now} updates; held-out calibration error "
                    f"{error:.3f}, loss {losses[-1]:.3f} (log 2 = .693 knows nothing)."
                )
                saver.close()
                parallel.wait("fitted")
                (state,) = trainer.fleet.fetch(placed, 1)
                return Trained(job, state, meta["seconds"] + time.monotonic() - start)
            if stopping:
                saver.close()
                raise Preempted(now, trainer.workdir)
    raise PrprError(
        f"{job.run}: after {b.fit_steps} updates the critic's held-out calibration error is "
        f"{error:.3f} (config.base.fit_error = {b.fit_error:g}) and its loss "
        f"{'has settled' if _settled(losses) else 'is still falling'}: raise "
        "config.base.fit_steps or fit_error, or lower config.critic.lr."
    )


def _settled(losses: Sequence[float], checks: int = 3) -> bool:
    """Whether the best loss of the last `checks` is less than 1 % below the best before them."""
    return len(losses) > checks and min(losses[-checks:]) > 0.99 * min(losses[:-checks])
