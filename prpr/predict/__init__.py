"""Before a fine-tune is paid for: what a frozen generator's frontier is, and what to do about it.

    found = predict.predict(cfg, "runs/digits", wish="precision >= 0.85")
    found.frontier, found.options, found.advice

A critic is fitted to the generator at rest and calibrated (`fit`). Its held-out log-ratios give
α(λ) and β(λ) with intervals, and the room above them: training at λ can raise α(λ) by at most
D_λ = min(1, λ) − α(λ). What the critic cannot tell apart counts as equal, so the true α is lower,
the true room larger, and surely at least min(1, λ) minus α's held-out bound. The generator is
measured as it is, truncated and through rejection at each budget; fine-tuning is guessed from
runs that are finished (`experience`). `options` says which one a wish asks for. Where the workdir
holds the fine-tune's results already, the guesses are laid beside them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prpr import build, config, planner, plotting, preempt, processes, record
from prpr import parallel as devices_of
from prpr.choosing.points import Reading
from prpr.errors import ConfigError
from prpr.evaluate import choose, command, control
from prpr.evaluate.measure import METRICS
from prpr.jobs import base_home
from prpr.metrics import Options, checks, classifiers, curves, intervals
from prpr.metrics.curves import Curve
from prpr.metrics.family import Progress
from prpr.predict import experience, figure, fit
from prpr.predict import options as todo
from prpr.predict.experience import Finished
from prpr.predict.options import BOTH, LEAVE, REJECT, TRUNCATE, TUNE, Option
from prpr.predict.result import Costs, Prediction

LAMS = (0.05, 0.2, 1.0, 5.0, 20.0)
BUDGETS, TRUNCATIONS = (2.0, 4.0, 8.0), (0.9, 0.7, 0.5)
WISHES = ("max f_0.5", "max f_1", "max f_2")  # where none is named: quality, both, variety
SAMPLES = 100_000
KEPT = "prediction.json"
_HEAD = ("encoder", "k", "n_real", "n_fake")  # what numbers must share to be compared
_WEAK = 0.55  # of AUC


def predict(
    cfg: config.Config,
    workdir: str | Path,
    *,
    wish: str | None = None,
    lams: Sequence[float] = LAMS,
    budgets: Sequence[float] = BUDGETS,
    truncations: Sequence[float] = TRUNCATIONS,
    known: Sequence[str] = (),
    samples: int = SAMPLES,
    encoder: str | None = None,
    resize: str | None = None,
    n_fake: int = 0,
    level: float = 0.95,
    progress: Progress | None = None,
) -> Prediction:
    """What a frozen generator can give, and what should be done about it.

    Args:
      cfg: the configuration of the fine-tune that is thought of; its base is the generator.
      workdir: of that fine-tune; WORKDIR/predict is written.
      wish: see `prpr.choosing.wishes`, of precision, recall, f_b or their costs; None: `WISHES`.
      lams: λ of the frontier and of the guesses.
      budgets, truncations: of rejection and truncation.
      known: workdirs of finished fine-tunes; () takes `experience.MEASURED`.
      samples: how many will be drawn in all, for the costs.
      encoder, resize, n_fake, level: as `control.control`.
      progress: called as work is done.

    Raises:
      ConfigError, CheckpointError, DataError, WorkdirError: see `fit.fit`; wishes, λ, budgets that
        cannot be used; known workdirs that hold no finished run.
    """
    asked = [todo.check_wish(one) for one in ((wish,) if wish else WISHES)]
    intervals.check_level(level)
    lam_grid = curves.check_lam(list(lams))
    if not checks.is_whole(samples) or samples < 1:
        raise ConfigError(
            f"--samples={samples!r} must be a whole number >= 1: how many will be drawn"
        )
    control.settings_of(("truncation", "reject"), budgets, truncations)
    choose.check_encoder(encoder, resize)
    n_fake = n_fake or cfg.score.n_fake
    folder, notes = Path(workdir).expanduser(), []
    finished = _finished(known, cfg, folder, notes)
    config.validate(cfg)
    config.check_base(cfg)
    with processes.session(None), preempt.Preemption() as stop:
        shared = cfg.train.layout == devices_of.DATA
        devices = devices_of.setup(cfg.train.devices, 0 if shared else 1)
        parts = build.check(cfg, devices)
        _check_enough(cfg, parts, n_fake)
        fitted = fit.fit(cfg, folder, parts, devices, stop, cfg.seeds, n_fake)
    options = Options(level=level)
    held = [
        curves.of_scores(curves.given(one.ratios.real, one.ratios.fake, options), lam_grid, options)
        for one in fitted
    ]
    frontier = Curve(
        lam_grid,
        *(np.mean([getattr(one, part) for one in held], axis=0) for part in Curve._fields[1:]),
    )
    notes += _about_critics(cfg, fitted, lam_grid)
    measured = [
        control.control(
            str(fit.folder_of(folder, one.job.seed)),
            seeds=(one.job.seed,),
            names=("truncation", "reject"),
            budgets=budgets,
            truncations=truncations,
            encoder=encoder,
            resize=resize,
            n_fake=n_fake,
            level=level,
            ceiling=one is fitted[0],
            progress=progress,
        )
        for one in fitted
    ]
    found, about = _options(measured, level), measured[0].settings
    about = {name: about[name] for name in _HEAD}
    for one in measured:
        notes += one.warnings
        notes += [f"left out: {row['sampler']}: {row['why']}" for row in one.left_out]
    at_most = measured[0].ceiling
    assert at_most is not None  # it was asked for
    found += _guesses(found, finished, lam_grid.tolist(), level, notes)
    costs = _costs(cfg)
    prices = [costs.of(one, samples) for one in found]
    result = Prediction(
        about={
            "generator": str(base_home(cfg, folder)),
            "seeds": [one.job.seed for one in fitted],
            "level": level,
            "samples": samples,
            "experience": [one.name for one in finished],
            **about,
        },
        critic={
            one.job.seed: {
                "updates": float(one.updates),
                "slope": one.slope,
                "offset": one.offset,
                **one.checks,
            }
            for one in fitted
        },
        frontier=frontier,
        options=tuple(found),
        at_most=at_most,
        costs=costs,
        advice=tuple(todo.advise(found, prices, one, level) for one in asked),
        reached=_reached(folder, found, about, level, notes),
        notes=tuple(dict.fromkeys(notes)),
    )
    record.write_json(folder / "predict" / KEPT, result.to_json())
    plotting.save(figure.draw(result), folder / "predict" / "figure")
    return result


def _finished(
    known: Sequence[str], cfg: config.Config, folder: Path, notes: list[str]
) -> list[Finished]:
    """The runs that guesses rest on; not this workdir's own, nor one of the same data."""
    if known:
        if folder.resolve() in [Path(one).expanduser().resolve() for one in known]:
            raise ConfigError(
                f"--experience names {folder}, the workdir of this prediction: it would guess its "
                "own answer; leave it out."
            )
        return [experience.of_workdir(one, str(one)) for one in known]
    own = cfg.data.name
    found = [one for one in experience.MEASURED if one.name != own]
    if len(found) < len(experience.MEASURED) and (folder / "summary.json").is_file():
        notes.append(
            f"the experience with {own} was left out: this workdir's own results are compared"
        )
        return found
    return list(experience.MEASURED)


