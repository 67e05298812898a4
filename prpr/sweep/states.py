"""What became of a sweep's runs, from their folders: states, scores, tables."""

import csv
import fcntl
import io
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prpr import record, report
from prpr.errors import PrprError
from prpr.sweep.tasks import Task, differences, from_plain, scoring, trained

STATES = ("done", "running", "queued", "failed", "interrupted", "missing")


def locked(folder: Path) -> bool:
    """Whether a process writes to a workdir (`prpr.record` holds its .lock)."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)  # and with it the lock


def state(root: Path, task: Task) -> str:
    """One of `STATES`, from the files of ROOT/<id>; "queued" is for a scheduler to say."""
    folder = root / task.id
    if locked(folder):
        return "running"
    if scores(root, task) is not None:
        return "done"
    if (folder / "error.txt").exists():
        return "failed"
    return "interrupted" if (folder / "config.json").exists() else "missing"


def scores(root: Path, task: Task) -> dict[str, Any] | None:
    """summary.json of a finished run; None if it is not there or is of another configuration."""
    folder = root / task.id
    try:
        summary = record.read_json(folder / "summary.json")
        made = from_plain(record.read_json(folder / "config.json"))
        rows = {(row["name"], row["seed"]) for row in summary["rows"]}
    except (PrprError, KeyError, TypeError):
        return None
    control = task.name == "control"
    now, then = (differences(trained(cfg, control)) for cfg in (task.config, made))
    wanted = {(task.name, seed) for seed in task.seeds}
    same = now == then and scoring(made) == scoring(task.config)
    return summary if same and wanted <= rows else None


def states(root: Path, tasks: Sequence[Task]) -> dict[str, str]:
    """id -> state of every task; "queued" as SLURM's queue says it."""
    found = {task.id: state(root, task) for task in tasks}
    waiting = queued(root)
    return {
        key: "queued" if key in waiting and state not in ("done", "running") else state
        for key, state in found.items()
    }


def submissions(root: Path) -> dict[str, str]:
    """id -> SLURM's job id, of all that was ever submitted."""
    path = root / "slurm" / "jobs.json"
    return record.read_json(path) if path.exists() else {}


def queued(root: Path) -> set[str]:
    """The ids whose jobs SLURM's queue still has.

    Raises:
      PrprError: the queue cannot be read. Not knowing is not being gone: what waits there would
        be submitted again.
    """
    jobs = submissions(root)
    if not jobs or shutil.which("squeue") is None:
        return set()
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        why = " ".join(listed.stderr.split()) or "no message"
        raise PrprError(
            f"{' '.join(command)} ended with code {listed.returncode} ({why}), and {root} has runs "
            "that were submitted: try again when SLURM answers."
        )
    there = set(listed.stdout.split())
    return {key for key, job in jobs.items() if job in there}


# ---- tables -----------------------------------------------------------------------------------


def table(root: Path, tasks: Sequence[Task], states: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row a run (and a seed of a base run): who it is, its state, its scores if it has any.

    Args:
      root: the sweep's folder.
      tasks: from `expand`.
      states: id -> state.
    """
    rows = []
    for task in tasks:
        summary = scores(root, task) or {"rows": []}
        found = {(row["name"], row["seed"]): row["metrics"] for row in summary["rows"]}
        for seed in task.seeds:
            rows.append(
                {
                    "id": task.id,
                    "name": task.name,
                    "lam": task.lam,
                    "seed": seed,
                    "knobs": record.to_plain(task.knobs),
                    "state": states[task.id],
                    "metrics": found.get((task.name, seed)),
                }
            )
    return rows


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `table` as aligned text, with a count of the states below it."""
    cells = [["id", "name", "seed", "state", "precision", "recall", "knobs"]]
    for row in rows:
        shown = [_interval(row["metrics"], metric) for metric in ("precision", "recall")]
        knobs = " ".join(f"{name}={value}" for name, value in row["knobs"].items())
        cells.append([row["id"], row["name"], str(row["seed"]), row["state"], *shown, knobs])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    states = [row["state"] for row in rows]
    counts = [f"{states.count(state)} {state}" for state in STATES if state in states]
    return "\n".join([*lines, ", ".join(counts)])


def _interval(metrics: Mapping[str, Any] | None, metric: str) -> str:
    if metrics is None:
        return "-"
    part = metrics[metric]
    return f"{float(part['value']):.3f} [{float(part['low']):.3f}, {float(part['high']):.3f}]"


def write_csv(root: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the rows of `table` to ROOT/summary.csv; a column a knob, three a metric."""
    knobs = sorted({name for row in rows for name in row["knobs"]})
    parts = ("value", "low", "high")
    head = ["id", "name", "lam", "seed", "state", *knobs]
    head += [
        f"{metric}{'' if part == 'value' else '_' + part}"
        for metric in report.METRICS
        for part in parts
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        scored = row["metrics"] or {}
        line = [row[name] for name in head[:5]] + [row["knobs"].get(name) for name in knobs]
        line += [scored[m][p] if m in scored else None for m in report.METRICS for p in parts]
        writer.writerow(line)
    path = root / "summary.csv"
    record.write_bytes(path, buffer.getvalue().encode())
    return path


def families(root: Path, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The finished runs that differ in λ and seed only, each such set as one summary.

    What `prpr.report.table` shows: with several seeds, means and standard deviations.
    """
    merged: dict[str, dict[str, Any]] = {}
    for task in tasks:
        summary = None if task.is_base else scores(root, task)
        if summary is None:
            continue
        whole = merged.setdefault(task.family, {**summary, "rows": []})
        for row in summary["rows"]:
            place = (row["name"], row["seed"])
            if place not in [(other["name"], other["seed"]) for other in whole["rows"]]:
                whole["rows"].append(row)
    return list(merged.values())
