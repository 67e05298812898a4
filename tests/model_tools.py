"""What the tests of layers and of models share: random inputs and random variables."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from prpr import config


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def shapes_of(module: nn.Module, *inputs: Any) -> Any:
    """The shapes of a module's variables, without computing any."""
    return jax.eval_shape(lambda k: module.init(k, *inputs, train=True), jax.random.key(0))


def filled(module: nn.Module, *inputs: Any) -> Any:
    """Random variables of a module; its own would hide much, such as attention with its γ = 0.

    (And compiling a BigGAN's orthogonal initial kernels takes longer than the tests do.)
    """
    rng = np.random.default_rng(14)

    def random(path: Any, leaf: Any) -> np.ndarray:
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        kind = path[-1].key
        if kind == "u":
            return noise / np.linalg.norm(noise)
        if kind == "kernel":
            return noise / np.sqrt(noise[..., 0].size, dtype=np.float32)
        ones = kind in ("gamma", "gain", "var", "sigma")
        return np.float32(ones) + np.float32(0.1) * np.tanh(noise)

    return jax.tree_util.tree_map_with_path(random, shapes_of(module, *inputs))


def count(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def configured(**model: Any) -> Any:
    """A configuration with these knobs of the model; a BigGAN if no name is among them."""
    cfg = config.defaults()
    for key, value in {"name": "biggan", "critic_spectral_norm": True, **model}.items():
        cfg.model[key] = value
    return cfg
