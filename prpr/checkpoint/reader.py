"""Reading a checkpoint back: compared with the model, then checked, then read."""

import os
from pathlib import Path

import jax
import numpy as np

from prpr.checkpoint import arrays, files, leaves
from prpr.errors import CheckpointError

_SHOWN = 4  # differing leaves that a message names


def restore(
    directory: str | os.PathLike, like: leaves.PyTree, step: int | None = None
) -> tuple[leaves.PyTree, dict]:
    """Reads a checkpoint back, bit for bit.

    With several processes each calls it and reads all files by itself, without waiting for the
    others; how many processes and devices wrote the checkpoint makes no difference.

    Args:
      directory: as given to `save`.
      like: pytree with the structure, shapes and dtypes that are expected; its leaves are
        arrays or `jax.ShapeDtypeStruct`s. Committed arrays and structs with a sharding say
        where their leaf goes, over several processes too; NumPy leaves come back as NumPy, all
        others as jax.Array.
      step: which one; the newest if None. A damaged newest step is an error, never
        replaced silently by an older one.

    Returns:
      (state, meta): state has the structure of `like`.

    Raises:
      CheckpointError: no such checkpoint, a damaged one, or one of another shape.
    """
    root = Path(directory).absolute()
    found = files.steps(root)
    if not found:
        why = "the directory does not exist" if not root.exists() else "the directory has none"
        raise CheckpointError(f"no checkpoint in {root}; {why}: mend the path, or train first")
    if step is None:
        step = max(found)
    if step not in found:
        known = ", ".join(str(known) for known in found)
        raise CheckpointError(f"no checkpoint of step {step} in {root}; it has: {known}")

    path = found[step]
    wanted = leaves.named(like)
    try:
        content = files.read_table(path)
    except Exception as error:
        raise files.damaged(found, step, error) from error
    table: leaves.Table = content["leaves"]
    different = leaves.differences(table, wanted)
    if different:
        more = len(different) - _SHOWN
        tail = f"; and {more} more" if more > 0 else ""
        raise CheckpointError(
            f"checkpoint step {step} in {root} does not fit this model: "
            f"{'; '.join(different[:_SHOWN])}{tail}. Use the configuration that wrote it."
        )
    try:
        files.check_files(path, content["files"])
        values = _read(path, table)
    except Exception as error:
        raise files.damaged(found, step, error) from error
    placed = [
        leaves.place(values[name], table[name].get("key"), leaf) for name, leaf in wanted.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), placed), content["meta"]


def _read(path: Path, table: leaves.Table) -> dict[str, np.ndarray]:
    """{name: array as stored}; any exception means that the step is damaged."""
    held = arrays.read(path / files.STATE)
    values: dict[str, np.ndarray] = {}
    for name, entry in table.items():
        shape, dtype = tuple(entry["raw"][0]), np.dtype(entry["raw"][1])
        value = np.asarray(held[name]) if np.prod(shape) else np.zeros(shape, dtype)
        if value.shape != shape or value.dtype != dtype:
            raise ValueError(f"{name} is {value.dtype} {value.shape}, not {dtype} {shape}")
        values[name] = value
    return values
