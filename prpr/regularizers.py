"""Penalties on a network: on a critic's slope, on the directions of its kernels.

Notation: T the critic's log-ratio, x an image, y its class; W a kernel flattened to (fan_in,
out). Source: Mescheder, Geiger & Nowozin 2018 (R1); Huang, Gokaslan, Kuleshov & Tompkin 2024
(R1 and R2 together, R3GAN); Brock, Donahue & Simonyan 2019, eq. 3 (orthogonality).
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def gradient_penalty(apply: Callable[[Array], Array], x: Array) -> Array:
    """½ E‖∇_x T(x)‖², zero-centred: R1 at data, R2 at samples; (N, ...) -> ().

    Args:
      apply: x (N, ...) -> (N,), each output a function of its own row only.
      x: where the gradient is taken.
    """
    gradient = jax.grad(lambda inputs: apply(inputs).sum())(x)
    return 0.5 * jnp.square(gradient).reshape(x.shape[0], -1).sum(-1).mean()


def orthogonal(
    params: Any, *, exclude: Collection[str] = ("shared",), tables: Collection[str] = ("embed",)
) -> Array:
    """½ Σ_W ‖WᵀW ⊙ (1 − I)‖²_F over all kernels: outputs orthogonal, of whatever length; ().

    Its gradient is that of BigGAN-PyTorch's `ortho` at strength 1, 2 W (WᵀW ⊙ (1 − I)).

    Args:
      params: a tree of parameters; those with fewer than two axes are passed over, and so are
        the frequencies of Fourier features, whose length is their meaning.
      exclude: names of modules that are passed over: the class embedding that a generator's
        blocks share.
      tables: names of modules whose kernel is a table with a row for each class. Rows take the
        place of outputs there, as in the original. A generator without a shared embedding has
        tables in "gain" and "bias" too.
    """
    total = jnp.zeros((), jnp.float32)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = {entry.key for entry in path}
        if leaf.ndim < 2 or names & {*exclude, "frequencies"}:
            continue
        flat = leaf.T if names & set(tables) else leaf.reshape(-1, leaf.shape[-1])
        gram = jnp.matmul(flat.T, flat, precision="highest")
        total = total + 0.5 * (jnp.square(gram).sum() - jnp.square(jnp.diag(gram)).sum())
    return total
