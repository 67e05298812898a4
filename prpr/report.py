"""The report of a run: a printed table, figures, and one page that opens anywhere.

Reads only what `prpr.record` and the scoring wrote (summary.json, metrics.jsonl, samples/*.npz,
config.json, environment.json, plan.json of the planner); nothing is trained, sampled or scored
here. The same records give the same bytes. Precision comes before recall, and λ ascends: from
recall to precision. The drawings are made in `prpr.report_figures` and `prpr.report_svg`, sheets of
samples in `prpr.report_sheets`, the page's HTML in `prpr.report_page`. What needs data or metrics
(a goal, classes, training images) is measured by `prpr.evaluate.page` and handed to `make`.

    print(report.table(record.read_json("runs/digits/summary.json")))
    page = report.make("runs/digits")      # runs/digits/report.html and runs/digits/figures/*.png
"""

import io
import itertools
import math
import os
import statistics
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prpr import plotting, record, report_page, report_sheets, report_svg
from prpr import report_figures as figures
from prpr.errors import DataError, WorkdirError
from prpr.report_figures import Estimate, Group, Run, Samples

METRICS = ("precision", "recall", "density", "coverage")
WIDTH = 110  # characters of the printed table

_FIRST = {"real": 0, "base": 1, "control": 2}


# ---- the summary's rows -------------------------------------------------------------------------


