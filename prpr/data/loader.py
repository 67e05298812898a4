"""Batches prepared ahead of their use, in order, by background threads."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from prpr import errors

T = TypeVar("T")


class Loader(Generic[T]):
    """(step, batch) in order of the steps, prepared ahead by background threads.

    A context manager and an iterator: leaving it, or its end, stops the threads. An error in
    a batch is raised where that batch would have come. Batches are functions of their step, so a
    loader that starts at step s goes on where an earlier one stopped before s.

      with Loader(batches.batch, range(done, total), images=64) as loader:
          for step, batch in loader: ...

    Args:
      batch: step -> batch, such as `Batches.batch`, perhaps with the copy to the devices; called
        from several threads.
      steps: the steps, in order; may be endless, such as `itertools.count(done)`.
      images: how many a batch holds, for the rate.
      prefetch: batches under way or waiting, at most; 0 reads each one when it is asked for.
    """

    def __init__(
        self,
        batch: Callable[[int], T],
        steps: Iterator[int] | range,
        *,
        images: int = 0,
        prefetch: int = 2,
    ):
        if prefetch < 0:
            raise errors.ConfigError(f"prefetch={prefetch!r} must be 0 or more")
        self._batch, self._each = batch, images
        self._steps = iter(steps)
        self._prefetch = prefetch
        self._ahead: deque[tuple[int, Future[T]]] = deque()
        # Two batches at a time: one fills the decoding threads while the other's last images end.
        self._pool = ThreadPoolExecutor(min(prefetch, 2), "batches") if prefetch else None
        self._began: float | None = None
        self._last = 0.0
        self._images = 0
        self._waited = 0.0

    @property
    def images_per_second(self) -> float:
        """Images given out a second since the first was asked for; 0 before that."""
        return self._images / self._elapsed if self._images else 0.0

    @property
    def waiting(self) -> float:
        """Share of that time, in [0, 1], that the consumer waited here: near 1, data limits."""
        return self._waited / self._elapsed if self._images else 0.0

    @property
    def _elapsed(self) -> float:
        return max(self._last - (self._began or 0.0), 1e-9)

    def __enter__(self) -> "Loader[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops; batches that are under way are finished and dropped. May be called twice."""
        self._ahead.clear()
        self._steps = iter(())
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[int, T]]:
        return self

    def __next__(self) -> tuple[int, T]:
        asked = time.perf_counter()
        if self._began is None:
            self._began = asked
        try:
            step, batch = self._take()
        except BaseException:
            self.close()
            raise
        self._last = time.perf_counter()
        self._waited += self._last - asked
        self._images += self._each
        return step, batch

    def _take(self) -> tuple[int, T]:
        if self._pool is None:
            step = next(self._steps)
            return step, self._batch(step)
        self._submit()
        if not self._ahead:
            raise StopIteration
        step, future = self._ahead.popleft()
        made = future.result()
        self._submit()
        return step, made

    def _submit(self) -> None:
        while self._pool is not None and len(self._ahead) < self._prefetch:
            step = next(self._steps, None)
            if step is None:
                return
            self._ahead.append((step, self._pool.submit(self._batch, step)))
