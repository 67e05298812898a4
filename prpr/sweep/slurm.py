"""A sweep as SLURM array jobs, by way of submitit (an optional package)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prpr import record
from prpr.errors import ConfigError, PrprError
from prpr.sweep.states import queued, states, submissions
from prpr.sweep.tasks import Task, write_task
from prpr.sweep.worker import work


class Submitted:
    """What a SLURM job calls; preempted or out of time, it is queued again and resumes."""

    def __call__(self, folder: str) -> int:
        return work(folder)

    def checkpoint(self, folder: str) -> Any:
        return _submitit().helpers.DelayedSubmission(self, folder)


def slurm(
    root: Path,
    tasks: Sequence[Task],
    jobs: int = 0,
    options: Sequence[str] = (),
    cluster: str = "slurm",
) -> list[Any]:
    """Submits what is to be done as one array job; base runs as another, which it waits for.

    Args:
      root: the sweep's folder, on a file system that the nodes share.
      tasks: from `sweep.expand`.
      jobs: at most so many at once; 0 for no limit.
      options: NAME=VALUE, parameters of submitit's executor ("slurm_partition=gpu").
      cluster: submitit's executor; "local" runs at once, and here, for tests.

    Returns:
      The jobs submitted.

    Raises:
      ConfigError: an option that submitit does not have; no SLURM.
      PrprError: submitit is not installed.
    """
    submitit = _submitit()
    parameters = {
        "name": "prpr-sweep",
        "timeout_min": 24 * 60,
        "gpus_per_node": 1,
        "cpus_per_task": 8,
        **({"slurm_array_parallelism": jobs} if jobs else {}),
        **dict(map(_option, options)),
    }
    logs = root / "slurm"
    try:
        executor = submitit.AutoExecutor(logs, cluster=cluster, slurm_max_num_timeout=1000)
        executor.update_parameters(**parameters)
    except (RuntimeError, TypeError, ValueError, NameError, AssertionError) as error:
        # submitit asserts the types of its parameters.
        raise ConfigError(
            f"--where=slurm {' '.join(f'--slurm={option}' for option in options)}: {error}"
        ) from error
    now, known, queue = states(root, tasks), submissions(root), queued(root)
    ahead = [known[task.id] for task in tasks if task.is_base and task.id in queue]
    todo = [task for task in tasks if now[task.id] not in ("done", "running", "queued")]
    bases = [task for task in todo if task.is_base]
    runs = [task for task in todo if not task.is_base]
    submitted = _submit(executor, root, bases) if bases else []
    ahead += [job.job_id for job in submitted]
    if cluster != "slurm":  # such an executor has no dependencies
        for job in submitted:
            job.result()
    elif ahead:
        # "any": after a base run that failed, its runs end at once with an error that says so.
        after = {"dependency": "afterany:" + ":".join(ahead)}
        executor.update_parameters(slurm_additional_parameters=after)
    return submitted + (_submit(executor, root, runs) if runs else [])


def _submit(executor: Any, root: Path, tasks: Sequence[Task]) -> list[Any]:
    folders = [str(write_task(root, task)) for task in tasks]
    submitted = executor.map_array(Submitted(), folders)
    for task, job in zip(tasks, submitted, strict=True):
        print(f"{task.label}: job {job.job_id}", flush=True)
    jobs = {task.id: job.job_id for task, job in zip(tasks, submitted, strict=True)}
    record.write_json(root / "slurm" / "jobs.json", {**submissions(root), **jobs})
    return submitted


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--slurm={text}: must be NAME=VALUE, such as slurm_partition=gpu.")
    return name, int(value) if re.fullmatch(r"-?[0-9]+", value) else value


def _submitit() -> Any:
    try:
        import submitit  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise PrprError(
            "SLURM jobs are submitted by an optional package: pip install 'prpr[slurm]', or run "
            "the sweep with --where=local"
        ) from error
    return submitit
