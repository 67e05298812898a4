"""A folder of converted weights: what `config.base.path` may name in place of a trained base.

It is a checkpoint of `prpr.checkpoint` at step 0, so it has its checksums and is whole or absent.
Its state is

    {"generator": net, "ema": net, ["critic": net], ["generator_opt": adam], ["critic_opt": adam]}

    net  = {"params": tree, "extra": {"batch_stats": tree, "spectral": tree}}   as `train.Net`
    adam = {"mu": tree, "nu": tree, "count": () int32}                          as Optax's Adam

and its meta says which model they are for: those knobs of `config.model` that the weights
determine, resolution, number of classes, and where they came from. A generator alone, which is
what is published of BigGAN-deep, has no "critic", and then no critic's knobs either.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prpr import checkpoint, config, models
from prpr.errors import CheckpointError, ConfigError, unknown_name

Tree = Any
KIND = "weights"
IMAGE_CHANNELS = 3


class Info(NamedTuple):
    """What a folder says of itself.

    Attributes:
      model: {knob of config.model: value}, without those of a critic if there is none.
      resolution, num_classes: of the images and labels that the networks take.
      has_critic: False for a generator alone.
      optimizers: those of ("generator_opt", "critic_opt") that are there.
      source: where the weights came from, small JSON; `prpr.convert` reads it on the way back.
    """

    model: dict[str, Any]
    resolution: int
    num_classes: int
    has_critic: bool
    optimizers: tuple[str, ...]
    source: dict[str, Any]


class Weights(NamedTuple):
    """The arrays, as nested dictionaries of NumPy arrays; see the module. Absent ones are None."""

    generator: Tree
    ema: Tree
    critic: Tree | None = None
    generator_opt: Tree | None = None
    critic_opt: Tree | None = None

    def present(self) -> dict[str, Tree]:
        """{name: tree} of those that are there."""
        return {name: tree for name, tree in self._asdict().items() if tree is not None}


def networks(
    model: Mapping[str, Any], resolution: int, num_classes: int
) -> tuple[nn.Module, nn.Module]:
    """(generator, critic) of these knobs; those that `model` lacks are at their defaults.

    Raises:
      ConfigError: knobs that no model has, or that cannot be built.
    """
    cfg = config.defaults()
    for knob in set(model) - set(cfg.model):
        raise unknown_name("knob of config.model", knob, cfg.model)
    cfg.model.update(model)
    return models.build(cfg, (resolution, resolution, IMAGE_CHANNELS), num_classes)


def shapes(
    model: Mapping[str, Any], resolution: int, num_classes: int, network: str
) -> dict[str, Tree]:
    """{"params": ..., "extra": ...} of a "generator" or a "critic", shapes in place of arrays."""
    generator, critic = networks(model, resolution, num_classes)
    y = jnp.zeros((1,), jnp.int32)
    if network == "generator":
        module, x = generator, jnp.zeros((1, model["dim_z"]), jnp.float32)
    else:
        module, x = critic, jnp.zeros((1, resolution, resolution, IMAGE_CHANNELS), jnp.float32)
    made = dict(jax.eval_shape(lambda k: module.init(k, x, y, train=True), jax.random.key(0)))
    return {"params": made.pop("params"), "extra": made}


def _like(info: Info) -> dict[str, Tree]:
    """A tree of NumPy arrays (without memory of their own) of what the folder must hold."""

    def empty(tree: Tree) -> Tree:
        return jax.tree.map(lambda s: np.broadcast_to(np.zeros((), s.dtype), s.shape), tree)

    args = (info.model, info.resolution, info.num_classes)
    generator = empty(shapes(*args, "generator"))
    like = {"generator": generator, "ema": generator}
    if info.has_critic:
        like["critic"] = empty(shapes(*args, "critic"))
    for name in info.optimizers:
        params = like[name.removesuffix("_opt")]["params"]
        like[name] = {"mu": params, "nu": params, "count": np.zeros((), np.int32)}
    return like


def write_weights(
    directory: str | os.PathLike,
    weights: Weights,
    *,
    model: Mapping[str, Any],
    resolution: int,
    num_classes: int,
    source: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Writes the folder: whole, or not at all.

    Args:
      directory: must be absent or empty, or hold weights if `overwrite`.
      weights, model, resolution, num_classes, source: see `Weights` and `Info`.

    Raises:
      CheckpointError: something is there already, it cannot be written, or the arrays are not
        those of the model; lists which.
    """
    refuse_existing(directory, overwrite)
    present = weights.present()
    info = Info(
        dict(model),
        resolution,
        num_classes,
        weights.critic is not None,
        tuple(name for name in present if name.endswith("_opt")),
        dict(source),
    )
    different = _differences(present, _like(info))
    if different:
        raise CheckpointError(
            f"these weights are not of the model that they are said to be of, so {directory} is "
            f"not written: {'; '.join(different)}"
        )
    meta = {"kind": KIND, **info._asdict()}
    checkpoint.save(directory, 0, present, meta, keep=1)


