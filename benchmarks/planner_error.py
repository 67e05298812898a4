"""The planner's probe against the run it predicts, on this machine: three configurations.

    python benchmarks/planner_error.py [digits] [toy_2d] [biggan32]

For each it prints the predicted seconds of a command (low, middle, high), the measured ones, their
ratio, and whether they lie in the range; then XLA's own memory and FLOPs of the critic update
beside the estimates. The aim: every measurement in its range, the ratio within 25 %. Measured is
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

from prpr import checkpoint, config, planner, record, run, train
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


CASES = {case.__name__: case for case in (digits, toy_2d, biggan32)}


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
    """XLA's own numbers of the critic update beside the estimates; a warning, no more."""
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
    update = jax.jit(lambda s, b: train.critic_update(system, s, b), donate_argnums=0)
    compiled = update.lower(state, batch).compile()
    theirs: Any = compiled.cost_analysis()
    found: Any = compiled.memory_analysis()
    peak = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )
    ours = flops.cost(traced.critic).flops
    row = estimate.memory(traced, device_table.DEVICES["l4"], snapshot=False).total
    print(
        f"           critic update: {ours:.4g} FLOPs, XLA {theirs.get('flops', float('nan')):.4g}; "
        f"memory {row.middle / 1e6:.1f} MB ({row.low / 1e6:.1f} to {row.high / 1e6:.1f}), "
        f"XLA {peak / 1e6:.1f} MB",
        flush=True,
    )


if __name__ == "__main__":
    good = [compare(name) for name in sys.argv[1:] or CASES]
    sys.exit(0 if all(good) else 1)
