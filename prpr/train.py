"""One training step, the same for every objective, model and λ.

    state, scalars = step(state, batch)

pure, to be jitted or mapped over devices. A step is `critic_steps` critic updates on fresh
batches of data and of samples, then one generator update and its moving average. λ, τ and the
other dials are leaves of the state, so that one compilation serves all their values.

Notation: θ generator parameters, φ critic parameters, log_r = log p/q as the critic estimates
it. The generator's objective freezes φ (the envelope theorem, see `prpr.objectives`).

Where the step is mapped over devices, `System.axis_name` names the axis: each device has its
part of the batch, every mean (gradients, losses, moments, E_q[r̂]) is over all of them, and the
latents are drawn for the whole batch and then cut, so that the numbers do not depend on how
many devices there are. With `System.accumulate` > 1 a device computes its part in as many
pieces and sums the gradients: singular vectors move once, batch norm sees one piece (of all
devices) at a time.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from prpr import objectives, ratio, regularizers
from prpr.objectives import Objective
from prpr.ratio import CriticLoss

Array = jax.Array
Tree = Any
Batch = Mapping[str, Array]
Scalars = dict[str, Array]
_DIAGNOSE = 2**20  # place of the diagnosis among a step's updates, out of their way

Step = Callable[["TrainState", Batch], tuple["TrainState", Scalars]]


class Net(flax.struct.PyTreeNode):
    """A network's parameters and its other collections (moments, singular vectors)."""

    params: Tree
    extra: Tree


class TrainState(flax.struct.PyTreeNode):
    """All that a run is: restoring it and going on equals never having stopped.

    Attributes:
      step: () int32, generator steps and warm-up steps done.
      key: the run's PRNG key; every step folds its number into it.
      dials: λ, τ and the other dials of the objective, () float32 each.
      critic, generator: the networks.  ema: moving average of the generator.
      critic_opt, generator_opt: Optax states.
      log_norm: () moving estimate of log E_q[r̂], subtracted when normalising.
    """

    step: Array
    key: Array
    dials: dict[str, Array]
    critic: Net
    generator: Net
    ema: Net
    critic_opt: optax.OptState
    generator_opt: optax.OptState
    log_norm: Array


class System(NamedTuple):
    """What a step is made of; static under jit.

    Attributes:
      generator, critic: Flax modules, called (z, y, train=) and (x, y, train=).
      critic_loss, objective: from `prpr.ratio` and `prpr.objectives`.
      critic_tx, generator_tx: Optax transformations, learning rates included.
      dim_z, num_classes: of the latent and of the classes that samples are drawn for.
      critic_steps: critic updates in a generator update.
      ema: decay of the generator's moving average, from step `ema_start` on; before it the
        average is the generator itself.
      r1, r2: weights of the zero-centred gradient penalties at data and at samples.
      critic_ortho, generator_ortho: weights of the orthogonal regularisation.
      generator_tables: names of the generator's modules that are tables with a row a class.
      normalise: whether log E_q[r̂] is subtracted from log_r̂ before the objective sees it.
      axis_name: of the devices that share a batch; None where a device has all of it.
      accumulate: pieces that a device's part of the batch is computed in.
    """

    generator: nn.Module
    critic: nn.Module
    critic_loss: CriticLoss
    objective: Objective
    critic_tx: optax.GradientTransformation
    generator_tx: optax.GradientTransformation
    dim_z: int
    num_classes: int
    critic_steps: int = 1
    ema: float = 0.99
    ema_start: int = 0
    r1: float = 0.0
    r2: float = 0.0
    critic_ortho: float = 0.0
    generator_ortho: float = 0.0
    generator_tables: tuple[str, ...] = ()
    normalise: bool = False
    axis_name: str | None = None
    accumulate: int = 1


def split(variables: Mapping[str, Tree]) -> Net:
    """Flax variables -> `Net`."""
    return Net(variables["params"], {k: v for k, v in variables.items() if k != "params"})


def apply_frozen(module: nn.Module, net: Net, *inputs: Array) -> Array:
    """The module's output in evaluation mode: running moments, nothing moves."""
    return module.apply({"params": net.params, **net.extra}, *inputs, train=False)  # pyright: ignore


def _apply_training(
    module: nn.Module, params: Tree, extra: Tree, *inputs: Array
) -> tuple[Array, Tree]:
    out, moved = module.apply({"params": params, **extra}, *inputs, train=True, mutable=list(extra))
    return out, {**extra, **moved}  # pyright: ignore


