"""The leaves of a state: names, copies, comparison, and the way back onto devices."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr.errors import CheckpointError

PyTree = Any
Table = dict[str, dict[str, Any]]  # name -> its line in prpr.json


def named(tree: PyTree) -> dict[str, Any]:
    """{"generator/params/kernel": leaf}, in the order of `jax.tree.leaves`.

    Raises:
      ValueError: two leaves have one name.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "state"
        if name in found:
            raise ValueError(f"two leaves of the state have the name {name!r}")
        found[name] = leaf
    return found


def raw(state: PyTree) -> tuple[dict[str, Any], Table]:
    """The state as ({name: array}, table), nothing copied, nothing waited for.

    Typed keys become their integers, and of an array that is replicated over devices or
    processes one local copy is taken.

    Raises:
      TypeError: a leaf that is no array.
      ValueError: two leaves of one name, or an array of which no process holds the whole.
    """
    arrays, table = {}, {}
    for name, leaf in named(state).items():
        entry: dict[str, Any] = {"shape": list(np.shape(leaf)), "dtype": dtype_of(leaf)}
        if isinstance(leaf, jax.Array) and len(leaf.devices()) > 1:
            if leaf.is_fully_replicated:
                leaf = leaf.addressable_data(0)
            elif not leaf.is_fully_addressable:
                raise ValueError(f"{name} is split over processes; gather it before it is saved")
        if is_key(leaf):
            entry["key"] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        value = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        if value.dtype.kind in "OUS":
            raise TypeError(f"a state holds arrays, not {type(leaf).__name__}")
        entry["raw"] = [list(value.shape), value.dtype.name]
        arrays[name], table[name] = value, entry
    return arrays, table


def snapshot(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Copies that stay as they are when the caller donates or overwrites the originals.

    Copies of device arrays are made on their device, behind the work that is queued there, and
    set out for the host; nothing is waited for.
    """
    copies = {n: np.array(x) for n, x in arrays.items() if not isinstance(x, jax.Array)}
    by_device: dict[Any, dict[str, jax.Array]] = {}
    for name, x in arrays.items():
        if isinstance(x, jax.Array):
            devices = x.devices()
            key = next(iter(devices)) if len(devices) == 1 else name
            by_device.setdefault(key, {})[name] = x
    for group in by_device.values():
        copies.update(_copy(group))
    for x in copies.values():
        if isinstance(x, jax.Array):
            x.copy_to_host_async()
    return copies


@jax.jit
def _copy(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    # One program for all leaves: hundreds of launches would be a stall of their own.
    return {name: jnp.copy(x) for name, x in arrays.items()}


def on_host(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{name: NumPy array}; waits for devices."""
    return {name: np.asarray(jax.device_get(x)) for name, x in arrays.items()}


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed PRNG keys."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def dtype_of(leaf: Any) -> str:
    """The name of a leaf's dtype, "key<fry>" for typed keys."""
    return str(leaf.dtype) if hasattr(leaf, "dtype") else np.asarray(leaf).dtype.name


def differences(table: Table, wanted: Mapping[str, Any]) -> list[str]:
    """One line for each leaf that is not the same in the checkpoint and in the model."""
    lines = []
    for name, leaf in wanted.items():
        if name not in table:
            lines.append(f"{name}: not in the checkpoint, model {tuple(np.shape(leaf))}")
            continue
        saved = (tuple(table[name]["shape"]), table[name]["dtype"])
        model = (tuple(np.shape(leaf)), dtype_of(leaf))
        if saved[0] != model[0]:
            lines.append(f"{name}: checkpoint {saved[0]}, model {model[0]}")
        elif saved[1] != model[1]:
            lines.append(f"{name}: checkpoint {saved[1]}, model {model[1]}")
    lines += [
        f"{name}: checkpoint {tuple(entry['shape'])}, not in the model"
        for name, entry in table.items()
        if name not in wanted
    ]
    return lines


def place(value: np.ndarray, key: str | None, like: Any) -> Any:
    """Turns a stored array into the kind of leaf that `like` is, where `like` is.

    Args:
      value: as stored; of typed keys the integers.
      key: the implementation of typed keys, None for other leaves.
      like: as for `restore`.

    Raises:
      CheckpointError: a 64-bit leaf that this JAX would cut to 32 bits.
    """
    if key is None and isinstance(like, np.ndarray | np.generic):
        return value
    if isinstance(like, bool | int | float | complex):
        return value.item()
    sharding = getattr(like, "sharding", None)
    if isinstance(like, jax.Array) and not like.committed:
        sharding = None
    if sharding is not None and not sharding.is_fully_addressable:
        # device_put would compare the value over all processes first, by a collective.
        array = jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
        return array if key is None else jax.random.wrap_key_data(array, impl=key)
    # A copy: the training step may donate it, and must not own Orbax's memory.
    array = jnp.array(value)
    if key is not None:
        array = jax.random.wrap_key_data(array, impl=key)
    elif str(array.dtype) != dtype_of(like):
        raise CheckpointError(f"{dtype_of(like)} leaves need jax_enable_x64")
    return array if sharding is None else jax.device_put(array, sharding)
