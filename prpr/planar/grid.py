"""A grid of λ, at several seeds, trained as one program: the states are stacked.

Notation: S seeds, L values of λ, R = S·L runs. The data are points in the plane that stay on the
device; a step draws its batches from them by the state's own key, so a run gives the same numbers
whichever others are trained beside it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prpr import build, config, data, jobs, objectives, parallel, ratio, record, train
from prpr.errors import ConfigError, PrprError

_DATA = 2**18  # place of a step's data among its draws of random numbers


class ExactDensity(nn.Module):
    """A critic without parameters: log p(x) of known data, (N, 2), (N,) -> (N,)."""

    name_of_data: str

    def __call__(self, x: jax.Array, y: jax.Array, *, train: bool) -> jax.Array:
        del y, train
        return data.law(self.name_of_data).log_density(x)


Advance = Callable[[train.TrainState], tuple[train.TrainState, jax.Array]]


class Trained(NamedTuple):
    """What a grid has become.

    Attributes:
      system: of the runs.
      states: (S, L, ...); the averaged generators are their `ema`.
    """

    system: train.System
    states: train.TrainState


def with_data(cfg: config.Config, name: str) -> config.Config:
    """The same configuration, of other data."""
    out = cfg.copy_and_resolve_references()
    out.data.name = name
    return out


def unconditional(dataset: data.Dataset) -> data.Dataset:
    """The data as one class: what is controlled here is which modes a model has."""
    return dataset._replace(labels=np.zeros_like(dataset.labels), num_classes=1)


def points_of(cfg: config.Config, part: str) -> data.Dataset:
    """The configuration's data of that split, `unconditional`."""
    d = cfg.data
    found = data.load(d.name, part, d.split_seed, d.fractions)
    assert isinstance(found, data.Dataset)
    return unconditional(found)


def check_start(key: str, cfg: config.Config) -> None:
    """ConfigError unless a "flow" starts from likelihood, and what has another key does not."""
    if (cfg.base.loss == objectives.LIKELIHOOD) != (key == "flow"):
        raise ConfigError(
            f"the configuration of {key!r} has base.loss = {cfg.base.loss!r}: a flow starts "
            "from likelihood, a GAN does not."
        )


def settings_of(cfg: config.Config) -> dict[str, Any]:
    """The settings of a model, those of its base included, that decide what is computed."""
    base = {f"base.{key}": record.to_plain(value) for key, value in cfg.base.items()}
    own = jobs.settings(cfg)
    own.pop("conditional_ratio", None)  # `unconditional` data have no such ratio
    return {**own, **base}


def oracle_of(system: train.System, name: str) -> train.System:
    """The same, whose ratio is the true one: the data's density is known, and the flow's own."""
    return system._replace(
        critic=ExactDensity(name),
        # Whatever loss was configured: its output is log r itself, and is not scaled.
        critic_loss=ratio.get("logistic"),
        exact=True,
        reference=False,
        critic_steps=0,
        warmup=0,  # there is no critic to warm, and it is left out
    )


def batches_of(
    reads: int, points: jax.Array, batch: int
) -> Callable[[train.TrainState], dict[str, jax.Array]]:
    """state -> its next batches of data, (reads, batch, ...), by its own key."""

    def draw(state: train.TrainState) -> dict[str, jax.Array]:
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), _DATA)
        rows = jax.random.randint(key, (reads, batch), 0, points.shape[0])
        return {"image": points[rows], "label": jnp.zeros((reads, batch), jnp.int32)}

    return draw


def steps_of(
    make_step: Callable[[train.TrainState], train.Step],
    reads: int,
    points: jax.Array,
    batch: int,
    steps: int,
) -> Advance:
    """state -> the state `steps` steps later, and whether it is finite.

    Args:
      make_step: state -> the step; parts of it may come from the state's dials.
      reads: batches of data in a step.
      points, batch: the data on the device, and how many of them a batch has.
      steps: how many.
    """
    draw = batches_of(reads, points, batch)

    def body(state: train.TrainState, _: None) -> tuple[train.TrainState, jax.Array]:
        state, scalars = make_step(state)(state, draw(state))
        return state, scalars["finite"]

    def run(state: train.TrainState) -> tuple[train.TrainState, jax.Array]:
        state, finite = jax.lax.scan(body, state, length=steps)
        return state, finite[-1]

    return run