def init(system: System, key: Array, example: Array, dials: Mapping[str, float]) -> TrainState:
    """A fresh state. `example`: (N, ...) data, only its shape matters."""
    k_generator, k_critic, k_run = jax.random.split(key, 3)
    z = jnp.zeros((example.shape[0], system.dim_z), jnp.float32)
    y = jnp.zeros((example.shape[0],), jnp.int32)
    generator = split(system.generator.init(k_generator, z, y, train=True))
    critic = split(system.critic.init(k_critic, example, y, train=True))
    return start(system, k_run, critic, generator, generator, dials)


def start(
    system: System, key: Array, critic: Net, generator: Net, ema: Net, dials: Mapping[str, float]
) -> TrainState:
    """A state at step 0 from given networks, with fresh optimisers: how a fine-tune begins."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        dials={name: jnp.float32(value) for name, value in dials.items()},
        critic=critic,
        generator=generator,
        ema=ema,
        critic_opt=system.critic_tx.init(critic.params),
        generator_opt=system.generator_tx.init(generator.params),
        log_norm=jnp.zeros((), jnp.float32),
    )


def to_float(image: Array) -> Array:
    """Bytes, as they come from a disk, to [−1, 1]; what is float already stays as it is."""
    return image.astype(jnp.float32) / 127.5 - 1.0 if image.dtype == jnp.uint8 else image


# ---- devices and pieces ---------------------------------------------------------------


def _mean(system: System, tree: Tree) -> Tree:
    """Mean over the devices that share the batch."""
    return tree if system.axis_name is None else jax.lax.pmean(tree, system.axis_name)


def _latents(system: System, key: Array, n: int) -> tuple[Array, Array]:
    """z (pieces, n, dim_z) and y (pieces, n) of this device: its part of the batch's draw."""
    devices, device = 1, 0
    if system.axis_name is not None:
        devices, device = jax.lax.axis_size(system.axis_name), jax.lax.axis_index(system.axis_name)
    shape = (system.accumulate, devices, n)
    k_z, k_y = jax.random.split(key)
    total = system.accumulate * devices * n
    z = jax.random.normal(k_z, (total, system.dim_z)).reshape(*shape, system.dim_z)
    y = jax.random.randint(k_y, (total,), 0, system.num_classes).reshape(shape)
    return z[:, device], y[:, device]


def _pieces(system: System, x: Array) -> Array:
    """(n, ...) -> (pieces, n / pieces, ...)."""
    return x.reshape(system.accumulate, -1, *x.shape[1:])


def _gradient(
    system: System,
    loss: Callable[..., tuple[Array, tuple[Tree, Tree]]],
    params: Tree,
    *pieces: Array,
) -> tuple[Array, Tree, Tree, Tree]:
    """Value, gradient and collections, means over pieces and devices; and what each piece kept.

    Args:
      loss: (params, *piece) -> value, (collections, kept).
      pieces: arrays (pieces, n, ...).

    Returns:
      (value, gradient, collections, kept): leaves of `kept` have the axis of the pieces first.
    """

    def one(piece: tuple[Array, ...]) -> tuple[tuple[Array, Tree, Tree], Tree]:
        (value, (extra, kept)), gradient = jax.value_and_grad(loss, has_aux=True)(params, *piece)
        return (value, gradient, extra), kept

    if system.accumulate == 1:
        means, kept = one(tuple(x[0] for x in pieces))
        return *_mean(system, means), jax.tree.map(lambda leaf: leaf[None], kept)

    def body(total: Tree, piece: tuple[Array, ...]) -> tuple[Tree, Tree]:
        found, kept = one(piece)
        return jax.tree.map(jnp.add, total, found), kept

    shapes = jax.eval_shape(one, tuple(x[0] for x in pieces))[0]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    # On a CPU the convolutions inside a loop would run an order of magnitude slower.
    total, kept = jax.lax.scan(body, zeros, pieces, unroll=jax.default_backend() == "cpu")
    means = jax.tree.map(lambda leaf: leaf / system.accumulate, total)
    return *_mean(system, means), kept


# ---- the two updates ------------------------------------------------------------------


