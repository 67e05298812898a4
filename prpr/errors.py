"""Errors that a user can mend: each message names the value, the place and the mend.

`experiments/` turn them into one line on standard error and an exit code, without a
traceback: 2 for `ConfigError` (what was asked for), 75 for `Preempted` (run it again), 1 for
every other `PrprError` (what was met on the way), 3 for `GivenUp` (a run that could not be
kept healthy).
"""

import difflib
from collections.abc import Iterable


class PrprError(Exception):
    """Base class of the errors that end a command with one readable message."""

    exit_code = 1


class ConfigError(PrprError, ValueError):
    """A setting that cannot be used: names the knob, the value and the allowed values."""

    exit_code = 2


class DataError(PrprError, ValueError):
    """Data that cannot be used: NaN, a wrong shape, too few samples."""


class CheckpointError(PrprError):
    """A checkpoint that is missing, damaged, or of another shape."""


class WorkdirError(PrprError):
    """A working directory that cannot be written, or that holds another run."""


class Preempted(PrprError):
    """The machine was asked back, and the run is saved up to where it came.

    The exit code is EX_TEMPFAIL of sysexits.h: a scheduler that sees it can start the same
    command again.

    Args:
      done: what is saved, and where.
    """

    exit_code = 75

    def __init__(self, done: str):
        super().__init__(f"stopped by SIGTERM; {done}: the same command resumes there")


class GivenUp(PrprError):
    """A run was stopped after its last attempt, and all others are finished (`prpr.recovery`).

    The same command stops there again at once, so that a scheduler that starts it anew wastes no
    time on it.
    """

    exit_code = 3


def notes(error: BaseException) -> list[str]:
    """What else went wrong, such as a save that was lost (`add_note`), each in one line."""
    return [" ".join(note.split()) for note in getattr(error, "__notes__", ())]


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ConfigError:
    """The error for a name that a table does not have; suggests the nearest one.

    Args:
      kind: what the table holds, in words ("divergence", "model", ...).
      name: what was asked for.
      known: the names that the table has.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")
