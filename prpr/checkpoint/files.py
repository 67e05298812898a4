"""The directory of checkpoints: names, tables and checksums, commits and deletions."""

import contextlib
import json
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

from prpr.errors import CheckpointError

STATE = "state"  # the folder of a step that holds Orbax's files
_FORMAT = 1
_TABLE = "prpr.json"
_STEP = re.compile(r"step_(\d{8,})(\.replaced)?")


# ---- what there is --------------------------------------------------------------------


def steps(root: Path) -> dict[int, Path]:
    """{step: its directory}, ascending. A step counts as whole because of its name alone:
    names appear by one rename, after everything below them is on disk."""
    found: dict[int, Path] = {}
    try:
        names = sorted(os.listdir(root), reverse=True)  # "x.replaced" before "x", which wins
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoints in {root}: {error.strerror}") from error
    for name in names:
        match = _STEP.fullmatch(name)
        if match:
            found[int(match[1])] = root / name
    return dict(sorted(found.items()))


def latest(directory: str | os.PathLike) -> int | None:
    """The newest whole step in `directory`; None if it has none, or is missing.

    Raises:
      CheckpointError: if `directory` is not a directory or cannot be read.
    """
    found = steps(Path(directory).absolute())
    return max(found) if found else None


def best(directory: str | os.PathLike) -> int | None:
    """The step with the highest score, the newest of equals; None if none has a score.

    Raises:
      CheckpointError: if `directory` is not a directory or cannot be read.
    """
    ranked = _ranked(steps(Path(directory).absolute()))
    return ranked[-1] if ranked else None


def read_meta(directory: str | os.PathLike) -> dict | None:
    """What the newest checkpoint says of itself, without its arrays; None where there is none.

    Raises:
      CheckpointError: a damaged one.
    """
    found = steps(Path(directory).absolute())
    if not found:
        return None
    newest = max(found)
    try:
        return read_table(found[newest])["meta"]
    except Exception as error:
        raise damaged(found, newest, error) from error


def _ranked(found: dict[int, Path]) -> list[int]:
    """The steps that have a score, the best last. A damaged table has none."""
    scores: dict[int, float] = {}
    for step, path in found.items():
        with contextlib.suppress(Exception):
            scores[step] = read_table(path)["score"]
    return sorted(scores, key=lambda step: (scores[step], step))


# ---- tables and checksums -------------------------------------------------------------


def _check(content: dict) -> int:
    """Checksum of what prpr.json holds, its own "check" left out."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _sum(path: Path) -> list[int]:
    """[size, CRC-32] of a file."""
    size, crc = 0, 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            size += len(block)
            crc = zlib.crc32(block, crc)
    return [size, crc]


def write_table(path: Path, **said: Any) -> None:
    """Writes prpr.json beside the files it vouches for; `said` is what else it holds."""
    below = sorted(file for file in path.rglob("*") if file.is_file())
    sums = {str(file.relative_to(path)): _sum(file) for file in below}
    content = {"format": _FORMAT, **said, "files": sums}
    content["check"] = _check(content)
    (path / _TABLE).write_text(json.dumps(content, indent=1))


def read_table(path: Path) -> dict:
    """What prpr.json holds; any exception means that the step is damaged."""
    try:
        content = json.loads((path / _TABLE).read_bytes())
    except ValueError:
        raise ValueError(f"{_TABLE} is not JSON") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{_TABLE} is not of format {_FORMAT}, which this prpr reads")
    if content.pop("check", None) != _check(content):
        raise ValueError(f"{_TABLE} does not have its checksum")
    return content


def check_files(path: Path, sums: dict[str, list[int]]) -> None:
    """Compares every file with its size and checksum; any exception means damage."""
    for name, (size, crc) in sums.items():
        if not (path / name).is_file():
            raise ValueError(f"{name} is missing")
        found = _sum(path / name)
        if found[0] != size:
            raise ValueError(f"{name} has {found[0]} bytes instead of {size}")
        if found[1] != crc:
            raise ValueError(f"{name} does not have its checksum")


def damaged(found: dict[int, Path], step: int, error: Exception) -> CheckpointError:
    """The error for a step that cannot be read; looks for an earlier one that can."""
    path = found[step]
    whole = None
    for earlier in sorted((known for known in found if known < step), reverse=True):
        with contextlib.suppress(Exception):
            check_files(found[earlier], read_table(found[earlier])["files"])
            whole = earlier
            break
    if whole is None:
        mend = "no earlier step here is whole; restore this directory from a copy, or start anew"
    else:
        mend = f"step {whole} is whole: to go on from there, delete {path}"
    return CheckpointError(f"checkpoint step {step} in {path} is damaged: {brief(error)}; {mend}")


def brief(error: BaseException) -> str:
    """The first line of an error, short enough to read."""
    line = (str(error) or type(error).__name__).splitlines()[0].strip().rstrip(".;")
    return line if len(line) <= 120 else line[:117] + "..."


# ---- changes --------------------------------------------------------------------------


def commit(fresh: Path, final: Path) -> None:
    """Gives a finished checkpoint its name; its predecessor of the same name goes."""
    for path in [*fresh.rglob("*"), fresh]:
        _sync(path)
    replaced = final.with_name(final.name + ".replaced")
    if final.exists():
        os.rename(final, replaced)
    os.rename(fresh, final)
    _sync(final.parent)
    if replaced.exists():
        _delete(replaced)


def prune(root: Path, keep: int, keep_best: int) -> None:
    """Deletes all but the newest `keep` and the `keep_best` of the highest scores."""
    found = steps(root)
    kept = set(list(found)[-keep:])
    if keep_best:
        kept.update(_ranked(found)[-keep_best:])
    for step, path in found.items():
        if step not in kept:
            _delete(path)


def sweep(root: Path) -> None:
    """Removes what interrupted saves and deletions left, and nothing else."""
    for path in list(root.iterdir()):
        match = _STEP.fullmatch(path.name)
        if path.name.startswith("tmp.step_"):
            shutil.rmtree(path)
        elif match and match[2] and path.with_name(f"step_{match[1]}").exists():
            _delete(path)


def _delete(path: Path) -> None:
    # Renamed first: a deletion that is interrupted must not look like a whole step.
    rubbish = path.with_name(f"tmp.{path.name}.deleted")
    os.rename(path, rubbish)
    shutil.rmtree(rubbish)


def _sync(path: Path) -> None:
    """Flushes a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
