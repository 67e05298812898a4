"""The report of a run: a printed table, figures, and one page that opens anywhere.

Reads only what `prpr.record` and the scoring wrote (summary.json, metrics.jsonl, samples/*.npz,
config.json, environment.json); nothing is trained, sampled or scored here. The same records give
the same bytes. Precision comes before recall, and λ ascends: from recall to precision.

    print(report.table(record.read_json("runs/digits/summary.json")))
    page = report.make("runs/digits")      # runs/digits/report.html and runs/digits/figures/*.png
"""

import base64
import html
import io
import itertools
import json
import math
import os
import shlex
import statistics
import textwrap
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prpr import plotting, record
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


def describe(summary: Mapping[str, Any]) -> str:
    """What the numbers depend on, in one line: encoder, neighbours, sizes, split."""

    def get(key: str) -> Any:
        return summary.get(key, "?")

    k, k_coverage = get("k"), get("k_coverage")
    return (
        f"encoder {get('encoder')}, k = {k} (density and coverage: {k_coverage}), "
        f"{get('n_real')} real × {get('n_fake')} generated, split {get('split')}"
    )


def spread_note(summary: Mapping[str, Any]) -> str:
    """What the brackets and the ± of the table mean."""
    seeds = max((len(g.seeds) for g in groups(summary)), default=1)
    level = 100 * float(summary.get("level", 0.95))
    note = f"[low, high]: {level:g} % interval"
    return note if seeds == 1 else f"{note} of one run; ±: standard deviation over {seeds} seeds"


def table(summary: Mapping[str, Any]) -> str:
    """The results as aligned text, at most 110 columns: real, base, control, then λ ascending.

    Args:
      summary: the contents of summary.json.

    Raises:
      DataError: rows that are not of this form.
    """
    rows = []
    for g in groups(summary):
        cells = [" ".join(show(g.metrics[metric])) for metric in METRICS]
        rows.append([g.name, "" if g.lam is None else f"{g.lam:g}", *cells])
    head = ["name", "λ", *METRICS]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    widths[0] = max(4, min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(head) - 1)))

    def line(row: Sequence[str]) -> str:
        name = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…"
        cells = [name.ljust(widths[0]), row[1].rjust(widths[1])]
        cells += [cell.ljust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(head) - 1))
    about = [*textwrap.wrap(describe(summary), WIDTH), spread_note(summary)]
    return "\n".join([*about, rule, line(head), rule, *map(line, rows), rule])


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
    if not math.isfinite(wanted):
        return f"{metric} has no value at both ends ({ends})"
    if f"{a.value:.3f}" == f"{b.value:.3f}":
        return f"{metric} does not {'rise' if sign > 0 else 'fall'}: it stays at {a.value:.3f}"
    if wanted > 0:
        said = f"{metric} {'rises' if sign > 0 else 'falls'} from {ends}"
    else:
        said = (
            f"{metric} does not {'rise' if sign > 0 else 'fall'}: "
            f"it goes {'down' if sign > 0 else 'up'} from {ends}"
        )
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


# ---- reading ------------------------------------------------------------------------------------