def _check_enough(cfg: config.Config, parts: build.Splits, n_fake: int) -> None:
    """ConfigError for fewer items than a frontier takes, before anything is fitted."""
    held_out = min(parts.held_out(cfg.score.split).size, cfg.score.n_real or np.inf)
    if min(held_out, n_fake or held_out, parts.valid.size) < classifiers.LEAST:
        raise ConfigError(
            f"{held_out:g} held-out and {parts.valid.size} validation items, and "
            f"{n_fake or held_out:g} samples: a frontier takes {classifiers.LEAST} of each at "
            "least; raise --n_fake, or enlarge these parts with config.data.fractions."
        )


def _about_critics(cfg: config.Config, fitted: Sequence[fit.Fitted], lam: np.ndarray) -> list[str]:
    """What to know of the critics and of what they were measured on."""
    notes = list(curves.few(lam, len(fitted[0].ratios.real), len(fitted[0].ratios.fake)))
    weak = [one.job.seed for one in fitted if one.checks["heldout_auc"] < _WEAK]
    if weak:
        notes.append(
            f"the critic of seed {', '.join(map(str, weak))} hardly tells samples from data: that "
            "is so of a perfect generator, and of a critic that learned too little; α is then too "
            "large and the room too small"
        )
    if cfg.score.split == "valid":
        notes.append(
            "config.score.split = 'valid': the critic was chosen and calibrated on the data that "
            "it is measured on; its bound is then none"
        )
    return notes