def groups(summary: Mapping[str, Any]) -> list[Group]:
    """The rows of summary.json by name: real, base, control, then λ ascending.

    Raises:
      DataError: a row that lacks a name, a λ or a metric.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    try:
        for row in summary["rows"]:
            found.setdefault(str(row["name"]), []).append(row)
        made = [_group(name, rows) for name, rows in found.items()]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the summary is not one that this version writes ({type(error).__name__}: {error}); "
            "run the same training command again: it scores and summarises what is trained"
        ) from error
    return sorted(made, key=lambda g: (_FIRST.get(g.name, 3), g.lam or 0.0, g.name))


def _group(name: str, rows: Sequence[Mapping[str, Any]]) -> Group:
    lam = rows[0]["lam"]
    return Group(
        name,
        None if lam is None else float(lam),
        tuple(row["seed"] for row in rows),
        {metric: _estimate([row["metrics"][metric] for row in rows]) for metric in METRICS},
    )


def _estimate(cells: Sequence[Mapping[str, Any]]) -> Estimate:
    values = tuple(float(cell["value"]) for cell in cells)  # "nan" becomes a number again
    if len(values) == 1:
        return Estimate(values[0], float(cells[0]["low"]), float(cells[0]["high"]), values)
    mean = statistics.fmean(values)
    sd = statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan
    return Estimate(mean, mean - sd, mean + sd, values)


def show(estimate: Estimate) -> tuple[str, str]:
    """A metric as text: its value, and "[low, high]" (one seed) or "± sd" (several)."""
    value, low, high, seeds = estimate
    spread = f"[{low:.3f}, {high:.3f}]" if len(seeds) == 1 else f"± {high - value:.3f}"
    return f"{value:.3f}", spread


def describe(summary: Mapping[str, Any]) -> list[str]:
    """What the numbers depend on, in lines of at most 110 columns.

    The first is about the encoder and its neighbours, the second about the samples and what the
    brackets mean. Only a line that would be too long is broken, and only between two facts.
    """

    def get(key: str) -> Any:
        return summary.get(key, "?")

    sizes = f"{get('n_real')} real × {get('n_fake')} generated"
    repeats = int(summary.get("repeats") or 1)
    if repeats > 1:
        sizes += f" (scores: means over {repeats} independent sets)"
    lines = (
        (f"encoder {get('encoder')}", f"k = {get('k')} (density, coverage: {get('k_coverage')})"),
        (sizes, f"split {get('split')}", *_spreads(summary)),
    )
    # textwrap breaks at plain spaces only: not at the no-break ones within a fact.
    glued = [", ".join(fact.replace(" ", "\N{NO-BREAK SPACE}") for fact in line) for line in lines]
    wrapped = [
        part for line in glued for part in textwrap.wrap(line, WIDTH, break_on_hyphens=False)
    ]
    return [part.replace("\N{NO-BREAK SPACE}", " ") for part in wrapped]


def _spreads(summary: Mapping[str, Any]) -> list[str]:
    seeds = _most_seeds(groups(summary))
    interval = f"[low, high] = {100 * float(summary.get('level', 0.95)):g} % interval"
    return [interval] if seeds == 1 else [f"{interval} of one run", f"± = sd over {seeds} seeds"]


def _most_seeds(rows: Sequence[Group]) -> int:
    return max((len(g.seeds) for g in rows), default=1)


def _row(g: Group) -> report_page.Row:
    cells = [show(g.metrics[metric]) for metric in METRICS]
    return report_page.Row(g.name, g.label, "" if g.lam is None else f"{g.lam:g}", cells, _pair(g))


def table(summary: Mapping[str, Any]) -> str:
    """The results as aligned text, at most 110 columns: real, base, control, then λ ascending.

    Args:
      summary: the contents of summary.json.

    Raises:
      DataError: rows that are not of this form.
    """
    named = map(_row, groups(summary))
    rows = [[row.name, row.lam, *map(" ".join, row.cells)] for row in named]
    head = ["name", "λ", *METRICS]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    widths[0] = max(4, min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(head) - 1)))

    def line(row: Sequence[str]) -> str:
        name = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…"
        cells = [name.ljust(widths[0]), row[1].rjust(widths[1])]
        cells += [cell.ljust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(head) - 1))
    foot = [rule, *trend(summary)]
    return "\n".join([*describe(summary), rule, line(head), rule, *map(line, rows), *foot])


def trend(summary: Mapping[str, Any]) -> list[str]:
    """One line: Spearman's rank correlation of λ with precision and recall over all λ × seeds.

    +1 and −1 would be perfect control. Empty where fewer than three runs have a λ, or all equal.
    """
    runs = [row for row in summary["rows"] if row["lam"] is not None]
    lams = [row["lam"] for row in runs]
    found = []
    for metric in ("precision", "recall"):
        values = [row["metrics"][metric]["value"] for row in runs if metric in row["metrics"]]
        varied = min(len(set(lams)), len(set(values))) > 1
        if len(runs) > 2 and len(values) == len(runs) and varied:
            from scipy.stats import spearmanr

            rho = float(np.asarray(spearmanr(lams, values))[0])
            found.append(f"{metric} {rho:+.2f}".replace("-", "−"))
    if not found:
        return []
    return [f"Spearman of λ with {', with '.join(found)} (over {len(runs)} runs)"]


# ---- what it says -------------------------------------------------------------------------------


def headline(rows: Sequence[Group]) -> str:
    """The result in sentences, computed from the numbers; says so when λ does not do its work."""
    path = [g for g in rows if g.lam is not None]
    if not path:
        named = [g for g in rows if g.name != "real"]
        return " ".join(f"{g.label[:1].upper()}{g.label[1:]}: {_pair(g)}." for g in named) or (
            "No generator has been scored."
        )
    low, high = path[0], path[-1]
    if len(path) == 1:
        parts = [f"At {low.label}: {_pair(low)}."]
    else:
        p = _change(low, high, "precision", 1)
        r = _change(low, high, "recall", -1)
        parts = [f"From {low.label} to {high.label}, {p}, and {r}."]
        parts += _detours(path)
    others = {g.name: g for g in rows}
    if "control" in others:
        control = _pair(others["control"])
        parts.append(f"The control, trained on for as long with the base's own loss: {control}.")
    if "base" in others:
        parts.append(f"The base, before fine-tuning: {_pair(others['base'])}.")
    return " ".join(parts)


def _pair(g: Group) -> str:
    return f"precision {g.metrics['precision'].value:.3f}, recall {g.metrics['recall'].value:.3f}"


def _change(low: Group, high: Group, metric: str, sign: int) -> str:
    a, b = low.metrics[metric], high.metrics[metric]
    ends = f"{a.value:.3f} to {b.value:.3f}"
    wanted = sign * (b.value - a.value)
    verb = "rise" if sign > 0 else "fall"
    if not math.isfinite(wanted):
        return f"{metric} has no value at both ends ({ends})"
    if f"{a.value:.3f}" == f"{b.value:.3f}":
        return f"{metric} does not {verb}: it stays at {a.value:.3f}"
    if wanted > 0:
        said = f"{metric} {verb}s from {ends}"
    else:
        said = f"{metric} does not {verb}: it goes {'down' if sign > 0 else 'up'} from {ends}"
    overlap = a.low <= b.high and b.low <= a.high
    return f"{said} (the two {_kind(a, b)} overlap)" if overlap else said


def _kind(a: Estimate, b: Estimate) -> str:
    return "intervals" if len(a.seeds) == len(b.seeds) == 1 else "ranges of mean ± sd"


def _detours(path: Sequence[Group]) -> list[str]:
    """Where a metric goes the wrong way between neighbouring λ, beyond the third decimal."""
    found = []
    for metric, sign, word in (("precision", 1, "precision drops"), ("recall", -1, "recall gains")):
        whole = path[-1].metrics[metric].value - path[0].metrics[metric].value
        if sign * whole < -0.0005:
            continue  # said already, of the whole path
        for a, b in itertools.pairwise(path):
            step = b.metrics[metric].value - a.metrics[metric].value
            if sign * step < -0.0005:
                found.append(f"{word} {abs(step):.3f} from {a.label} to {b.label}")
    return [f"Not at every step: {'; '.join(found)}."] if found else []


def _caveat(rows: Sequence[Group]) -> str:
    """What the intervals do and do not cover."""
    seeds = _most_seeds(rows)
    if seeds == 1:
        return (
            "One seed: the intervals cover the choice of samples and of held-out data, not how "
            "much a second training would differ. Train with config.seeds = 0,1,2 to see that."
        )
    return (
        f"Over {seeds} seeds: ± is how much whole trainings differ, the finite samples "
        "that they are scored on included."
    )


# ---- checks of the critic -----------------------------------------------------------------------


class Check(NamedTuple):
    """A number that should lie in [low, high] at the end of every run: its meaning and its mend."""

    key: str
    low: float
    high: float
    title: str
    meaning: str
    mend: str


CHECKS = (
    Check(
        "finite",
        1.0,
        1.0,
        "Parameters that are no longer finite",
        "Training broke down; every later number of the run is meaningless.",
        "Lower config.generator.lr and config.critic.lr, or raise config.critic.r1.",
    ),
    Check(
        "heldout_normalisation",
        0.5,
        2.0,
        "Normalisation E_q[r̂] on held-out checks is far from 1",
        "The critic's ratio of real to generated density does not average to 1 over generated "
        "samples, so λ acts as if it were multiplied by about this factor.",
        "Set config.normalise = True, or train the critic better: more config.critic.steps, "
        "a longer config.train.warmup.",
    ),
    Check(
        "heldout_inverse_normalisation",
        0.0,
        2.0,
        "Inverse normalisation E_p[1/r̂] is above 2",
        "Over real held-out data, 1/r̂ can average to at most 1; more means that the critic calls "
        "some real data it has not trained on almost surely generated.",
        "Raise config.critic.r1, or use fewer config.critic.steps.",
    ),
    Check(
        "heldout_calibration_error",
        0.0,
        0.1,
        "Calibration error is above 0.1",
        "Where the critic says 70 % real, the share that is real differs by this much on average.",
        "Raise config.critic.r1, use fewer config.critic.steps, or use more training data.",
    ),
    Check(
        "heldout_calibration_slope",
        0.5,
        2.0,
        "Calibration slope is outside 0.5 to 2",
        "Below 1 the log-ratio is too wide: the critic knows its training data by heart "
        "(overfitted). Above 1 it is too narrow: the critic has not learnt all that it could.",
        "Below: raise config.critic.r1, or a smaller config.model.critic_ch. "
        "Above: more config.critic.steps, a longer config.train.warmup.",
    ),
)


class Failed(NamedTuple):
    """A check that failed, and {label of the runs: [last value of each seed that fails it]}."""

    check: Check
    found: dict[str, list[float]]


def warnings(runs: Sequence[Run]) -> list[Failed]:
    """The checks that some run's last value fails; those of a ratio only where there is one."""
    result = []
    for check in CHECKS:
        found: dict[str, list[float]] = {}
        for run in runs:
            value = run.last(check.key)
            applies = run.ratio or check.key == "finite"
            if not applies or not isinstance(value, int | float):
                continue
            if not check.low <= value <= check.high:  # NaN too
                found.setdefault(run.label, []).append(float(value))
        if found:
            result.append(Failed(check, found))
    return result


