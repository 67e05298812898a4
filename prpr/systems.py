"""What a training step is made of and what it moves: `System` (static) and `TrainState` (arrays).

Notation: θ generator parameters, φ critic parameters, log_r = log p/q as the critic estimates it,
x (N, ...) items, z (N, dim_z) latents, y (N,) classes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from prpr.models import dial, flows
from prpr.objectives import Objective
from prpr.ratio import CriticLoss

Array = jax.Array
Tree = Any
Batch = Mapping[str, Array]
Scalars = dict[str, Array]
Step = Callable[["TrainState", Batch], tuple["TrainState", Scalars]]

# How a generator learns; all but the first are of a generator that has a density:
#   samples     ascends the objective at its own samples
#   data        maximises the likelihood of data, reweighted by the objective (`density_loss`)
#   balanced    likewise of data and of its samples, by weights that are bounded (`balanced_loss`)
#   likelihood  maximises the likelihood of data; no critic
#   implicit    is its own critic, against its frozen start (`implicit_loss`); no other critic
Route = Literal["samples", "data", "balanced", "likelihood", "implicit"]
WITH_RATIO: tuple[Route, ...] = ("samples", "data", "balanced")  # those that rest on an r̂


class Net(flax.struct.PyTreeNode):
    """A network's parameters and its other collections (moments, singular vectors)."""

    params: Tree
    extra: Tree

    @property
    def variables(self) -> dict[str, Tree]:
        """As Flax applies them; the inverse of `split`."""
        return {"params": self.params, **self.extra}


class Augment(NamedTuple):
    """Random changes of what the critic sees; the formulas are those of `prpr.augment`.

    Attributes:
      policy: of data and samples in both updates; "": none.
      p: probability of each transform; where it is adaptive, at the start.
      adaptive: target of E_p[sign log_r] by which p moves; 0: p stays.
      kimg: thousands of data in which p can go from 0 to 1.
      sigma: of the part "noise", at the first generator step.
      sigma_steps: generator steps over which σ falls linearly to 0; 0: it stays.
    """

    policy: str = ""
    p: float = 1.0
    adaptive: float = 0.0
    kimg: float = 500.0
    sigma: float = 0.0
    sigma_steps: int = 0


class Schedule(NamedTuple):
    """Dials that start elsewhere and reach the run's own, by `regularizers.schedule`.

    Attributes:
      lam_from, tau_from: where λ and τ start; 0: they stay.
      steps: generator steps until they are there.
    """

    lam_from: float = 0.0
    tau_from: float = 0.0
    steps: int = 0


