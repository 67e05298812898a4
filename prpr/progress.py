"""How far a loop is: a bar on a terminal, a few plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO


class Progress:
    """Shows how far a loop is: a bar on a terminal, elsewhere a plain line every tenth.

    A context manager.

    Args:
      total: steps in all, those before a resume included.
      desc: what is counted.
      initial: steps that were done before.
      file: where to; standard error if None.
    """

    def __init__(
        self, total: int, desc: str = "", initial: int = 0, file: TextIO | None = None
    ) -> None:
        self._file = sys.stderr if file is None else file
        self._total, self._desc, self._done = total, desc, initial
        self._shown = 10 * initial // max(total, 1)
        self._scalars = ""
        self._start, self._initial = time.monotonic(), initial
        self._bar: Any = None
        if self._file.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=desc, initial=initial, file=self._file, dynamic_ncols=True
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, n: int = 1) -> None:
        """Counts `n` more steps as done."""
        self._done += n
        if self._bar is not None:
            self._bar.update(n)
            return
        tenths = 10 * self._done // max(self._total, 1)
        if tenths > self._shown:
            self._shown = tenths
            speed = (self._done - self._initial) / max(time.monotonic() - self._start, 1e-9)
            text = f"{self._desc}: {self._done}/{self._total} ({10 * tenths} %), {speed:.3g}/s"
            print(text + self._scalars, file=self._file, flush=True)

    def add(self, n: int) -> None:
        """More steps to do than was thought, or fewer."""
        self._total += n
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.refresh()

    def set(self, scalars: Mapping[str, Any]) -> None:
        """Shows these numbers from now on, for example losses."""
        text = ", ".join(f"{name} {float(value):.4g}" for name, value in scalars.items())
        self._scalars = f", {text}" if text else ""
        if self._bar is not None:
            self._bar.set_postfix_str(text)
