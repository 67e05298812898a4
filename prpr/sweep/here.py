"""A sweep in this process: runs that differ in λ and seed only share a call of `run.finetune`."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from prpr import config, parallel, record, report
from prpr.errors import Preempted, PrprError
from prpr.sweep import rows
from prpr.sweep.tasks import Task, family_folder, write_task
from prpr.sweep.worker import Runner, attempt, forget_error, ready, told


def here(root: Path, tasks: Sequence[Task], runner: Runner | None = None) -> None:
    """Runs what is to be done in this process.

    Runs that differ in λ and seed only go side by side over the devices, as one call of
    `run.finetune`; where one of them fails, the others of that call go on one by one.
    """
    runner = runner or Runner()
    # The devices of the whole process are made once, before its first call, which may be small.
    alone = [len(task.seeds) for task in tasks if task.is_base]
    groups = products([task for task in tasks if not task.is_base])
    parallel.setup(0, max([1, *alone, *map(len, groups)]))
    for task in ready(root, tasks, bases=True):
        attempt(write_task(root, task), lambda task=task: runner(task, root / task.id))
    for group in products(ready(root, tasks, bases=False)):
        # Each call compiles anew, and Linux gives a process 65,530 mappings, of which XLA takes a
        # dozen for each program: a long sweep would end with a segmentation fault.
        jax.clear_caches()
        for task in group:
            write_task(root, task)
        if len(group) > 1:
            try:
                _together(root, group, runner)
                continue
            except Preempted:
                raise
            except Exception as error:
                print(f"{told(error)}\nThe runs of this group go on one by one.", file=sys.stderr)
        for task in group:
            attempt(root / task.id, lambda task=task: runner(task, root / task.id))


def products(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks in groups that are products: one family, some λ (and control) × some seeds.

    Raises:
      PrprError: two tasks that would be one run of such a call.
    """
    by_seed: dict[tuple[str, tuple[int, ...]], list[Task]] = {}
    for task in tasks:
        by_seed.setdefault((task.family, task.seeds), []).append(task)
    groups: dict[tuple[str, frozenset[str]], list[Task]] = {}
    for (family, _), members in by_seed.items():
        first: dict[str, Task] = {}
        for task in members:
            other = first.setdefault(task.name, task)
            if other is not task:
                raise PrprError(
                    f"{other.label} and {task.label} are of one family ({family}) and cannot share "
                    "a call: it would train one of them and give its result to both. Run them "
                    "with --where=local."
                )
        groups.setdefault((family, frozenset(task.name for task in members)), []).extend(members)
    return list(groups.values())


def merged(group: Sequence[Task]) -> config.Config:
    """The configuration that trains a product, as one call of `run.finetune`."""
    lams = {task.lam for task in group}
    cfg = max(group, key=lambda task: task.lam or 0).config.copy_and_resolve_references()
    cfg.lams = tuple(sorted(lam for lam in lams if lam is not None))
    cfg.seeds = tuple(sorted({task.seeds[0] for task in group}))
    cfg.control = None in lams
    return cfg


def _together(root: Path, group: Sequence[Task], runner: Runner) -> None:
    """One call of `run.finetune` for a product of λ and seeds.

    Its workdir is ROOT/family-<id>; the checkpoints are links into the runs' own folders, which
    are locked meanwhile and get their share of the results at the end, and of the metrics even
    if it does not come to that.
    """
    shared = family_folder(root, group[0])
    folders = {task.jobs[0].run: root / task.id for task in group}
    with contextlib.ExitStack() as stack:
        for task in group:
            stack.enter_context(record.Record(root / task.id, task.config))
            forget_error(root / task.id)
            _link_checkpoints(shared, root / task.id, task.jobs[0].run)
        with record.Record(shared):  # refuses, if another process trains this family
            rows.give(shared, folders)
        try:
            runner.finetune(merged(group), shared)
        finally:
            for run, own in folders.items():
                rows.take(shared, own, run)
        for task in group:
            _hand_out(shared, root / task.id, task, len(group))


def _link_checkpoints(shared: Path, own: Path, name: str) -> None:
    target = own / "checkpoints" / name
    target.mkdir(parents=True, exist_ok=True)
    link = shared / "checkpoints" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)


def _hand_out(shared: Path, own: Path, task: Task, runs: int) -> None:
    """Makes a run's folder what it would be, had it run alone; its share of the time is 1/runs."""
    (job,) = task.jobs
    mine = {("real", None), ("base", job.seed), (job.name, job.seed)}
    summary = record.read_json(shared / "summary.json")
    summary["rows"] = [row for row in summary["rows"] if (row["name"], row["seed"]) in mine]
    summary["seconds"] = round(summary["seconds"] / runs, 2)
    (own / "samples").mkdir(exist_ok=True)
    for name in ("real", f"base-seed{job.seed}", job.run):
        link = own / "samples" / f"{name}.npz"
        link.unlink(missing_ok=True)
        os.link(shared / "samples" / link.name, link)
    record.write_json(own / "summary.json", summary)
    report.make(own)
