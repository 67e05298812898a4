"""What steadies training: penalties on a network, layers that are held, dials that move slowly.

Notation: T the critic's log-ratio (`ratio`'s log_r̂, not its raw output), x an item, y its class,
z its latent; W a kernel flattened to (fan_in, out); w a penalty's weight; σ the logistic function.
Source: Mescheder, Geiger & Nowozin 2018 (R1); Huang, Gokaslan, Kuleshov & Tompkin 2024
(R1 and R2 together, R3GAN); Brock, Donahue & Simonyan 2019, eq. 3 (orthogonality); Tseng et al.
2021 (LeCam); Zhao et al. 2020 (consistency); Mao et al. 2019 (mode seeking); Mo, Cho & Shin 2020
(FreezeD).

Penalties come without their weight, which the caller multiplies by and may trace. A penalty on a
critic moves the log-ratio that it ends at, and with it what λ means.
"""

import math
import numbers
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from prpr.errors import ConfigError, unknown_name

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


# ---- penalties on a critic's output ---------------------------------------------------


def lecam(log_r_real: Array, log_r_fake: Array, anchor_real: Array, anchor_fake: Array) -> Array:
    """E_p[(T − α_q)²] + E_q[(T − α_p)²], with α_p, α_q averages of T at data and at samples; ().

    LeCam regularisation (Tseng et al. 2021, arXiv:2104.03310): each side is drawn to where the
    other one has been. This is the paper's formula; the authors' code counts only data above α_q
    and samples below α_p.

    It biases the log-ratio towards 0. Beside the logistic loss, at weight w, a critic that can be
    any function ends where, with c = σ(log r),

        σ(T) + 2w (T − c α_q − (1 − c) α_p) = c

    and where r is close to 1 that is T = log r / (1 + 8w). If T = s log r then T + log λ > 0 just
    where r > λ^(−1/s): the generator is trained for λ^(1/s), at temperature τ/s, and not for λ.
    Only λ = 1 stays what it was. As soon as |log λ| is beyond every |T|, the envelope moves all
    samples alike, so that all such λ are one model.

    Args:
      log_r_real, log_r_fake: (N,), (M,) T at data and at samples, differentiable.
      anchor_real, anchor_fake: () α_p and α_q, from `moved_anchor`; constants of the gradient.
    """
    anchor_real, anchor_fake = jax.lax.stop_gradient((anchor_real, anchor_fake))
    at_data = jnp.square(log_r_real - anchor_fake).mean()
    return at_data + jnp.square(log_r_fake - anchor_real).mean()


def moved_anchor(anchor: Array, values: Array, decay: float | Array) -> Array:
    """decay · anchor + (1 − decay) · mean(values), cut from the gradient; ().

    The exponential moving average that `lecam` is anchored at.

    Args:
      anchor: () what it was; 0 at the start.
      values: T of this batch, of any shape; where devices share the batch, its mean over all.
      decay: what is kept, in [0, 1].
    """
    moved = decay * anchor + (1.0 - decay) * values.mean()
    return jax.lax.stop_gradient(moved)


def consistency(outputs: Array, outputs_augmented: Array) -> Array:
    """E[(T(x) − T(t(x)))²] for an augmentation t; ().

    Balanced consistency regularisation, bCR (Zhao et al. 2020, arXiv:2002.04724), takes it at data
    and at samples, with a weight for each. The gradient goes through both terms. It is no bias
    where t leaves p/q alone; elsewhere T is drawn together over all that t makes of an item.

    Args:
      outputs, outputs_augmented: (N,) T at items and at the same items augmented.

    Raises:
      ValueError: shapes that differ, which would be broadcast.
    """
    _same_shape("outputs", outputs, outputs_augmented)
    return jnp.square(outputs - outputs_augmented).mean()


# ---- a penalty on a generator ---------------------------------------------------------


def mode_seeking(x1: Array, x2: Array, z1: Array, z2: Array, *, eps: float = 1e-5) -> Array:
    """1 / (d_x/d_z + eps) = d_z / (d_x + eps · d_z), d = mean absolute difference in the batch; ().

    Mode seeking regularisation (Mao et al. 2019, arXiv:1903.05628, whose objective is to maximise
    d_x/d_z, in the form that the authors' code descends): samples of different latents are to
    differ. It is at most 1/eps, which is where all samples are one, and 0 where all latents are
    equal, since then nothing is sought. It pulls towards recall whatever λ is.

    Args:
      x1, x2: (N, ...) samples of the same classes, differentiable.
      z1, z2: (N, dim_z) their latents.
      eps: bounds the penalty.

    Raises:
      ValueError: shapes that differ, which would be broadcast.
    """
    _same_shape("samples", x1, x2)
    _same_shape("latents", z1, z2)
    return sought(jnp.abs(x1 - x2).mean(), jnp.abs(z1 - z2).mean(), eps=eps)


