"""The planner's probe against the run it predicts, on this machine: five configurations.

    python benchmarks/planner_error.py [digits] [toy_2d] [biggan32] [digits_flow] [toy_2d_flow]

For each it prints the predicted seconds of a command (low, middle, high), the measured ones, their
ratio, and whether they lie in the range; then XLA's own memory and FLOPs of both updates beside
the estimates. The aim: every measurement in its range, the ratio within 25 %. Measured is
what the run's own record counts, training (with checks and checkpoints) and scoring; compiled
programs come from JAX's cache, which the probe has filled. The card leaves tracing and loading
them out of its sum, some 3 s in all: runs are long enough for that to matter little. On a machine
that others use too, the load printed beside each says how far to trust it.
"""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

from prpr import build, checkpoint, config, planner, record, run, train
from prpr.planner import device_table, estimate, flops, phases, programs, shapes


def digits() -> tuple[str, Any]:
    """The base run of configs/digits.py, with its fine-tune's critic steps."""
    cfg = config.defaults()
    cfg.name, cfg.data.name, cfg.lams = "digits", "digits", ()
    cfg.model.generator_ch, cfg.model.critic_ch = 16, 24
    cfg.model.dim_z, cfg.model.shared_dim = 16, 16
    cfg.objective, cfg.critic.loss, cfg.critic.steps = "hinge", "hinge", 4
    cfg.train.steps, cfg.train.checkpoint_every = 1500, 250
    cfg.score.encoder, cfg.score.repeats = "pixels", 4
    return "train", cfg


def toy_2d() -> tuple[str, Any]:
    """A fine-tune in the plane: base, control and two λ."""
    cfg = config.defaults()
    cfg.name, cfg.data.name, cfg.data.fractions = "toy_2d", "ring8", (0.8, 0.1, 0.1)
    cfg.lams = (0.2, 5.0)
    cfg.model.name, cfg.model.dim_z = "mlp", 2
    cfg.model.generator_ch, cfg.model.critic_ch, cfg.model.critic_spectral_norm = 16, 64, False
    cfg.base.steps, cfg.base.critic_steps, cfg.critic.steps = 1500, 5, 5
    cfg.train.batch, cfg.train.steps, cfg.train.warmup = 128, 1500, 100
    cfg.score.encoder = "pixels"
    return "finetune", cfg


def biggan32() -> tuple[str, Any]:
    """A narrow BigGAN at 32 x 32 on a made-up copy of CIFAR-10."""
    cfg = config.defaults()
    cfg.name, cfg.data.name, cfg.lams = "biggan32", "cifar10", ()
    cfg.data.miniature = True
    cfg.model.generator_ch = cfg.model.critic_ch = 8
    cfg.model.dim_z, cfg.model.shared_dim = 32, 16
    cfg.objective, cfg.critic.loss = "hinge", "hinge"
    cfg.train.batch, cfg.train.steps, cfg.train.checkpoint_every = 8, 1200, 200
    cfg.score.encoder, cfg.score.k, cfg.score.k_coverage = "pixels", 2, 2
    return "train", cfg


def digits_flow() -> tuple[str, Any]:
    """A small autoregressive flow of the digits by likelihood, then at a λ through its samples."""
    cfg = config.defaults()
    cfg.name, cfg.data.name, cfg.lams = "digits_flow", "digits", (5.0,)
    cfg = config.flow_of(cfg)
    cfg.route, cfg.log_ratio = "samples", "critic"
    cfg.model.name, cfg.model.depth, cfg.model.layers = "tarflow", 2, 1
    cfg.model.generator_ch, cfg.model.patch, cfg.model.heads = 32, 2, 2
    cfg.model.critic_ch, cfg.model.shared_dim = 8, 16
    cfg.base.steps, cfg.train.steps, cfg.train.warmup = 2000, 300, 30
    cfg.critic.steps, cfg.train.checkpoint_every = 2, 250
    cfg.score.encoder, cfg.score.repeats = "pixels", 4
    return "finetune", cfg


