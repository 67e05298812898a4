"""What becomes of a run on a fatal alarm: back to its last healthy checkpoint, slower, n times.

    CHECKPOINTS/<run>/recovery.json     its settings, and its falls so far, oldest first

A fall is a fatal alarm of `prpr.health`. The run goes back to its newest checkpoint, or to its
start where it has none yet. Every checkpoint is checked before it is saved, and none but that of
the last step is saved while a fatal check holds. (A SIGTERM leaves no time for a check: what it
saves is as healthy as the last one knew.) From there both learning rates are lowered by a factor
once more, the latents and the order of the data are others, and what was recorded after that step
is forgotten. After `config.recovery.attempts` falls the next one ends the run. No fall deletes a
checkpoint: the best and the last one stay.

`prpr.trainer` decides; here is what it remembers, and what a state becomes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prpr import health, record
from prpr.errors import CheckpointError, DataError, GivenUp
from prpr.jobs import different
from prpr.systems import TrainState

_FILE = "recovery.json"


class Fall(NamedTuple):
    """A fatal alarm that ended an attempt.

    Attributes:
      alarms: all that rang in that attempt, the fatal ones last.
      to: the step that the run went back to.
      rate: the factor of both learning rates from there on.
    """

    alarms: tuple[health.Alarm, ...]
    to: int
    rate: float

    @property
    def cause(self) -> health.Alarm:
        """The first fatal alarm."""
        (first, *_) = (alarm for alarm in self.alarms if alarm.severity == "fatal")
        return first

    def row(self, number: int) -> dict[str, Any]:
        """What the record says of it, at the step gone back to."""
        cause = self.cause
        return {"rollback": number, "because": cause.check, "at": cause.step, "rate": self.rate}


def checks(ignore: Sequence[str], *, fine_tuned: bool) -> tuple[health.Check, ...]:
    """The table of checks to watch a run by.

    Args:
      ignore: names of fatal checks that are told and roll nothing back.
      fine_tuned: whether the run starts from trained networks. From scratch a start is nothing to
        be held against: an untrained generator repeats itself, and weights grow by what they
        learn. So there all fatal limits that compare with the start are only told.
    """
    table = []
    for check in health.CHECKS:
        if check.severity == "fatal" and check.name in ignore:
            check = check._replace(severity="warning")
        against_start = tuple(group for group in check.when if _against_start(group))
        if fine_tuned or check.severity != "fatal" or not against_start:
            table.append(check)
            continue
        rest = tuple(group for group in check.when if group not in against_start)
        table += [
            check._replace(when=groups, severity=severity)
            for groups, severity in ((rest, "fatal"), (against_start, "warning"))
            if groups
        ]
    return tuple(table)


def _against_start(group: Sequence[health.Limit]) -> bool:
    return any(health.RULES[limit.rule].reference == "start" for limit in group)


def read(folder: Path, settings: Mapping[str, Any] | None = None) -> tuple[Fall, ...]:
    """The falls of a run, from its folder of checkpoints; () where it never fell.

    Args:
      folder: of the run.
      settings: its own (`jobs.settings`). What fell with others is forgotten: a run without a
        checkpoint may be tried again with the settings that were advised. None: whatever is there.

    Raises:
      CheckpointError: a damaged file.
    """
    path = folder / _FILE
    if not path.exists():
        return ()
    try:
        found = record.read_json(path)
        falls = tuple([_fall(item) for item in found["falls"]])
        others = settings is not None and different(found["settings"], settings)
        return () if others else falls
    except (DataError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): delete it, and the run goes on from its last "
            "checkpoint as if it had never gone back."
        ) from error


def _fall(item: dict[str, Any]) -> Fall:
    alarms = [
        health.Alarm(**{**alarm, "values": {k: float(v) for k, v in alarm["values"].items()}})
        for alarm in item["alarms"]
    ]
    fall = Fall(tuple(alarms), int(item["to"]), float(item["rate"]))
    _ = fall.cause  # there is one
    return fall


def but(falls: Sequence[Fall], ignored: Sequence[str]) -> tuple[Fall, ...]:
    """The falls whose cause is not ignored by now; the others count no more."""
    return tuple(fall for fall in falls if fall.cause.check not in ignored)


def write(folder: Path, falls: Sequence[Fall], settings: Mapping[str, Any]) -> None:
    """Replaces the file in a single rename; WorkdirError if it cannot be written."""
    plain = [
        {**fall._asdict(), "alarms": [alarm._asdict() for alarm in fall.alarms]} for fall in falls
    ]
    record.write_json(folder / _FILE, {"settings": dict(settings), "falls": plain})


def say_once(
    rec: record.Record, run: str, number: int, fall: Fall, *, given_up: bool = False
) -> None:
    """Records what a run's last fall led to, unless the record has it.

    A kill can come between the fall and its line; and a run that is given up by one command is
    given up by the next one too.
    """
    name, value = ("given_up", fall.cause.check) if given_up else ("rollback", number)
    lines = record.read_metrics(rec.workdir) if rec.active else []
    if any(line["run"] == run and line.get(name) == value for line in lines):
        return
    if given_up:
        rec.scalars(fall.cause.step, {name: value}, run)
    else:
        rec.scalars(fall.to, fall.row(number), run)


def about(falls: Sequence[Fall]) -> dict[str, Any]:
    """What a checkpoint says of the falls before it; `resumed` reads it."""
    return {"falls": len(falls), "rate": falls[-1].rate if falls else 1.0}


def resumed(state: TrainState, said: dict[str, Any], falls: Sequence[Fall]) -> TrainState:
    """A state from a checkpoint, or at the start, as the attempt after `falls` trains it.

    Args:
      state: as it was saved; no rate is in it.
      said: what the checkpoint says, `about` among it; {} at the start.
      falls: of the run.

    Returns:
      The state with its rates' factor, and of a new attempt with the key of another stream.
    """
    before, rate = int(said.get("falls", 0)), float(said.get("rate", 1.0))
    if len(falls) > before:
        rate = falls[-1].rate
        state = state.replace(key=jax.random.fold_in(state.key, len(falls)))
    return state if rate == 1.0 else state.replace(rate=jnp.float32(rate))


def manual(run: str, falls: Sequence[Fall], kept: str) -> str:
    """What a person reads who comes back to a run that was given up."""
    times = "once" if len(falls) == 1 else f"{len(falls)} times"
    history = [
        f"   at step {fall.cause.step}: {fall.cause.check}"
        + (f", back to step {fall.to} with rates x {fall.rate:g}" if fall is not falls[-1] else "")
        for fall in falls
    ]
    return "\n".join(
        [
            f"{run} was given up after it fell {times}; {kept}.",
            *history,
            health.manual([alarm for fall in falls for alarm in fall.alarms]),
        ]
    )


def error(given_up: dict[str, tuple[Fall, ...]]) -> GivenUp:
    """The error that ends a command some of whose runs were given up.

    Args:
      given_up: {run: its falls}, at least one.
    """
    each = [
        f"{run} ({falls[-1].cause.check} at step {falls[-1].cause.step})"
        for run, falls in given_up.items()
    ]
    causes = {fall.cause.check for falls in given_up.values() for fall in falls}
    wanted = (
        ", or name an alarm in config.recovery.ignore if what it found is what you want"
        if causes - {"not_finite"}  # nobody wants that
        else ""
    )
    return GivenUp(
        f"given up after {', '.join(each)}. All checkpoints are kept, and everything else is "
        "finished. What rang and what to try is printed above and kept in recovery.json beside "
        f"the run's checkpoints; raise config.recovery.attempts to let it try on{wanted}."
    )
