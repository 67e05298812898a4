"""What each part of a command costs on a device on paper.

    shape = shapes.shape_of(cfg)                 # without reading a data set from disk
    work = phases.work(cfg, "finetune")          # base, control and λ runs
    traced = {phase.name: programs.trace(phase.cfg, shape, items) for phase in work.todo}
    times = estimate.timing(cfg, work.todo, shape, device, devices, traced)
    estimate.hours(cfg, work, times, width)

An update's seconds on paper are a roofline over the kernels of its program
(`prpr.planner.footprint`), each bounded by arithmetic or by memory, whichever is slower:

    low   Σ max(FLOPs / (u_high · peak), bytes_fused / (s_high · bandwidth)) + kernels · launch_low
    high  Σ max(FLOPs / (u_low · peak), bytes_unfused / (s_low · bandwidth)) + kernels · launch_high

with utilisations u and shares s of `prpr.planner.device_table`; the middle is their geometric mean.
A loop that ends when it has converged makes one trip at the low end, and its bound at the high one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import config, parallel, train
from prpr.planner import flops, footprint, programs
from prpr.planner.card import ZERO, Largest, Memory, Range, between
from prpr.planner.device_table import DISPATCH, Device
from prpr.planner.phases import Phase, Work
from prpr.planner.programs import Traced

# Activations, measured against XLA's own allocation on a CPU for the digits, toy and 32 x 32
# configurations: 1.1 to 1.8 times the estimate (benchmarks/planner_error.py prints them).
WORKSPACE = Range(1.0, 1.35, 1.8)
DISK = (2e8, 2e9)  # bytes/s of a checkpoint: an assumption
HOST = (2e10, 3e11)  # FLOP/s of the host's matrix products in the kNN metrics: an assumption
DECODE = (250.0, 500.0)  # JPEGs of ImageNet's size that one core decodes a second: an assumption
COMPILE = (2.0, 120.0)  # seconds for each of the programs: an assumption
_LARGEST = 2**16


def seconds(program: flops.Program, device: Device) -> Range:
    """One run of a program on a device, on paper; the module has the formula."""
    ends = []
    for fused, at in ((True, 1), (False, 0)):
        spent = 0.0
        for kernel in footprint.kernels(program, fused=fused):
            memory = kernel.bytes / (device.bandwidth_share[at] * device.bandwidth)
            work = kernel.flops and kernel.flops / (
                device.utilisation[at] * device.peak(kernel.dtype)
            )
            spent += kernel.times * (kernel.sure if fused else 1.0) * max(memory, work)
        ends.append(spent)
    found = footprint.kernels(program)
    launches = (sum(k.times * k.sure for k in found), sum(k.times for k in found))
    low, high = (count * each for count, each in zip(launches, device.launch, strict=True))
    return between(ends[0] + low + DISPATCH[0], ends[1] + high + DISPATCH[1])


def _reduce_gradients(params: Any, device: Device, devices: int) -> Range:
    """Ring all-reduce of gradients, 2 (n − 1)/n · bytes / link: hidden at best, bare at worst."""
    bare = 2 * (devices - 1) / devices * flops.tree_bytes(params) / device.link
    return Range(0.0, 0.5 * bare, bare)


def memory(traced: Traced, device: Device, *, snapshot: bool = True, critic: bool = True) -> Memory:
    """Bytes on one device.

    Args:
      traced: the programs.
      device: its memory.
      snapshot: whether checkpoints are written from a copy on the device (layout "data").
      critic: whether there are critic updates.
    """
    state, size = traced.state, flops.tree_bytes
    peaks = (traced.peaks[0] if critic else 0, traced.peaks[1])
    nets = (state.critic.params, state.generator.params)
    gradients = size(nets[int(peaks[1] > peaks[0])])
    parts = (
        size(state.generator),
        size(state.critic),
        size(state.ema),
        size((state.critic_opt, state.generator_opt)),
        gradients,
    )
    start = size(state.reference)
    rest = max(0, max(peaks) - sum(parts) - start)
    copy = sum(parts[:4]) + start if snapshot else 0  # while the next updates run already
    usable = device.usable * device.memory
    return Memory(*parts, copy, WORKSPACE * rest, device.memory, usable, start)


def largest(
    cfg: config.Config,
    memory_at: Callable[[int], Memory],
    devices: int,
    limit: int,
) -> Largest:
    """The largest power of two that one pass can hold with certainty, and what it makes possible.

    Args:
      cfg: its batch and layout.
      memory_at: items of one pass -> memory.
      devices: that share the batch in layout "data".
      limit: items of the training split.
    """
    share = devices if cfg.train.layout == parallel.DATA else 1
    known: dict[int, Memory] = {}

    def fits(items: int) -> bool:
        if items not in known:
            known[items] = memory_at(items)
        return known[items].fits == "yes"

    top = 2 ** int(math.log2(max(1, min(limit // share, _LARGEST))))
    start = 2 ** int(math.log2(max(1, min(top // 2 or 1, cfg.train.batch // share))))
    for items in (start, 2 * start):
        fits(items)
    slope = (known[2 * start].total.high - known[start].total.high) / start
    room = known[start].usable - known[start].total.high
    guess = start + room / slope if slope > 0 else top
    items = 2 ** int(math.log2(min(top, max(1, guess))))
    while items and not fits(items):
        items //= 2
    while items and items * 2 <= top and fits(items * 2):
        items *= 2
    device_batch = cfg.train.batch // share
    divisors = [a for a in range(1, device_batch + 1) if device_batch % a == 0]
    needed = next((a for a in divisors if device_batch // a <= items), None)
    return Largest(items, items * share, needed if items else None)


# --- the parts of the time ------------------------------------------------------------------


class Timing(NamedTuple):
    """Seconds of every part, on paper or measured.

    Attributes:
      updates: phase name -> (critic update, generator update) of one group of runs.
      data: a batch, as far as it is not hidden behind the updates.
      checkpoint: one, of one run, as far as it stops the run.
      diagnosis: phase name -> a held-out check of one group of runs.
      scoring: a row of the table;  preparing: what comes before the first (encoder, real row).
      generator, critic: one image through a network in evaluation.
      compilation: of all programs.
    """

    updates: Mapping[str, tuple[Range, Range]]
    data: Range
    checkpoint: Range
    diagnosis: Mapping[str, Range]
    scoring: Range
    preparing: Range
    generator: Range
    critic: Range
    compilation: Range


def passes(traced: Traced, shape: Any, items: int) -> tuple[flops.Program, flops.Program]:
    """The programs of one evaluation pass of the generator and of the critic."""
    system, state = traced.system, traced.state
    z = jax.ShapeDtypeStruct((items, system.dim_z), jnp.float32)
    y = jax.ShapeDtypeStruct((items,), jnp.int32)
    x = jax.ShapeDtypeStruct((items, *shape.shape), jnp.float32)
    return (
        flops.program(lambda n, *a: train.apply_frozen(system.generator, n, *a), state.ema, z, y),
        flops.program(lambda n, *a: train.apply_frozen(system.critic, n, *a), state.critic, x, y),
    )


def _features(cfg: config.Config, shape: Any) -> int:
    """D of the encoder that scores; 2048 as in Inception where it is not a small one."""
    small = {"pixels": int(np.prod(shape.shape)), "classifier": 32}
    return small.get(cfg.score.encoder, 2048)


def neighbours_flops(cfg: config.Config, shape: Any) -> float:
    """FLOPs of the kNN metrics of one row: the three matrices of distances of each set."""
    real, fake = shape.held_out, cfg.score.n_fake or shape.held_out
    pairs = real * real + fake * fake + real * fake
    return 2.0 * _features(cfg, shape) * pairs * cfg.score.repeats


def timing(
    cfg: config.Config,
    todo: Sequence[Phase],
    shape: Any,
    device: Device,
    devices: int,
    traced: Mapping[str, Traced],
) -> Timing:
    """Every part on paper; `traced` has the programs of each phase."""
    updates = {}
    for phase in todo:
        found = traced[phase.name]
        pair = [seconds(program, device) for program in (found.critic, found.generator)]
        if cfg.train.layout == parallel.DATA and devices > 1:
            nets = (found.state.critic.params, found.state.generator.params)
            pair = [
                own + _reduce_gradients(net, device, devices)
                for own, net in zip(pair, nets, strict=True)
            ]
        updates[phase.name] = (pair[0], pair[1])
    last = traced[todo[-1].name]
    items = min(256, shape.size)
    g, c = (seconds(program, device) * (1 / items) for program in passes(last, shape, items))
    sharing = devices if cfg.train.layout == parallel.DATA else 1
    checks = _checks(todo, shape, device, sharing, traced)
    fake = (cfg.score.n_fake or shape.held_out) * cfg.score.repeats
    work = neighbours_flops(cfg, shape)
    row = between(work / HOST[1], work / HOST[0])
    written = flops.tree_bytes(last.state)
    # Updates and the held-out check of each phase, and what scores.
    count = 2 + sum(len(traced[phase.name].updates(phase)) + 1 for phase in todo)
    return Timing(
        updates=updates,
        data=ZERO,
        checkpoint=between(written / DISK[1], written / DISK[0]),
        diagnosis=checks,
        scoring=g * (fake / device.sharing) + row,  # the others rest meanwhile
        preparing=row,
        generator=g,
        critic=c,
        compilation=between(COMPILE[0], COMPILE[1]) * count,
    )


def _checks(
    todo: Sequence[Phase], shape: Any, device: Device, sharing: int, traced: Mapping[str, Traced]
) -> dict[str, Range]:
    """Held-out checks, in pieces as large as those of training."""
    found: dict[str, Range] = {}
    known: dict[tuple[int, int], Range] = {}  # base and control may be one program
    for phase in todo:
        own, t = traced[phase.name], phase.cfg.train
        size = min(t.diagnose_size, shape.held_out)
        piece = max(1, min(t.batch // t.accumulate, size) // sharing)
        if (id(own), piece) not in known:
            check, arguments = programs.held_out_call(own, shape, piece)
            known[id(own), piece] = seconds(flops.program(check, *arguments), device)
        pieces = max(1, size // (piece * sharing))
        # As many training items as held-out ones are checked, if there is a ratio.
        found[phase.name] = known[id(own), piece] * (pieces * (1 + own.system.has_ratio))
    return found


def training(phase: Phase, times: Timing) -> Range:
    """Hours of one group of runs of a phase, its updates alone."""
    critic, generator = times.updates[phase.name]
    one = critic * phase.critic_updates + generator * phase.cfg.train.steps
    one += times.data * phase.batches
    return one * (1 / 3600)


def hours(cfg: config.Config, work: Work, times: Timing, width: int) -> dict[str, Range]:
    """Wall-clock hours by what is left to do; `width` runs go side by side."""
    found: dict[str, Range] = {}
    todo = work.todo
    if work.fits:
        updates = between(cfg.base.fit_every, cfg.base.fit_steps)
        critic, _ = times.updates[todo[-1].name]
        found[f"critic fit x {work.fits}"] = Range(
            updates.low * critic.low, updates.middle * critic.middle, updates.high * critic.high
        ) * (work.fits / 3600)
    checks, saves = ZERO, ZERO
    for phase in todo:
        if not phase.left:
            continue
        groups = math.ceil(phase.left / width)
        found[f"{phase.name} x {phase.left}"] = training(phase, times) * groups
        checks += times.diagnosis[phase.name] * (groups * phase.checks)
        saves += times.checkpoint * (phase.left * phase.events("checkpoint_every"))
    found["held-out checks"] = checks * (1 / 3600)
    found["checkpoints"] = saves * (1 / 3600)
    base = [p for p in todo if p.name == "base"]
    rows = sum(phase.jobs for phase in todo)  # finished runs are scored anew
    if todo[0].name != "train":  # a base made here is scored twice: alone, and beside the others
        rows += len(cfg.seeds)
    scoring = times.scoring * rows + times.preparing * (1 + len(base))
    found[f"scoring x {rows}"] = scoring * (1 / 3600)
    return found
