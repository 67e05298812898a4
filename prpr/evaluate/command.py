"""experiments/evaluate.py: where the result goes, and how far the work is."""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from prpr import record
from prpr.errors import WorkdirError
from prpr.evaluate import table
from prpr.evaluate.evaluation import evaluate
from prpr.evaluate.inputs import Given
from prpr.progress import Progress


class Bars:
    """A progress bar for each part of the work, on standard error.

    Where that is no terminal, a part that takes longer than `patience` seconds says how far it is.
    """

    def __init__(self, patience: float = 10.0) -> None:
        self._patience = 0.0 if sys.stderr.isatty() else patience
        self._bar: Progress | None = None
        self._what, self._done, self._since = "", 0, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what or done < self._done:
            self.close()
            self._what, self._done, self._since = what, 0, time.monotonic()
        if self._bar is not None:
            self._bar.update(done - self._done)
        elif time.monotonic() - self._since >= self._patience:
            self._bar = Progress(total, desc=what, initial=done)
        self._done = done

    def close(self) -> None:
        """Ends the bar that is shown."""
        if self._bar is not None:
            self._bar.__exit__()
        self._bar, self._what = None, ""


def main(real: Given, fake: Given, json_path: str, **settings: Any) -> None:
    """Evaluates and prints a table; or writes JSON.

    Args:
      real, fake: see `evaluate`.
      json_path: "" prints the table; "-" prints one JSON object and nothing else on standard
        output; otherwise the table is printed and JSON is written to this file, whole or not at
        all.
      settings: of `evaluate`.

    Raises:
      As `evaluate`; WorkdirError for files that cannot be written, before any work is done.
    """
    deliver(
        json_path,
        lambda bars: evaluate(real, fake, progress=bars, **settings),
        table.text,
        settings.get("sheet") or "",
    )


class Deliverable(Protocol):
    """A result that can be written."""

    def to_json(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=Deliverable)


def deliver(
    json_path: str, work: Callable[[Bars], R], text: Callable[[R], str], *others: str
) -> None:
    """Does some work, and prints its text or JSON; see `main` for `json_path`.

    Args:
      json_path: where the JSON goes.
      work: makes the result; tells its progress to the bars.
      text: of the result.
      others: files that the work writes; "" for none.

    Raises:
      WorkdirError: a file that cannot be written, before any work is done.
    """
    for path in (json_path, *others):
        if path not in ("", "-"):
            check_writable(Path(path))
    with quiet() as bars:
        result = work(bars)
    if json_path == "-":
        print(json.dumps(result.to_json(), indent=2, allow_nan=False), flush=True)
        return
    print(text(result), flush=True)  # first: a disk that is full by now costs no numbers
    if json_path:
        record.write_json(json_path, result.to_json())


@contextlib.contextmanager
def quiet() -> Iterator[Bars]:
    """Bars, with standard output kept for the result: what a library prints is no part of it."""
    bars = Bars()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield bars
    finally:
        bars.close()


def check_writable(path: Path) -> None:
    """WorkdirError unless a file can be written there; makes its folder, and leaves no file."""
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file that is really written: permission bits do not know of full or read-only disks.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".check-")
        try:
            os.write(handle, b"\n")
        finally:
            os.close(handle)
            os.unlink(name)
    except OSError as error:
        raise WorkdirError(
            f"cannot write {path}: {error.strerror or error}; name another place"
        ) from error
