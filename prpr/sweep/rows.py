"""The rows of a run in metrics.jsonl, where it goes on in another folder than it began in.

A run trained among others writes to ROOT/family-<id>, one trained alone to ROOT/<id>. Whoever
goes on takes the rows with it, whole: then `trainer.Trainer` cuts them at the step that it
resumes from, and what follows replaces what was there.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from prpr import record


def read(folder: Path) -> dict[str | None, list[bytes]]:
    """run (None: all of them) -> its lines in FOLDER/metrics.jsonl; a half-written one is left out.

    Raises:
      DataError: damaged.
    """
    path = folder / "metrics.jsonl"
    rows: dict[str | None, list[bytes]] = {}
    if path.exists():
        record.read_metrics(folder)  # names the line that is damaged
        for line in path.read_bytes().split(b"\n")[:-1]:
            rows.setdefault(json.loads(line).get("run"), []).append(line + b"\n")
    return rows


def give(shared: Path, folders: Mapping[str, Path]) -> None:
    """Gives a family's folder the rows that its runs have in their own.

    A process that was killed has not handed out what it wrote: then those that are there stay.

    Args:
      shared: the family's folder, not in use.
      folders: run -> its own folder, locked by this process.
    """
    there = read(shared)
    newer = {
        run: _further(read(own).get(run, []), there.get(run, [])) for run, own in folders.items()
    }
    _write(shared, {**there, **newer})


def take(shared: Path, own: Path, run: str) -> None:
    """Gives a run's folder its rows in a family's: those that it had, and those that were added."""
    there = read(shared)
    _write(own, {None: there.get(None, []), run: there.get(run, [])})


def catch_up(shared: Path, own: Path, run: str) -> None:
    """`take`, if the family's folder has rows further on than the run's own."""
    mine, there = read(own).get(run, []), read(shared).get(run, [])
    if _further(mine, there) is not mine:
        take(shared, own, run)


def _further(one: list[bytes], other: list[bytes]) -> list[bytes]:
    """Whichever goes on to a later step; `one` if they end at the same."""
    return one if _last(one) >= _last(other) else other


def _last(lines: list[bytes]) -> int:
    return max((int(json.loads(line)["step"]) for line in lines), default=-1)


def _write(folder: Path, rows: Mapping[str | None, list[bytes]]) -> None:
    lines = [line for of in rows.values() for line in of]
    if lines or (folder / "metrics.jsonl").exists():
        record.write_bytes(folder / "metrics.jsonl", b"".join(lines))
