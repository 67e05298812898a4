"""A critic fitted to a generator at rest, calibrated, and stored as a run that samplers can read.

WORKDIR/predict/seedS is the workdir of a run whose base is the frozen generator with that critic:
its configuration is the fine-tune's with the calibration in it, so evaluate.py --sampler= takes it.

Notation: T the critic's output, s = critic.scale; on held-out data P(data | s T) is fitted by
σ(a s T + b) (Platt's scaling). Stored are the scale a s and log_norm = −b with `normalise`.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import (
    build,
    checkpoint,
    config,
    data,
    fitting,
    objectives,
    preempt,
    ratio,
    record,
    score,
    train,
    weights,
)
from prpr.errors import CheckpointError, ConfigError, Preempted
from prpr.jobs import Job, base_home, fingerprint
from prpr.samplers import proposals
from prpr.trainer import Trainer

_LEAST_SLOPE = 0.01  # a critic that sees no difference; 0 would be no scale
_KEY = 20_261_201
_MANY = 10_000  # held-out items, where a configuration sets no number


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


def folder_of(workdir: Path, seed: int) -> Path:
    """Of the frozen generator with its critic."""
    return workdir / "predict" / f"seed{seed}"


def settings_of(cfg: config.Config) -> config.Config:
    """The configuration of the fit: the fine-tune's critic, without what only a fine-tune reads.

    Raises:
      ConfigError: a fine-tune that has no ratio.
    """
    has_critic = build.critic_steps(cfg) > 0
    if not has_critic or not objectives.get(cfg.objective).needs_ratio:
        raise ConfigError(
            f"config.route = {cfg.route!r}, config.objective = {cfg.objective!r}: this fine-tune "
            "estimates no ratio, and a frontier is predicted from one; predict for the objective "
            "'envelope' with the route 'samples' (a flow's: 'balanced')."
        )
    # A frontier is that of the items themselves, and calibration is all that steadies this critic.
    own = config.plain(cfg)
    own.dial, own.lams, own.train.keep_best = (), (), max(1, cfg.train.keep_best)
    own.base.path, own.base.required = "", False
    # A rate that falls to zero with the fine-tune's steps would end the fit, whatever is learned.
    own.train.decay = "constant"
    # The calibration is put in the scale and in log_norm, which must then mean nothing else.
    own.normalise, own.critic.parametrisation = False, "log"
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
      Preempted: the system asked for an end (SIGTERM); what was fitted is saved.
      CheckpointError: no base, or one that is damaged or not finished.
      ConfigError: no critic to fit.
      WorkdirError: WORKDIR/predict holds critics that were fitted otherwise.
    """
    own = settings_of(cfg)
    home = base_home(cfg, workdir)
    if not (home / "config.json").is_file() and not weights.is_weights(home):
        raise CheckpointError(
            f"no frozen generator in {home}: name a base run's workdir or converted weights with "
            "--config.base.path, or train one with experiments/train_gan.py --config=...:base "
            f"--workdir={home}."
        )
    ready = []
    for job in (Job("base", None, seed) for seed in seeds):
        trainer = Trainer(own, parts, folder_of(workdir, job.seed) / "fit", devices, stop)
        begin, source = _beginning(cfg, trainer, home, job, stop, devices)
        fitting.check(trainer, [job], source)
        ready.append((trainer, job, begin, source))
    found = []
    for trainer, job, begin, source in ready:
        with record.Record(trainer.workdir, own) as rec:
            state = fitting.fit_critic(trainer, job, begin, source, rec, by_order=True).state
        found.append(_calibrated(trainer, state, folder_of(workdir, job.seed), job, count))
        if stop.should_stop():
            raise Preempted(f"the critics that are fitted are saved in {workdir / 'predict'}")
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
    trainer: Trainer, state: train.TrainState, folder: Path, job: Job, count: int
) -> Fitted:
    """Calibrates on the validation split, stores, and measures on the scored one."""
    own, parts, system = trainer.cfg, trainer.parts, trainer.alone
    s, key = own.score, jax.random.fold_in(jax.random.key(_KEY), job.seed)
    net, _ = score.ready(own, system, state.ema, 0.0)
    drawn = state.replace(generator=net, ema=net)
    k_valid, k_scored = jax.random.split(key)
    most = build.spread(parts.valid.size, _MANY)
    valid, priors = _ratios(system, drawn, parts.valid, most, len(most), k_valid, s.batch)
    # The critic's own output is what can be scaled; the classes' shares are taken out of it after.
    own_real, own_fake = valid.real + priors.real, valid.fake + priors.fake
    found = ratio.recalibrate(
        jnp.asarray(own_real),
        jnp.asarray(own_fake),
        known=(jnp.asarray(-priors.real), jnp.asarray(-priors.fake)),
    )
    slope, offset = max(float(found.slope), _LEAST_SLOPE), float(found.offset)
    calibrated = own.copy_and_resolve_references()
    calibrated.critic.scale = own.critic.scale * slope
    calibrated.normalise = True
    system = build.system(calibrated, parts.train)
    state = state.replace(log_norm=jnp.float32(-offset))
    record.write_json(folder / "config.json", calibrated)
    updates = int(state.step)
    target = folder / "checkpoints" / job.run
    fitted = {"nets": fingerprint(state.critic, state.ema), "slope": slope, "offset": offset}
    if (checkpoint.read_meta(target) or {}).get("fit") != fitted:
        shutil.rmtree(target, ignore_errors=True)  # of another fit, perhaps a longer one
        about = {**trainer.meta(job, 0.0), "fit": fitted}
        # A fit counts no steps of a fine-tune, and nothing that is read as unfinished.
        about["settings"] = {k: v for k, v in about["settings"].items() if k[:6] != "train."}
        checkpoint.save(target, updates, state, about)
    held_out, drawn = parts.held_out(s.split), state.replace(generator=net, ema=net)
    rows = build.spread(held_out.size, s.n_real or _MANY)
    ratios, _ = _ratios(system, drawn, held_out, rows, count or len(rows), k_scored, s.batch)
    checks = train.diagnose(
        jnp.asarray(ratios.real, jnp.float32), jnp.asarray(ratios.fake, jnp.float32), 1.0
    )
    plain = {name: float(value) for name, value in checks.items() if np.ndim(value) == 0}
    return Fitted(job, slope, offset, ratios, plain, updates)


def _ratios(
    system: train.System,
    state: train.TrainState,
    held_out: data.AnyDataset,
    rows: np.ndarray,
    count: int,
    key: jax.Array,
    batch: int,
) -> tuple[Ratios, Ratios]:
    """log r̂ at rows of held-out data, and at `count` samples of the same classes.

    The second are what `train.class_prior` has taken out of the first.
    """
    labels, state = np.empty(len(rows), np.int32), proposals.lean(state)

    def read(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        items = held_out.read(rows[some])
        labels[some] = items["label"]
        return np.asarray(train.to_float(jnp.asarray(items["image"]))), items["label"]

    k_noise, k_fake = jax.random.split(key)
    real = proposals.log_ratios_of_data(system, state, read, len(rows), k_noise, batch)
    own = np.resize(labels, count)
    fake = proposals.log_ratios(system, state, own, k_fake, batch)
    of_real, of_fake = (
        np.broadcast_to(np.asarray(train.class_prior(system, jnp.asarray(y))), y.shape)
        for y in (labels, own)
    )
    return Ratios(real, fake), Ratios(of_real, of_fake)
