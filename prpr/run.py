"""The narrative of a run: train many runs, resume, sample, score, report.

    workdir/
      config.json environment.json metrics.jsonl      the record (`prpr.record`)
      base/                                           the workdir of the base run, if made here
      checkpoints/<run>/<step>/                       one run is one (λ or control, seed)
      samples/<run>.npz, samples/real.npz             what was scored
      summary.json figures/ report.html               the result

How a run is trained, resumed and refused is in `prpr.trainer`.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from prpr import (
    build,
    config,
    data,
    fitting,
    objectives,
    parallel,
    preempt,
    processes,
    progress,
    record,
    recovery,
    report,
    score,
    train,
    weights,
)
from prpr.errors import ConfigError, Preempted
from prpr.jobs import DIAL, Job, base_home, dial_job, fingerprint
from prpr.trainer import Trained, Trainer


def lam_name(lam: float) -> str:
    """The name of a λ: as short as tells it from every other float."""
    short = f"{lam:g}"
    return f"lam_{short if float(short) == lam else repr(float(lam))}"


def _jobs(cfg: config.Config) -> list[Job]:
    if cfg.dial:
        return [dial_job(seed) for seed in cfg.seeds]
    return [Job(lam_name(lam), float(lam), seed) for seed in cfg.seeds for lam in cfg.lams]


def _setup(cfg: config.Config, folder: Path, runs: int) -> int:
    """Devices to use; all processes must have been given the same command."""
    shared = cfg.train.layout == parallel.DATA
    devices = parallel.setup(cfg.train.devices, 0 if shared else runs)
    given = {"--workdir": str(folder), **config.flatten(cfg, "config.")}
    processes.agree({"versions": record.versions(), **given})
    return devices


def _parts(cfg: config.Config, devices: int) -> build.Splits:
    """The data; all processes must see the same, or they would share it out differently."""
    parts = build.check(cfg, devices)
    if jax.process_count() > 1:
        held = {f"the data's {name} part": data.identity(x) for name, x in parts._asdict().items()}
        processes.agree(held)
    return parts


def _check(cfg: config.Config, cluster: processes.Cluster | None) -> None:
    """What can be refused before the other processes are waited for."""
    config.validate(cfg)
    if cluster is not None and cfg.train.layout != parallel.DATA:
        raise ConfigError(
            f'config.train.layout = {cfg.train.layout!r} with --distributed: set it to "data".'
        )


def train_base(
    cfg: config.Config, workdir: str | os.PathLike, cluster: processes.Cluster | None = None
) -> dict[str, Any]:
    """Trains `cfg` from scratch at every seed (and λ, where its objective has one) and scores it.

    Args:
      cfg: the configuration.
      workdir: where everything is written.
      cluster: how to find the other processes, if there are several.

    Returns:
      The summary, as written to summary.json; empty in processes other than the first.

    Raises:
      GivenUp: a run that could not be kept healthy, after all others are finished and scored.
      PrprError: see `build.check`, `Trainer.run`.
    """
    _check(cfg, cluster)
    config.check_scratch(cfg)
    if not cfg.lams and "lam" in objectives.get(cfg.objective).dials:
        raise ConfigError(
            f"config.lams is empty and config.objective = {cfg.objective!r} needs a λ; name "
            "one, or train with objective = 'hinge' and critic.loss = 'hinge'."
        )
    jobs = _jobs(cfg) or [Job("base", None, seed) for seed in cfg.seeds]
    folder = Path(workdir).expanduser()
    with processes.session(cluster), preempt.Preemption() as stop:
        devices = _setup(cfg, folder, len(jobs))
        return _train_base(Trainer(cfg, _parts(cfg, devices), folder, devices, stop), jobs)


def _train_base(trainer: Trainer, jobs: Sequence[Job]) -> dict[str, Any]:
    cfg, folder = trainer.cfg, trainer.workdir
    trainer.check(jobs)
    with _record(folder, cfg) as rec:
        results = trainer.run(jobs, trainer.fresh, rec)
        summary = _finish(cfg, folder, rec, [(trainer, item) for item in results])
    _check_given_up([trainer])
    return summary


def finetune(
    cfg: config.Config, workdir: str | os.PathLike, cluster: processes.Cluster | None = None
) -> dict[str, Any]:
    """Fine-tunes the base at every λ and seed, and its control; scores and reports them.

    The base is what `cfg.base.path` names: the workdir of a run, or a folder of converted
    weights (`scripts/convert_biggan`), where a critic is fitted first if they have none. Where
    it is empty, the base is WORKDIR/base, which is trained first if it is not there.

    Args:
      cfg: the configuration.
      workdir: where everything is written.
      cluster: how to find the other processes, if there are several.

    Returns:
      The summary, as written to summary.json; empty in processes other than the first.

    Raises:
      CheckpointError: a base that is missing, damaged, or of another shape.
      GivenUp: a run that could not be kept healthy, after all others are finished and scored.
      PrprError: see `build.check`, `Trainer.run`.
    """
    _check(cfg, cluster)
    jobs = _jobs(cfg)
    controls = [Job("control", None, seed) for seed in cfg.seeds if cfg.control]
    bases = [Job("base", None, seed) for seed in cfg.seeds]
    folder = Path(workdir).expanduser()
    home = base_home(cfg, folder)
    config.check_base(cfg)
    with processes.session(cluster), preempt.Preemption() as stop:
        devices = _setup(cfg, folder, max(map(len, (jobs, controls, bases))))
        info = weights.read_info(home) if cfg.base.path and weights.is_weights(home) else None
        parts = _parts(cfg, devices)
        if info is not None:
            model, shape, classes = cfg.model.to_dict(), parts.train.shape, parts.train.num_classes
            weights.check(home, info, model, shape[0], classes, channels=shape[-1])
        tuned = [
            (Trainer(of, parts, folder, devices, stop), group)
            for of, group in ((config.control_of(cfg), controls), (cfg, jobs))
            if group
        ]
        # All that can be refused is refused here, before anything in the workdir changes.
        for trainer, group in tuned:
            trainer.check(group)
        if info is not None:
            base_trainer = Trainer(config.fit_of(cfg), parts, folder / "base", devices, stop)
            loaded = _converted(base_trainer, home, bases)
        else:
            base_trainer = Trainer(config.base_of(cfg), parts, home, devices, stop)
            loaded = _trained(cfg, base_trainer, folder, bases)
        prints = {
            seed: fingerprint(base.state.critic, base.state.generator, base.state.ema)
            for seed, base in loaded.items()
        }
        for trainer, group in tuned:
            trainer.check(group, prints)
        with _record(folder, cfg) as rec:
            results = [(base_trainer, trained) for trained in loaded.values()]
            for trainer, group in tuned:
                found = trainer.run(group, _from(trainer, loaded), rec, prints)
                results += [(trainer, item) for item in found]
            summary = _finish(cfg, folder, rec, results)
        _check_given_up([trainer for trainer, _ in tuned])
        return summary


def _check_given_up(trainers: Sequence[Trainer]) -> None:
    """Raises GivenUp if a run was; all others are finished and scored by now."""
    given_up = {run: falls for one in trainers for run, falls in one.given_up.items()}
    if given_up:
        raise recovery.error(given_up)


def _trained(
    cfg: config.Config, trainer: Trainer, folder: Path, bases: Sequence[Job]
) -> dict[int, Trained]:
    """seed -> the base run in the trainer's workdir; trained first where it is to be made here."""
    if not cfg.base.path:
        trainer.check(bases)
        if any(map(trainer.unfinished, bases)):
            _record(folder).close()  # a workdir that cannot be written costs no training
            processes.say(f"No finished base run in {trainer.workdir} yet: training it first.")
            _train_base(trainer, bases)
    return {job.seed: trainer.load(job) for job in bases}


