"""From a Flax network and its weights to an `Encoder`: one compilation, all devices.

Notation: a batch is (B, size, size, 3) float32 in [0, 255]; B is fixed, the last batch is padded.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prpr.encoders import resize as resizing
from prpr.encoders.base import Encoded, Encoder, check_bytes, joined
from prpr.errors import CheckpointError, DataError

Variables = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class Spec(NamedTuple):
    """A network of known size.

    Attributes:
      module: called with normalised images.
      size: of its input.
      apply: (variables, images in [0, 255]) -> (features, probabilities or None).
    """

    module: nn.Module
    size: int
    apply: Callable[[Variables, jax.Array], tuple[jax.Array, jax.Array | None]]


def imagenet(x: jax.Array) -> jax.Array:
    """Images in [0, 255] less ImageNet's mean, over its standard deviation (torchvision's)."""
    mean, deviation = (jnp.asarray(v, x.dtype).reshape(1, 1, 1, 3) for v in (_MEAN, _DEVIATION))
    return (x / 255 - mean) / deviation


def shapes(spec: Spec) -> Shapes:
    """{"collection/module/leaf": shape} of the network's variables; nothing is computed."""
    return dict(_shapes(spec.module, spec.size))


@functools.cache  # tracing Inception takes seconds
def _shapes(module: nn.Module, size: int) -> Shapes:
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    tree = jax.eval_shape(module.init, jax.random.key(0), image)
    flat: dict[str, Any] = dict(traverse_util.flatten_dict(dict(tree), sep="/"))  # pyright: ignore
    return {path: leaf.shape for path, leaf in flat.items()}


def nested(arrays: Mapping[str, np.ndarray], expected: Shapes, where: str) -> Variables:
    """Flat arrays as the network's variables.

    Raises:
      CheckpointError: lists what is missing, left over, or of another shape or type.
    """
    wrong = [f"{path}: missing" for path in expected if path not in arrays]
    for path, array in arrays.items():
        if path not in expected:
            wrong.append(f"{path}: not in this network")
        elif array.shape != expected[path]:
            wrong.append(f"{path}: shape {array.shape} instead of {expected[path]}")
        elif array.dtype != np.float32:
            wrong.append(f"{path}: {array.dtype} instead of float32")
    if wrong:
        raise CheckpointError(
            f"{where} does not hold this network; {len(wrong)} arrays differ: {'; '.join(wrong)}. "
            "Convert the published file again with scripts/convert_encoder"
        )
    return traverse_util.unflatten_dict(dict(arrays), sep="/")


def build(
    spec: Spec, variables: Variables, name: str, identity: str, resize: str, batch: int
) -> Encoder:
    """The encoder of a network.

    Args:
      name, identity: of the network, and of its weights.
      resize: of `resize.RESIZES`.
      batch: images computed at once; raised to a multiple of the number of local devices.
    """
    resized = resizing.get(resize)
    devices = jax.local_devices()
    batch = -(-batch // len(devices)) * len(devices)
    mesh = Mesh(np.array(devices), ("batch",))
    split = NamedSharding(mesh, PartitionSpec("batch"))
    held = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    run = jax.jit(spec.apply)

    def prepare(image: np.ndarray) -> np.ndarray:
        return resized(check_bytes(image), spec.size)

    def one(x: np.ndarray) -> Encoded:
        padded = np.zeros((batch, *x.shape[1:]), np.float32)
        padded[: len(x)] = x
        features, probabilities = run(held, jax.device_put(padded, split))
        features = np.asarray(features)[: len(x)]
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if bad.size:
            raise DataError(
                f"{name} gives NaN or infinity for {bad.size} of {len(x)} images: its weights are "
                "not the published ones, or damaged"
            )
        if probabilities is None:
            return Encoded(features)
        return Encoded(features, np.asarray(probabilities)[: len(x)])

    def forward(x: np.ndarray) -> Encoded:
        x = np.asarray(x)
        if x.shape[1:] != (spec.size, spec.size, 3) or not len(x):
            raise DataError(
                f"{name} takes prepared images (N, {spec.size}, {spec.size}, 3), got {x.shape}"
            )
        return joined([one(x[start : start + batch]) for start in range(0, len(x), batch)])

    return Encoder(f"{name} ({identity}, {resize})", prepare, forward, batch=batch)