class TrainState(flax.struct.PyTreeNode):
    """All that a run is: restoring it and going on equals never having stopped.

    Attributes:
      step: () int32, generator steps and warm-up steps done.
      key: the run's PRNG key; every step folds its number into it.
      dials: λ, τ and the other dials of the objective, () float32 each.
      critic, generator: the networks.  ema: moving average of the generator.
      critic_opt, generator_opt: Optax states.
      log_norm: () moving estimate of log E_q[r̂], subtracted when normalising.
      reference: the generator as it was at step 0, where the system needs it.
      rate: () factor of both networks' updates after a rollback (`prpr.recovery`); None is 1. It
        is not in checkpoints, whose `meta` says it.
      augment_p: () probability of each transform, where it is adaptive.
      anchors: moving averages of log_r at "data" and at "samples", () each, where LeCam is on.
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
    reference: Net | None = None
    rate: Array | None = None
    augment_p: Array | None = None
    anchors: dict[str, Array] | None = None


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
      route: how the generator learns.
      exact: whether the generator's own density stands in log_r̂, so that the critic estimates
        the data's: log r̂ = T + log q_ref − log q, with q_ref its frozen start if `reference`.
      reference: whether the state keeps that start.
      levels: values that an entry of the data can have, which a density sees with noise between
        them, and so must the critic; 0 for data that are taken as they are.
      dial: where λ is an input of both networks, the ends of the log λ that they are trained
        for; their y is then that of `prpr.models.dial`.
      dial_items: how many items in a row share a λ there.
      warmup: critic-only steps before the first of the generator, for what counts from there.
      augment: what the critic sees is changed by it, in both updates and in held-out checks.
      lecam, lecam_decay: weight of LeCam's penalty, and decay of its anchors.
      consistency: weight of bCR's penalty, at data and at samples; of `consistency_policy`.
      mode_seeking: weight of the mode seeking penalty on the generator.
      schedule: where λ and τ come from.
      log_prior: log(p(y) K) of each of the K classes in the data, which is taken out of the
        critic's log-ratio before the objective sees it (`conditional`); () where it is not.
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
    route: Route = "samples"
    exact: bool = False
    reference: bool = False
    levels: int = 0
    dial: tuple[float, float] | None = None
    dial_items: int = 1
    warmup: int = 0
    augment: Augment = Augment()
    lecam: float = 0.0
    lecam_decay: float = 0.99
    consistency: float = 0.0
    consistency_policy: str = ""
    mode_seeking: float = 0.0
    schedule: Schedule = Schedule()
    log_prior: tuple[float, ...] = ()

    @property
    def reads(self) -> int:
        """Batches of data that a step reads."""
        return self.critic_steps + self.reads_data

    @property
    def reads_data(self) -> bool:
        """Whether a generator update reads a batch of data."""
        return self.route != "samples"

    @property
    def has_ratio(self) -> bool:
        """Whether the generator's updates rest on an estimate of p/q."""
        return self.route in WITH_RATIO


def split(variables: Mapping[str, Tree]) -> Net:
    """Flax variables -> `Net`."""
    return Net(variables.get("params", {}), {k: v for k, v in variables.items() if k != "params"})


def apply_frozen(module: nn.Module, net: Net, *inputs: Array) -> Array:
    """The module's output in evaluation mode: running moments, nothing moves."""
    return module.apply(net.variables, *inputs, train=False)  # pyright: ignore


def apply_training(
    module: nn.Module, params: Tree, extra: Tree, *inputs: Array
) -> tuple[Array, Tree]:
    out, moved = module.apply({"params": params, **extra}, *inputs, train=True, mutable=list(extra))
    return out, {**extra, **moved}  # pyright: ignore


def init(system: System, key: Array, example: Array, dials: Mapping[str, float]) -> TrainState:
    """A fresh state.

    Args:
      system: whose state it is.
      key: the run's.
      example: (N, ...) data. Their shape matters, and where a layer of a density is set up by
        data (actnorm), their values do.
      dials: λ, τ and the others.
    """
    k_generator, k_critic, k_run = jax.random.split(key, 3)
    z = jnp.zeros((example.shape[0], system.dim_z), jnp.float32)
    y = jnp.zeros((example.shape[0],), jnp.int32)
    if system.dial is not None:
        y = dial.told(y, jnp.zeros(()))
    if has_density(system.generator):
        noise = jnp.full(example.shape, 0.5, jnp.float32)
        method = "log_likelihood"
        variables = system.generator.init(k_generator, example, y, noise, method=method)
    else:
        variables = system.generator.init(k_generator, z, y, train=True)
    generator = split(variables)
    critic = split(system.critic.init(k_critic, example, y, train=True))
    return start(system, k_run, critic, generator, generator, dials)


def start(
    system: System, key: Array, critic: Net, generator: Net, ema: Net, dials: Mapping[str, float]
) -> TrainState:
    """A state at step 0 from given networks, with fresh optimisers: how a fine-tune begins."""
    anchors = {"data": jnp.zeros(()), "samples": jnp.zeros(())}
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
        reference=ema if system.reference else None,
        augment_p=jnp.float32(system.augment.p) if system.augment.adaptive else None,
        anchors=anchors if system.lecam else None,
    )


