"""The processes of one training run: how they meet, agree, wait for each other, and end.

With one process every function here does nothing, or the plain thing.
"""

import contextlib
import os
import re
import sys
import traceback
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from prpr.errors import ConfigError, Preempted, PrprError, notes


class Cluster(NamedTuple):
    """How this process finds the others; see `join`.

    Attributes:
      coordinator: HOST:PORT of process 0; empty where the cluster (a TPU slice, SLURM, Open MPI,
        GKE) tells by itself.
      processes: how many there are; 0 where the cluster tells.
      process_id: this one's number; −1 where the cluster tells.
      silence: seconds without a sign of life after which a process counts as dead.
    """

    coordinator: str = ""
    processes: int = 0
    process_id: int = -1
    silence: int = 60


def join(cluster: Cluster) -> None:
    """Joins the processes of one training run; call it first.

    Raises:
      ConfigError: a coordinator without number of processes or process number, or out of range.
      PrprError: the others were not found.
    """
    known = (bool(cluster.coordinator), cluster.processes > 0, cluster.process_id >= 0)
    if any(known) and not all(known):
        raise ConfigError(
            "--coordinator, --processes and --process_id go together: "
            f"{cluster.coordinator!r}, {cluster.processes}, {cluster.process_id}. On a TPU slice "
            "or under SLURM none of them is needed: use --distributed alone."
        )
    if all(known) and not _address(cluster.coordinator):
        raise ConfigError(
            f"--coordinator={cluster.coordinator}: must be HOST:PORT, a port from 1 to 65535, such "
            "as 10.0.0.1:1234."
        )
    if all(known) and cluster.process_id >= cluster.processes:
        raise ConfigError(
            f"--process_id={cluster.process_id}: must be below --processes={cluster.processes}."
        )
    options: dict[str, Any] = {"heartbeat_timeout_seconds": cluster.silence}
    if all(known):
        options |= {
            "coordinator_address": cluster.coordinator,
            "num_processes": cluster.processes,
            "process_id": cluster.process_id,
        }
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        where = cluster.coordinator or "the cluster's own coordinator"
        raise PrprError(
            f"cannot join the other processes through {where}: {str(error).splitlines()[0]}. "
            "Start all of them with the same --coordinator and --processes; without --distributed "
            "a process trains alone."
        ) from error


def _address(text: str) -> bool:
    """Whether JAX can use it: what is no HOST:PORT crashes or hangs there."""
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 1 <= int(port) <= 65535


@contextlib.contextmanager
def session(cluster: Cluster | None) -> Iterator[None]:
    """The life of a run in several processes: joins them, and leaves without hanging.

    A process that fails says why and ends at once, with the exit code of its error: it cannot wait
    for the others, which may be in the middle of a step. They notice, and end as well. A process
    that ends in order, or is preempted, waits until all do: the first one saves and scores
    meanwhile, and the devices of each are needed by the others' last step. With None there is one
    process, and nothing happens here.
    """
    if cluster is None:
        yield
        return
    join(cluster)
    try:
        stopped: Preempted | None = None
        try:
            yield
        except Preempted as error:
            stopped = error
        if _anywhere(stopped is not None):
            raise stopped or Preempted("this process had done its part")
    except BaseException as error:
        _leave(error)


def _anywhere(flag: bool) -> bool:
    """Waits for all processes; whether the flag is set in any."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def _lost_another(error: BaseException) -> bool:
    """Whether an error is what the end of another process looks like from here."""
    if jax.process_count() == 1 or isinstance(error, PrprError):
        return False
    # Collectives of small programs on CPUs raise a bare ValueError that begins with a status.
    bare = isinstance(error, ValueError) and re.match(r"(UNKNOWN|INTERNAL|UNAVAILABLE)", str(error))
    return isinstance(error, jax.errors.JaxRuntimeError) or bare is not None


def _leave(error: BaseException) -> NoReturn:
    if _lost_another(error):
        error = PrprError(
            f"process {jax.process_index()} of {jax.process_count()} ends: another process died, "
            f"or the network failed ({str(error).splitlines()[0][:200]}). The same command, in all "
            "processes, resumes from the last checkpoint."
        )
    if isinstance(error, PrprError):
        code = error.exit_code
        for line in (str(error), *notes(error)):
            print(f"error: process {jax.process_index()}: {line}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        code = 130
    else:
        code = 1
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    # An orderly exit would wait for processes that will not come.
    os._exit(code)


def wait(name: str) -> None:
    """Until all processes are here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def agree(values: Mapping[str, Any]) -> None:
    """Ends all processes unless they hold the same values (settings, versions, counts).

    Args:
      values: name -> anything with an exact `repr`.

    Raises:
      ConfigError: names the first values that differ, in every process.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    names = sorted(values)
    # The names first: arrays of several lengths cannot be compared.
    shape = np.array([len(names), zlib.crc32(repr(names).encode())], np.uint32)
    shapes = np.asarray(multihost_utils.process_allgather(shape))
    if (shapes != shapes[0]).any():
        raise ConfigError(
            "the processes run different versions of prpr, or of a configuration file: start all "
            "of them from the same files."
        )
    sums = np.array([zlib.crc32(repr(values[name]).encode()) for name in names], np.uint32)
    table = np.asarray(multihost_utils.process_allgather(sums))
    different = [name for name, column in zip(names, table.T, strict=True) if len({*column}) > 1]
    if different:
        here = ", ".join(f"{name} = {values[name]!r}" for name in different[:4])
        raise ConfigError(
            f"the processes disagree on {', '.join(different[:4])} (process {jax.process_index()}: "
            f"{here}): start all of them with the same --config and knobs."
        )


def first() -> bool:
    """Whether this is the process that writes (the only one, where there is one)."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line, in the first process only."""
    if first():
        print(text, flush=True)
