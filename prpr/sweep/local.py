"""A sweep in local processes, each with devices of its own."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prpr.errors import ConfigError, Preempted
from prpr.sweep.states import state
from prpr.sweep.tasks import Task, write_task
from prpr.sweep.worker import command, forget_error, keep_error, ready

# Exit codes of a run that was stopped and can go on.
_STOPPED = (Preempted.exit_code, 130, -signal.SIGINT, -signal.SIGTERM)


class Slot(NamedTuple):
    """The devices of one local process: GPUs by number or UUID, else CPU cores."""

    gpus: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.gpus:
            return f"CUDA_VISIBLE_DEVICES={','.join(self.gpus)}"
        return f"cores {','.join(map(str, self.cores))}" if self.cores else "all cores"


def slots(jobs: int, gpus: Sequence[str] | None = None) -> list[Slot]:
    """Parts this machine's devices among `jobs` processes.

    Args:
      jobs: how many; 0 for one a GPU, or, without GPUs, one for every four cores.
      gpus: their numbers; None looks for them.

    Raises:
      ConfigError: fewer devices than processes.
    """
    gpus = _gpus() if gpus is None else list(gpus)
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if has_affinity else range(os.cpu_count() or 1)
    jobs = jobs or len(gpus) or max(1, len(cores) // 4)
    n, kind = (len(gpus), "GPUs") if gpus else (len(cores), "CPU cores")
    if jobs > n:
        raise ConfigError(f"--jobs={jobs}: this machine has {n} {kind} to share out.")
    parts = [slice(i * n // jobs, (i + 1) * n // jobs) for i in range(jobs)]
    if gpus:
        return [Slot(gpus=tuple(gpus[part])) for part in parts]
    return [Slot(cores=tuple(cores[part]) if has_affinity else ()) for part in parts]


def _gpus() -> list[str]:
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i, _ in enumerate(listed.stdout.splitlines())]


def local(root: Path, tasks: Sequence[Task], jobs: int = 0) -> None:
    """Runs what is to be done in local processes, each with devices of its own.

    Base runs come first, one after the other with all devices.

    Raises:
      ConfigError: see `slots`.
    """
    parts = slots(jobs)
    with _term_is_interrupt():
        _pool(root, ready(root, tasks, bases=True), slots(1))
        _pool(root, ready(root, tasks, bases=False), parts)


def _pool(root: Path, tasks: Sequence[Task], free: list[Slot]) -> None:
    waiting, free = list(tasks), list(free)
    active: list[tuple[Task, Slot, subprocess.Popen]] = []
    try:
        while waiting or active:
            while waiting and free:
                task, slot = waiting.pop(0), free.pop(0)
                print(f"{task.label}: starts on {slot}", flush=True)
                active.append((task, slot, _start(write_task(root, task), slot)))
            time.sleep(0.1)
            for item in [item for item in active if item[2].poll() is not None]:
                active.remove(item)
                task, slot, process = item
                free.append(slot)
                _ended(root, task, process.returncode)
    except BaseException:
        for _, _, process in active:
            process.terminate()
        for _, _, process in active:
            process.wait()
        raise


def _start(folder: Path, slot: Slot) -> subprocess.Popen:
    environment = dict(os.environ)
    if slot.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpus)
    forget_error(folder)
    # A child has the cores of the thread that starts it.
    before = os.sched_getaffinity(0) if slot.cores else None
    if before is not None:
        os.sched_setaffinity(0, slot.cores)
    try:
        with open(folder / "log.txt", "ab") as log:
            return subprocess.Popen(
                command(folder),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def _ended(root: Path, task: Task, code: int) -> None:
    folder = root / task.id
    if code and code not in _STOPPED and not (folder / "error.txt").exists():
        # It could not say why itself: the system ended it, or it did not get so far.
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        lines = (folder / "log.txt").read_text(errors="replace").splitlines()[-20:]
        keep_error(folder, "\n".join([f"its process {how}; the end of log.txt:", *lines, ""]))
    print(f"{task.label}: {state(root, task)}", flush=True)


@contextlib.contextmanager
def _term_is_interrupt() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C, so that it ends the processes started here, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
