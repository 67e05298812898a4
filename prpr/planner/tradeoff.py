"""What money buys, and what it costs not to train: rejection from the base instead.

Rejection draws from the base, keeps a sample with probability a (its acceptance) and so pays 1/a
passes of generator g and critic c, seconds an image, for ever; a fine-tuned model pays one pass of
g and, once, F seconds of training. Both need a fitted critic (K seconds, part of F). They cost the
same at N images,

    F + N g = K + N (g + c) / a      N = (F − K) / ((g + c)/a − g).

All of them are seconds of one device: where several share a batch, each second of an update
counts as often as there are devices.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from prpr import build, config, record
from prpr.errors import DataError
from prpr.planner.card import Budget, Range, Rejection, total
from prpr.planner.estimate import Timing, training
from prpr.planner.phases import Phase

ACCEPTANCES = (0.5, 0.2, 0.1)  # examples, where nothing is recorded


def step(phase: Phase, times: Timing) -> Range:
    """Seconds of a generator update with its critic updates, of one group of runs."""
    critic, generator = times.updates[phase.name]
    steps = build.critic_steps(phase.cfg)
    return critic * steps + generator + times.data * (steps + build.reads_data(phase.cfg))


def break_even(
    fine_tune: float, critic_fit: float, generator: float, critic: float, acceptance: float
) -> float:
    """N of the module's formula; infinite where rejection is never dearer.

    Args:
      fine_tune, critic_fit: F and K in seconds.
      generator, critic: g and c in seconds an image.
      acceptance: a, in (0, 1].
    """
    dearer = (generator + critic) / acceptance - generator
    return max(0.0, fine_tune - critic_fit) / dearer if dearer > 0 else math.inf


def afford(
    amount: float,
    hourly: float,
    fixed: Range,
    each: Range,
    step: Range,
    configured: float,
    steps: int,
) -> Budget:
    """What `amount` buys.

    Args:
      amount: of money;  hourly: of all devices together.
      fixed: hours that are spent before the first λ.
      each: hours of one λ, all seeds, scores included.
      step: hours of one generator update (with its critic updates) of one λ, all seeds.
      configured: values of λ that are left to do;  steps: generator updates of each.
    """
    hours = amount / hourly
    ends = ((fixed.high, each.high, step.high), (fixed.middle, each.middle, step.middle))
    lams, more = [], []
    for spent, one, update in (*ends, (fixed.low, each.low, step.low)):
        left = max(0.0, hours - spent)
        lams.append(math.floor(left / one) if one > 0 else 0)
        # Whatever is not updates (warm-up, scores) is paid first.
        rest = max(0.0, left - configured * max(0.0, one - steps * update))
        more.append(math.floor(rest / (update * configured)) if update > 0 else 0)
    return Budget(amount, hours, (lams[0], lams[1], lams[2]), (more[0], more[1], more[2]))


def budget(
    amount: float,
    hourly: float,
    cfg: config.Config,
    last: Phase,
    spent: Mapping[str, Range],
    times: Timing,
    width: int,
) -> Budget:
    """What an amount buys of the last phase after all that comes before it; see `afford`.

    Where all its runs are finished already, of as many again.
    """
    configured = 1 if cfg.dial else max(1, len(cfg.lams))
    jobs = last.left or last.jobs
    wanted = configured * jobs / last.jobs  # values of λ, or 1 without
    groups = last.jobs / configured / width  # of one λ: its seeds, side by side with others
    scores = times.scoring * (len(cfg.seeds) / 3600)
    saves = times.checkpoint * (len(cfg.seeds) * last.events("checkpoint_every") / 3600)
    checks = times.diagnosis[last.name] * (groups * last.checks / 3600)
    own = training(last, times) * (math.ceil(jobs / width) / wanted)
    each = own + scores + saves + checks
    everything = total(spent.values())
    rest = Range(
        *(
            max(0.0, all_of - wanted * bool(last.left) * one)
            for all_of, one in zip(
                (everything.low, everything.middle, everything.high),
                (each.low, each.middle, each.high),
                strict=True,
            )
        )
    )
    update = step(last, times) * (groups / 3600)
    found = afford(amount, hourly, rest, each, update, wanted, last.cfg.train.steps)
    return found if last.cfg.lams and not cfg.dial else dataclasses.replace(found, lams=None)


def rejection(last: Phase, times: Timing, sharing: int, workdir: str | None) -> list[Rejection]:
    """Rows of acceptances against fine-tuning one λ; none without λ, or where no critic is fitted.

    Args:
      last: the λ runs.
      times: of a group of runs.
      sharing: devices that share a batch; 1 where a run has a device of its own.
      workdir: of earlier runs, whose acceptances are used.
    """
    steps = build.critic_steps(last.cfg)
    if last.name != "λ" or not steps:
        return []
    critic, _ = times.updates[last.name]
    warm = last.cfg.train.warmup * (steps + build.reads_data(last.cfg))
    fit = critic * (warm * sharing)
    tune = fit + step(last, times) * (last.cfg.train.steps * sharing)
    found = acceptances(workdir) if workdir else {}
    wanted = [(a, "as an example") for a in ACCEPTANCES]
    wanted += [(a, f"recorded for {name}") for name, a in sorted(found.items())]
    rows = []
    for acceptance, source in wanted:
        ends = [
            break_even(f, k, g, c, acceptance)
            for f, k, g, c in zip(
                (tune.low, tune.middle, tune.high),
                (fit.low, fit.middle, fit.high),
                # The dearer the sample, the fewer images it takes.
                (times.generator.high, times.generator.middle, times.generator.low),
                (times.critic.high, times.critic.middle, times.critic.low),
                strict=True,
            )
        ]
        g, c = times.generator.middle, times.critic.middle
        images = Range(*ends) if ends[2] < float("inf") else None
        rows.append(Rejection(acceptance, source, (g + c) / (acceptance * g), images))
    return rows


def acceptances(workdir: str) -> dict[str, float]:
    """λ run -> E_q[min(1, λr̂)] of the base, which is what rejection at that λ accepts.

    It is `alpha` of the run's first recorded generator step, where the generator still is the
    base's. Empty without a record.
    """
    if not (Path(workdir) / "metrics.jsonl").is_file():
        return {}
    try:
        rows = record.read_metrics(workdir)
    except DataError:
        return {}
    found: dict[str, float] = {}
    for row in rows:
        run, alpha = row.get("run"), row.get("alpha")
        run = str(run)
        if isinstance(alpha, float) and 0 < alpha <= 1 and run.startswith("lam_"):
            found.setdefault(run, alpha)
    return found
