"""Writing checkpoints: at once, or in a thread while the training goes on."""

import errno
import json
import math
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from prpr.checkpoint import arrays, files, leaves
from prpr.errors import CheckpointError

# What a full disk looks like, to the system and in the messages of Orbax's own file access.
_FULL = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or have the quota raised",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
}


def save(
    directory: str | os.PathLike, step: int, state: leaves.PyTree, meta: dict, keep: int = 2
) -> None:
    """Writes one checkpoint and then removes all but the newest `keep`.

    A process that is killed at any moment leaves the old checkpoints or the new one whole.
    Saving a step again replaces it. With several processes process 0 alone writes; in the
    others the call checks its arguments and returns.

    Args:
      directory: where the steps live; created if missing.
      step: the number of training steps done.
      state: pytree of arrays of any shapes and dtypes, typed PRNG keys included. Each array
        is whole in this process or replicated over processes.
      meta: small JSON that says what the run was; returned by `restore`.
      keep: how many checkpoints stay, the new one included; at least 1.

    Raises:
      CheckpointError: if it cannot be written, or a later step is there already: then
        `latest` would go on to name that one.
      TypeError, ValueError: if `meta` is not JSON, `keep` or `step` out of range, or a leaf
        is no array, or split over processes.
    """
    job = _Job(directory, step, state, meta, None, keep, 0)
    if jax.process_index() == 0:
        job.check_order()
        job.write()


class Saver:
    """Writes checkpoints in a thread, so that a step does not wait for the disk.

    At most one is being written: a `save` that comes earlier waits for it. An error of the
    thread is raised by the next `save`, `wait` or `close`. Use it as a context manager, or
    call `close`: what is still being written when the interpreter ends may be lost (never
    half-written).

    Args:
      directory: where the steps live; created if missing.
      keep: how many of the newest checkpoints stay; at least 1.
      keep_best: how many of those with the highest score stay besides.
      active: whether this process writes; process 0 alone if None. In the others all methods
        check their arguments and do nothing.

    Raises:
      ValueError: `keep` or `keep_best` out of range.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        keep: int = 2,
        keep_best: int = 0,
        active: bool | None = None,
    ):
        if keep < 1 or keep_best < 0:
            raise ValueError(
                f"keep must be at least 1 and keep_best at least 0, not {keep} and {keep_best}"
            )
        self._directory, self._keep, self._keep_best = directory, keep, keep_best
        self._active = jax.process_index() == 0 if active is None else active
        self._thread: threading.Thread | None = None
        self._error: CheckpointError | None = None

    def save(self, step: int, state: leaves.PyTree, meta: dict, score: float | None = None) -> None:
        """Starts to write one checkpoint, of the values that `state` has now.

        `state` may be donated or overwritten as soon as this returns: its arrays are copied on
        their devices, behind the work that is queued there, which takes memory for one more
        state until the copy has reached the host.

        Args:
          step: the number of training steps done.
          state: as for `checkpoint.save`.
          meta: small JSON that says what the run was; returned by `restore`.
          score: how good it is, for `keep_best` and `best`; higher is better.

        Raises:
          CheckpointError: the checkpoint before this could not be written, or a later step is
            there already. This one is not written then.
          TypeError, ValueError: as for `checkpoint.save`, or a score that is not finite.
        """
        job = _Job(self._directory, step, state, meta, score, self._keep, self._keep_best)
        if not self._active:
            return
        self.wait()
        job.check_order()
        job.freeze()
        self._thread = threading.Thread(target=self._write, args=(job,), name="prpr checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when everything that was given to `save` is on disk.

        Raises:
          CheckpointError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """The same as `wait`; a closed Saver can be used again."""
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except CheckpointError as lost:
            if error is None:
                raise
            error.add_note(str(lost))  # what ended the run matters more

    def _write(self, job: "_Job") -> None:
        try:
            job.write()
        except CheckpointError as error:
            self._error = error


class _Job:
    """One checkpoint to be written; the arguments are those of `Saver` and `Saver.save`."""

    def __init__(
        self,
        directory: str | os.PathLike,
        step: int,
        state: leaves.PyTree,
        meta: dict,
        score: float | None,
        keep: int,
        keep_best: int,
    ):
        if keep < 1 or step < 0:
            raise ValueError(f"keep must be at least 1 and step at least 0, not {keep} and {step}")
        if score is not None and not math.isfinite(score):
            raise ValueError(f"a score must be finite, not {score}")
        self.root, self.step = Path(directory).absolute(), step
        self.keep, self.keep_best = keep, keep_best
        self.said: dict[str, Any] = {"meta": json.loads(json.dumps(meta, allow_nan=False))}
        if score is not None:
            self.said["score"] = float(score)
        self.arrays: Mapping[str, Any]
        self.arrays, self.said["leaves"] = leaves.raw(state)

    def check_order(self) -> None:
        """Raises CheckpointError if a later step is there."""
        later = [known for known in files.steps(self.root) if known > self.step]
        if later:
            raise CheckpointError(
                f"cannot save step {self.step} in {self.root}: step {later[-1]} is there already "
                f"and would be taken for the newest; move or delete the steps after {self.step} "
                "first"
            )

    def freeze(self) -> None:
        """From here on the caller's arrays are not needed."""
        self.arrays = leaves.snapshot(self.arrays)

    def write(self) -> None:
        """Raises CheckpointError if it cannot be written; what was there before stays."""
        final = self.root / f"step_{self.step:08d}"
        fresh = self.root / f"tmp.{final.name}"
        try:
            values = leaves.on_host(self.arrays)
            self.arrays = {}  # frees the copies on the devices
            self.root.mkdir(parents=True, exist_ok=True)
            files.sweep(self.root)
            fresh.mkdir()
            arrays.write(fresh / files.STATE, values)
            files.write_table(fresh, **self.said)
            files.commit(fresh, final)
            files.prune(self.root, self.keep, self.keep_best)
        except Exception as error:
            shutil.rmtree(fresh, ignore_errors=True)  # a full disk needs the space
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> CheckpointError:
        place = f"cannot save step {self.step} in {self.root}"
        for number, mend in _FULL.items():
            if _is(error, number):
                older = files.latest(self.root)
                kept = "nothing was saved before" if older is None else f"step {older} is whole"
                return CheckpointError(
                    f"{place}: {os.strerror(number)}; {kept}. Make room: {mend}, or lower "
                    "config.train.keep; then the same command goes on from what is there."
                )
        return CheckpointError(f"{place}: {files.brief(error)}")


def _is(error: BaseException | None, number: int) -> bool:
    """Whether `number` (of errno) is behind an error."""
    while error is not None:
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
