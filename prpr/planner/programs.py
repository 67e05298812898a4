"""The programs of a run's updates, traced from a configuration; nothing is compiled or run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prpr import build, config, config_steadying, train
from prpr.planner import flops, footprint
from prpr.planner.phases import Phase


class Traced(NamedTuple):
    """The flat programs of both updates at one batch, the bytes at their peaks, the shapes."""

    critic: flops.Program
    generator: flops.Program
    peaks: tuple[int, int]
    state: train.TrainState
    system: train.System

    def updates(self, phase: Phase) -> tuple[flops.Program, ...]:
        """The programs of the updates that a phase makes: without critic updates, one."""
        return (self.critic, self.generator) if phase.critic_updates else (self.generator,)


def _critic_call(
    system: train.System, state: Any, shape: Any, items: int
) -> tuple[Callable[..., Any], tuple[Any, Any]]:
    """The critic update as a function, and the shapes of its arguments."""
    dtype = jnp.uint8 if shape.stored else jnp.float32
    whole = jax.ShapeDtypeStruct((), jnp.int32)
    batch = {
        "image": jax.ShapeDtypeStruct((items, *shape.shape), dtype),
        "label": jax.ShapeDtypeStruct((items,), jnp.int32),
        "index": whole,
        "advance": whole,
    }
    return lambda s, b: train.critic_update(system, s, b), (state, batch)


def held_out_call(
    traced: Traced, shape: Any, items: int
) -> tuple[Callable[..., Any], tuple[Any, Any]]:
    """A held-out check of so many items as a function, and the shapes of its arguments."""
    system = traced.system
    _, (state, batch) = _critic_call(system, traced.state, shape, items)
    batch = {name: batch[name] for name in ("image", "label", "index")}
    return lambda s, b: train.held_out(system, s, b), (state, batch)


def trace(cfg: config.Config, shape: Any, items: int) -> Traced:
    """Traces both updates for `items` of one device; nothing is compiled or run."""
    system = build.system(cfg, shape)
    example = jax.ShapeDtypeStruct((2, *shape.shape), jnp.float32)
    dials = build.dials(cfg, None)
    state: Any = jax.eval_shape(
        lambda key, x: train.init(system, key, x, dials), jax.random.key(0), example
    )
    update, arguments = _critic_call(system, state, shape, items)
    critic = flops.program(update, *arguments)
    data = (arguments[1],) if system.reads_data else ()
    generator = flops.program(build.generator_step(system, items), state, *data)
    donated = range(len(jax.tree.leaves(state)))
    peaks = [
        max(footprint.peak(p, fused=fused, donated=donated) for fused in (True, False))
        for p in (critic, generator)
    ]
    return Traced(critic, generator, (peaks[0], peaks[1]), state, system)


def disagreement(phase: Phase, shape: Any, items: int, traced: Traced) -> str:
    """A warning where XLA's own count of the critic update is more than a quarter off, else "".

    XLA counts a loop's body once, so that is what is compared.
    """
    if not phase.critic_updates:
        return ""
    update, arguments = _critic_call(build.system(phase.cfg, shape), traced.state, shape, items)
    theirs = flops.compiler_estimate(update, *arguments)
    found = flops.cost(traced.critic, once=True)
    ours = found.flops + found.elementwise
    if theirs is None or abs(theirs - ours) <= 0.25 * ours:
        return ""
    return (
        f"XLA counts {theirs:.3g} operations in a critic update and this planner {ours:.3g} "
        "(a loop's body once); XLA's count is known to miss library calls"
    )


class Tracer:
    """Traces programs, each once: they are the same for every device.

    Args:
      shape: of the data, a `Shape` or a data set.
    """

    def __init__(self, shape: Any):
        self.shape = shape
        self._known: dict[Any, Traced] = {}

    def __call__(self, phase: Phase, items: int) -> Traced:
        """The programs of a phase; at one batch, base and control differ by constants only.

        Unless the control has the fine-tune's augmentation or penalties.
        """
        name = "base" if phase.name == "control" else phase.name
        key = name, items, config_steadying.values(phase.cfg)
        if key not in self._known:
            self._known[key] = trace(phase.cfg, self.shape, items)
        return self._known[key]