def _converted(trainer: Trainer, home: Path, bases: Sequence[Job]) -> dict[int, Trained]:
    """seed -> a base from converted weights, whose critic is fitted first if they have none."""
    stored, info = weights.read_weights(home)
    generator, ema = (
        train.Net(net["params"], net["extra"]) for net in (stored.generator, stored.ema)
    )

    def begin(job: Job) -> train.TrainState:
        fresh = jax.device_get(trainer.fresh(job))
        critic = fresh.critic if stored.critic is None else train.Net(**stored.critic)
        dials = build.dials(trainer.cfg, None)
        key = jax.random.key(job.seed)
        return train.start(trainer.system, key, critic, generator, ema, dials)

    if info.has_critic:
        return {job.seed: Trained(job, jax.device_get(begin(job)), 0.0) for job in bases}
    source = fingerprint(generator, ema)
    fitting.check(trainer, bases, source)
    with _record(trainer.workdir, trainer.cfg) as rec:
        fitted = [fitting.fit_critic(trainer, job, begin, source, rec) for job in bases]
    return {trained.job.seed: trained for trained in fitted}


def _from(trainer: Trainer, bases: dict[int, Trained]) -> Callable[[Job], train.TrainState]:
    return lambda job: trainer.from_base(job, bases[job.seed].state)


def _record(folder: Path, cfg: config.Config | None = None) -> record.Record:
    board = cfg is not None and cfg.train.tensorboard
    return record.Record(folder, cfg, tensorboard=board, active=processes.first())


def _finish(
    cfg: config.Config,
    folder: Path,
    rec: record.Record,
    results: Sequence[tuple[Trainer, Trained]],
) -> dict[str, Any]:
    """Scores every run, writes summary.json, draws the report, prints the table.

    Raises Preempted between two rows if an end is asked for: scores are quickly made again.
    """
    if not processes.first() or not results:
        return {}
    start, stop = time.monotonic(), results[0][0].stop
    scorer = score.Scorer(cfg, results[0][0].parts, folder)
    with progress.Progress(len(results), desc="score") as bar:
        for trainer, (job, state, _) in results:
            if stop.should_stop():
                raise Preempted(f"every run is trained and saved in {folder}, and not yet scored")
            net = trainer.best(job) if cfg.score.checkpoint == "best" else None
            state = state if net is None else state.replace(ema=net)
            if job.name == DIAL:
                for lam in cfg.lams:
                    system, one = train.turned(trainer.alone, state, lam)
                    scorer.add(system, lam_name(lam), float(lam), job.seed, one.ema)
            else:
                scorer.add(trainer.alone, job.name, job.lam, job.seed, state.ema)
            bar.update()
    trained = sum(item.seconds for _, item in results)
    summary = scorer.summary(round(trained + record.since(start), 2))
    rec.summary(summary)
    page = report.make(folder)
    print(report.table(summary))
    print(f"\nreport: {page}")
    return summary