def _finding(failed: Failed) -> report_page.Finding:
    runs = "; ".join(
        f"{label}: {', '.join(f'{value:.3g}' for value in values)}"
        for label, values in failed.found.items()
    )
    check = failed.check
    return report_page.Finding(check.title, runs, check.meaning, check.mend)


# ---- reading ------------------------------------------------------------------------------------


def read_summary(folder: Path) -> dict[str, Any]:
    """summary.json of a finished run; WorkdirError or DataError where there is none."""
    if not folder.is_dir():
        raise WorkdirError(f"{folder} is not a directory; name the workdir of a finished run")
    try:
        return record.read_json(folder / "summary.json")
    except DataError as error:
        raise DataError(
            f"{error}; a run writes it at its end: name the workdir of a finished run, or run the "
            "same training command again"
        ) from error


def _read_optional(path: Path) -> Any:
    return record.read_json(path) if path.exists() else None


def _read_plan(path: Path) -> Any:
    """The planner's cards, None where there are none; what is no JSON costs its section only."""
    try:
        return _read_optional(path)
    except DataError:
        return "damaged"


def _read_runs(folder: Path, rows: Sequence[Group], config: Mapping[str, Any]) -> list[Run]:
    """The runs of metrics.jsonl in the order of the rows; none if the file is not there."""
    if not (folder / "metrics.jsonl").exists():
        return []
    lines: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for line in record.read_metrics(folder):
        name, _, seed = str(line.get("run")).rpartition("-seed")
        if seed.isdecimal() and "step" in line:
            lines.setdefault((name, int(seed)), []).append(line)
    runs = []
    for g in rows:
        for seed in sorted(seed for name, seed in lines if name == g.name):
            # The hinge loss finds which of p and q is larger, not their ratio (prpr.ratio).
            section, default = ("critic", "logistic") if g.lam is not None else ("base", "hinge")
            loss = config.get(section, {}).get("loss", default)
            found = sorted(lines[g.name, seed], key=lambda line: line["step"])
            runs.append(Run(g.name, g.lam, seed, found, loss != "hinge"))
    return runs


