"""Checkpoints: whole or not at all, bit for bit, and never into the wrong model.

This is the one file that knows Orbax. On disk, below a `directory` on a POSIX file system:

    step_00000010/           one whole checkpoint: Orbax's files (OCDBT, zarr3) and prpr.json
    step_00000010.replaced/  its predecessor, while step 10 is being written a second time
    tmp.*                    what an interrupted save or deletion left; the next save removes it

A state is any pytree of arrays. It is stored flat, leaf by leaf, under names such as
"generator/params/Dense_0/kernel", so only names, shapes and dtypes have to agree, not the
Python classes. prpr.json holds the caller's `meta`, shape and dtype of every leaf, and size
and checksum of every file.

Why, measured with Orbax 0.12.8: it restores a flipped bit in an array without a word, casts
to another dtype without a word, cannot store arrays without elements, and a file that is
truncated makes it fail with lines on standard error from its other threads. So `restore`
first compares the leaves with the model, then checks the files, and only then calls Orbax.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr.errors import CheckpointError

_FORMAT = 1
_TABLE = "prpr.json"
_STEP = re.compile(r"step_(\d{8,})(\.replaced)?")
_SHOWN = 4  # differing leaves that a message names
_PLACEHOLDER = "__nothing__"  # Orbax refuses a tree without leaves

PyTree = Any


def save(directory: str | os.PathLike, step: int, state: PyTree, meta: dict, keep: int = 2) -> None:
    """Writes one checkpoint and then removes all but the newest `keep`.

    A process that is killed at any moment leaves the old checkpoints or the new one whole.
    Saving a step again replaces it.

    Args:
      directory: where the steps live; created if missing.
      step: the number of training steps done.
      state: pytree of arrays of any shapes and dtypes, typed PRNG keys included.
      meta: small JSON that says what the run was; returned by `restore`.
      keep: how many checkpoints stay, the new one included; at least 1.

    Raises:
      CheckpointError: if it cannot be written, or a later step is there already: then
        `latest` would go on to name that one.
      TypeError, ValueError: if `meta` is not JSON, or `keep` or `step` out of range.
    """
    if keep < 1 or step < 0:
        raise ValueError(f"keep must be at least 1 and step at least 0, not {keep} and {step}")
    meta = json.loads(json.dumps(meta, allow_nan=False))
    root = Path(directory).absolute()
    later = [known for known in _steps(root) if known > step]
    if later:
        raise CheckpointError(
            f"cannot save step {step} in {root}: step {later[-1]} is there already and would be "
            f"taken for the newest; move or delete the steps after {step} first"
        )

    arrays, table = {}, {}
    for name, leaf in _named_leaves(state).items():
        value, table[name] = _to_host(leaf)
        if value.size:
            arrays[name] = value
    arrays = arrays or {_PLACEHOLDER: np.zeros(1, np.uint8)}

    final = root / f"step_{step:08d}"
    fresh = root / f"tmp.{final.name}"
    primary = jax.process_index() == 0
    try:
        if primary:
            root.mkdir(parents=True, exist_ok=True)
            _sweep(root)
        with _quiet():
            from orbax.checkpoint import v1 as ocp

            ocp.save(str(fresh), arrays)
        if primary:
            files = {str(path.relative_to(fresh)): _sum(path) for path in _files(fresh)}
            content = {"format": _FORMAT, "meta": meta, "leaves": table, "files": files}
            content["check"] = _check(content)
            (fresh / _TABLE).write_text(json.dumps(content, indent=1))
            _commit(fresh, final)
            for old in list(_steps(root).values())[:-keep]:
                _delete(old)
    except Exception as error:
        raise CheckpointError(f"cannot save step {step} in {root}: {_brief(error)}") from error


def latest(directory: str | os.PathLike) -> int | None:
    """The newest whole step in `directory`; None if it has none, or is missing.

    Raises:
      CheckpointError: if `directory` is not a directory or cannot be read.
    """
    steps = _steps(Path(directory).absolute())
    return max(steps) if steps else None


def restore(
    directory: str | os.PathLike, like: PyTree, step: int | None = None
) -> tuple[PyTree, dict]:
    """Reads a checkpoint back, bit for bit.

    Args:
      directory: as given to `save`.
      like: pytree with the structure, shapes and dtypes that are expected; its leaves are
        arrays or `jax.ShapeDtypeStruct`s. Committed arrays and structs with a sharding say
        where their leaf goes; NumPy leaves come back as NumPy, all others as jax.Array.
      step: which one; the newest if None. A damaged newest step is an error, never
        replaced silently by an older one.

    Returns:
      (state, meta): state has the structure of `like`.

    Raises:
      CheckpointError: no such checkpoint, a damaged one, or one of another shape.
    """
    root = Path(directory).absolute()
    steps = _steps(root)
    if not steps:
        why = "the directory does not exist" if not root.exists() else "the directory has none"
        raise CheckpointError(f"no checkpoint in {root}; {why}: mend the path, or train first")
    if step is None:
        step = max(steps)
    if step not in steps:
        known = ", ".join(str(known) for known in steps)
        raise CheckpointError(f"no checkpoint of step {step} in {root}; it has: {known}")

    path = steps[step]
    wanted = _named_leaves(like)
    try:
        content = _read_table(path)
    except Exception as error:
        raise _damaged(steps, step, error) from error
    different = _differences(content["leaves"], wanted)
    if different:
        more = len(different) - _SHOWN
        tail = f"; and {more} more" if more > 0 else ""
        raise CheckpointError(
            f"checkpoint step {step} in {root} does not fit this model: "
            f"{'; '.join(different[:_SHOWN])}{tail}. Use the configuration that wrote it."
        )
    try:
        _check_files(path, content["files"])
        values = _read_leaves(path, content["leaves"])
    except Exception as error:
        raise _damaged(steps, step, error) from error
    placed = [_place(values[name], leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), placed), content["meta"]


def read_meta(directory: str | os.PathLike) -> dict | None:
    """What the newest checkpoint says of itself, without its arrays; None where there is none.

    Raises:
      CheckpointError: a damaged one.
    """
    steps = _steps(Path(directory).absolute())
    if not steps:
        return None
    newest = max(steps)
    try:
        return _read_table(steps[newest])["meta"]
    except Exception as error:
        raise _damaged(steps, newest, error) from error


# ---- leaves ---------------------------------------------------------------------------


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _named_leaves(tree: PyTree) -> dict[str, Any]:
    """{"generator/params/kernel": leaf}, in the order of `jax.tree.leaves`."""
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "state"
        if name in named:
            raise ValueError(f"two leaves of the state have the name {name!r}")
        named[name] = leaf
    return named


def _to_host(leaf: Any) -> tuple[np.ndarray, dict]:
    """The leaf's raw values on this machine, and its line in the table."""
    entry = {"shape": list(np.shape(leaf)), "dtype": _dtype(leaf)}
    if _is_key(leaf):
        entry["key"] = str(jax.random.key_impl(leaf))
        leaf = jax.random.key_data(leaf)
    value = np.asarray(jax.device_get(leaf))
    if value.dtype.kind in "OUS":
        raise TypeError(f"a state holds arrays, not {type(leaf).__name__}")
    entry["raw"] = [list(value.shape), value.dtype.name]
    return value, entry


