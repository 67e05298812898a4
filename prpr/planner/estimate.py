"""What a command will do, and what each part costs on a device on paper.

    shape = estimate.shape_of(cfg)               # without reading a data set from disk
    phases = estimate.phases(cfg, "finetune")    # base, control and λ runs
    timing = estimate.timing(cfg, phases, shape, device, devices)

An update's seconds on paper are a roofline over the kernels of its program
(`prpr.planner.footprint`), each bounded by arithmetic or by memory, whichever is slower:

    low   Σ max(FLOPs / (u_high · peak), bytes_fused / (s_high · bandwidth)) + kernels · launch_low
    high  Σ max(FLOPs / (u_low · peak), bytes_unfused / (s_low · bandwidth)) + kernels · launch_high

with utilisations u and shares s of `prpr.planner.device_table`; the middle is their geometric mean.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import build, config, parallel, train, weights
from prpr.errors import ConfigError, DataError
from prpr.planner import flops, footprint
from prpr.planner.card import ZERO, Largest, Memory, Range, between
from prpr.planner.device_table import DISPATCH, Device

# Activations, measured against XLA's own allocation on a CPU for the digits, toy and 32 x 32
# configurations: 1.1 to 1.8 times the estimate (benchmarks/planner_error.py prints them).
WORKSPACE = Range(1.0, 1.35, 1.8)
DISK = (2e8, 2e9)  # bytes/s of a checkpoint: an assumption
HOST = (2e10, 3e11)  # FLOP/s of the host's matrix products in the kNN metrics: an assumption
DECODE = (250.0, 500.0)  # JPEGs of ImageNet's size that one core decodes a second: an assumption
COMPILE = (2.0, 120.0)  # seconds for each of the programs: an assumption
_LARGEST = 2**16


class Shape(NamedTuple):
    """What a model needs to know of its data; stands in for a data set in `build.system`.

    Attributes:
      shape: of one item.
      num_classes, size: of the training split.
      held_out: images that a row is scored against.
      stored: whether items come as bytes from files.
      note: for the card, where the data themselves were not looked at.
    """

    shape: tuple[int, ...]
    num_classes: int
    size: int
    held_out: int
    stored: bool = False
    note: str = ""


# (side as stored or 0, channels, classes, training images, held-out images), of the data sets'
# own papers: used where the files are not at hand.
KNOWN: dict[str, tuple[int, int, int, int, int]] = {
    "imagenet2012": (0, 3, 1000, 1_271_167, 50_000),
    "cifar10": (32, 3, 10, 45_000, 10_000),
    "celeb_a": (178, 3, 1, 162_770, 19_962),
    "mnist": (28, 1, 10, 54_000, 10_000),
    "fashion_mnist": (28, 1, 10, 54_000, 10_000),
    "folder": (0, 3, 1, 70_000, 10_000),  # FFHQ
    "prepared": (0, 3, 1, 70_000, 10_000),
}
_READ = 10_000  # held-out images that `prpr.score` reads from a disk where none is said


def shape_of(cfg: config.Config) -> Shape:
    """The shape of a configuration's data: of the data where they are at hand, else known.

    Raises:
      ConfigError: a resolution that is neither said nor known.
      DataError: data that are there and cannot be used.
    """
    name, split, d = cfg.data.name, cfg.score.split, cfg.data
    stored = name in KNOWN
    if stored and not d.miniature and not _at_hand(cfg):
        side, channels, classes, size, held_out = KNOWN[name]
        side = d.resolution or side
        if not side:
            raise ConfigError(
                f"config.data.resolution = 0: the images of {name!r} have several sizes; set it, "
                "such as 128."
            )
        note = f"the data are not here; {size} images, {side} x {side}, {classes} classes"
        found = Shape((side, side, channels), classes, size, held_out, True, note)
    else:
        parts = build.splits(cfg)
        first, held_out = parts.train, parts.held_out(split).size
        found = Shape(first.shape, first.num_classes, first.size, held_out, stored)
    limit = cfg.score.n_real or (_READ if stored else found.held_out)
    return found._replace(held_out=min(found.held_out, limit))


def _at_hand(cfg: config.Config) -> bool:
    """Whether the data can be opened; a folder that is not there is no error of a plan."""
    try:
        build.splits(cfg)
    except (DataError, ConfigError):
        return False
    return True


# --- what will be run -----------------------------------------------------------------------


def lacks_critic(cfg: config.Config) -> bool:
    """Whether the base is converted weights of a generator alone, for which a critic is fitted."""
    path = Path(cfg.base.path).expanduser()
    return (
        bool(cfg.base.path) and weights.is_weights(path) and not weights.read_info(path).has_critic
    )


class Phase(NamedTuple):
    """Runs of one program.

    Attributes:
      name: "base", "control", "λ" or "train".
      cfg: their configuration.
      jobs: how many runs (values of λ times seeds).
    """

    name: str
    cfg: config.Config
    jobs: int

    @property
    def critic_updates(self) -> int:
        """Of one run."""
        return (self.cfg.train.warmup + self.cfg.train.steps) * self.cfg.critic.steps

    def events(self, every: str) -> int:
        """How often one run reaches an interval of config.train, its end included."""
        total = self.cfg.train.warmup + self.cfg.train.steps
        return math.ceil(total / self.cfg.train[every])


def phases(cfg: config.Config, command: str) -> list[Phase]:
    """The runs of a command, "finetune" or "train", in order."""
    seeds = len(cfg.seeds)
    if command == "train":
        jobs = max(1, len(cfg.lams)) * seeds
        return [Phase("train", cfg, jobs)]
    found = []
    if not cfg.base.path and not cfg.base.required:
        found.append(Phase("base", config.base_of(cfg), seeds))
    if cfg.control:
        found.append(Phase("control", config.control_of(cfg), seeds))
    if cfg.lams:
        found.append(Phase("λ", cfg, len(cfg.lams) * seeds))
    return found


# --- the programs ---------------------------------------------------------------------------


class Traced(NamedTuple):
    """The flat programs of both updates at one batch, the bytes at their peaks, the shapes."""

    critic: flops.Program
    generator: flops.Program
    peaks: tuple[int, int]
    state: train.TrainState
    system: train.System


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
    generator = flops.program(lambda s: train.generator_update(system, s, items), state)
    donated = range(len(jax.tree.leaves(state)))
    peaks = [
        max(footprint.peak(p, fused=fused, donated=donated) for fused in (True, False))
        for p in (critic, generator)
    ]
    return Traced(critic, generator, (peaks[0], peaks[1]), state, system)


def disagreement(phase: Phase, shape: Any, items: int, traced: Traced) -> str:
    """A warning where XLA's own count of the critic update is more than a quarter off, else ""."""
    update, arguments = _critic_call(build.system(phase.cfg, shape), traced.state, shape, items)
    theirs = flops.compiler_estimate(update, *arguments)
    found = flops.cost(traced.critic)
    ours = found.flops + found.elementwise
    if theirs is None or abs(theirs - ours) <= 0.25 * ours:
        return ""
    return (
        f"XLA counts {theirs:.3g} operations in a critic update and this planner {ours:.3g}; XLA's "
        "count is known to miss library calls and the turns of loops"
    )


