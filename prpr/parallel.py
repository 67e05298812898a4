"""Devices: the one file that knows how many there are.

Two layouts share one interface, so that a trainer does not know which it has:

  runs   every device carries a run of its own (several λ, several seeds), with the whole batch;
         the states are stacked on a leading axis. Runs never speak to each other, so each gives
         the numbers that it gives alone. A device may carry several at once (`together`), in one
         program: side by side (vmap) on accelerators, whose small programs leave most of them
         idle, one after another (lax.map) on a CPU. For small models; one process.
  data   all devices of all processes share the batch of one run (data parallelism); the state is
         replicated. Means over the batch are means over the axis `DATA` inside the step, which
         `prpr.train` takes where it is told the axis' name. One device is the same code.

Both are `jax.pmap` in `_map`, the one function to swap for another way of mapping. λ is part of
the state, so a step is compiled once for all runs.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr.errors import ConfigError

Tree = Any

RUNS, DATA = "runs", "data"


def setup(devices: int = 0, runs: int = 1) -> int:
    """Chooses how many local devices to use; call it before anything else touches JAX.

    It also turns on JAX's cache of compiled programs (below ~/.cache/prpr, or where
    JAX_COMPILATION_CACHE_DIR says), so that a repeat starts at once.

    On a CPU, XLA shows one device however many cores there are, and small programs leave the
    other cores idle; so as many CPU devices are made as there are cores to use, at most one a run.

    Args:
      devices: how many; 0 for all.
      runs: how many can be used: more devices than that would idle. 0: any number.

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
    # One run on a CPU: XLA spreads its programs over the cores by itself.
    wanted = min(devices or cores or 1, runs) if runs else devices or 1
    # Where JAX has started already (a test, a notebook) it refuses: take what is there.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", max(wanted, 1))
    found = jax.local_device_count()
    if devices > found and (not runs or runs > found):
        raise ConfigError(
            f"config.train.devices = {devices}: this machine has {found} "
            f"{jax.default_backend()} device(s); use 0 for all."
        )
    return min(wanted if devices else found, found, max(runs or found, 1))


def _map(
    fn: Callable[..., Any], axis: str, devices: Any, in_axes: Any, out_axes: Any, donate: bool
) -> Callable[..., Any]:
    """`fn` compiled once for all devices: the one place where a mapping is chosen."""
    return jax.pmap(
        fn,
        axis_name=axis,
        in_axes=in_axes,
        out_axes=out_axes,
        devices=devices,
        donate_argnums=(0,) if donate else (),
    )


def spread(fn: Callable[[Tree], Tree], devices: int) -> Callable[[Tree], Tree]:
    """fn of one run -> the same for stacked runs, which are shared out over local devices.

    On a device they go one after another inside one program (`lax.map`): on a CPU that is faster
    than side by side (vmap), and each gives the numbers that it gives alone. The last run is
    repeated where they do not come out even.

    Args:
      fn: of a tree; compiled once.
      devices: how many, from `setup`.
    """
    used = jax.local_devices()[:devices]
    mapped = _map(lambda tree: jax.lax.map(fn, tree), RUNS, used, 0, 0, False)
    sharding = _sharding(used, RUNS, RUNS)

    def run(tree: Tree) -> Tree:
        n = len(jax.tree.leaves(tree)[0])
        rows = np.minimum(np.arange(-(-n // devices) * devices), n - 1)
        tree = jax.device_get(tree)
        cut = jax.tree.map(lambda leaf: leaf[rows].reshape(devices, -1, *leaf.shape[1:]), tree)
        found = jax.device_get(mapped(jax.device_put(cut, sharding)))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], found)

    return run


def _lanes(fn: Callable[..., Tree]) -> Callable[..., Tree]:
    """fn of one run -> of several on one device, each argument with a leading axis of runs."""
    if jax.default_backend() == "cpu":
        return lambda *args: jax.lax.map(lambda own: fn(*own), args)
    return jax.vmap(fn)


def fleet(layout: str, devices: int, together: int = 1) -> "Fleet | Team":
    """The devices in layout "runs", with `together` runs each, or "data".

    Raises:
      ConfigError: runs over several processes, which know nothing of each other's runs.
    """
    if layout == DATA:
        return Team(devices)
    if jax.process_count() > 1:
        raise ConfigError(
            f'config.train.layout = "runs" in {jax.process_count()} processes: use "data", or '
            "scripts/sweep, which gives every run a process of its own."
        )
    return Fleet(devices, together)


class Fleet:
    """Local devices that carry runs of their own (layout "runs").

    Attributes:
      width: how many runs go side by side.
      axis_name: of the devices that share a batch: None, since each has a batch of its own.
      share: how many parts a batch is cut into in this process: 1.

    Args:
      devices: how many, from `setup`.
      together: runs that each device carries at once, in one program.
    """

    axis_name: str | None = None
    share = 1

    def __init__(self, devices: int, together: int = 1):
        self.devices = jax.local_devices()[:devices]
        self.width = len(self.devices) * together
        self._together = together
        self._sharding = _sharding(self.devices, RUNS, RUNS)

    def map(self, fn: Callable[..., Any], donate: bool = False) -> Callable[..., Any]:
        """fn(state, batch) or fn(state) of one run -> the same for stacked runs.

        With `donate` the state that comes in is used up: its memory becomes the new state's.
        """
        return _map(fn if self._together == 1 else _lanes(fn), RUNS, self.devices, 0, 0, donate)

    def place(self, states: Sequence[Tree]) -> Tree:
        """At most `width` states -> one tree, stacked, on the devices.

        Leaves have a leading axis of devices, and where each carries several runs one of these.
        Where there are fewer runs than places the last one is repeated, so that every group has
        the shape that was compiled; `fetch` drops the copies.
        """
        return self._stacked(states, _put)

    def batch(self, batches: Sequence[Mapping[str, Any]]) -> Tree:
        """One batch a run, on the host -> what `map`'s functions take."""
        return self._stacked(batches, jax.device_put)

    def _stacked(self, trees: Sequence[Tree], put: Callable[..., jax.Array]) -> Tree:
        full = [*trees, *[trees[-1]] * (self.width - len(trees))]

        def stacked(*leaves: Any) -> jax.Array:
            whole = _stack(leaves)
            if self._together > 1:
                whole = whole.reshape(-1, self._together, *whole.shape[1:])
            return put(whole, self._sharding)

        return jax.tree.map(stacked, *full)

    def fetch(self, tree: Tree, n: int) -> list[Tree]:
        """The first `n` runs of what `map`'s functions return, on the host."""
        host = jax.device_get(tree)
        if self._together > 1:
            host = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), host)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], host) for i in range(n)]

    def copies(self, tree: Tree, n: int) -> list[Tree]:
        """The first `n` runs' states for a checkpoint."""
        return self.fetch(tree, n)

    def equal(self, state: Tree) -> bool:
        """Whether all replicas of a state agree: here nothing is replicated."""
        del state
        return True


