"""What a process of its own does for one run: python -m prpr.sweep.worker ROOT/<id>."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prpr import record, run
from prpr.errors import Preempted, PrprError, notes
from prpr.sweep import rows
from prpr.sweep.states import locked, state, states
from prpr.sweep.tasks import Task, family_folder, read_task


class Runner(NamedTuple):
    """What trains: (configuration, workdir) -> summary."""

    train_base: Callable[[Any, Path], Any] = run.train_base
    finetune: Callable[[Any, Path], Any] = run.finetune

    def __call__(self, task: Task, folder: Path) -> None:
        if task.is_base:
            self.train_base(task.config, folder)
            return
        if not locked(folder):  # else `run` refuses, and says why
            rows.catch_up(family_folder(folder.parent, task), folder, task.jobs[0].run)
        self.finetune(task.config, folder)


def attempt(folder: Path, work: Callable[[], Any]) -> bool:
    """Calls `work()`; an error is printed and kept in FOLDER/error.txt instead of raised.

    What ends the process (Ctrl-C, SIGTERM's `Preempted`) passes.

    Returns:
      Whether there was no error.
    """
    forget_error(folder)
    try:
        work()
    except Preempted:
        raise
    except Exception as error:
        print(f"{folder.name} failed: {told(error)}", file=sys.stderr, flush=True)
        keep_error(folder, f"{told(error)}\n\n{traceback.format_exc()}")
        return False
    return True


def told(error: Exception) -> str:
    """An error in words, its notes on lines of their own."""
    line = str(error) if isinstance(error, PrprError) else f"{type(error).__name__}: {error}"
    return "\n".join([line, *notes(error)])


def keep_error(folder: Path, message: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record.write_bytes(folder / "error.txt", message.encode())


def ready(root: Path, tasks: Sequence[Task], *, bases: bool) -> list[Task]:
    """The base runs, or the other runs, that are to be tried now.

    Left out, with a line that says so: what runs elsewhere, and what starts from a base run
    that is not finished.
    """
    now = states(root, tasks)
    todo = []
    for task in tasks:
        if task.is_base is not bases or now[task.id] in ("done", "queued"):
            continue
        base = now.get(task.base, "done")  # one of config.base.path is checked by the run itself
        if now[task.id] == "running":
            print(f"{task.label}: is running in another process", flush=True)
        elif base != "done":
            print(f"{task.label}: left out, {task.base} is {base}", flush=True)
        else:
            todo.append(task)
    return todo


def forget_error(folder: Path) -> None:
    """Takes away error.txt, since the run is tried again."""
    with contextlib.suppress(FileNotFoundError):
        (folder / "error.txt").unlink()


def work(folder: str | os.PathLike) -> int:
    """Does what FOLDER/task.json says, unless it is done or running; 0, or 1 after an error."""
    folder = Path(folder)
    task = read_task(folder)
    if state(folder.parent, task) in ("done", "running"):
        return 0
    return 0 if attempt(folder, lambda: Runner()(task, folder)) else 1


def command(folder: Path) -> list[str]:
    """The command line of such a process."""
    return [sys.executable, "-m", "prpr.sweep.worker", str(folder)]


if __name__ == "__main__":
    try:
        sys.exit(work(sys.argv[1]))
    except Preempted as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