def _advance(
    system: train.System, points: jax.Array, batch: int, steps: int, moves: bool
) -> Advance:
    step = train.make_step(system, move_generator=moves)
    return steps_of(lambda _: step, max(system.reads, 1), points, batch, steps)


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
    return advance(run, states, devices, lambda i: f"{_of(cfg)}, base {i}")


def _phases(
    cfg: config.Config,
    system: train.System,
    states: Sequence[train.TrainState],
    dataset: data.Dataset,
    devices: int,
    what: str,
    *,
    warm: bool = True,
) -> train.TrainState:
    """The states, stacked, after their warm-up (unless there is no critic to warm) and training."""
    stacked, points = stack(states), jnp.asarray(dataset.images)
    for steps, moves in ((cfg.train.warmup, False), (cfg.train.steps, True)):
        if steps and (warm or moves):
            run = _advance(system, points, cfg.train.batch, steps, moves)
            stacked = advance(run, stacked, devices, lambda i: f"{_of(cfg)}, {what} {i}")
    return stacked


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
    stacked = _phases(cfg, system, states, dataset, devices, "λ, run", warm=not oracle)
    shape = (len(cfg.seeds), len(cfg.lams))
    return Trained(
        system, jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), stacked)
    )


def train_one(
    cfg: config.Config, dataset: data.Dataset, bases: train.TrainState, devices: int
) -> Trained:
    """One model for every λ of `cfg.dial`, from every base; (S, L): turned to each of `cfg.lams`.

    Args and errors as `train_grid`.
    """
    system = build.system(cfg, dataset)
    example = build.example(system, dataset)
    dials, states = build.dials(cfg, None), []
    fresh = jax.jit(lambda key: train.init(system, key, example, dials))
    for i, seed in enumerate(cfg.seeds):
        base, new = take(bases, i), fresh(jax.random.key(seed))
        critic = new.critic
        if cfg.base.loss != objectives.LIKELIHOOD:
            critic = train.grafted(critic, base.critic)
        generator, ema = (
            train.grafted(mine, theirs)
            for mine, theirs in ((new.generator, base.generator), (new.ema, base.ema))
        )
        key = jax.random.fold_in(jax.random.key(seed), 1)
        states.append(train.start(system, key, critic, generator, ema, dials))
    stacked = _phases(cfg, system, states, dataset, devices, "one model, seed")
    rows, standing = [], system
    for i in range(len(cfg.seeds)):
        found = [train.turned(system, take(stacked, i), lam) for lam in cfg.lams]
        standing = found[0][0]
        rows.append(stack([state for _, state in found]))
    return Trained(standing, stack(rows))


def _of(cfg: config.Config) -> str:
    return f"{cfg.data.name}, {cfg.model.name}"


def advance(
    run: Callable[[Any], tuple[Any, jax.Array]],
    states: train.TrainState,
    devices: int,
    what: Callable[[int], str],
) -> Any:
    """What `run` makes of every stacked state (R, ...), with the same leading axis.

    Args:
      run: state -> what is kept of it, and whether it is finite.
      states: stacked.
      devices: from `parallel.setup`; at most one a run is used.
      what: number of a run -> its name in an error.

    Raises:
      PrprError: a run whose parameters are no longer finite.
    """
    devices = min(devices, len(jax.tree.leaves(states)[0]))
    moved, finite = parallel.spread(run, devices)(states)
    bad = np.flatnonzero(np.asarray(finite) == 0)
    if len(bad):
        raise PrprError(
            f"the parameters of {len(bad)} of {len(finite)} runs (first: {what(int(bad[0]))}) are "
            "no longer finite; lower generator.lr or critic.lr of its model."
        )
    return moved