def _dtype(leaf: Any) -> str:
    """The name of a leaf's dtype, "key<fry>" for typed keys."""
    return str(leaf.dtype) if hasattr(leaf, "dtype") else np.asarray(leaf).dtype.name


def _place(value: Any, like: Any) -> Any:
    """Turns a restored value into the kind of leaf that `like` is."""
    if isinstance(like, np.ndarray | np.generic):
        return np.asarray(value)
    if isinstance(like, bool | int | float | complex):
        return value.item()
    if not _is_key(value):
        # A copy: the training step may donate it, and must not own Orbax's memory.
        value = jnp.array(value)
        if str(value.dtype) != _dtype(like):
            raise CheckpointError(f"{_dtype(like)} leaves need jax_enable_x64")
    sharding = getattr(like, "sharding", None)
    if isinstance(like, jax.Array) and not like.committed:
        sharding = None
    return value if sharding is None else jax.device_put(value, sharding)


def _differences(table: dict[str, dict], wanted: dict[str, Any]) -> list[str]:
    """One line for each leaf that is not the same in the checkpoint and in the model."""
    lines = []
    for name, leaf in wanted.items():
        if name not in table:
            lines.append(f"{name}: not in the checkpoint, model {tuple(np.shape(leaf))}")
            continue
        saved = (tuple(table[name]["shape"]), table[name]["dtype"])
        model = (tuple(np.shape(leaf)), _dtype(leaf))
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


# ---- reading --------------------------------------------------------------------------