def _read_summary(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise WorkdirError(f"{folder} is not a directory; name the workdir of a finished run")
    try:
        return record.read_json(folder / "summary.json")
    except DataError as error:
        raise DataError(
            f"{error}; a run writes it at its end: name the workdir of a finished run, or run the "
            "same training command again"
        ) from error


def _read_optional(path: Path) -> dict[str, Any] | None:
    return record.read_json(path) if path.exists() else None


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


def _read_samples(folder: Path, rows: Sequence[Group]) -> tuple[dict[str, Samples], dict[str, str]]:
    """The samples of the first seed of every name, and {name: why not} for the others."""
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
            stored[g.name] = Samples(values, labels)
        except FileNotFoundError:
            missing[g.name] = f"samples/{path.name} is not there"
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            missing[g.name] = f"samples/{path.name} cannot be read ({error})"
    kinds = {s.values.ndim for s in stored.values()}
    if len(kinds) > 1:
        raise DataError(f"{folder / 'samples'} mixes images and points; it is of several runs")
    return stored, missing


# ---- the report ---------------------------------------------------------------------------------


def make(workdir: str | os.PathLike[str]) -> Path:
    """Writes WORKDIR/figures/*.png and WORKDIR/report.html from the records there.

    Every file appears whole or not at all, and the same records give the same bytes. Missing
    samples, metrics, configuration or environment cost their section only, which then says so.

    Returns:
      The path of the page.

    Raises:
      DataError: summary.json is missing, or a record is damaged.
      WorkdirError: not a directory, or it cannot be written.
    """
    folder = Path(workdir)
    summary = _read_summary(folder)
    rows = groups(summary)
    config = _read_optional(folder / "config.json")
    environment = _read_optional(folder / "environment.json")
    runs = _read_runs(folder, rows, config or {})
    stored, missing = _read_samples(folder, rows)
    colors = figures.Colors([g.lam for g in rows if g.lam is not None])
    # A base run is on a clock of its own; its curves are in its own report.
    tuned = [run for run in runs if run.name != "base"] or runs
    drawn = {
        "precision_recall": figures.precision_recall(rows, colors),
        "samples": figures.samples(rows, stored, colors),
        "calibration": figures.calibration(tuned, colors),
        "training": figures.training(tuned, colors),
    }
    images: dict[str, bytes] = {}
    for name, figure in drawn.items():
        path = folder / "figures" / name
        if figure is None:
            # A figure of earlier records must not pass for one of these.
            path.with_suffix(".png").unlink(missing_ok=True)
        else:
            images[name] = plotting.save(figure, path, formats=("png",))[0].read_bytes()
    page = _Page(
        str((config or {}).get("name") or folder.resolve().name),
        summary,
        rows,
        runs,
        stored,
        missing,
        images,
        config,
        environment,
    )
    record.write_bytes(folder / "report.html", _render(page).encode())
    return folder / "report.html"


# ---- the page -----------------------------------------------------------------------------------

_CSS = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1d2129; --soft: #5b6472;
  --line: #d9dee6; --head: #f3f5f8; --link: #0b5fa5; --warn: #9a4a00; --warn-page: #fff6ea; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --text: #e4e7ec; --soft: #a2abb8;
  --line: #363d48; --head: #1e232b; --link: #7db8ee; --warn: #f0b26b; --warn-page: #2a2118; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0.5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 0 0 0.25rem; }
p, ul, dl { margin: 0.5rem 0; }
a { color: var(--link); }
.lead { font-size: 1.1rem; }
.soft, figcaption, dt { color: var(--soft); }
small, figcaption, .soft { font-size: 0.9rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.45rem 0.8rem; text-align: left; white-space: nowrap;
  border-top: 1px solid var(--line); }
thead th { background: var(--head); }
td small { color: var(--soft); margin-left: 0.35rem; }
figure { margin: 1rem 0; }
.card { display: block; background: #ffffff; border: 1px solid var(--line); border-radius: 8px;
  padding: 0.75rem; }
.card img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { margin-top: 0.5rem; }
.warning { border-left: 4px solid var(--warn); background: var(--warn-page);
  padding: 0.75rem 1rem; margin: 0.75rem 0; border-radius: 0 8px 8px 0; }
.warning h3 { color: var(--warn); }
dt { margin-top: 0.5rem; font-size: 0.9rem; }
dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; padding: 0.4rem 0; }
code, pre { font: 0.9rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { overflow-x: auto; background: var(--head);
  border: 1px solid var(--line); border-radius: 8px; padding: 0.75rem; margin: 0.5rem 0; }
.knobs td { white-space: normal; overflow-wrap: anywhere; }
"""

_GLOSSARY = """<p class="soft"><strong>Precision</strong>: the share of generated samples that look
real. <strong>Recall</strong>: the share of real data that the generator can make. No generator is
best at both, so each λ is one choice between them: a small λ asks for recall, a large λ for
precision.</p>"""

_CAPTIONS = {
    "precision_recall": "Each dot is one λ, small λ dark and large λ light, joined in order of λ; "
    "up is more precision, right is more recall. Lines through a dot are {spread}. The star is "
    "real data scored in the generator's place: about the best that can be reached at this size.",
    "samples": "Not selected: the first samples of the first seed. Every generator got the same "
    "latents and labels, so the same place in two blocks is the same input; {layout}.",
    "calibration": "When the critic says that a sample is real with some probability, does that "
    "share of them turn out real? On the diagonal it does. Checked on held-out data at the last "
    "check; a dot's area is the share of samples it stands for.",
    "training": "What the critic and the generator did at every step; dotted lines mark where an "
    "ideal estimate lies. Held-out values come from data that neither of them trained on. "
    "Long curves are shown faint, with their moving average.",
}


class _Page(NamedTuple):
    """Everything that the page shows."""

    title: str
    summary: Mapping[str, Any]
    rows: Sequence[Group]
    runs: Sequence[Run]
    stored: Mapping[str, Samples]
    missing: Mapping[str, str]
    images: Mapping[str, bytes]
    config: Mapping[str, Any] | None
    environment: Mapping[str, Any] | None


def _text(value: object) -> str:
    return html.escape(str(value))


def _render(page: _Page) -> str:
    """The page: no scripts, nothing loaded, every text escaped."""
    found = warnings(page.runs)
    link = ""
    if found:
        count = "1 check is" if len(found) == 1 else f"{len(found)} checks are"
        link = f'<p><a href="#warnings">{count} off: see the warnings.</a></p>'
    lead = _text(headline(page.rows)).replace("λ = ", "λ&nbsp;=&nbsp;")
    seconds = page.summary.get("seconds")
    took = "" if seconds is None else f" The whole took {_duration(float(seconds))}."
    body = f"""<h1>{_text(page.title)}: precision and recall by λ</h1>
<p class="lead">{lead}</p>
{link}
{_GLOSSARY}
<section><h2>Results</h2>
{_table_html(page)}
{_figure(page, "precision_recall")}
<p class="soft">{_text(_caveat(page.rows) + took)}</p></section>
<section><h2>Samples</h2>
{_samples_html(page)}</section>
<section id="warnings"><h2>Warnings</h2>
{_warnings_html(page, found)}</section>
<section><h2>Calibration of the critic</h2>
{_figure(page, "calibration") or _absent("no reliability curves in metrics.jsonl")}</section>
<section><h2>Training</h2>
{_figure(page, "training") or _absent("no training curves in metrics.jsonl")}
{_about_curves(page)}</section>
<section><h2>Configuration</h2>
{_config_html(page.config)}</section>
<section><h2>How to repeat it</h2>
{_environment_html(page.environment)}</section>"""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(page.title)}: precision and recall by λ</title>
<style>{_CSS}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _absent(what: str) -> str:
    return f'<p class="soft">Nothing to show: {_text(what)}.</p>'


def _table_html(page: _Page) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("name", "λ", *METRICS))
    lines = []
    for g in page.rows:
        cells = [f'<th scope="row">{_text(g.name)}</th>']
        cells.append(f"<td>{'' if g.lam is None else f'{g.lam:g}'}</td>")
        for metric in METRICS:
            value, spread = show(g.metrics[metric])
            cells.append(f"<td>{value}<small>{spread}</small></td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    about = f"{describe(page.summary)}; {spread_note(page.summary)}"
    # The box scrolls, so that the page does not: a keyboard has to reach it.
    return (
        f'<p class="soft" id="about">{_text(about[:1].upper() + about[1:])}.</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of results">'
        f'<table aria-describedby="about"><thead><tr>{head}</tr></thead>\n<tbody>'
        + "\n".join(lines)
        + "</tbody></table></div>"
    )


def _figure(page: _Page, name: str) -> str:
    """A figure with its caption, "" if it was not drawn."""
    if name not in page.images:
        return ""
    several = any(len(g.seeds) > 1 for g in page.rows)
    points = any(stored.values.ndim == 2 for stored in page.stored.values())
    caption = _CAPTIONS[name].format(
        spread="mean ± standard deviation over the seeds, small dots the single seeds"
        if several
        else "intervals",
        layout="grey dots are real data"
        if points
        else "where there are few classes, a column is a class",
    )
    pairs = "; ".join(f"{g.label}: {_pair(g)}" for g in page.rows)
    alt = {
        "precision_recall": f"Precision against recall. {pairs}.",
        "samples": f"Samples of {', '.join(g.label for g in page.rows if g.name in page.stored)}.",
        "calibration": "Reliability curves of the critic, a panel for each run.",
        "training": "Curves of losses, log-ratios and held-out checks over training steps.",
    }[name]
    data = page.images[name]
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))  # PNG's header
    source = base64.b64encode(data).decode()
    # Drawn at 300 dpi, shown at up to half that: sharp on a dense screen.
    return (
        f'<figure><span class="card"><img src="data:image/png;base64,{source}" alt="{_text(alt)}" '
        f'width="{width // 2}" height="{height // 2}"></span>'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _caveat(rows: Sequence[Group]) -> str:
    """What the intervals do and do not cover."""
    seeds = [len(g.seeds) for g in rows if g.name != "real"]
    if max(seeds, default=1) == 1:
        return (
            "One seed: the intervals cover the choice of samples and of held-out data, not how "
            "much a second training would differ. Train with config.seeds = 0,1,2 to see that."
        )
    return (
        f"Over {max(seeds)} seeds: ± is how much whole trainings differ, the finite samples "
        "that they are scored on included."
    )


def _samples_html(page: _Page) -> str:
    labels = {g.name: g.label for g in page.rows}
    items = "".join(
        f"<li>{_text(labels[name])}: {_text(why)}</li>" for name, why in page.missing.items()
    )
    gaps = f'<p class="soft">Not shown:</p><ul class="soft">{items}</ul>' if items else ""
    return (_figure(page, "samples") or _absent("no samples are stored")) + gaps


def _warnings_html(page: _Page, found: Sequence[Failed]) -> str:
    parts = ["<p>An estimate that is off is shown, not hidden.</p>"]
    for check, places in found:
        runs = "; ".join(
            f"{label}: {', '.join(f'{value:.3g}' for value in values)}"
            for label, values in places.items()
        )
        parts.append(
            f'<div class="warning"><h3>{_text(check.title)}</h3><p><strong>{_text(runs)}</strong>'
            f"</p><p>{_text(check.meaning)}</p><p>What to try: {_text(check.mend)}</p></div>"
        )
    checked = any(r.ratio and r.last("heldout_calibration_error") is not None for r in page.runs)
    if not checked:
        parts.append(
            "<p>No held-out check of the critic is recorded, so nothing here says whether its "
            "estimates can be trusted: lower config.train.diagnose_every, or train longer.</p>"
        )
    elif not found:
        parts.append("<p>None: every run's last held-out checks are within their bounds.</p>")
    return "\n".join(parts)


def _about_curves(page: _Page) -> str:
    said = []
    names = {run.name for run in page.runs}
    if "base" in names and len(names) > 1:
        said.append("The base's own training is left out: it runs on steps of its own.")
    without = sorted({run.label for run in page.runs if not run.ratio})
    if without:
        said.append(
            f"Panels of the log-ratio leave out {', '.join(without)}: the hinge loss determines no "
            "ratio."
        )
    return f'<p class="soft">{_text(" ".join(said))}</p>' if said else ""


def _config_html(config: Mapping[str, Any] | None) -> str:
    if config is None:
        return _absent("config.json is not there")
    lines = "\n".join(
        f"<tr><td><code>{_text(knob)}</code></td><td><code>{_text(value)}</code></td></tr>"
        for knob, value in _flat(config)
    )
    return (
        "<details><summary>Every setting of this run</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Settings">'
        '<table class="knobs"><thead><tr><th scope="col">setting</th><th scope="col">value</th>'
        f"</tr></thead>\n<tbody>{lines}</tbody></table></div></details>"
    )


def _flat(tree: Mapping[str, Any], prefix: str = "config.") -> Iterator[tuple[str, str]]:
    for name, value in sorted(tree.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, json.dumps(value, ensure_ascii=False)


def _environment_html(environment: Mapping[str, Any] | None) -> str:
    if environment is None:
        return _absent("environment.json is not there")
    command = [str(part) for part in environment.get("command") or []]
    if command and command[0].endswith(".py"):
        command[0] = f"experiments/{command[0]}"  # recorded without its folder
        command.insert(0, "python")
    device = environment.get("device") or {}
    versions = environment.get("versions") or {}
    facts = {
        "device": f"{device.get('count', '?')} × {device.get('kind', '?')} "
        f"({device.get('platform', '?')})",
        "processes": device.get("processes"),
        "system": environment.get("platform"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "revision of the code (+: edited)": environment.get("git"),
        "started": environment.get("started"),
    }
    items = "".join(
        f"<dt>{key}</dt><dd>{_text(value)}</dd>" for key, value in facts.items() if value
    )
    shown = f"<pre>{_text(shlex.join(command))}</pre>" if command else ""
    return f"{shown}<dl>{items}</dl>"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