class Tracer:
    """Traces programs, each once: they are the same for every device.

    Args:
      shape: of the data, a `Shape` or a data set.
    """

    def __init__(self, shape: Any):
        self.shape = shape
        self._known: dict[tuple[str, int], Traced] = {}

    def __call__(self, phase: Phase, items: int) -> Traced:
        """The programs of a phase; those of base and control differ by constants only."""
        name = "base" if phase.name == "control" else phase.name
        if (name, items) not in self._known:
            self._known[name, items] = trace(phase.cfg, self.shape, items)
        return self._known[name, items]


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
            spent += kernel.times * max(memory, work)
        ends.append(spent)
    launches = sum(kernel.times for kernel in footprint.kernels(program))
    low, high = (launches * each for each in device.launch)
    return between(ends[0] + low + DISPATCH[0], ends[1] + high + DISPATCH[1])


def _reduce_gradients(params: Any, device: Device, devices: int) -> Range:
    """Ring all-reduce of gradients, 2 (n − 1)/n · bytes / link: hidden at best, bare at worst."""
    bare = 2 * (devices - 1) / devices * flops.tree_bytes(params) / device.link
    return Range(0.0, 0.5 * bare, bare)


def memory(traced: Traced, device: Device, *, share: int = 1, snapshot: bool = True) -> Memory:
    """Bytes on one device.

    Args:
      traced: the programs.
      device: its memory.
      share: how many devices have that memory together (cores of a CPU).
      snapshot: whether checkpoints are written from a copy on the device (layout "data").
    """
    state, peaks, size = traced.state, traced.peaks, flops.tree_bytes
    nets = (state.critic.params, state.generator.params)
    gradients = size(nets[int(peaks[1] > peaks[0])])
    parts = (
        size(state.generator),
        size(state.critic),
        size(state.ema),
        size((state.critic_opt, state.generator_opt)),
        gradients,
    )
    rest = max(0, max(peaks) - sum(parts))
    capacity = device.memory / share
    copy = sum(parts[:4]) if snapshot else 0  # while the next updates run already
    return Memory(*parts, copy, WORKSPACE * rest, capacity, device.usable * capacity)


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
      diagnosis: a held-out check.
      scoring: a row of the table;  preparing: what comes before the first (encoder, real row).
      generator, critic: one image through a network in evaluation.
      compilation: of all programs.
    """

    updates: Mapping[str, tuple[Range, Range]]
    data: Range
    checkpoint: Range
    diagnosis: Range
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
    checked = min(cfg.train.diagnose_size, shape.held_out) / sharing
    fake = (cfg.score.n_fake or shape.held_out) * cfg.score.repeats
    work = neighbours_flops(cfg, shape)
    row = between(work / HOST[1], work / HOST[0])
    written = flops.tree_bytes(last.state)
    programs = 2 * len({id(p.cfg) for p in todo}) + 2
    return Timing(
        updates=updates,
        data=ZERO,
        checkpoint=between(written / DISK[1], written / DISK[0]),
        diagnosis=(g + c * 2.0) * checked,
        scoring=g * fake + row,
        preparing=row,
        generator=g,
        critic=c,
        compilation=between(COMPILE[0], COMPILE[1]) * programs,
    )


def hours(cfg: config.Config, todo: Sequence[Phase], times: Timing, width: int) -> dict[str, Range]:
    """Wall-clock hours by what is done; `width` runs go side by side."""
    found: dict[str, Range] = {}
    if todo[-1].name != "train" and lacks_critic(cfg):
        updates = between(cfg.base.fit_every, cfg.base.fit_steps)
        critic, _ = times.updates[todo[-1].name]
        found["critic fit"] = Range(
            updates.low * critic.low, updates.middle * critic.middle, updates.high * critic.high
        ) * (len(cfg.seeds) / 3600)
    checks, saves = ZERO, ZERO
    for phase in todo:
        critic, generator = times.updates[phase.name]
        groups = math.ceil(phase.jobs / width)
        one = (critic + times.data) * phase.critic_updates + generator * phase.cfg.train.steps
        found[f"{phase.name} x {phase.jobs}"] = one * (groups / 3600)
        checks += times.diagnosis * (groups * phase.events("diagnose_every"))
        saves += times.checkpoint * (phase.jobs * phase.events("checkpoint_every"))
    found["held-out checks"] = checks * (1 / 3600)
    found["checkpoints"] = saves * (1 / 3600)
    base = [p for p in todo if p.name == "base"]
    rows = sum(phase.jobs for phase in todo)
    if todo[0].name != "train":  # a base made here is scored twice: alone, and beside the others
        rows += len(cfg.seeds)
    scoring = times.scoring * rows + times.preparing * (1 + len(base))
    found[f"scoring x {rows}"] = scoring * (1 / 3600)
    return found