class Team:
    """All devices of all processes, sharing the batch of one run (layout "data").

    Attributes:
      width: how many runs go side by side: 1.
      axis_name: of the devices, for the means inside the step.
      share: how many parts a process' batch is cut into: its devices.

    Args:
      devices: how many local ones, from `setup`.

    Raises:
      ConfigError: fewer than all local devices in a run of several processes.
    """

    axis_name: str | None = DATA
    width = 1

    def __init__(self, devices: int):
        self.devices = jax.local_devices()[:devices]
        if jax.process_count() > 1 and len(self.devices) < jax.local_device_count():
            raise ConfigError(
                f"config.train.devices = {devices}: several processes use all their devices, "
                f"{jax.local_device_count()} here; set it to 0."
            )
        self.share = len(self.devices)
        # pmap takes no list of devices in a run of several processes.
        self._mapped = None if jax.process_count() > 1 else self.devices
        self._replicated = _sharding(self.devices, DATA, None)
        self._split = _sharding(self.devices, DATA, DATA)
        self._places = jax.device_put(np.arange(self.share, dtype=np.int32), self._split)
        self._same = self.map(_same)

    def map(self, fn: Callable[..., Any], donate: bool = False) -> Callable[..., Any]:
        """As `Fleet.map`; fn must give the same state and outputs on every device."""
        # pmap wants something to map over, which a function of the state alone does not have.
        mapped = _map(
            lambda state, rest: fn(state, *rest[1:]), DATA, self._mapped, (None, 0), None, donate
        )
        return lambda state, *rest: mapped(state, (self._places, *rest))

    def place(self, states: Sequence[Tree]) -> Tree:
        """The one state, copied to every device."""
        (state,) = states
        return jax.tree.map(lambda leaf: _put(leaf, self._replicated), state)

    def batch(self, batches: Sequence[Mapping[str, Any]]) -> Tree:
        """This process' part of the batch, cut over its devices; scalars go to each."""
        (batch,) = batches

        def cut(leaf: Any) -> jax.Array:
            leaf = np.asarray(leaf)
            shape = (self.share, -1, *leaf.shape[1:]) if leaf.ndim else (self.share,)
            leaf = leaf.reshape(shape) if leaf.ndim else np.broadcast_to(leaf, shape)
            return jax.device_put(leaf, self._split)

        return jax.tree.map(cut, dict(batch))

    def fetch(self, tree: Tree, n: int) -> list[Tree]:
        """The run's tree, on the host."""
        del n
        return [jax.device_get(tree)]

    def copies(self, tree: Tree, n: int) -> list[Tree]:
        """The run's state for a checkpoint, still on the devices: saving may copy it later."""
        del n
        return [tree]

    def equal(self, state: Tree) -> bool:
        """Whether every device of every process holds the same bits."""
        return bool(self._same(state))


def _put(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    # A copy: the state is donated to the step, and may share arrays with the base of other runs.
    return jax.device_put(leaf, sharding, may_alias=False)


def _stack(leaves: Sequence[Any]) -> Any:
    return jnp.stack(leaves) if isinstance(leaves[0], jax.Array) else np.stack(leaves)


def _sharding(devices: Any, axis: str, over: str | None) -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.array(devices), (axis,))
    spec = jax.sharding.PartitionSpec(over) if over else jax.sharding.PartitionSpec()
    return jax.sharding.NamedSharding(mesh, spec)


def _same(state: Tree) -> jax.Array:
    """Whether sums of all bits, position by position, are the same on every device of DATA."""
    total = jnp.zeros((), jnp.uint32)
    for number, leaf in enumerate(jax.tree.leaves(state)):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaf = leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf
        bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).ravel()
        place = jax.lax.iota(jnp.uint32, bits.size) * jnp.uint32(2654435761) + jnp.uint32(number)
        # An odd factor keeps every bit: two entries changing places is seen as well.
        total = total + (bits * (place | jnp.uint32(1))).sum(dtype=jnp.uint32)
    return jax.lax.pmax(total, DATA) == jax.lax.pmin(total, DATA)
