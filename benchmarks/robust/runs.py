"""Trains the runs of one condition through `run.train_base` and `run.finetune`, and measures them.

    WORKDIR/bases/<condition>/              the base, all seeds
    WORKDIR/runs/<condition>/<variant>/     every λ and seed of a variant; a control alike

Both functions reuse what is finished, so a command that is repeated goes on where it ended. Where
a run fails, the others of its workdir go on without it, and it is a row with its error.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from prpr import config, jobs, record, recovery, run
from prpr.errors import GivenUp, Preempted, PrprError

from . import conditions, measure, variants

Row = dict[str, Any]
Item = TypeVar("Item")


class Plan(NamedTuple):
    """What is asked for.

    Attributes:
      workdir: where everything goes.
      lams, seeds: of every variant.
      smoke: tiny sizes.
    """

    workdir: Path
    lams: tuple[float, ...]
    seeds: tuple[int, ...]
    smoke: bool = False


def settings(plan: Plan, condition: str, seeds: Sequence[int]) -> config.Config:
    """The configuration of a condition's fine-tune with default settings."""
    cfg = conditions.settings(condition, plan.smoke)
    cfg.lams, cfg.seeds = plan.lams, tuple(seeds)
    return cfg


def base_folder(plan: Plan, condition: str) -> Path:
    return plan.workdir / "bases" / (conditions.get(condition).base or condition)


def make_base(plan: Plan, condition: str) -> tuple[list[Row], dict[int, str]]:
    """Trains a condition's base at every seed.

    Returns:
      Its rows (of the seeds that could be trained), and {seed: error} of the others.
    """
    home = conditions.get(condition).base or condition
    cfg, folder = settings(plan, home, plan.seeds), base_folder(plan, condition)
    rows, failed = [], {}
    for seeds, found in tried(
        plan.seeds,
        lambda seeds: run.train_base(config.base_of(settings(plan, home, seeds)), folder),
    ):
        if isinstance(found, str):
            failed[seeds[0]] = found
        else:
            rows += _measured(folder, cfg, home, found)
    return [{**row, "condition": condition, "variant": "base"} for row in rows], failed


def make_variant(plan: Plan, condition: str, variant: str, seeds: Sequence[int]) -> list[Row]:
    """Fine-tunes a condition's base by one variant, or continues it as one control.

    Args:
      plan: what is asked for.
      condition: of CONDITIONS; its base is made.
      variant: of VARIANTS or CONTROLS.
      seeds: those that have a base.

    Returns:
      A row for each run, in the order of seeds and λ.
    """
    folder = plan.workdir / "runs" / condition / variant
    control = variant in variants.CONTROLS
    wanted: list[tuple[int, float | None]] = [
        (seed, lam) for seed in seeds for lam in ((None,) if control else plan.lams)
    ]

    def train(some: Sequence[tuple[int, float | None]]) -> dict[str, Any]:
        cfg = settings(plan, condition, list(dict.fromkeys(seed for seed, _ in some)))
        cfg.lams = tuple(dict.fromkeys(lam for _, lam in some if lam is not None))
        cfg.base.path = str(base_folder(plan, condition))
        return finetuned(variants.applied(cfg, variant), folder)

    rows: list[Row] = []
    cfg = variants.applied(settings(plan, condition, seeds), variant)
    for some, found in tried(wanted, train):
        done = {}
        if not isinstance(found, str):
            measured = _measured(folder, cfg, condition, found)
            done = {(row["seed"], row["lam"]): row for row in measured if row["name"] != "base"}
        for seed, lam in some:
            if (seed, lam) in done:
                rows.append({**done[seed, lam], "condition": condition, "variant": variant})
            else:
                error = found if isinstance(found, str) else fate(folder, lam, seed)
                rows.append(failed_row(condition, variant, lam, seed, error))
    return rows


def finetuned(cfg: config.Config, folder: Path) -> dict[str, Any]:
    """`run.finetune`'s summary; where runs were given up, that of all others."""
    try:
        return run.finetune(cfg, folder)
    except GivenUp:
        return record.read_json(folder / "summary.json")


def fate(folder: Path, lam: float | None, seed: int) -> str:
    """Why a run was given up: its last fall."""
    falls = recovery.read(folder / "checkpoints" / jobs.Job(name_of(lam), lam, seed).run)
    last = f", the last time by {falls[-1].cause.check}" if falls else ""
    return f"given up after {len(falls)} fatal alarms{last}"


def name_of(lam: float | None) -> str:
    """The name of a fine-tune's run."""
    return "control" if lam is None else run.lam_name(lam)


def failed_row(condition: str, variant: str, lam: float | None, seed: int, error: str) -> Row:
    """The row of a run that could not be finished."""
    name = "base" if variant == "base" else name_of(lam)
    about = {"condition": condition, "variant": variant, "name": name, "lam": lam, "seed": seed}
    return {**about, "error": error}


def tried(
    items: Sequence[Item], make: Callable[[Sequence[Item]], dict[str, Any]]
) -> Iterator[tuple[Sequence[Item], dict[str, Any] | str]]:
    """(items, their summary) of all at once or, where that fails, of halves, or one's error.

    What is finished is not made again, so that a failed one costs a few calls and no training.
    """
    if not items:
        return
    found = _caught(items, make)
    if isinstance(found, dict) or len(items) == 1:
        yield items, found
        return
    for half in _halves(items):
        yield from tried(half, make)


def _halves(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    """Two parts, cut between two seeds if there are any, since a command runs all λ at all seeds.

    Args:
      items: seeds, or (seed, λ) in that order.
    """
    seeds = [item[0] if isinstance(item, tuple) else item for item in items]
    cuts = [i for i in range(1, len(items)) if seeds[i] != seeds[i - 1]]
    middle = min(cuts or [len(items) // 2], key=lambda i: abs(2 * i - len(items)))
    return items[:middle], items[middle:]


def _caught(
    items: Sequence[Item], make: Callable[[Sequence[Item]], dict[str, Any]]
) -> dict[str, Any] | str:
    """A summary, or in one line why there is none. What the run prints goes to standard error."""
    jax.clear_caches()  # of the call before: see prpr/sweep/here.py
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return make(items)
    except Preempted:
        raise
    except PrprError as error:
        text = " ".join(str(error).split())
    except SystemExit as error:
        text = f"exit {error.code}"
    print(f"failed: {text}", file=sys.stderr, flush=True)
    return text


def _measured(
    folder: Path, cfg: config.Config, condition: str, summary: dict[str, Any]
) -> list[Row]:
    """The rows of a summary with all that is measured; those of real data are left out."""
    source = conditions.get(condition).source
    lines = record.read_metrics(folder)
    rows = []
    for scored in summary["rows"]:
        if scored["name"] == "real":
            continue
        name = jobs.Job(scored["name"], scored["lam"], scored["seed"]).run
        values = {m: scored["metrics"][m]["value"] for m in ("precision", "recall")}
        found = measure.logged(lines, name)
        if scored["lam"] is None and cfg.base.loss == "hinge":
            found["calibration_error"] = None  # of a ratio that the hinge loss does not estimate
        rows.append(
            {
                **{key: scored[key] for key in ("name", "lam", "seed")},
                "error": None,
                **values,
                **measure.samples(folder / "samples" / f"{name}.npz", source, cfg.score.repeats),
                **found,
            }
        )
    return rows