def _events(folder: Path) -> list[str]:
    """The alarms, rollbacks and ends of the runs of metrics.jsonl, in words."""
    if not (folder / "metrics.jsonl").exists():
        return []
    rang: dict[tuple[str, str], list[int]] = {}
    done = []
    for line in record.read_metrics(folder):
        name, step = str(line.get("run")), line.get("step", 0)
        if "alarm" in line:
            rang.setdefault((name, f"{line['severity']}: {line['alarm']}"), []).append(step)
        elif "rollback" in line:
            done.append(
                f"{name}: went back to step {step} after {line['because']} at step {line['at']}, "
                f"with rates x {line['rate']:g} (attempt {line['rollback']})."
            )
        elif "given_up" in line:
            done.append(
                f"{name}: was given up after {line['given_up']} at step {step}; it is not scored, "
                "and its checkpoints are kept."
            )
    warned = [
        f"{name}: {what} at step {', '.join(map(str, steps))}."
        for (name, what), steps in rang.items()
    ]
    return [*done, *warned]


def _read_samples(
    folder: Path, rows: Sequence[Group], n_fake: int | None
) -> tuple[dict[str, Samples], dict[str, str]]:
    """The samples of the first seed of every name, and {name: why not} for the others.

    Of generated samples the first `n_fake` only: a file holds the repeated sets one after another.
    """
    stored: dict[str, Samples] = {}
    missing: dict[str, str] = {}
    for g in rows:
        seeds = sorted(seed for seed in g.seeds if seed is not None)
        path = folder / "samples" / (f"{g.name}-seed{seeds[0]}.npz" if seeds else f"{g.name}.npz")
        try:
            # From memory: numpy leaves a damaged file open.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                values = arrays["images" if "images" in arrays else "points"]
                labels = np.asarray(arrays["labels"]).reshape(-1)
            image = values.ndim == 4 and values.shape[3] in (1, 3) and values.dtype == np.uint8
            if not image and not (values.ndim == 2 and values.shape[1] == 2):
                raise ValueError(f"unexpected shape {values.shape} of {values.dtype}")
            if len(labels) != len(values):
                raise ValueError(f"{len(values)} samples but {len(labels)} labels")
            n = None if g.name == "real" else n_fake
            stored[g.name] = Samples(values[:n], labels[:n])
        except FileNotFoundError:
            missing[g.name] = f"samples/{path.name} is not there"
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            missing[g.name] = f"samples/{path.name} cannot be read ({error})"
    kinds = {s.values.ndim for s in stored.values()}
    if len(kinds) > 1:
        raise DataError(f"{folder / 'samples'} mixes images and points; it is of several runs")
    return stored, missing