def grafted(fresh: Net, trained: Net) -> Net:
    """A trained network where it has a leaf, a fresh one's elsewhere: its dial's.

    Args:
      fresh: of the system with a dial.
      trained: of the same network without one; all its leaves must be in `fresh`.
    """
    if dial.is_woven(fresh.params) and not dial.is_woven(trained.params):
        return Net(dial.woven(trained.params), trained.extra)

    def merge(new: Tree, old: Tree) -> Tree:
        if not isinstance(new, Mapping):
            return old
        return {key: merge(new[key], old[key]) if key in old else new[key] for key in new}

    return Net(merge(fresh.params, trained.params), merge(fresh.extra, trained.extra))


@dataclasses.dataclass(frozen=True)
class Turned:
    """A network whose dial stands: it takes classes, and log λ from its collection "dial"."""

    module: nn.Module

    def apply(self, variables: Mapping[str, Tree], x: Array, y: Array, *rest: Array, **how: Any):
        """As the network's own."""
        own = {key: tree for key, tree in variables.items() if key != "dial"}
        y = dial.told(y, variables["dial"]["log_lam"])
        return self.module.apply(own, x, y, *rest, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def turned(system: System, state: TrainState, lam: float | Array) -> tuple[System, TrainState]:
    """A model with a dial, turned to one λ: a system and a state as those that have none.

    It is what is sampled, scored and measured; training goes on from the state that it came from.
    """
    lam = jnp.float32(lam)

    def fixed(module: Any, net: Net) -> Net:
        if isinstance(module, dial.Woven):
            return Net(module.at(net.params, jnp.log(lam)), net.extra)
        return Net(net.params, {**net.extra, "dial": {"log_lam": jnp.log(lam)}})

    def standing(module: Any) -> nn.Module:
        return module.module if isinstance(module, dial.Woven) else cast(nn.Module, Turned(module))

    of, judge = system.generator, system.critic
    still = system._replace(generator=standing(of), critic=standing(judge), dial=None)
    return still, state.replace(
        critic=fixed(judge, state.critic),
        generator=fixed(of, state.generator),
        ema=fixed(of, state.ema),
        reference=None if state.reference is None else fixed(of, state.reference),
        dials={**state.dials, "lam": lam},
    )


def has_density(generator: nn.Module) -> bool:
    """Whether a generator knows log q(x), as flows do."""
    return hasattr(generator, "log_likelihood")


def to_float(image: Array) -> Array:
    """Bytes, as they come from a disk, to [−1, 1]; what is float already stays as it is."""
    return image.astype(jnp.float32) / 127.5 - 1.0 if image.dtype == jnp.uint8 else image


def log_density(system: System, net: Net, x: Array, y: Array, noise: Array | None = None) -> Array:
    """log q(x) (N,) of a generator that has a density.

    Args:
      system, net: whose density.
      x, y: (N, ...) items, (N,) classes.
      noise: random numbers of each item (N, ...), by which a log-determinant that is estimated
        draws; None: it is a function of x alone.
    """
    variables = net.variables if noise is None else flows.drawn_for(net.variables, noise)
    return system.generator.apply(variables, x, y, method="log_prob")  # pyright: ignore


def sample_and_log_density(
    system: System, net: Net, z: Array, y: Array, noise: Array | None = None
) -> tuple[Array, Array]:
    """x (N, ...) and log q(x) (N,) of latents z (N, dim_z); the rest is `log_density`'s."""
    variables = net.variables if noise is None else flows.drawn_for(net.variables, noise)
    return system.generator.apply(variables, z, y, method="sample_and_log_prob")  # pyright: ignore


def log_likelihood(system: System, net: Net, x: Array, y: Array, noise: Array) -> Array:
    """log q (N,) of data as they are stored; a bound below it where they are on a grid.

    Args:
      system, net: whose density.
      x, y: (N, ...) data, (N,) classes.
      noise: (N, ...) uniform in (0, 1), between the values of a grid; an estimated log-determinant
        draws by it too.
    """
    variables = flows.drawn_for(net.variables, noise)
    return system.generator.apply(variables, x, y, noise, method="log_likelihood")  # pyright: ignore
