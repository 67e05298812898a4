"""Random changes of items that a critic sees: DiffAugment, instance noise, and when to make them.

Notation: x items, images (N, H, W, C) in [−1, 1] or points (N, D); t one transform, K all of them,
as a kernel on distributions: Kp is the distribution of an augmented item of p; u uniform numbers
in [0, 1); p here is also the probability of a transform, as in the source. Source: Zhao et al.
2020 (DiffAugment, arXiv:2006.10738); Sønderby et al. 2017 (instance noise, arXiv:1610.04490);
Karras et al. 2020 (adaptive augmentation, arXiv:2006.06676).

Data and samples take the same function, in the critic's update and in the generator's, through
which the gradient flows. All that is random is drawn first (`draw`) and each item has its own, so
that a batch may be drawn whole and then cut.

What it does to the estimate:

  * A critic of augmented items estimates log(Kp/Kq), not log(p/q). Its checks (E_q[r̂] = 1,
    calibration) hold on augmented items only.
  * ∫ min(λ Kp, Kq) ≥ ∫ min(λp, q) for every λ (data processing: min(λp, q) is a part of both λp
    and q, and K keeps its mass). So the augmented α(λ) is at least the true one, and D_λ at most
    the true one: the estimate flatters the model, the more the stronger K is. Kp/Kq at an item is
    a mean of p/q over the samples that become it, so it is nearer to 1 and λ acts as one that is
    further from 1.
  * An augmentation that is made with probability p < 1 does not leak (Karras et al., sec. 2.2):
    Kq = Kp only where q = p, so that samples do not learn to look augmented. Each transform is the
    mixture (1 − p) I + p t, which is one to one on distributions for every p < 1/2, whatever t is,
    and above as long as −(1 − p)/p is no eigenvalue of t: a half turn has −1 and leaks at 1/2. At
    p = 1 what t forgets is lost. This speaks of q = p alone: a model that cannot reach p is still
    led by Kp and Kq.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from prpr.errors import ConfigError, unknown_name

Array = jax.Array

PARTS = ("color", "translation", "cutout", "noise")
_SHIFT = 0.125  # of a side, the largest translation
_HOLE = 0.5  # of a side, the side of the cutout

# The uniform numbers of an item: all of them for every policy, so that one part's are the same
# whatever the others are.
_GATES = {
    "brightness": 0,
    "saturation": 1,
    "contrast": 2,
    "translation": 3,
    "cutout": 4,
    "noise": 5,
}
_NUMBERS = {"brightness": 6, "saturation": 7, "contrast": 8, "translation": 9, "cutout": 11}
_WIDTH = 13


class Draws(NamedTuple):
    """All that is random in the augmentation of N items.

    Attributes:
      uniform: (N, 13) float32 in [0, 1): for each transform whether and how.
      normal: (N, ...) float32 noise for each entry; (N, 0) where the policy has no noise.
    """

    uniform: Array
    normal: Array


def parts(policy: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The parts of a policy such as "color,translation,cutout", in their order; () for "".

    Args:
      policy: parts of `PARTS`, with commas between them.
      shape: of one item: (H, W, C) of an image, (D,) of a point.

    Raises:
      ConfigError: an unknown part, one that is named twice, or one that points cannot take,
        which is all but noise.
    """
    names = tuple(part.strip() for part in policy.split(",")) if policy.strip() else ()
    for name in names:
        if name not in PARTS:
            raise unknown_name("augmentation", name, PARTS)
        if names.count(name) > 1:
            raise ConfigError(f"augmentation policy {policy!r}: {name!r} stands in it twice.")
        if name != "noise" and len(shape) != 3:
            raise ConfigError(
                f"augmentation policy {policy!r}: {name!r} is of images (H, W, C), and these items "
                f"have the shape {shape}; points take 'noise' alone."
            )
    return names


def draw(key: Array, shape: tuple[int, ...], policy: str) -> Draws:
    """What `apply` needs for items of that shape, (N, ...).

    Args:
      key: a JAX key. The same key and shape draw the same.
      shape: of all items. Where a batch is cut over devices or pieces, that of the whole batch, so
        that an item has its numbers whatever the cuts.
      policy: see `parts`, whose errors it raises.
    """
    k_uniform, k_normal = jax.random.split(key)
    noisy = "noise" in parts(policy, shape[1:])
    uniform = jax.random.uniform(k_uniform, (shape[0], _WIDTH), jnp.float32)
    normal = jax.random.normal(k_normal, shape if noisy else (shape[0], 0), jnp.float32)
    return Draws(uniform, normal)


def apply(
    draws: Draws, x: Array, policy: str, p: float | Array = 1.0, sigma: float | Array = 0.0
) -> Array:
    """x augmented, each transform of each item with probability p; shape and dtype are x's.

    Brightness, saturation and contrast (the parts of "color", in that order), translation, cutout
    and noise are each made or not on their own. With p = 1 and no noise it is DiffAugment, and
    with p = 0 it is x bit for bit. Values may leave [−1, 1], as in the source.

    Args:
      draws: of these items, from `draw`.
      x: (N, H, W, C) or (N, D), differentiable.
      policy: see `parts`, whose errors it raises.
      p: () probability, may be traced.
      sigma: () of the noise, may be traced.
    """
    chance = jnp.asarray(p, jnp.float32)
    for part in parts(policy, x.shape[1:]):
        for name, change in _changes(part, draws, sigma):
            made = draws.uniform[:, _GATES[name]] < chance
            x = jnp.where(_beside(made, x), change(x), x)
    return x


def augment(
    key: Array, x: Array, policy: str, p: float | Array = 1.0, sigma: float | Array = 0.0
) -> Array:
    """`apply` with the numbers that `draw` draws for x from the key."""
    return apply(draw(key, x.shape, policy), x, policy, p, sigma)