def _options(measured: Sequence[control.Controlled], level: float) -> list[Option]:
    """The generator as it is, and through the samplers that all seeds could be drawn with."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in (row for one in measured for row in one.rows):
        rows.setdefault(row["sampler"], []).append(row)
    found = []
    for name, of in rows.items():
        if len(of) < len(measured):
            continue
        values = {m: [r["metrics"][m] for r in of] for m in METRICS}
        precision, recall = (
            tuple(Reading(v["value"], v["low"], v["high"], level) for v in values[m])
            for m in METRICS
        )
        calls = float(np.mean([r["cost"]["per_item"]["generator"] for r in of]))
        plain = name == control.PLAIN
        action = {"truncation": TRUNCATE}.get(name.partition(":")[0], REJECT)
        found.append(
            Option(
                LEAVE if plain else action, None, None if plain else name, precision, recall,
                calls, measured=True,
            )
        )  # fmt: skip
    return found


def _guesses(
    found: Sequence[Option],
    finished: Sequence[Finished],
    lams: Sequence[float],
    level: float,
    notes: list[str],
) -> list[Option]:
    """Fine-tuning at each λ, and at the lowest with rejection after it."""
    base, out, out_of_range = found[0], [], []
    shifts = {lam: experience.guess(finished, lam, level) for lam in lams}
    for lam, one in shifts.items():
        if one is None:
            out_of_range.append(f"{lam:g}")
        else:
            out.append(todo.guessed(base, lam, one, level))
    if out_of_range:
        notes.append(
            f"nothing is guessed of λ = {', '.join(out_of_range)}: no finished run reaches there "
            "(--experience=RUN,RUN names others)"
        )
    if not out:
        return out
    fewest = min(one[0].runs for one in shifts.values() if one is not None)
    notes.append(
        f"what fine-tuning gives is guessed from {fewest} finished runs"
        + (", which gives no interval but (0, 1)" if fewest < 2 else "")
    )
    low = min(one.lam for one in out if one.lam is not None)
    tuned, own = next(one for one in out if one.lam == low), shifts[low]
    assert own is not None  # it is in `out`
    return out + [todo.rejected(tuned, base, r, own) for r in found if r.action == REJECT]


def _costs(cfg: config.Config) -> Costs:
    """Seconds, on paper, of the devices here."""
    own = cfg.copy_and_resolve_references()
    own.dial, own.lams = (), tuple(cfg.lams[:1]) or (1.0,)
    card = planner.plan(own)
    steps = build.critic_steps(own)
    updates = own.train.warmup * (steps + build.reads_data(own))
    seconds = card.seconds
    tune = seconds["step"].middle * own.train.steps
    tune += seconds["critic update"].middle * updates if "critic update" in seconds else 0.0
    if card.layout == devices_of.DATA:  # each of them is busy for all of it
        tune *= card.devices
    return Costs(tune, card.sampling["generator"].middle, card.sampling["critic"].middle)


def _reached(
    folder: Path,
    options: Sequence[Option],
    about: Mapping[str, Any],
    level: float,
    notes: list[str],
) -> dict[str, dict[str, Any]]:
    """What finished runs of the workdir reached of what was guessed; {} where there are none."""
    known: dict[str, list[dict[str, Any]]] = {}
    for name in ("summary.json", control.KEPT):
        path = folder / name
        held = record.read_json(path) if path.is_file() else {}
        rows = [row for row in held.get("rows", []) if row.get("lam") is not None]
        head = held.get("settings", held)
        other = [key for key in _HEAD if head.get(key) != about[key]]
        if rows and other:
            notes.append(
                f"{path} was measured otherwise ({', '.join(f'{k} {head.get(k)}' for k in other)}) "
                "and is not compared"
            )
            continue
        for row in rows:
            sampler = row.get("sampler", control.PLAIN)
            if sampler == control.PLAIN and name != "summary.json":
                continue  # the summary has it, of more samples
            through = "" if sampler == control.PLAIN else f", {sampler}"
            known.setdefault(f"fine-tune at λ = {row['lam']:g}{through}", []).append(row["metrics"])
    out = {}
    for one in options:
        if one.action not in (TUNE, BOTH) or one.name not in known:
            continue
        shown = one.to_json(level)
        values = {m: float(np.mean([r[m]["value"] for r in known[one.name]])) for m in METRICS}
        out[one.name] = {
            **values,
            "guessed": {m: shown[m]["value"] for m in METRICS},
            "within": {m: bool(shown[m]["low"] <= values[m] <= shown[m]["high"]) for m in METRICS},
            "seeds": len(known[one.name]),
        }
    return out


def main(cfg: config.Config, workdir: str, json_path: str, **settings: Any) -> None:
    """Prints the prediction; writes JSON to a file, or with "-" prints JSON alone."""
    folder = Path(workdir).expanduser()
    command.deliver(
        json_path,
        lambda bars: predict(cfg, workdir, progress=bars, **settings),
        Prediction.to_text,
        str(folder / "predict" / KEPT),
    )
