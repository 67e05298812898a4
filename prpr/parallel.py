"""Runs over devices: the one file that knows how many devices there are.

Many runs of one program (several λ, several seeds) are spread over the local devices with
`jax.pmap`: the states of one group are stacked on a leading device axis, and the step is
compiled once for all groups, since λ is part of the state. Runs never speak to each other, so
each gives the numbers that it gives alone.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr.errors import ConfigError

Tree = Any

_AXIS = "runs"


def setup(devices: int = 0, runs: int = 1) -> int:
    """Chooses how many local devices to spread over; call it before anything touches JAX.

    It also turns on JAX's cache of compiled programs (below ~/.cache/prpr, or where
    JAX_COMPILATION_CACHE_DIR says), so that a repeat starts at once.

    On a CPU, XLA shows one device however many cores there are, and small programs leave the
    other cores idle; so as many CPU devices are made as there are cores to use, at most one a run.

    Args:
      devices: how many; 0 for all.
      runs: how many runs there will be; more devices than that would idle.

    Returns:
      The number of devices.

    Raises:
      ConfigError: more devices asked for than there are.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache/prpr/jax"))
    # The small networks' programs compile faster than the one second that JAX thinks worth keeping.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = min(devices or cores or 1, runs)
    # Where JAX has started already (a test, a notebook) it refuses: take what is there.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", max(wanted, 1))
    found = jax.local_device_count()
    if devices > found and runs > found:
        raise ConfigError(
            f"config.train.devices = {devices}: this machine has {found} "
            f"{jax.default_backend()} device(s); use 0 for all."
        )
    return min(wanted if devices else found, found, max(runs, 1))


class Fleet:
    """A fixed number of devices that carry one run each.

    Args:
      devices: how many, from `setup`.
    """

    def __init__(self, devices: int):
        self.devices = jax.local_devices()[:devices]
        self.width = len(self.devices)
        mesh = jax.sharding.Mesh(np.array(self.devices), (_AXIS,))
        self._sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(_AXIS))

    def map(self, fn: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
        """`fn` compiled once for all devices; mapped arguments have a leading run axis."""
        return jax.pmap(fn, axis_name=_AXIS, in_axes=in_axes, devices=self.devices)

    def stack(self, trees: Sequence[Tree]) -> Tree:
        """At most `width` trees, one a run -> one tree with a leading axis of `width`.

        Where there are fewer runs than devices the last one is repeated, so that every group has
        the shape that was compiled; `unstack` drops the copies.
        """
        full = [*trees, *[trees[-1]] * (self.width - len(trees))]
        return jax.tree.map(self._stack, *full)

    def unstack(self, tree: Tree, n: int) -> list[Tree]:
        """The first `n` runs of a stacked tree, on the host."""
        host = jax.device_get(tree)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], host) for i in range(n)]

    def _stack(self, *leaves: Any) -> Any:
        # Host arrays stay on the host: pmap sends each row to its own device. Others go to where
        # pmap leaves its results: a state that lies elsewhere than the one that comes back would
        # have the step compiled twice.
        if isinstance(leaves[0], jax.Array):
            return jax.device_put(jnp.stack(leaves), self._sharding)
        return np.stack(leaves)
