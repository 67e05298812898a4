"""What was met on the way and changes how a number is to be read: counted, and told once."""

import threading


class Notes:
    """Counts what happens to single samples, from many threads; `lines` are the warnings.

    Args:
      name: of the set of samples, which begins every line.
    """

    def __init__(self, name: str):
        self.name = name
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[int, str]] = {}
        self._lines: list[str] = []

    def count(self, what: str, place: str) -> None:
        """One more sample to which `what` happened; the first one's place is told."""
        with self._lock:
            times, first = self._counts.get(what, (0, place))
            # Threads finish in any order: the first place in the alphabet is always the same.
            self._counts[what] = (times + 1, min(first, place))

    def say(self, line: str) -> None:
        """A warning of the whole set."""
        with self._lock:
            if line not in self._lines:
                self._lines.append(line)

    def lines(self) -> list[str]:
        """All warnings, those of single samples with how many they are and one of them."""
        with self._lock:
            counted = [
                f"{what}: {times}, such as {first}" for what, (times, first) in self._counts.items()
            ]
            return [f"{self.name}: {line}" for line in self._lines + sorted(counted)]
