"""A grid of λ, at several seeds, trained as one program: the states are stacked.

Notation: S seeds, L values of λ, R = S·L runs. The data are points in the plane that stay on the
device; a step draws its batches from them by the state's own key, so a run gives the same numbers
whichever others are trained beside it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prpr import build, config, data, objectives, parallel, train
from prpr.errors import PrprError

_DATA = 2**18  # place of a step's data among its draws of random numbers


class ExactDensity(nn.Module):
    """A critic without parameters: log p(x) of known data, (N, 2), (N,) -> (N,)."""

    name_of_data: str

    def __call__(self, x: jax.Array, y: jax.Array, *, train: bool) -> jax.Array:
        del y, train
        return data.law(self.name_of_data).log_density(x)


class Trained(NamedTuple):
    """What a grid has become.

    Attributes:
      system: of the runs.
      states: (S, L, ...); the averaged generators are their `ema`.
    """

    system: train.System
    states: train.TrainState


def unconditional(dataset: data.Dataset) -> data.Dataset:
    """The data as one class: what is controlled here is which modes a model has."""
    return dataset._replace(labels=np.zeros_like(dataset.labels), num_classes=1)


def oracle_of(system: train.System, name: str) -> train.System:
    """The same, whose ratio is the true one: the data's density is known, and the flow's own."""
    critic = ExactDensity(name)
    return system._replace(critic=critic, exact=True, reference=False, critic_steps=0)


def _advance(system: train.System, points: jax.Array, batch: int, steps: int, moves: bool) -> Any:
    """state -> the state `steps` steps later."""
    step = train.make_step(system, move_generator=moves)
    reads = max(system.reads, 1)

    def body(state: train.TrainState, _: None) -> tuple[train.TrainState, jax.Array]:
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), _DATA)
        rows = jax.random.randint(key, (reads, batch), 0, points.shape[0])
        labels = jnp.zeros((reads, batch), jnp.int32)
        state, scalars = step(state, {"image": points[rows], "label": labels})
        return state, scalars["finite"]

    def run(state: train.TrainState) -> tuple[train.TrainState, jax.Array]:
        state, finite = jax.lax.scan(body, state, length=steps)
        return state, finite[-1]

    return run


def stack(states: Sequence[Any]) -> Any:
    """Trees of one structure -> one tree whose leaves have a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def take(tree: Any, index: int) -> Any:
    """One of a stacked tree's."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def train_bases(cfg: config.Config, dataset: data.Dataset, devices: int) -> train.TrainState:
    """The states (S, ...) that all λ start from, by the knobs in `cfg.base`."""
    base_cfg = config.base_of(cfg)
    system = build.system(base_cfg, dataset)
    example = build.example(system, dataset)
    dials = build.dials(base_cfg, None)
    fresh = jax.jit(lambda key: train.init(system, key, example, dials))
    states = stack([fresh(jax.random.key(seed)) for seed in cfg.seeds])
    points = jnp.asarray(dataset.images)
    run = _advance(system, points, base_cfg.train.batch, base_cfg.train.steps, True)
    return _finite(parallel.spread(run, devices)(states), cfg, "base")


def train_grid(
    cfg: config.Config,
    dataset: data.Dataset,
    bases: train.TrainState,
    devices: int,
    *,
    oracle: bool = False,
) -> Trained:
    """Trains every λ of `cfg.lams` from every base.

    Args:
      cfg: of the fine-tune.
      dataset: the training points, from `unconditional`.
      bases: from `train_bases`.
      devices: from `parallel.setup`.
      oracle: whether log r is the true one, log p − log q; for flows.

    Raises:
      PrprError: a run whose parameters are no longer finite.
    """
    system = build.system(cfg, dataset)
    if oracle:
        system = oracle_of(system, cfg.data.name)
    fresh = build.system(cfg, dataset)
    example = build.example(fresh, dataset)
    states = []
    for i, seed in enumerate(cfg.seeds):
        base = take(bases, i)
        critic = base.critic
        if oracle:
            critic = train.Net({}, {})
        elif cfg.base.loss == objectives.LIKELIHOOD:
            # Likelihood has trained no critic; this one is as fresh, but for this run's loss.
            critic = train.init(fresh, jax.random.key(seed), example, build.dials(cfg, None)).critic
        key = jax.random.fold_in(jax.random.key(seed), 1)
        for lam in cfg.lams:
            dials = build.dials(cfg, lam)
            states.append(train.start(system, key, critic, base.generator, base.ema, dials))
    stacked, points = stack(states), jnp.asarray(dataset.images)
    for steps, moves in ((cfg.train.warmup, False), (cfg.train.steps, True)):
        if steps and not (oracle and not moves):
            run = _advance(system, points, cfg.train.batch, steps, moves)
            stacked = _finite(parallel.spread(run, devices)(stacked), cfg, "λ")
    shape = (len(cfg.seeds), len(cfg.lams))
    return Trained(
        system, jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), stacked)
    )


def _finite(found: tuple[Any, jax.Array], cfg: config.Config, what: str) -> Any:
    states, finite = found
    bad = np.flatnonzero(np.asarray(finite) == 0)
    if len(bad):
        raise PrprError(
            f"{cfg.data.name}, {cfg.model.name}: the parameters of {len(bad)} of {len(finite)} "
            f"runs ({what}, first number {bad[0]}) are no longer finite; lower "
            "config.generator.lr or config.critic.lr."
        )
    return states