def toy_2d_flow() -> tuple[str, Any]:
    """A flow of the plane by likelihood, then at two λ by reweighted data and samples."""
    cfg = config.defaults()
    cfg.name, cfg.data.name, cfg.data.fractions = "toy_2d_flow", "ring8", (0.8, 0.1, 0.1)
    cfg.lams = (0.2, 5.0)
    cfg = config.flow_of(cfg)
    cfg.model.name, cfg.model.depth, cfg.model.layers = "realnvp", 6, 2
    cfg.model.generator_ch, cfg.model.critic_ch, cfg.model.critic_spectral_norm = 32, 64, False
    cfg.critic.steps = 5
    cfg.base.steps, cfg.train.batch = 2500, 128
    cfg.train.steps, cfg.train.warmup = 1000, 100
    cfg.score.encoder = "pixels"
    return "finetune", cfg


CASES = {case.__name__: case for case in (digits, toy_2d, biggan32, digits_flow, toy_2d_flow)}


def _quietly(call: Any, *arguments: Any) -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return call(*arguments)


def compare(name: str) -> bool:
    """Predicts and measures one configuration; whether it is in the range and within 25 %."""
    command, cfg = CASES[name]()
    page = planner.plan(cfg, command=command, probe=True)
    predicted = page.total_hours * 3600
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        enter = run.finetune if command == "finetune" else run.train_base
        seconds = _quietly(enter, cfg, folder)["seconds"]
        if command == "finetune":
            seconds += _base_scoring(Path(folder) / "base")
    ratio = seconds / predicted.middle
    inside = predicted.contains(seconds)
    print(
        f"{name:<10} {seconds:8.1f} s  predicted {predicted.middle:.1f} "
        f"({predicted.low:.1f} to {predicted.high:.1f})  ratio {ratio:.2f}  "
        f"{'inside' if inside else 'OUTSIDE'}  load {load:.1f} then {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    _cross_check(cfg)
    return inside and abs(ratio - 1) <= 0.25


def _base_scoring(folder: Path) -> float:
    """Measured seconds of the base's own table: its summary's without its training.

    The fine-tune's summary counts the training of the base, and not this.
    """
    meta = checkpoint.read_meta(folder / "checkpoints" / "base-seed0")
    assert meta is not None
    return record.read_json(folder / "summary.json")["seconds"] - meta["seconds"]


def _cross_check(cfg: Any) -> None:
    """XLA's own numbers of both updates beside the estimates; a warning, no more.

    A loop's body counts once, since XLA's count knows no turns.
    """
    shape = shapes.shape_of(cfg)
    traced = programs.Tracer(shape)(phases.Phase("train", cfg, 1), cfg.train.batch)
    system, state = traced.system, traced.state
    whole = jax.ShapeDtypeStruct((), "int32")
    batch = {
        "image": jax.ShapeDtypeStruct((cfg.train.batch, *shape.shape), "float32"),
        "label": jax.ShapeDtypeStruct((cfg.train.batch,), "int32"),
        "index": whole,
        "advance": whole,
    }
    generator = build.generator_step(system, cfg.train.batch)
    updates = {
        "critic": (traced.critic, lambda s, b: train.critic_update(system, s, b), (batch,)),
        "generator": (traced.generator, generator, (batch,) if system.reads_data else ()),
    }
    for i, (name, (flat, update, data)) in enumerate(updates.items()):
        if name == "critic" and not system.critic_steps:
            continue
        compiled = jax.jit(update, donate_argnums=0).lower(state, *data).compile()
        theirs: Any = compiled.cost_analysis()
        found: Any = compiled.memory_analysis()
        peak = (
            found.argument_size_in_bytes
            + found.output_size_in_bytes
            + found.temp_size_in_bytes
            - found.alias_size_in_bytes
        )
        alone = traced._replace(peaks=(traced.peaks[0], 0) if not i else (0, traced.peaks[1]))
        row = estimate.memory(alone, device_table.DEVICES["l4"], snapshot=False).total
        print(
            f"           {name} update: {flops.cost(flat, once=True).flops:.4g} FLOPs, "
            f"XLA {theirs.get('flops', float('nan')):.4g}; memory {row.middle / 1e6:.1f} MB "
            f"({row.low / 1e6:.1f} to {row.high / 1e6:.1f}), XLA {peak / 1e6:.1f} MB",
            flush=True,
        )


if __name__ == "__main__":
    good = [compare(name) for name in sys.argv[1:] or CASES]
    sys.exit(0 if all(good) else 1)
