"""One training step, the same for every objective, model and λ.

    state, scalars = step(state, batch)

pure, to be jitted or mapped over devices. A step is `critic_steps` critic updates on fresh
batches of data and of samples, then one generator update and its moving average. λ, τ and the
other dials are leaves of the state, so that one compilation serves all their values.

Notation: θ generator parameters, φ critic parameters, log_r = log p/q as the critic estimates
it. The generator's objective freezes φ (the envelope theorem, see `prpr.objectives`).
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
      ema: decay of the generator's moving average.
      r1, r2: weights of the zero-centred gradient penalties at data and at samples.
      normalise: whether log E_q[r̂] is subtracted from log_r̂ before the objective sees it.
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
    r1: float = 0.0
    r2: float = 0.0
    normalise: bool = False


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


def _latents(system: System, key: Array, n: int) -> tuple[Array, Array]:
    k_z, k_y = jax.random.split(key)
    z = jax.random.normal(k_z, (n, system.dim_z))
    return z, jax.random.randint(k_y, (n,), 0, system.num_classes)


def _critic_update(
    system: System, state: TrainState, key: Array, image: Array, label: Array
) -> tuple[TrainState, Scalars]:
    z, y = _latents(system, key, image.shape[0])
    fake, _ = _apply_training(system.generator, state.generator.params, state.generator.extra, z, y)
    loss_of, to_log_r = system.critic_loss.loss, system.critic_loss.log_ratio

    def loss(params: Tree) -> tuple[Array, tuple[Tree, Array, Array]]:
        both = jnp.concatenate([image, fake])
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
            value = value + system.r1 * penalty(image, label)
        if system.r2:
            value = value + system.r2 * penalty(fake, y)
        return value, (extra, real_out, fake_out)

    (value, aux), gradient = jax.value_and_grad(loss, has_aux=True)(state.critic.params)
    extra, real_out, fake_out = aux
    updates, opt = system.critic_tx.update(gradient, state.critic_opt, state.critic.params)
    params = optax.apply_updates(state.critic.params, updates)
    log_r_real, log_r_fake = to_log_r(real_out), to_log_r(fake_out)
    # A mean of E_q[r̂] over about 50 batches; in logs, since one r̂ may be e^80.
    batch_norm = jax.nn.logsumexp(log_r_fake) - jnp.log(float(fake.shape[0]))
    log_norm = jnp.logaddexp(jnp.log(0.98) + state.log_norm, jnp.log(0.02) + batch_norm)
    scalars = {
        "critic_loss": value,
        "log_r_data": log_r_real.mean(),
        "log_r_samples": log_r_fake.mean(),
        "normalisation": jnp.exp(batch_norm),
        "critic_grad_norm": optax.tree.norm(gradient),
    }
    moved = state.replace(critic=Net(params, extra), critic_opt=opt, log_norm=log_norm)
    return moved, scalars


def _generator_update(
    system: System, state: TrainState, key: Array, n: int
) -> tuple[TrainState, Scalars]:
    z, y = _latents(system, key, n)

    def loss(params: Tree) -> tuple[Array, tuple[Tree, Array]]:
        fake, extra = _apply_training(system.generator, params, state.generator.extra, z, y)
        out = apply_frozen(system.critic, state.critic, fake, y)
        log_r = system.critic_loss.log_ratio(out)
        if system.normalise:
            log_r = log_r - state.log_norm
        return objectives.sampler_loss(system.objective, out, log_r, state.dials), (extra, log_r)

    (value, (extra, log_r)), gradient = jax.value_and_grad(loss, has_aux=True)(
        state.generator.params
    )
    updates, opt = system.generator_tx.update(gradient, state.generator_opt, state.generator.params)
    generator = Net(optax.apply_updates(state.generator.params, updates), extra)
    ema = jax.tree.map(
        lambda old, new: system.ema * old + (1.0 - system.ema) * new, state.ema, generator
    )
    alpha = jnp.exp(jnp.minimum(log_r + jnp.log(state.dials["lam"]), 0.0)).mean()
    scalars = {
        "generator_loss": value,
        "generator_grad_norm": optax.tree.norm(gradient),
        "alpha": alpha,
    }
    return state.replace(generator=generator, generator_opt=opt, ema=ema), scalars


def _key(state: TrainState, index: Array | int) -> Array:
    """The key of one update: a function of the run's key, the step and the update's place in it."""
    return jax.random.fold_in(jax.random.fold_in(state.key, state.step), index)


def critic_update(system: System, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
    """One critic update.

    Args:
      batch: {"image": (N, ...), "label": (N,), "index": () int32, the update's place in its
        step, "advance": () int32, what is added to the step number: 1 for the last critic update
        of a step in which the generator rests, else 0}.
    """
    key = _key(state, batch["index"])
    state, scalars = _critic_update(system, state, key, batch["image"], batch["label"])
    scalars["finite"] = _finite(state.critic.params)
    return state.replace(step=state.step + batch["advance"]), scalars


def generator_update(system: System, state: TrainState, n: int) -> tuple[TrainState, Scalars]:
    """One generator update on `n` samples; it ends the step."""
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


def diagnose(system: System, state: TrainState, data: Batch) -> Scalars:
    """Held-out checks of the estimated ratio, against samples as the critic sees them in training.

    Args:
      data: held-out {"image": (N, ...), "label": (N,)} of p; as many samples of q are drawn.

    Returns:
      Calibration error and slope (1: right; below 1: log_r̂ too wide), AUC, E_q[r̂] (1: right),
      E_p[1/r̂], and the reliability curve, (10,) each.
    """
    n = data["image"].shape[0]
    key = _key(state, _DIAGNOSE)
    z, y = _latents(system, key, n)
    fake, _ = _apply_training(system.generator, state.generator.params, state.generator.extra, z, y)
    log_r_real = log_ratio(system, state, data["image"], data["label"])
    log_r_fake = log_ratio(system, state, fake, y)
    curve = ratio.calibration(log_r_real, log_r_fake)
    return {
        "heldout_calibration_error": curve.error,
        "heldout_calibration_slope": ratio.recalibrate(log_r_real, log_r_fake).slope,
        "heldout_auc": ratio.auc(log_r_real, log_r_fake),
        "heldout_normalisation": ratio.normalisation(log_r_fake),
        "heldout_inverse_normalisation": ratio.inverse_normalisation(log_r_real),
        "reliability_predicted": curve.predicted,
        "reliability_observed": curve.observed,
        "reliability_mass": curve.mass,
    }