def instance_noise(key: Array, x: Array, sigma: float | Array) -> Array:
    """x + σ·n, n standard normal: instance noise (Sønderby et al. 2017, arXiv:1610.04490).

    It gives p and q a common support, so that the log-ratio is finite; of the noised p and q. It
    is x bit for bit at σ = 0, to which it is lowered in the course of training.

    Args:
      key: a JAX key.
      x: (N, ...) items, differentiable.
      sigma: () may be traced.
    """
    return _noised(x, jax.random.normal(key, x.shape, jnp.float32), sigma)


def adapted(
    p: Array,
    log_r_real: Array,
    *,
    batch: int | Array,
    target: float | Array = 0.6,
    kimg: float | Array = 500.0,
    axis_name: str | None = None,
) -> Array:
    """p + sign(E_p[sign(log_r)] − target) · batch / (1000 · kimg), clipped to [0, 1]; ().

    Adaptive augmentation (Karras et al. 2020, arXiv:2006.06676): E_p[sign(log_r)] is 0 for a
    critic that knows nothing of the data and goes to 1 as it learns them by heart, which is when
    p is to rise. p stays where it is if a log-ratio is NaN.

    Args:
      p: () the probability so far.
      log_r_real: log-ratio at data as the critic sees them, augmented; of any shape.
      batch: data between two calls, on all devices.
      target: of E_p[sign(log_r)].
      kimg: thousands of data in which p can go from 0 to 1.
      axis_name: of the devices that share the batch.
    """
    overfit = jnp.sign(log_r_real).astype(jnp.float32).mean()
    if axis_name is not None:
        overfit = jax.lax.pmean(overfit, axis_name)
    step = jnp.sign(overfit - target) * (jnp.asarray(batch, jnp.float32) / (1000.0 * kimg))
    return jnp.clip(p + jnp.where(jnp.isnan(step), 0.0, step), 0.0, 1.0)


# ---- the transforms -------------------------------------------------------------------

_Change = Callable[[Array], Array]


def _changes(part: str, draws: Draws, sigma: float | Array) -> list[tuple[str, _Change]]:
    """The transforms of a part, by the name of their gate."""

    def number(name: str, at: int = 0) -> Array:
        return draws.uniform[:, _NUMBERS[name] + at]

    def pair(name: str) -> tuple[Array, Array]:
        return number(name), number(name, 1)

    if part == "color":
        return [
            ("brightness", lambda x: x + _beside(number("brightness") - 0.5, x)),
            ("saturation", lambda x: _stretched(x, 2.0 * number("saturation"), (3,))),
            ("contrast", lambda x: _stretched(x, 0.5 + number("contrast"), (1, 2, 3))),
        ]
    if part == "translation":
        return [(part, lambda x: _translated(x, *pair(part)))]
    if part == "cutout":
        return [(part, lambda x: _cut_out(x, *pair(part)))]
    return [(part, lambda x: _noised(x, draws.normal, sigma))]


def _beside(values: Array, x: Array) -> Array:
    """A value an item, (N,) -> (N, 1, ...) beside x, numbers in its dtype."""
    if values.dtype != jnp.bool_:
        values = values.astype(x.dtype)
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def _stretched(x: Array, factor: Array, axes: tuple[int, ...]) -> Array:
    """mean + factor · (x − mean) over the axes: over channels saturation, over all contrast."""
    if axes == (3,) and x.shape[3] == 1:
        return x  # grey has no saturation
    mean = x.mean(axes, keepdims=True)
    return mean + (x - mean) * _beside(factor, x)


def _whole(uniform: Array, count: int) -> Array:
    """u in [0, 1) -> 0, …, count − 1, all alike."""
    return jnp.clip(jnp.floor(uniform * count).astype(jnp.int32), 0, count - 1)


def _share(side: int, ratio: float) -> int:
    return int(side * ratio + 0.5)


def _translated(x: Array, down: Array, right: Array) -> Array:
    """Moved by up to an eighth of each side, zeros (grey) where nothing came from."""
    h, w, c = x.shape[1:]
    tall, wide = _share(h, _SHIFT), _share(w, _SHIFT)
    padded = jnp.pad(x, ((0, 0), (tall, tall), (wide, wide), (0, 0)))

    # A window of the padded image: N starts, where a gather of pixels has N·H·W indices. Products
    # with shifted identities are as good in the gradient and many times slower forward.
    def window(image: Array, top: Array, left: Array) -> Array:
        return jax.lax.dynamic_slice(image, (top, left, jnp.zeros_like(top)), (h, w, c))

    return jax.vmap(window)(padded, _whole(down, 2 * tall + 1), _whole(right, 2 * wide + 1))


def _cut_out(x: Array, down: Array, right: Array) -> Array:
    """Zeros (grey) in a rectangle of half of each side, whose middle may be on the border."""
    inside = []
    for side, uniform in ((x.shape[1], down), (x.shape[2], right)):
        hole = _share(side, _HOLE)
        # An even hole's middle lies between pixels, of which there is one place more.
        start = _whole(uniform, side + 1 - hole % 2) - hole // 2
        place = jnp.arange(side)[None]
        inside.append((place >= start[:, None]) & (place < start[:, None] + hole))
    rows, columns = inside
    hidden = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(hidden, jnp.zeros((), x.dtype), x)


def _noised(x: Array, normal: Array, sigma: float | Array) -> Array:
    sigma = jnp.asarray(sigma, x.dtype)
    # Adding a zero would turn −0 to 0.
    return jnp.where(sigma == 0, x, x + sigma * normal.astype(x.dtype))
