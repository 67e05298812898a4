"""A critic fitted to a generator at rest, calibrated, and stored as a run that samplers can read.

WORKDIR/predict/seedS is the workdir of a run whose base is the frozen generator with that critic:
its configuration is the fine-tune's with the calibration in it, so evaluate.py --sampler= takes it.

Notation: T the critic's output, s = critic.scale; on held-out data P(data | s T) is fitted by
σ(a s T + b) (Platt's scaling). Stored are the scale a s and log_norm = −b with `normalise`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import (
    build,
    checkpoint,
    config,
    data,
    fitting,
    preempt,
    ratio,
    record,
    score,
    train,
    weights,
)
from prpr.errors import CheckpointError, ConfigError, DataError
from prpr.jobs import Job, fingerprint
from prpr.samplers import proposals
from prpr.trainer import Trainer

_LEAST_SLOPE = 0.01  # a critic that sees no difference; 0 would be no scale
_KEY = 20_261_201


class Ratios(NamedTuple):
    """log r̂ (N,) at held-out data and (M,) at samples of the frozen generator."""

    real: np.ndarray
    fake: np.ndarray


class Fitted(NamedTuple):
    """What was fitted.

    Attributes:
      job: the base's.
      slope, offset: a and b.
      ratios: calibrated, on the scored split, which neither the fit nor the calibration saw.
      checks: `train.diagnose` of `ratios`, scalars alone.
      updates: critic updates that were made.
    """

    job: Job
    slope: float
    offset: float
    ratios: Ratios
    checks: dict[str, float]
    updates: int


def home_of(cfg: config.Config, workdir: Path) -> Path:
    """Where the frozen generator is."""
    return Path(cfg.base.path).expanduser() if cfg.base.path else workdir / "base"


def folder_of(workdir: Path, seed: int) -> Path:
    """Of the frozen generator with its critic."""
    return workdir / "predict" / f"seed{seed}"


def settings_of(cfg: config.Config) -> config.Config:
    """The configuration of the fit: the fine-tune's critic, without what only a fine-tune reads.

    Raises:
      ConfigError: a fine-tune that has no ratio.
    """
    if build.critic_steps(cfg) == 0:
        raise ConfigError(
            f"config.route = {cfg.route!r}, config.objective = {cfg.objective!r}: this fine-tune "
            "has no critic, and a frontier is predicted from one; set config.route = 'samples' (a "
            "flow's: 'balanced')."
        )
    own = cfg.copy_and_resolve_references()
    own.dial, own.train.keep_best = (), max(1, cfg.train.keep_best)
    own.base.path, own.base.required = "", False
    return own


def fit(
    cfg: config.Config,
    workdir: Path,
    parts: build.Splits,
    devices: int,
    stop: preempt.Preemption,
    seeds: Sequence[int],
    count: int,
) -> list[Fitted]:
    """Fits, calibrates and stores a critic for the frozen generator of each seed.

    What was fitted before, for the same generator and settings, is taken as it is.

    Args:
      cfg: the fine-tune's configuration.
      workdir: of the fine-tune.
      parts: its data.
      devices, stop: as `Trainer`'s.
      seeds: of the bases.
      count: samples at which the ratio is measured; 0 is as many as held-out data.

    Raises:
      CheckpointError: no base, or one that is damaged or not finished.
      ConfigError: no critic to fit.
      WorkdirError: WORKDIR/predict holds critics that were fitted otherwise.
    """
    own = settings_of(cfg)
    home = home_of(cfg, workdir)
    if not (home / "config.json").is_file() and not weights.is_weights(home):
        raise CheckpointError(
            f"no frozen generator in {home}: name a base run's workdir or converted weights with "
            "--config.base.path, or train one with experiments/train_gan.py --config=...:base "
            f"--workdir={home}."
        )
    found = []
    for seed in seeds:
        job, folder = Job("base", None, seed), folder_of(workdir, seed)
        trainer = Trainer(own, parts, folder / "fit", devices, stop)
        begin, source = _beginning(cfg, trainer, home, job, stop, devices)
        fitting.check(trainer, [job], source)
        with record.Record(trainer.workdir, own) as rec:
            state = fitting.fit_critic(trainer, job, begin, source, rec, by_order=True).state
        found.append(_calibrated(own, trainer, state, folder, parts, job, count))
    return found


def _beginning(
    cfg: config.Config,
    trainer: Trainer,
    home: Path,
    job: Job,
    stop: preempt.Preemption,
    devices: int,
) -> tuple[Callable[[Job], train.TrainState], int]:
    """(what makes the state that a fit begins with, the fingerprint of its generator)."""
    if weights.is_weights(home):
        stored, info = weights.read_weights(home)
        shape, classes = trainer.parts.train.shape, trainer.parts.train.num_classes
        weights.check(home, info, cfg.model.to_dict(), shape[0], classes, channels=shape[-1])
        net = train.Net(stored.ema["params"], stored.ema["extra"])
        critic = None if stored.critic is None else train.Net(**stored.critic)
    else:
        base = Trainer(config.base_of(cfg), trainer.parts, home, devices, stop).load(job).state
        net, critic = base.ema, base.critic

    def begin(job: Job) -> train.TrainState:
        fresh = jax.device_get(trainer.fresh(job))
        # What is judged is what is drawn: the averaged generator.
        return train.start(
            trainer.alone,
            jax.random.key(job.seed),
            fresh.critic if critic is None else critic,
            net,
            net,
            build.dials(trainer.cfg, None),
        )

    return begin, fingerprint(net)


def _calibrated(
    own: config.Config,
    trainer: Trainer,
    state: train.TrainState,
    folder: Path,
    parts: build.Splits,
    job: Job,
    count: int,
) -> Fitted:
    """Calibrates on the validation split, stores, and measures on the scored one."""
    system, s = trainer.alone, own.score
    net, _ = score.ready(own, system, state.ema, 0.0)
    drawn = state.replace(generator=net, ema=net)
    valid = _ratios(system, drawn, parts.valid, s.batch, job.seed, 0, own.train.diagnose_size)
    found = ratio.recalibrate(jnp.asarray(valid.real), jnp.asarray(valid.fake))
    slope, offset = max(float(found.slope), _LEAST_SLOPE), float(found.offset)
    calibrated = own.copy_and_resolve_references()
    calibrated.critic.scale = own.critic.scale * slope
    calibrated.normalise = True
    system = build.system(calibrated, parts.train)
    state = state.replace(log_norm=jnp.float32(-offset))
    record.write_json(folder / "config.json", calibrated)
    updates = int(state.step)
    target = folder / "checkpoints" / job.run
    fitted = fingerprint(state.critic, state.ema)
    if (checkpoint.read_meta(target) or {}).get("fit") != fitted:
        about = {**trainer.meta(job, 0.0), "fit": fitted, "slope": slope, "offset": offset}
        # A fit counts no steps of a fine-tune, and nothing that is read as unfinished.
        about["settings"] = {k: v for k, v in about["settings"].items() if k[:6] != "train."}
        checkpoint.save(target, updates, state, about)
    held_out = parts.held_out(s.split)
    ratios = _ratios(
        system, state.replace(generator=net, ema=net), held_out, s.batch, job.seed, 1, count
    )
    checks = train.diagnose(
        jnp.asarray(ratios.real, jnp.float32), jnp.asarray(ratios.fake, jnp.float32), 1.0
    )
    plain = {name: float(value) for name, value in checks.items() if np.ndim(value) == 0}
    return Fitted(job, slope, offset, ratios, plain, updates)


def _ratios(
    system: train.System,
    state: train.TrainState,
    held_out: data.AnyDataset,
    batch: int,
    seed: int,
    number: int,
    count: int,
) -> Ratios:
    """log r̂ at held-out data, and at as many samples of the same classes (or `count`)."""
    items = held_out.take(build.spread(held_out.size, count or held_out.size))
    judge: Any = jax.jit(lambda state, x, y: train.log_ratio(system, state, x, y))
    real = np.empty(items.size)
    state = proposals.lean(state)
    for rows, n in proposals.batches(items.size, batch):
        log_r = judge(state, jnp.asarray(items.images[rows]), jnp.asarray(items.labels[rows]))
        real[rows[:n]] = proposals.checked(np.asarray(log_r)[:n], "held-out items")
    labels = np.resize(items.labels, count or items.size).astype(np.int32)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(_KEY), seed), number)
    fake = proposals.log_ratios(system, state, labels, key, batch)
    if min(len(real), len(fake)) < 2:
        raise DataError(f"{held_out.name}: {len(real)} held-out items are too few for a ratio")
    return Ratios(real, fake)