def refuse_existing(directory: str | os.PathLike, overwrite: bool) -> None:
    """Raises CheckpointError if something is in `directory` that may not be written over."""
    root = Path(directory)
    if not root.exists():
        return
    if not root.is_dir():
        raise CheckpointError(f"{root} is a file: give a folder that does not exist yet")
    # What an interrupted write left is no reason to refuse; the next one sweeps it.
    if all(entry.name.startswith("tmp.") for entry in root.iterdir()):
        return
    if not overwrite:
        raise CheckpointError(f"{root} exists: choose another folder, or give --overwrite")
    if (checkpoint.read_meta(root) or {}).get("kind") != KIND:
        raise CheckpointError(
            f"{root} holds something other than converted weights, which --overwrite does not "
            "touch: choose another folder"
        )


def _differences(found: Tree, expected: Tree) -> list[str]:
    """One line for each leaf that is not the same in name, shape or dtype."""

    def named(tree: Tree) -> dict[str, tuple]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): (np.shape(x), str(x.dtype))
            for path, x in leaves
        }

    have, want = named(found), named(expected)
    lines = [f"{name}: missing" for name in want.keys() - have.keys()]
    lines += [f"{name}: not in the model" for name in have.keys() - want.keys()]
    lines += [
        f"{name}: {have[name][1]} {have[name][0]} instead of {want[name][1]} {want[name][0]}"
        for name in want.keys() & have.keys()
        if want[name] != have[name]
    ]
    return sorted(lines)


def is_weights(directory: str | os.PathLike) -> bool:
    """Whether the directory's newest checkpoint is converted weights; False if it has none.

    Raises:
      CheckpointError: a damaged one.
    """
    return (checkpoint.read_meta(directory) or {}).get("kind") == KIND


def read_info(directory: str | os.PathLike) -> Info:
    """What the folder says of itself, without its arrays.

    Raises:
      CheckpointError: no folder, nothing in it, something other than weights, or damage.
    """
    meta = checkpoint.read_meta(directory)
    if meta is None:
        raise CheckpointError(
            f"no weights in {directory}: give the folder that scripts/convert_biggan --out wrote"
        )
    if meta.get("kind") != KIND:
        raise CheckpointError(
            f"{directory} holds a checkpoint of a run, not converted weights: give the folder "
            "that scripts/convert_biggan --out wrote"
        )
    try:
        return Info(
            dict(meta["model"]),
            int(meta["resolution"]),
            int(meta["num_classes"]),
            bool(meta["has_critic"]),
            tuple(meta["optimizers"]),
            dict(meta["source"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{directory} was written by another version of prpr ({error!r} in its description): "
            "convert again"
        ) from error


def read_weights(directory: str | os.PathLike) -> tuple[Weights, Info]:
    """The arrays, bit for bit, and what they are.

    Raises:
      CheckpointError: as `read_info`, and arrays that are damaged or of another model.
    """
    info = read_info(directory)
    try:
        like = _like(info)
    except ConfigError as error:
        raise CheckpointError(
            f"{directory} is of a model that this prpr cannot build: {error}"
        ) from error
    state, _ = checkpoint.restore(directory, like, step=0)
    return Weights(**state), info


def differences(
    info: Info,
    model: Mapping[str, Any],
    resolution: int,
    num_classes: int,
    channels: int | None = None,
) -> list[str]:
    """One line, with its mend, for everything in which a configuration is not of these weights.

    Args:
      model: the configuration's knobs, such as `cfg.model`.
      resolution, num_classes, channels: of its data, as it will reach the networks.
    """
    lines = []
    for knob, value in info.model.items():
        asked = model.get(knob)
        if _same(value, asked):
            continue
        lines.append(
            f"config.model.{knob} is {_show(asked)}, the weights have {_show(value)}: "
            f"set --config.model.{knob}={_flag(value)}"
        )
    if resolution != info.resolution:
        lines.append(
            f"the data is {resolution} x {resolution}, the weights make {info.resolution} x "
            f"{info.resolution}: set --config.data.resolution={info.resolution}, or convert "
            "weights of the data's resolution"
        )
    if channels not in (None, IMAGE_CHANNELS):
        lines.append(
            f"the data has {channels} channels, the weights {IMAGE_CHANNELS}: use colour images"
        )
    if num_classes != info.num_classes:
        lines.append(
            f"the data has {num_classes} classes, the weights have {info.num_classes}: use the "
            "data that they were trained on, with all its classes"
        )
    return lines


def check(
    directory: str | os.PathLike,
    info: Info,
    model: Mapping[str, Any],
    resolution: int,
    num_classes: int,
    channels: int | None = None,
) -> None:
    """Raises CheckpointError listing all that `differences` finds."""
    lines = differences(info, model, resolution, num_classes, channels)
    if lines:
        raise CheckpointError(
            f"the weights in {directory} do not fit this configuration: {'; '.join(lines)}."
        )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Sequence) and not isinstance(one, str):
        listed = isinstance(other, Sequence) and not isinstance(other, str)
        return listed and sorted(one) == sorted(other)
    return one == other


def _show(value: Any) -> str:
    return repr(tuple(value) if isinstance(value, list) else value)


def _flag(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
