"""The record of a run: what it was, and every number that it gave. Reports read only this.

    WORKDIR/
      config.json       the configuration, keys sorted
      environment.json  versions, devices, git revision of the code, command, start; no paths
                        of the code and no names of users or hosts
      metrics.jsonl     a line a measurement: {"step": 100, "run": "lam_1-seed0", "time": 9.5, ...}
      summary.json      the results at the end
      .lock             held while a process writes here; the system frees it when that dies

"step" counts training steps, "run" names the run (or is null for what belongs to all of them),
"time" is in seconds since the record was opened. JSON has no NaN and no infinities: they are
written as the strings "nan", "inf" and "-inf", and `read_metrics` turns them into floats again,
so a divergence stays visible and keeps its sign.

Files are whole at any moment: JSON files are replaced in one rename, lines are appended in
one write, and half a line, left by a machine that died, is dropped when the record is opened.
"""

import contextlib
import fcntl
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prpr import files
from prpr.errors import DataError, PrprError, WorkdirError

_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_RESERVED = ("step", "run", "time")


class Record:
    """Writes a run's record; one process at a time for each workdir.

    Use as a context manager, or call `close`. Opening an existing workdir goes on with it:
    call `rewind` with the step that was restored.

    Args:
      workdir: directory, created with its parents.
      config: ConfigDict or dict, written to config.json; None leaves that file alone.
      tensorboard: also write TensorBoard scalars, below WORKDIR/tensorboard.
      active: False makes a record that writes nothing (processes other than the first).

    Raises:
      WorkdirError: not a directory, cannot be written, or in use by another process.
      PrprError: `tensorboard` without the optional package.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        config: Any = None,
        *,
        tensorboard: bool = False,
        active: bool = True,
    ):
        self.workdir = Path(workdir)
        self.active = active
        self._start = time.monotonic()
        self._lock = self._metrics = -1
        self._boards: dict[str | None, Any] = {}  # TensorBoard's writers, one a run
        self._writer: Any = None
        self._purge: dict[str | None, int] = {}  # they forget what has this step or a later one
        if not active:
            return
        self._writer = _summary_writer() if tensorboard else None
        self._lock = _open_workdir(self.workdir)
        try:
            if config is not None:
                write_json(self.workdir / "config.json", to_plain(config))
            write_json(self.workdir / "environment.json", environment())
            path = self.workdir / "metrics.jsonl"
            with _writing(path):
                self._metrics = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
                _drop_half_line(self._metrics)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def scalars(self, step: int, values: Mapping[str, Any], run: str | None = None) -> None:
        """Appends one line to metrics.jsonl, whole.

        Args:
          step: training steps done.
          values: {name: number}; NumPy and JAX scalars and small arrays too, text as it is.
          run: name of the run that it belongs to, None for what belongs to all.

        Raises:
          DataError: a name that is taken ("step", "run", "time"), or a value that is no number.
          WorkdirError: the disk is full, or the like.
        """
        if not self.active:
            return
        taken = [name for name in _RESERVED if name in values]
        if taken:
            raise DataError(f"a metric cannot be called {taken[0]!r}")
        plain = {name: to_plain(value) for name, value in values.items()}
        elapsed = round(since(self._start), 3)
        line = json.dumps({"step": int(step), "run": run, "time": elapsed, **plain}) + "\n"
        with _writing(self.workdir / "metrics.jsonl"):
            _append(self._metrics, line.encode())
        if self._writer is not None:
            if run not in self._boards:  # not before `rewind` was called
                folder = self.workdir / "tensorboard" / (run or "")
                purge = self._purge.get(run, self._purge.get(None))
                self._boards[run] = self._writer(str(folder), purge_step=purge)
            for name, value in values.items():
                if np.ndim(value) == 0 and not isinstance(value, str):
                    self._boards[run].add_scalar(name, float(value), int(step))

    def rewind(self, step: int, run: str | None = None) -> None:
        """Forgets one run's lines after `step` (all runs', if None): resuming writes them anew."""
        if not self.active:
            return
        path = self.workdir / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        self._purge[run] = step + 1
        for name in [run] if run is not None else list(self._boards):
            if name in self._boards:  # it purges when it is opened
                self._boards.pop(name).close()
        places = [_place_of(line, path) for line in lines]
        kept = [
            line
            for line, (at, of) in zip(lines, places, strict=True)
            if at <= step or (run is not None and of != run)
        ]
        if len(kept) == len(lines):
            return
        # A new file in one rename: being killed here must not cost the lines that stay.
        with _writing(path):
            with files.replacing(path) as file:
                file.write(b"".join(kept))
            old, self._metrics = self._metrics, os.open(path, os.O_RDWR | os.O_APPEND)
            os.close(old)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Replaces summary.json."""
        if self.active:
            write_json(self.workdir / "summary.json", to_plain(values))

    def close(self) -> None:
        """Gives the workdir free. Can be called twice."""
        for board in self._boards.values():
            board.close()
        self._boards = {}
        for descriptor in (self._metrics, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._metrics = self._lock = -1


def since(start: float) -> float:
    """Seconds since `start` of `time.monotonic`; 0 where a faulty clock has gone back."""
    return max(time.monotonic() - start, 0.0)


# ---- JSON -----------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """Turns ConfigDicts, tuples, NumPy and JAX values into what JSON has.

    NaN and infinities become "nan", "inf", "-inf".

    Raises:
      DataError: for what has no JSON form.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if hasattr(value, "items"):  # dict, ConfigDict, FrozenConfigDict
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        with contextlib.suppress(TypeError, ValueError):  # typed PRNG keys, structured arrays
            array = np.asarray(value)
            if array.dtype.kind == "V":  # bfloat16 and its like
                array = array.astype(np.float64)
            if array.dtype.kind in "biufU":
                return to_plain(array.tolist())
    raise DataError(f"cannot be recorded as JSON: {value!r} of type {type(value).__name__}")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a JSON file, keys sorted, as `write_bytes` does.

    Raises:
      DataError: `value` has no JSON form; the old file stays.
      WorkdirError: it cannot be written; the old file stays.
    """
    text = json.dumps(to_plain(value), indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file, its folders included, replacing an older one in a single rename.

    Raises:
      WorkdirError: it cannot be written; the old file stays.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as file:
            file.write(data)


def read_json(path: str | os.PathLike) -> Any:
    """Reads a file of `write_json`.

    Raises:
      DataError: missing or damaged.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: it is not text") from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}") from error


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of WORKDIR/metrics.jsonl, "nan" and the infinities as floats again.

    A half-written last line (the run may be going on) is left out.

    Raises:
      DataError: missing, or damaged in the middle; names the line.
    """
    path = Path(workdir) / "metrics.jsonl"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"no metrics in {workdir}: cannot read {path.name}: {error.strerror}; "
            "name the workdir of a run"
        ) from error
    rows = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            assert isinstance(row, dict)
        except (ValueError, AssertionError) as error:
            raise DataError(f"{path} is damaged in line {number}; delete that line") from error
        rows.append({name: _from_plain(item) for name, item in row.items()})
    return rows


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_plain(item) for item in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


# ---- what the run was -----------------------------------------------------------------


def versions() -> dict[str, str]:
    """Of this package, of Python, and of the packages that results depend on."""
    import platform
    from importlib import metadata

    import prpr

    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: metadata.version(name) for name in names}
    return {"prpr": prpr.__version__, "python": platform.python_version(), **found}


def environment() -> dict[str, Any]:
    """Versions, devices, revision, command line and time: what a result depends on."""
    import platform

    import jax

    devices = jax.devices()
    return {
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "processes": jax.process_count(),
        },
        "git": _git_revision(),
        "command": [os.path.basename(sys.argv[0] or "python"), *map(_hide, sys.argv[1:])],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _hide(text: str) -> str:
    """Takes the paths of the code and of the user's home out of an argument."""
    code = str(Path(__file__).resolve().parents[1])
    for folder, short in ((code, "."), (os.path.expanduser("~").rstrip("/"), "~")):
        if folder:
            text = re.sub(re.escape(folder) + r"(?=/|$)", short, text)
    return text