def sought(between: Array, latents: Array, *, eps: float = 1e-5) -> Array:
    """`mode_seeking` of the two mean distances d_x and d_z, () each, for a batch that is cut."""
    latents = jax.lax.stop_gradient(latents).astype(between.dtype)
    # Equal latents make equal samples, and 0/0 would reach the gradient even through a `where`.
    below = jnp.where(latents > 0, between + eps * latents, 1.0)
    return latents / below


def _same_shape(what: str, a: Array, b: Array) -> None:
    if a.shape != b.shape:
        raise ValueError(f"{what} of two shapes, {a.shape} and {b.shape}: they must be pairs.")


# ---- layers that are held -------------------------------------------------------------

_NUMBERED = re.compile(r"(?:layer|block)(\d+)")


def layers(params: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The names in each of a critic's layers, from the input on, without its head.

    They are those of `prpr.models.biggan` (the convolution before the blocks of BigGAN-deep, then
    each block with the attention behind it) and `prpr.models.small` (the frequencies of Fourier
    features, then each layer). The head is the rest: the last layer, the projection on classes
    and all that hears λ.

    Args:
      params: the parameters of a critic, by name.
    """
    numbers_of = {name: _NUMBERED.fullmatch(name) for name in params}
    blocks = {int(match[1]): name for name, match in numbers_of.items() if match}
    before = [(name,) for name in ("frequencies", "conv_in") if name in params]
    return before + [
        tuple(name for name in (blocks[i], f"attention{i}") if name in params)
        for i in sorted(blocks)
    ]


def frozen(params: Mapping[str, Any], which: int | str | Collection[str]) -> Any:
    """A mask over a critic's parameters for optax: False at what is frozen, True at the rest.

    FreezeD (Mo, Cho & Shin 2020, arXiv:2002.10964): a trained critic whose layers nearest to the
    input stay as they are keeps what it knows of images while the rest follows the new data.
    What is trained on frozen features estimates the ratio of those features: α is at least the
    true one. `optax.masked` passes the gradient of what is masked on as it is, so that it takes

        optax.chain(optax.masked(tx, mask), optax.masked(optax.set_to_zero(), inverted mask))

    Args:
      params: the parameters of a critic, by name; shapes suffice.
      which: how many of `layers`, from the input on; or names at the top of `params`.

    Raises:
      ConfigError: more layers than there are, a name that `params` does not have, or nothing
        left to train.
    """
    if isinstance(which, int):
        known = layers(params)
        if not 0 <= which <= len(known):
            names = ", ".join("+".join(layer) for layer in known) or "none"
            raise ConfigError(
                f"{which} frozen layers: the critic has {len(known)} before its head, from the "
                f"input on {names}; choose from 0 to {len(known)}."
            )
        held = {name for layer in known[:which] for name in layer}
    else:
        held = {which} if isinstance(which, str) else set(which)
        for name in sorted(held - set(params)):
            raise unknown_name("layer of the critic", name, params)
    if not set(params) - held:
        raise ConfigError(
            f"frozen layers {', '.join(sorted(held))}: they are all {len(params)} of the critic's "
            "layers, and none would be left to train; leave at least one out."
        )
    return jax.tree.map_with_path(lambda path, _: path[0].key not in held, dict(params))


# ---- dials that move ------------------------------------------------------------------

SCHEDULES = ("constant", "linear")


def schedule(
    start: float | Array, end: float | Array, steps: int, kind: str
) -> Callable[[int | Array], Array]:
    """A dial that moves: step -> value, float32; for λ and τ, which are positive.

        "constant"   end
        "linear"     exp(log start + min(step/steps, 1) · (log end − log start))

    "linear" is linear in log λ and geometric in τ. It is `start` itself at step 0 and before,
    `end` itself from step `steps` on, and monotone between them. λ from 1 on begins at total
    variation, where precision and recall count alike.

    Args:
      start, end: the ends; they may be traced, and of one value a sample.
      steps: from start to end.
      kind: one of `SCHEDULES`.

    Raises:
      ConfigError: an unknown kind, fewer than 1 step, or an end that is not a positive number
        (numbers are checked, arrays are not).
    """
    if kind not in SCHEDULES:
        raise unknown_name("schedule", kind, SCHEDULES)
    if steps < 1:
        raise ConfigError(f"a schedule of {steps} steps: it needs at least 1.")
    for name, value in (("start", start), ("end", end)):
        if isinstance(value, numbers.Real) and not 0 < value < math.inf:
            raise ConfigError(f"a schedule whose {name} is {value}: it must be positive, finite.")

    def at(step: int | Array) -> Array:
        last = jnp.asarray(end, jnp.float32)
        if kind == "constant":
            return last
        first = jnp.asarray(start, jnp.float32)
        share = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
        low, high = jnp.log(first), jnp.log(last)
        value = jnp.exp(low + share * (high - low))
        # exp(log x) is x only up to rounding, which may also lie beyond an end.
        value = jnp.clip(value, jnp.minimum(first, last), jnp.maximum(first, last))
        return jnp.where(share <= 0, first, jnp.where(share >= 1, last, value))

    return at
