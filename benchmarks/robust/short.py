"""Many short fine-tunes of one base: how many collapse, with which settings.

A run that a fatal alarm sends back and that ends well is no collapse, but is counted; one that is
given up is not finished (`prpr.recovery`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prpr import config, jobs, record, run
from prpr.metrics import intervals

from . import measure, runs
from .conditions import changed
from .runs import Plan

STEPS, WARMUP = 100, 50
LAMS = (0.05, 50.0)

# How a short fine-tune is set; a new row is one line.
SETTINGS: dict[str, Mapping[str, Any]] = {
    "default": {},
    "no_recovery": {"recovery.attempts": 0},
    # As published: the dual variable, clipped into its domain, min(λr, 1) with r̂ frozen, and
    # nobody who watches: the first fatal alarm ends a run.
    "published": {
        "recovery.attempts": 0,
        "critic.loss": "pearson",
        "critic.parametrisation": "dual",
        "critic.scale": 1.0,
        "objective": "plug_in",
    },
}


def grid(count: int) -> tuple[float, ...]:
    """`count` values of λ, equally far apart on a log scale, both ends of LAMS among them."""
    return tuple(float(f"{lam:.4g}") for lam in np.geomspace(*LAMS, count))


def settings(plan: Plan, name: str, seeds: Sequence[int]) -> config.Config:
    """The configuration of short fine-tunes of clean digits."""
    cfg = changed(runs.settings(plan, "clean", seeds), SETTINGS[name])
    cfg.name, cfg.control = name, False
    cfg.train.steps, cfg.train.warmup = (2, 2) if plan.smoke else (STEPS, WARMUP)
    # Six held-out checks: of the base twice, before the generator moves, and four times after.
    cfg.train.diagnose_every = 1 if plan.smoke else 25
    cfg.train.log_every = cfg.train.diagnose_every
    cfg.train.checkpoint_every, cfg.train.keep = STEPS + WARMUP, 1
    cfg.score.repeats = 1
    cfg.base.path = str(runs.base_folder(plan, "clean"))
    return cfg


class Outcome(NamedTuple):
    """How one short fine-tune ended.

    Attributes:
      lam, seed: which it was.
      error: why it could not be finished; "" where it was.
      fatal: its fatal alarms.
      kept: last held-out recall proxy over the first, None where there is none.
      rollbacks: how often it went back.
    """

    lam: float
    seed: int
    error: str
    fatal: list[str]
    kept: float | None
    rollbacks: int

    @property
    def collapsed(self) -> bool:
        """A fatal alarm, or less than a third of the recall that it began with."""
        return bool(self.fatal) or (self.kept is not None and self.kept < measure.LOST)


def outcome(lines: Sequence[Mapping[str, Any]], lam: float, seed: int, error: str = "") -> Outcome:
    """What a record says of one run."""
    name = jobs.Job(run.lam_name(lam), lam, seed).run
    found = measure.logged(lines, name)
    proxies = [
        x for one in lines if one["run"] == name and (x := one.get("recall_proxy")) is not None
    ]
    kept = proxies[-1] / proxies[0] if len(proxies) > 1 and proxies[0] > 0 else None
    return Outcome(lam, seed, error, found["fatal"], kept, found["rollbacks"])


def outcomes(plan: Plan, name: str, seeds: Sequence[int]) -> list[Outcome]:
    """Trains (or finds) the short fine-tunes of one setting: every λ of the plan at every seed."""
    folder = plan.workdir / "short" / name
    wanted = [(seed, lam) for seed in seeds for lam in plan.lams]

    def train(some: Sequence[tuple[int, float]]) -> dict[str, Any]:
        cfg = settings(plan, name, list(dict.fromkeys(seed for seed, _ in some)))
        cfg.lams = tuple(dict.fromkeys(lam for _, lam in some))
        return runs.finetuned(cfg, folder)

    errors = {}
    for some, found in runs.tried(wanted, train):
        if isinstance(found, str):
            errors |= dict.fromkeys(some, found)
            continue
        done = {(row["seed"], row["lam"]) for row in found["rows"]}
        for seed, lam in some:
            finished = (seed, lam) in done
            errors[seed, lam] = "" if finished else runs.fate(folder, lam, seed)
    lines = record.read_metrics(folder)
    return [outcome(lines, lam, seed, errors[seed, lam]) for seed, lam in wanted]


def counted(found: Sequence[Outcome]) -> dict[str, tuple[int, int, float, float]]:
    """{what: (how many, of how many, Wilson's 95 % interval of the share)}."""
    n = len(found)
    whole = {
        "collapsed": sum(one.collapsed for one in found),
        "not finished": sum(bool(one.error) for one in found),
        "went back": sum(one.rollbacks > 0 for one in found),
        "any of these": sum(one.collapsed or bool(one.error) or one.rollbacks > 0 for one in found),
    }
    t = intervals.quantile(0.95, np.inf)
    return {what: (k, n, *intervals.proportion(k / n, n, t)) for what, k in whole.items()}
