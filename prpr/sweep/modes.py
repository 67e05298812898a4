"""The three modes by name: what each would do, and doing it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from prpr.sweep import here, local, slurm
from prpr.sweep.tasks import Task
from prpr.sweep.worker import command


def run(
    where: str, root: Path, tasks: Sequence[Task], jobs: int = 0, options: Sequence[str] = ()
) -> None:
    """Runs what is to be done "here", "local" or by "slurm"; see there for the arguments."""
    if where == "here":
        here.here(root, tasks)
    elif where == "local":
        local.local(root, tasks, jobs)
    else:
        slurm.slurm(root, tasks, jobs, options)


def preview(root: Path, todo: Sequence[Task], where: str, jobs: int = 0) -> list[str]:
    """What a mode would do with tasks that are neither done nor running, a line a step."""
    bases = [task for task in todo if task.is_base]
    runs = [task for task in todo if not task.is_base]
    if where == "here":
        groups = [[task] for task in bases] + here.products(runs)
        return ["here: " + ", ".join(task.label for task in group) for group in groups]
    if where == "slurm":
        arrays = [[task.label for task in array] for array in (bases, runs) if array]
        return [f"slurm: array of {len(array)}: {', '.join(array)}" for array in arrays]
    parts = local.slots(jobs)
    lines = [f"local: {_shown(root, task)}  # {task.label}, {local.slots(1)[0]}" for task in bases]
    lines += [f"local: {_shown(root, task)}  # {task.label}" for task in runs]
    return [*lines, f"runs at once: {len(parts)} ({'; '.join(map(str, parts))})"]


def _shown(root: Path, task: Task) -> str:
    return shlex.join(["python", *command(root / task.id)[1:]])
