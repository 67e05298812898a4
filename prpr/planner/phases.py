"""What a command will do: base, control and λ runs, without those that its workdir holds already.

todo = phases.phases(cfg, "finetune")
work = phases.work(cfg, "finetune", workdir)    # knows what is finished there
"""

from pathlib import Path
from typing import Any, NamedTuple

from prpr import build, checkpoint, config, record, weights
from prpr.jobs import DIAL, different, settings


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
      done: those that are finished already.
    """

    name: str
    cfg: config.Config
    jobs: int
    done: int = 0

    @property
    def left(self) -> int:
        """Runs that are still to be made."""
        return self.jobs - self.done

    @property
    def critic_updates(self) -> int:
        """Of one run."""
        warmup, steps = self.cfg.train.warmup, self.cfg.train.steps
        critic = build.critic_steps(self.cfg)
        return warmup * (critic + build.reads_data(self.cfg)) + steps * critic

    @property
    def batches(self) -> int:
        """Of data, that one run reads."""
        return self.critic_updates + build.reads_data(self.cfg) * self.cfg.train.steps

    @property
    def checks(self) -> int:
        """Held-out checks of one run: those that are due, and one before every checkpoint."""
        return self.events("diagnose_every", "checkpoint_every")

    def events(self, *every: str) -> int:
        """At how many steps one run reaches any of these intervals of config.train, or its end."""
        total = self.cfg.train.warmup + self.cfg.train.steps
        reached = {step for name in every for step in range(0, total, self.cfg.train[name])}
        return len(reached - {0}) + 1


def phases(cfg: config.Config, command: str) -> list[Phase]:
    """The runs of a command, "finetune" or "train", in order, finished ones among them."""
    seeds = len(cfg.seeds)
    if command == "train":
        jobs = (1 if cfg.dial else max(1, len(cfg.lams))) * seeds
        return [Phase("train", cfg, jobs)]
    found = []
    if not cfg.base.path and not cfg.base.required:
        found.append(Phase("base", config.base_of(cfg), seeds))
    if cfg.control:
        found.append(Phase("control", config.control_of(cfg), seeds))
    if cfg.lams:
        found.append(Phase("λ", cfg, (1 if cfg.dial else len(cfg.lams)) * seeds))
    return found


class Work(NamedTuple):
    """What a command has to do.

    Attributes:
      todo: its phases; a base that is finished at every seed is left out.
      fits: how many critics are to be fitted to a base that has none.
      notes: what was found in the workdir and is left out.
      warnings: what was found there and is in the way.
    """

    todo: list[Phase]
    fits: int
    notes: list[str]
    warnings: list[str]


def work(cfg: config.Config, command: str, workdir: str | None = None) -> Work:
    """The phases of a command, and how much of them its workdir holds; reads only.

    Raises:
      CheckpointError: a damaged checkpoint in the workdir, which the command would refuse.
    """
    todo = phases(cfg, command)
    fits = len(cfg.seeds) if command != "train" and lacks_critic(cfg) else 0
    if workdir is None:
        return Work(todo, fits, [], [])
    folder = Path(workdir).expanduser()
    found, finished, begun, others = [], [], [], []
    for phase in todo:
        lams = (DIAL,) if phase.cfg.dial else phase.cfg.lams or (None,)  # a control has none
        where = folder / "base" if phase.name == "base" else folder
        keys = {(lam, seed) for lam in lams for seed in cfg.seeds}
        there = {key: saved for key, saved in _saved(where).items() if key in keys}
        others += [saved.folder for saved in there.values() if saved.differs(phase.cfg)]
        same = [saved for saved in there.values() if not saved.differs(phase.cfg)]
        done = sum(saved.step >= phase.cfg.train.warmup + phase.cfg.train.steps for saved in same)
        finished += [f"{phase.name} x {done}"] * bool(done)
        begun += [f"{phase.name} x {len(same) - done}"] * (len(same) > done)
        if phase.name != "base" or done < phase.jobs:
            found.append(phase._replace(done=done))
    if fits:
        there = [s for (_, seed), s in _saved(folder / "base").items() if seed in cfg.seeds]
        fit = config.fit_of(cfg)
        others += [saved.folder for saved in there if saved.differs(fit)]
        done = sum(bool(s.meta.get("fitted")) and not s.differs(fit) for s in there)
        finished += [f"critic fit x {done}"] * bool(done)
        fits -= done
    notes = []
    if finished:
        notes.append(f"finished in {folder}, only scores charged: {', '.join(finished)}")
    if begun:
        notes.append(f"begun in {folder}, charged whole: {', '.join(begun)}")
    warnings = [
        f"{other} holds a run with other settings, which the command will refuse; charged whole"
        for other in others[:1]
    ]
    return Work(found, fits, notes, warnings)


class _Saved(NamedTuple):
    """A run's newest checkpoint."""

    folder: Path
    step: int
    meta: dict[str, Any]

    def differs(self, cfg: config.Config) -> bool:
        """Whether it was made with other settings, as far as that shows without the data."""
        now = {**record.to_plain(config.flatten(cfg)), **settings(cfg)}
        if self.meta.get("fitted") is False:  # when a fit ends may change until it has ended
            now = {knob: value for knob, value in now.items() if not knob.startswith("base.")}
        saved = {k: v for k, v in self.meta.get("settings", {}).items() if k in now}
        # A fit keeps the knobs that it reads. A run keeps all: what it lacks is newer than it.
        asked = set(saved) if "fitted" in self.meta else {*saved, *settings(cfg)}
        # Data of one class have no such ratio, and their runs do not keep the knob.
        asked -= {"conditional_ratio"} - set(saved)
        return bool(different(saved, {knob: now[knob] for knob in asked}))


def _saved(workdir: Path) -> dict[tuple[float | str | None, int], _Saved]:
    """(λ, seed) -> the run of a workdir."""
    found = {}
    for folder in sorted((workdir / "checkpoints").glob("*-seed*")):
        meta = checkpoint.read_meta(folder)
        if meta is not None and "seed" in meta:
            step = checkpoint.latest(folder)
            # A model for every λ has none in its record: its name stands for it.
            lam = DIAL if folder.name.startswith(f"{DIAL}-") else meta.get("lam")
            found[lam, meta["seed"]] = _Saved(folder, step or 0, meta)
    return found