def _git_revision() -> str | None:
    """Revision of the code's own repository, "+" appended if it was edited; else None."""
    package = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        # An installed copy below some other repository has no revision of its own.
        if not git("ls-files", "--", "record.py"):
            return None
        revision = git("rev-parse", "HEAD")
        return revision + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


# ---- files ----------------------------------------------------------------------------


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkdirError(
            f"cannot write {path}: {error.strerror}; free space there or name another workdir"
        ) from error


def _open_workdir(workdir: Path) -> int:
    """Creates and locks the workdir; the lock's descriptor."""
    mend = "name another with --workdir"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        # A file that is really written, not permission bits: those do not bind root, and do
        # not know of read-only mounts or full disks.
        lock = os.open(workdir / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        why = "it is a file" if workdir.is_file() else error.strerror
        raise WorkdirError(f"cannot use workdir {workdir}: {why}; {mend}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(lock, f"{os.getpid()}\n".encode().ljust(16), 0)
        os.fsync(lock)
    except BlockingIOError:
        holder = os.pread(lock, 16, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise WorkdirError(
            f"workdir {workdir} is in use by process {holder}: wait for it, stop it, or {mend}"
        ) from None
    except OSError as error:
        os.close(lock)
        raise WorkdirError(f"cannot use workdir {workdir}: {error.strerror}; {mend}") from error
    return lock


def _append(descriptor: int, line: bytes) -> None:
    """Appends a line in one write; takes back what a full disk left of it."""
    end = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, line)
        if written < len(line):
            raise OSError(28, "No space left on device")
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, end)
        raise


def _drop_half_line(descriptor: int) -> None:
    """Cuts what follows the last line break."""
    end = size = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 65536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


def _place_of(line: bytes, path: Path) -> tuple[int, str | None]:
    try:
        row = json.loads(line)
        return int(row["step"]), row.get("run")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {line[:60]!r}; delete that line") from error


def _summary_writer() -> Any:
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise PrprError(
            "TensorBoard output needs an optional package: pip install 'prpr[tensorboard]', "
            "or leave it off (metrics.jsonl has every number)"
        ) from error
    return SummaryWriter