# ---- the report ---------------------------------------------------------------------------------


def make(
    workdir: str | os.PathLike[str],
    data: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes WORKDIR/figures/*.png and the page from the records there.

    Every file appears whole or not at all, and the same records give the same bytes. Missing
    samples, metrics, configuration or environment cost their section only, which then says so.

    Args:
      workdir: of a finished run.
      data: what `prpr.evaluate.page` measured; None leaves a goal, classes and training images out.
      out: the page's file; None is WORKDIR/report.html.

    Returns:
      The path of the page.

    Raises:
      DataError: summary.json is missing, or a record is damaged.
      WorkdirError: not a directory, or it cannot be written.
    """
    folder = Path(workdir)
    data = data or {}
    summary = read_summary(folder)
    rows = groups(summary)
    config = _read_optional(folder / "config.json")
    environment = _read_optional(folder / "environment.json")
    plan = _read_plan(folder / "plan.json")
    runs = _read_runs(folder, rows, config or {})
    stored, missing = _read_samples(folder, rows, summary.get("n_fake"))
    colors = figures.Colors([g.lam for g in rows if g.lam is not None])
    # A base run is on a clock of its own; its curves are in its own report.
    tuned = [run for run in runs if run.name != "base"] or runs
    drawn = {
        "precision_recall": figures.precision_recall(rows, colors),
        "samples": figures.samples(rows, stored, colors),
        "calibration": figures.calibration(tuned, colors),
        "training": figures.training(tuned, colors),
        "health": figures.health(tuned, colors),
    }
    images: dict[str, bytes] = {}
    for name, figure in drawn.items():
        path = folder / "figures" / name
        if figure is None:
            # A figure of earlier records must not pass for one of these.
            path.with_suffix(".png").unlink(missing_ok=True)
        else:
            images[name] = plotting.save(figure, path, formats=("png",))[0].read_bytes()
    about = ", ".join(describe(summary))
    seconds = summary.get("seconds")
    hexes = {g.name: _hex(colors(g.name, g.lam)) for g in rows}
    sheets = report_sheets.sheets(rows, stored, hexes)
    shown = [g for g in rows if _finite(g)]
    chosen = (data.get("goal") or {}).get("answer")
    page = report_page.Page(
        title=str((config or {}).get("name") or folder.resolve().name),
        headline=" ".join([headline(rows), *(f"{line}." for line in trend(summary))]),
        about=f"{about[:1].upper()}{about[1:]}.",
        caveat=_caveat(rows),
        metrics=METRICS,
        rows=[_row(g) for g in rows],
        several_seeds=_most_seeds(rows) > 1,
        findings=[_finding(failed) for failed in warnings(runs)],
        events=_events(folder),
        runs=runs,
        plane=_plane(shown, hexes, data),
        picks=[_pick(g, sheets, chosen) for g in shown],
        picked=_first_shown(shown, chosen),
        sheets=[(g.label, sheets.whole[g.name]) for g in rows if g.name in sheets.whole],
        shared=sheets.shared,
        layout=_layout(sheets, any(one.values.ndim == 2 for one in stored.values())),
        missing=[(g.label, missing[g.name]) for g in rows if g.name in missing],
        images=images,
        config=config,
        environment=environment,
        plan=plan,
        seconds=None if seconds is None else float(seconds),
        data=data,
    )
    target = folder / "report.html" if out is None else Path(out)
    record.write_bytes(target, report_page.render(page).encode())
    return target


def _finite(g: Group) -> bool:
    return all(math.isfinite(g.metrics[metric].value) for metric in ("precision", "recall"))


def _hex(color: Any) -> str:
    from matplotlib.colors import to_hex

    return to_hex(color)


_SHAPES = {"real": "star", "base": "diamond", "control": "square"}


def _plane(
    shown: Sequence[Group], hexes: Mapping[str, str], data: Mapping[str, Any]
) -> report_svg.Plane | None:
    """Precision against recall, with the bounds of the wish and the λ that was chosen."""
    if not shown:
        return None
    goal = data.get("goal") or {}
    lam = goal.get("answer", {}).get("lam")
    marks = [
        report_svg.Mark(
            g.label,
            "circle" if g.lam is not None else _SHAPES.get(g.name, "triangle"),
            hexes[g.name],
            g.metrics["precision"],
            g.metrics["recall"],
            joined=g.lam is not None,
            chosen=lam is not None and g.lam == lam,
        )
        for g in shown
    ]
    bounds = [
        report_svg.Bound(one["metric"], one["least"], one["bound"])
        for one in goal.get("bounds", ())
    ]
    pairs = "; ".join(f"{g.label}: {_pair(g)}" for g in shown)
    return report_svg.plane(marks, bounds, f"Precision against recall. {pairs}.")


def _pick(
    g: Group, sheets: report_sheets.Sheets, chosen: Mapping[str, Any] | None
) -> report_page.Pick:
    cells = [(metric, *show(g.metrics[metric])) for metric in METRICS]
    note = {
        "real": "Real training data in the generator's place.",
        "base": "Before fine-tuning.",
        "control": "Trained on for as long with the base's own loss.",
    }.get(g.name, "")
    for row in (chosen or {}).get("rows", ()):
        if row["lam"] == g.lam and (chosen or {})["verdict"] != "best":
            note = f"The wish holds here with probability {row['alone']:.3f}, were it the only λ."
    return report_page.Pick(g.label, cells, sheets.short.get(g.name, ""), note)


def _first_shown(shown: Sequence[Group], chosen: Mapping[str, Any] | None) -> int:
    """The mark whose samples are shown first: the λ that was chosen, or the largest."""
    lams = [(g.lam, i) for i, g in enumerate(shown) if g.lam is not None]
    if chosen is not None:
        lams = [(lam, i) for lam, i in lams if lam == chosen["lam"]] or lams
    return max(lams)[1] if lams else 0


def _layout(sheets: report_sheets.Sheets, points: bool) -> str:
    """How the sheets are laid out, in words."""
    same = (
        "Every generator got the same latents and labels, so the same place in two sheets is the "
        "same input."
        if sheets.alike
        else "The generators were given different labels, so places cannot be compared."
    )
    drawn = (
        "Grey dots are real data."
        if points
        else "Where there are few classes, a column is a class."
    )
    return f"Not selected: the first samples of the first seed. {same} {drawn}"
