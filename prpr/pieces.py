"""What a device and a piece have of a batch: cuts, means, gradients, and what is random.

Notation: z (pieces, n, dim_z) latents, y (pieces, n) classes, n items of a device's piece. Whatever
is random is drawn for the whole batch and then cut, so that an item has its numbers however many
devices and pieces there are. Data are cut by device first, samples by piece first.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from prpr import augment
from prpr.models.dial import told
from prpr.systems import Array, System, Tree

_ENDS = 0.1  # of a dial's span, by which λ are drawn beyond each end and then held there
# Places among the draws of an update, out of each other's way.
_NOISE = 2**19
_AUGMENT = 2**18


def mean(system: System, tree: Tree) -> Tree:
    """Mean over the devices that share the batch."""
    return tree if system.axis_name is None else jax.lax.pmean(tree, system.axis_name)


def place(system: System) -> tuple[int, Array | int]:
    """(how many devices share the batch, which of them this one is)."""
    if system.axis_name is None:
        return 1, 0
    return jax.lax.axis_size(system.axis_name), jax.lax.axis_index(system.axis_name)


def latents(system: System, key: Array, n: int) -> tuple[Array, Array]:
    """z (pieces, n, dim_z) and y (pieces, n) of this device: its part of the batch's draw."""
    devices, device = place(system)
    shape = (system.accumulate, devices, n)
    k_z, k_y = jax.random.split(key)
    total = system.accumulate * devices * n
    z = jax.random.normal(k_z, (total, system.dim_z)).reshape(*shape, system.dim_z)
    y = jax.random.randint(k_y, (total,), 0, system.num_classes).reshape(shape)
    if system.dial is not None:
        y = told(y, log_lams(system, jax.random.fold_in(k_y, 1), total).reshape(shape))
    return z[:, device], y[:, device]


def log_lams(system: System, key: Array, n: int) -> Array:
    """(n,) log λ for samples, even over the span, with a twelfth more at each of its ends.

    Where items share a λ there are few of them, so they are spread: one from each part of the span.
    """
    span, items = system.dial, system.dial_items
    assert span is not None
    groups = -(-n // items)
    share = jax.random.uniform(key, (groups,))
    if items > 1:
        share = (jax.random.permutation(jax.random.fold_in(key, 1), groups) + share) / groups
    share = jnp.repeat(share, items)[:n] * (1.0 + 2.0 * _ENDS) - _ENDS
    return span[0] + (span[1] - span[0]) * jnp.clip(share, 0.0, 1.0)


def told_as(system: System, label: Array, y: Array) -> Array:
    """Classes of data -> their y: where there is a dial they get the log λ of the samples."""
    return label if system.dial is None else told(label, y[..., 1])


def cut(system: System, x: Array) -> Array:
    """(n, ...) -> (pieces, n / pieces, ...)."""
    return x.reshape(system.accumulate, -1, *x.shape[1:])


def gradient(
    system: System,
    loss: Callable[..., tuple[Array, tuple[Tree, Tree]]],
    params: Tree,
    *pieces: Tree,
) -> tuple[Array, Tree, Tree, Tree]:
    """Value, gradient and collections, means over pieces and devices; and what each piece kept.

    Args:
      loss: (params, *piece) -> value, (collections, kept).
      pieces: trees of arrays (pieces, n, ...).

    Returns:
      (value, gradient, collections, kept): leaves of `kept` have the axis of the pieces first.
    """

    def one(piece: tuple[Tree, ...]) -> tuple[tuple[Array, Tree, Tree], Tree]:
        (value, (extra, kept)), slope = jax.value_and_grad(loss, has_aux=True)(params, *piece)
        return (value, slope, extra), kept

    first = jax.tree.map(lambda x: x[0], pieces)
    if system.accumulate == 1:
        means, kept = one(first)
        return *mean(system, means), jax.tree.map(lambda leaf: leaf[None], kept)

    def body(total: Tree, piece: tuple[Tree, ...]) -> tuple[Tree, Tree]:
        found, kept = one(piece)
        return jax.tree.map(jnp.add, total, found), kept

    shapes = jax.eval_shape(one, first)[0]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    # On a CPU the convolutions inside a loop would run an order of magnitude slower.
    total, kept = jax.lax.scan(body, zeros, pieces, unroll=jax.default_backend() == "cpu")
    means = jax.tree.map(lambda leaf: leaf / system.accumulate, total)
    return *mean(system, means), kept


def noise(system: System, key: Array, image: Array) -> Array:
    """Uniform noise for each entry, (pieces, n, ...): this device's part of the batch's draw."""
    devices, device = place(system)
    # By device first, as items are cut: so a place in the batch has its noise, whatever the cuts.
    shape = (devices, *cut(system, image).shape)
    return jax.random.uniform(jax.random.fold_in(key, _NOISE), shape)[device]


def augmentation(
    system: System, key: Array, policy: str, images: tuple[int, ...], at: int, *, samples: bool
) -> augment.Draws:
    """What augments this device's items, (pieces, n, ...): its part of the batch's draw.

    Args:
      system, key: as for `latents`.
      policy: see `augment.parts`.
      images: shape of all this device's items, (pieces · n, ...).
      at: place of the draw among those of the update.
      samples: whether they are cut as samples are, or as data.
    """
    devices, device = place(system)
    key, n = jax.random.fold_in(key, _AUGMENT + at), images[0] // system.accumulate
    whole = augment.draw(key, (devices * images[0], *images[1:]), policy)

    def mine(leaf: Array) -> Array:
        rest = leaf.shape[1:]
        if samples:
            return leaf.reshape(system.accumulate, devices, n, *rest)[:, device]
        return leaf.reshape(devices, system.accumulate, n, *rest)[device]

    return jax.tree.map(mine, whole)
