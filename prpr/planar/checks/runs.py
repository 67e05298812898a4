"""What the checks share: the law, the two configurations, their starts, and runs as one program.

Notation: S seeds, R runs in all; a state's dials may hold more than an objective reads, so what
differs between the runs of a check (τ, a critic's limit, which divergence) is a traced number and
one program trains them all. The averaged generator of a base, its `ema`, is the start Q.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr import build, config, data, processes, train
from prpr.planar.checks import grids
from prpr.planar.grid import (
    Trained,
    advance,
    points_of,
    steps_of,
    take,
    train_bases,
    with_data,
)
from prpr.planar.truth import Measured, hypervolume, measure, spearman


class Setting:
    """One law, a flow's and a GAN's configuration; their starts are trained when first asked for.

    Args:
      name: of the data, a law of the plane.
      flow, gan: configurations with the same λ, seeds and split of the data.
      cells: in a row of the finest grid that is integrated over.
      devices: from `parallel.setup`.
    """

    def __init__(
        self, name: str, flow: config.Config, gan: config.Config, cells: int, devices: int
    ):
        self.name, self.cells, self.devices = name, cells, devices
        self.flow, self.gan = with_data(flow, name), with_data(gan, name)
        self.law = data.law(name)
        self.lams = tuple(sorted(float(lam) for lam in flow.lams))
        self.seeds = tuple(flow.seeds)

    def points(self, part: str = "train") -> data.Dataset:
        """Of the split, as one class."""
        return points_of(self.flow, part)

    @functools.cached_property
    def flow_bases(self) -> train.TrainState:
        """The flows (S, ...) that maximum likelihood has made."""
        processes.say(f"{self.name}: the flow's start")
        return train_bases(self.flow, self.points(), self.devices)

    @functools.cached_property
    def fresh_flows(self) -> train.TrainState:
        """Flows (S, ...) as they are initialised."""
        system, dials = self.flow_system, build.dials(self.flow, None)
        example = build.example(system, self.points())
        fresh = jax.jit(jax.vmap(lambda key: train.init(system, key, example, dials)))
        return fresh(_keys(self.flow))

    @functools.cached_property
    def gan_bases(self) -> train.TrainState:
        """The GANs (S, ...) of the base run."""
        processes.say(f"{self.name}: the GAN's start")
        return train_bases(self.gan, self.points(), self.devices)

    @functools.cached_property
    def flow_system(self) -> train.System:
        """Of the flow's fine-tunes."""
        return build.system(self.flow, self.points())

    @functools.cached_property
    def densities(self) -> tuple[np.ndarray, np.ndarray]:
        """log p (N,) and log q (S, N) of the flow's starts at a grid's midpoints (`grids`)."""
        return grids.log_densities(self.flow_system, self.law, self.flow_bases.ema, self.cells)

    @property
    def coarse_lams(self) -> tuple[float, ...]:
        """About every other λ, least and largest among them: for checks of two dimensions."""
        count = len(self.lams) // 2 + 1
        at = np.linspace(0, len(self.lams) - 1, count).round().astype(int)
        return tuple(self.lams[i] for i in at)


def fresh_critics(system: train.System, cfg: config.Config) -> train.Net:
    """Stacked, (S, ...): as a run of each seed would make its own."""
    dials = build.dials(cfg, None)

    @jax.jit
    def every(keys: jax.Array) -> train.Net:
        points = jnp.zeros((2, 2), jnp.float32)
        return jax.vmap(lambda key: train.init(system, key, points, dials).critic)(keys)

    return every(_keys(cfg))


def _keys(cfg: config.Config) -> jax.Array:
    return jax.vmap(jax.random.key)(np.array(cfg.seeds, np.uint32))


def starts(
    system: train.System,
    cfg: config.Config,
    bases: train.TrainState,
    critics: train.Net,
    dials: Sequence[Mapping[str, float]],
) -> train.TrainState:
    """Stacked states (R, ...), R = S · len(dials), seed by seed: each run from its seed's base.

    Args:
      system, cfg: of the runs.
      bases: (S, ...), for generators and their averages.
      critics: (S, ...).
      dials: of each run of a seed; those that are not given are the configuration's.
    """
    default = build.dials(cfg, None)
    names = dict.fromkeys([*default, *dials[0]])
    columns = {
        name: np.array([{**default, **each}[name] for each in dials], np.float32) for name in names
    }

    @jax.jit
    def every(keys: jax.Array, nets: Any, columns: dict[str, jax.Array]) -> train.TrainState:
        def of_seed(key: jax.Array, nets: tuple[train.Net, train.Net, train.Net]) -> Any:
            run_key = jax.random.fold_in(key, 1)
            return jax.vmap(lambda each: train.start(system, run_key, *nets, each))(columns)

        return jax.vmap(of_seed)(keys, nets)

    states = every(_keys(cfg), (critics, bases.generator, bases.ema), columns)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), jax.device_get(states))