def _check(content: dict) -> int:
    """Checksum of what prpr.json holds, its own "check" left out."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _sum(path: Path) -> list[int]:
    """[size, CRC-32] of a file."""
    size, crc = 0, 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            size += len(block)
            crc = zlib.crc32(block, crc)
    return [size, crc]


def _read_table(path: Path) -> dict:
    """What prpr.json holds; any exception means that the step is damaged."""
    try:
        content = json.loads((path / _TABLE).read_bytes())
    except ValueError:
        raise ValueError(f"{_TABLE} is not JSON") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{_TABLE} is not of format {_FORMAT}, which this prpr reads")
    if content.pop("check", None) != _check(content):
        raise ValueError(f"{_TABLE} does not have its checksum")
    return content


def _check_files(path: Path, files: dict[str, list[int]]) -> None:
    """Compares every file with its size and checksum; any exception means damage."""
    for name, (size, crc) in files.items():
        if not (path / name).is_file():
            raise ValueError(f"{name} is missing")
        found = _sum(path / name)
        if found[0] != size:
            raise ValueError(f"{name} has {found[0]} bytes instead of {size}")
        if found[1] != crc:
            raise ValueError(f"{name} does not have its checksum")


def _read_leaves(path: Path, table: dict[str, dict]) -> dict[str, Any]:
    """{name: value}; any exception means that the step is damaged."""
    with _quiet():
        from orbax.checkpoint import v1 as ocp

        arrays = ocp.load(str(path))
    values: dict[str, Any] = {}
    for name, entry in table.items():
        shape, dtype = tuple(entry["raw"][0]), np.dtype(entry["raw"][1])
        value = np.asarray(arrays[name]) if np.prod(shape) else np.zeros(shape, dtype)
        if value.shape != shape or value.dtype != dtype:
            raise ValueError(f"{name} is {value.dtype} {value.shape}, not {dtype} {shape}")
        if "key" in entry:
            value = jax.random.wrap_key_data(jnp.array(value), impl=entry["key"])
        values[name] = value
    return values


def _damaged(steps: dict[int, Path], step: int, error: Exception) -> CheckpointError:
    """The error for a step that cannot be read; looks for an earlier one that can."""
    path = steps[step]
    whole = None
    for earlier in sorted((known for known in steps if known < step), reverse=True):
        with contextlib.suppress(Exception):
            _check_files(steps[earlier], _read_table(steps[earlier])["files"])
            whole = earlier
            break
    if whole is None:
        mend = "no earlier step here is whole; restore this directory from a copy, or start anew"
    else:
        mend = f"step {whole} is whole: to go on from there, delete {path}"
    return CheckpointError(f"checkpoint step {step} in {path} is damaged: {_brief(error)}; {mend}")


def _brief(error: Exception) -> str:
    """The first line of an error, short enough to read."""
    line = (str(error) or type(error).__name__).splitlines()[0].strip().rstrip(".;")
    return line if len(line) <= 120 else line[:117] + "..."


# ---- the directory --------------------------------------------------------------------


def _steps(root: Path) -> dict[int, Path]:
    """{step: its directory}, ascending. A step counts as whole because of its name alone:
    names appear by one rename, after everything below them is on disk."""
    found: dict[int, Path] = {}
    try:
        names = sorted(os.listdir(root), reverse=True)  # "x.replaced" before "x", which wins
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoints in {root}: {error.strerror}") from error
    for name in names:
        match = _STEP.fullmatch(name)
        if match:
            found[int(match[1])] = root / name
    return dict(sorted(found.items()))


def _commit(fresh: Path, final: Path) -> None:
    """Gives a finished checkpoint its name; its predecessor of the same name goes."""
    _sync(fresh)
    replaced = final.with_name(final.name + ".replaced")
    if final.exists():
        os.rename(final, replaced)
    os.rename(fresh, final)
    _sync_one(final.parent)
    if replaced.exists():
        _delete(replaced)


def _delete(path: Path) -> None:
    # Renamed first: a deletion that is interrupted must not look like a whole step.
    rubbish = path.with_name(f"tmp.{path.name}.deleted")
    os.rename(path, rubbish)
    shutil.rmtree(rubbish)


def _sweep(root: Path) -> None:
    """Removes what interrupted saves and deletions left, and nothing else."""
    for path in list(root.iterdir()):
        match = _STEP.fullmatch(path.name)
        if path.name.startswith("tmp.step_"):
            shutil.rmtree(path)
        elif match and match[2] and path.with_name(f"step_{match[1]}").exists():
            _delete(path)


def _files(tree: Path) -> list[Path]:
    return sorted(path for path in tree.rglob("*") if path.is_file())


def _sync(tree: Path) -> None:
    """Flushes every file and directory below `tree` to the disk."""
    for path in [*tree.rglob("*"), tree]:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax's log lines (absl's logger) off standard error; errors are raised."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