def _critic_update(
    system: System, state: TrainState, key: Array, image: Array, label: Array
) -> tuple[TrainState, Scalars]:
    z, y = _latents(system, key, image.shape[0] // system.accumulate)
    loss_of, to_log_r = system.critic_loss.loss, system.critic_loss.log_ratio

    def loss(
        params: Tree, real: Array, label: Array, z: Array, y: Array
    ) -> tuple[Array, tuple[Tree, tuple[Array, Array]]]:
        fake, _ = _apply_training(
            system.generator, state.generator.params, state.generator.extra, z, y
        )
        both = jnp.concatenate([real, fake])
        out, extra = _apply_training(
            system.critic, params, state.critic.extra, both, jnp.concatenate([label, y])
        )
        real_out, fake_out = jnp.split(out, 2)
        value = loss_of(real_out, fake_out)

        def penalty(x: Array, classes: Array) -> Array:
            net = Net(params, state.critic.extra)
            return regularizers.gradient_penalty(
                lambda inputs: to_log_r(apply_frozen(system.critic, net, inputs, classes)), x
            )

        if system.r1:
            value = value + system.r1 * penalty(real, label)
        if system.r2:
            value = value + system.r2 * penalty(fake, y)
        if system.critic_ortho:
            value = value + system.critic_ortho * regularizers.orthogonal(params)
        return value, (extra, (to_log_r(real_out), to_log_r(fake_out)))

    real, labels = _pieces(system, to_float(image)), _pieces(system, label)
    value, gradient, extra, (log_r_real, log_r_fake) = _gradient(
        system, loss, state.critic.params, real, labels, z, y
    )
    updates, opt = system.critic_tx.update(gradient, state.critic_opt, state.critic.params)
    params = optax.apply_updates(state.critic.params, updates)
    # A mean of E_q[r̂] over about 50 batches; in logs, since one r̂ may be e^80.
    batch_norm = _log_mean_exp(system, log_r_fake)
    log_norm = jnp.logaddexp(jnp.log(0.98) + state.log_norm, jnp.log(0.02) + batch_norm)
    scalars = {
        "critic_loss": value,
        "log_r_data": _mean(system, log_r_real.mean()),
        "log_r_samples": _mean(system, log_r_fake.mean()),
        "normalisation": jnp.exp(batch_norm),
        "critic_grad_norm": optax.tree.norm(gradient),
    }
    moved = state.replace(critic=Net(params, extra), critic_opt=opt, log_norm=log_norm)
    return moved, scalars


def _log_mean_exp(system: System, x: Array) -> Array:
    """log of the mean of eˣ over all entries and devices."""
    local = jax.nn.logsumexp(x) - jnp.log(float(x.size))
    if system.axis_name is None:
        return local
    top = jax.lax.pmax(local, system.axis_name)
    return top + jnp.log(jax.lax.pmean(jnp.exp(local - top), system.axis_name))


def _generator_update(
    system: System, state: TrainState, key: Array, n: int
) -> tuple[TrainState, Scalars]:
    z, y = _latents(system, key, n // system.accumulate)

    def loss(params: Tree, z: Array, y: Array) -> tuple[Array, tuple[Tree, Array]]:
        fake, extra = _apply_training(system.generator, params, state.generator.extra, z, y)
        out = apply_frozen(system.critic, state.critic, fake, y)
        log_r = system.critic_loss.log_ratio(out)
        if system.normalise:
            log_r = log_r - state.log_norm
        value = objectives.sampler_loss(system.objective, out, log_r, state.dials)
        if system.generator_ortho:
            ortho = regularizers.orthogonal(params, tables=system.generator_tables)
            value = value + system.generator_ortho * ortho
        return value, (extra, log_r)

    value, gradient, extra, log_r = _gradient(system, loss, state.generator.params, z, y)
    updates, opt = system.generator_tx.update(gradient, state.generator_opt, state.generator.params)
    generator = Net(optax.apply_updates(state.generator.params, updates), extra)
    decay = jnp.where(state.step < system.ema_start, 0.0, system.ema)
    ema = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, generator)
    alpha = jnp.exp(jnp.minimum(log_r + jnp.log(state.dials["lam"]), 0.0)).mean()
    scalars = {
        "generator_loss": value,
        "generator_grad_norm": optax.tree.norm(gradient),
        "alpha": _mean(system, alpha),
    }
    return state.replace(generator=generator, generator_opt=opt, ema=ema), scalars


def _key(state: TrainState, index: Array | int) -> Array:
    """The key of one update: a function of the run's key, the step and the update's place in it."""
    return jax.random.fold_in(jax.random.fold_in(state.key, state.step), index)


def critic_update(system: System, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
    """One critic update.

    Args:
      batch: {"image": (N, ...) float32, or uint8 as stored, "label": (N,), "index": () int32, the
        update's place in its step, "advance": () int32, what is added to the step number: 1 for
        the last critic update of a step in which the generator rests, else 0}. N is this device's
        part, a multiple of `accumulate`.
    """
    key = _key(state, batch["index"])
    state, scalars = _critic_update(system, state, key, batch["image"], batch["label"])
    scalars["finite"] = _finite(state.critic.params)
    return state.replace(step=state.step + batch["advance"]), scalars


def generator_update(system: System, state: TrainState, n: int) -> tuple[TrainState, Scalars]:
    """One generator update on `n` samples of this device; it ends the step."""
    key = _key(state, system.critic_steps)
    state, scalars = _generator_update(system, state, key, n)
    scalars["finite"] = _finite(state.generator.params)
    return state.replace(step=state.step + 1), scalars


def _finite(params: Tree) -> Array:
    """1 while every parameter is finite, else 0."""
    every = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]
    return jnp.stack(every).all().astype(jnp.float32)


def make_step(system: System, *, move_generator: bool = True) -> Step:
    """The step function of a system: `critic_steps` critic updates, then one of the generator.

    `batch["image"]` has shape (critic_steps, N, ...), `batch["label"]` (critic_steps, N).
    With `move_generator=False` it is the critic-only step of a warm-up: the generator, its moving
    average and its optimiser stay. The scalars end with `finite`: 1 while every parameter is.

    One program for the whole step. `prpr.run` calls the same updates one by one instead, since on
    a CPU the compile time of this one grows with `critic_steps` (a loop inside it would run its
    convolutions an order of magnitude slower).
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        scalars: Scalars = {}
        last = system.critic_steps - 1
        for i in range(system.critic_steps):
            update = {
                "image": batch["image"][i],
                "label": batch["label"][i],
                "index": jnp.int32(i),
                "advance": jnp.int32(i == last and not move_generator),
            }
            state, scalars = critic_update(system, state, update)
        if move_generator:
            state, more = generator_update(system, state, batch["image"].shape[1])
            scalars = {**scalars, **more, "finite": scalars["finite"] * more["finite"]}
        return state, scalars

    return step


def log_ratio(system: System, state: TrainState, x: Array, y: Array) -> Array:
    """log_r̂ of the state's critic at x (N, ...), y (N,), normalised if the system says so: (N,)."""
    out = apply_frozen(system.critic, state.critic, x, y)
    log_r = system.critic_loss.log_ratio(out)
    return log_r - state.log_norm if system.normalise else log_r


def held_out(system: System, state: TrainState, batch: Batch) -> dict[str, Array]:
    """log_r̂ at held-out data and at as many samples, as the critic sees them in training.

    Args:
      batch: {"image": (N, ...) of p, "label": (N,), "index": () int32, which batch it is}; N is
        this device's part.

    Returns:
      {"data": (M,), "samples": (M,)}, of all devices together.
    """
    image, index = to_float(batch["image"]), _DIAGNOSE + batch["index"]
    z, y = _latents(system._replace(accumulate=1), _key(state, index), image.shape[0])
    fake, _ = _apply_training(
        system.generator, state.generator.params, state.generator.extra, z[0], y[0]
    )
    found = {
        "data": log_ratio(system, state, image, batch["label"]),
        "samples": log_ratio(system, state, fake, y[0]),
    }
    if system.axis_name is not None:
        found = jax.lax.all_gather(found, system.axis_name, tiled=True)
    return found


def diagnose(log_r_real: Array, log_r_fake: Array, lam: Array | float) -> Scalars:
    """Held-out checks of an estimated ratio.

    Args:
      log_r_real, log_r_fake: log_r̂ at held-out data and at samples, (N,) each.
      lam: λ of the bound.

    Returns:
      Calibration error and slope (1: right; below 1: log_r̂ too wide), the loss of classification
      in nats (log 2 knows nothing), AUC, E_q[r̂] (1: right), E_p[1/r̂], the upper bound of α(λ) (see
      `frontier.upper_bound`), and the reliability curve, (10,) each.
    """
    curve = ratio.calibration(log_r_real, log_r_fake)
    threshold = -jnp.log(lam)
    bound = lam * (log_r_real < threshold).mean() + (log_r_fake >= threshold).mean()
    return {
        "heldout_calibration_error": curve.error,
        "heldout_calibration_slope": ratio.recalibrate(log_r_real, log_r_fake).slope,
        "heldout_loss": (jax.nn.softplus(-log_r_real).mean() + jax.nn.softplus(log_r_fake).mean())
        / 2,
        "heldout_auc": ratio.auc(log_r_real, log_r_fake),
        "heldout_normalisation": ratio.normalisation(log_r_fake),
        "heldout_inverse_normalisation": ratio.inverse_normalisation(log_r_real),
        "heldout_alpha": jnp.minimum(bound, jnp.minimum(1.0, lam)),
        "reliability_predicted": curve.predicted,
        "reliability_observed": curve.observed,
        "reliability_mass": curve.mass,
    }