def make_step(system: train.System, *, move_generator: bool) -> train.Step:
    """`train.make_step`, its critic updates in a loop: a dense critic compiles faster so."""
    updates = system.critic_steps if move_generator else system.reads

    def step(state: train.TrainState, batch: train.Batch) -> tuple[train.TrainState, Any]:
        index = jnp.arange(updates, dtype=jnp.int32)
        ends = (index == updates - 1) & (not move_generator)
        each = {
            "image": batch["image"][:updates],
            "label": batch["label"][:updates],
            "index": index,
            "advance": ends.astype(jnp.int32),
        }
        finite = jnp.float32(1.0)
        if updates:
            state, scalars = jax.lax.scan(
                lambda state, one: train.critic_update(system, state, one), state, each
            )
            finite = scalars["finite"][-1]
        if move_generator:
            data: train.Batch | int = batch["image"].shape[1]
            if system.reads_data:
                data = {"image": batch["image"][-1], "label": batch["label"][-1]}
            state, more = train.generator_update(system, state, data)
            finite = finite * more["finite"]
        return state, {"finite": finite}

    return step


def trained(
    system_of: Callable[[train.TrainState], train.System],
    cfg: config.Config,
    dataset: data.Dataset,
    states: train.TrainState,
    devices: int,
    what: str,
) -> train.TrainState:
    """The warm-up of the critics and the steps of `cfg`, for stacked states (R, ...).

    Args:
      system_of: state -> the system of its run, which may hold traced numbers from its dials.
      cfg, dataset: numbers of steps, batch and data.
      states: from `starts`.
      devices: from `parallel.setup`.
      what: is trained, for an error's text.
    """
    points, system = jnp.asarray(dataset.images), system_of(take(states, 0))
    for steps, moves in ((cfg.train.warmup, False), (cfg.train.steps, True)):
        if steps and (moves or system.critic_steps):

            def make(state: train.TrainState, moves: bool = moves) -> train.Step:
                return make_step(system_of(state), move_generator=moves)

            run = steps_of(make, max(system.reads, 1), points, cfg.train.batch, steps)
            states = advance(run, states, devices, lambda i: f"{what}, run {i}")
    return states


def measured(
    setting: Setting, system: train.System, states: train.TrainState, lams: tuple[float, ...]
) -> Measured:
    """`measure` of stacked states (S, K, L, ...) in one call; arrays (S, K, L).

    Args:
      setting: whose data they are of.
      system: of the runs.
      states: of each seed, K grids of λ.
      lams: (L,) of a grid.
    """
    shape = jax.tree.leaves(states)[0].shape[:3]
    joined = jax.tree.map(lambda leaf: leaf.reshape(shape[0], -1, *leaf.shape[3:]), states)
    held_out = setting.points("test").images
    # Critics are not asked: their ratio may depend on a run's dials, which a system does not know.
    found = measure(
        Trained(system, joined), setting.name, lams * shape[1], held_out, setting.cells, ask=False
    )
    return Measured(*(column.reshape(shape) for column in found))


def one_of(found: Measured, k: int) -> Measured:
    """The grid of λ of that number: arrays (S, L)."""
    return Measured(*(column[:, k] for column in found))


def shaped(states: Any, *shape: int) -> Any:
    """Leaves (R, ...) -> (*shape, ...)."""
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), states)


def numbers_of(found: Measured, lams: tuple[float, ...]) -> dict[str, Any]:
    """Of a grid of λ: points (S, L), their error; (S,) rank correlations and hypervolumes."""
    return {
        "lams": list(lams),
        "precision": found.precision.tolist(),
        "recall": found.recall.tolist(),
        "error": found.ends_error.tolist(),
        "spearman_precision": ranks(lams, found.precision).tolist(),
        "spearman_recall": ranks(lams, found.recall).tolist(),
        "hypervolume": hypervolume(found).tolist(),
    }


def ranks(lams: tuple[float, ...], values: np.ndarray) -> np.ndarray:
    """`spearman`, (S,), but 0 where the values do not vary: such a seed has no order either."""
    return np.nan_to_num(spearman(lams, values), nan=0.0)


def mean(values: Any) -> float:
    """Over all entries."""
    return float(np.mean(np.asarray(values, np.float64)))
