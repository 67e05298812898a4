"""The page of a run's report: from pieces that are computed already to one string of HTML.

No scripts, nothing loaded from elsewhere, every text escaped, no absolute paths of the machine;
nothing is read or written here. What the pieces say is decided in `prpr.report`, the sections about
a goal, classes, training images and costs are made in `prpr.report_sections`.

The explorer (a mark of the plane, its samples and numbers beside it) is radio buttons and style: a
pointer over a mark shows its panel, a tap, a click or the arrow keys keep it. In print, and where
style is not applied, all panels show.
"""

import base64
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prpr import report_sections
from prpr.report_figures import Run
from prpr.report_sections import absent, scroll, short, text
from prpr.report_svg import Plane


class Row(NamedTuple):
    """A row of the table, as text.

    `lam` is "" without a λ, `cells` are (value, spread) of every metric, `pair` says the values of
    precision and recall.
    """

    name: str
    label: str
    lam: str
    cells: Sequence[tuple[str, str]]
    pair: str


class Finding(NamedTuple):
    """A check that failed: what is off, in which runs, what it means, and what to try."""

    title: str
    runs: str
    meaning: str
    mend: str


class Pick(NamedTuple):
    """A mark of the plane and what is shown beside it.

    `cells` are (metric, value, spread), `sheet` is HTML ("" without samples), `note` says more.
    """

    label: str
    cells: Sequence[tuple[str, str, str]]
    sheet: str
    note: str


class Page(NamedTuple):
    """Everything that the page shows; texts are plain.

    Attributes:
      title: the run's name.
      headline: the result in sentences.
      about: what the numbers of the table depend on.
      caveat: what their intervals cover.
      metrics: names of the metrics, in the order of the rows' cells.
      rows: the table, in order.
      several_seeds: whether some row is a mean over seeds.
      findings: the checks that failed.
      events: what rang while training, and what was done: a sentence each.
      runs: the training runs with their curves.
      plane: precision against recall; None where no row has both.
      picks: of every mark of the plane, in its order; `picked` is shown first.
      sheets: (label, HTML of its samples) in order.
      shared: HTML that the sheets need once.
      layout: how samples are laid out, in words.
      missing: (label, why) of the rows whose samples are not shown.
      images: {name: PNG} of the figures that were drawn; the names are those of `CAPTIONS`.
      config, environment: config.json and environment.json, None where there is none.
      plan: cards of the planner, None where there are none; seconds: that the run took.
      data: what `prpr.evaluate.page` measured, {} where it was not asked.
    """

    title: str
    headline: str
    about: str
    caveat: str
    metrics: Sequence[str]
    rows: Sequence[Row]
    several_seeds: bool
    findings: Sequence[Finding]
    events: Sequence[str]
    runs: Sequence[Run]
    plane: Plane | None
    picks: Sequence[Pick]
    picked: int
    sheets: Sequence[tuple[str, str]]
    shared: str
    layout: str
    missing: Sequence[tuple[str, str]]
    images: Mapping[str, bytes]
    config: Mapping[str, Any] | None
    environment: Mapping[str, Any] | None
    plan: Any
    seconds: float | None
    data: Mapping[str, Any]


_CSS = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1d2129; --soft: #5b6472;
  --line: #d9dee6; --head: #f3f5f8; --link: #0b5fa5; --warn: #9a4a00; --warn-page: #fff6ea;
  --good: #00664a; --good-page: #eaf7f2; --grid: #e6e9ee; --asked: #0072b214; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --text: #e4e7ec; --soft: #a2abb8;
  --line: #363d48; --head: #1e232b; --link: #7db8ee; --warn: #f0b26b; --warn-page: #2a2118;
  --good: #6fd3b0; --good-page: #16261f; --grid: #262b33; --asked: #56b4e926; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0.5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 1rem 0 0.25rem; }
p, ul, dl { margin: 0.5rem 0; }
p, li { overflow-wrap: break-word; max-width: 48rem; }
ul { padding-left: 1.25rem; }
a { color: var(--link); }
.lead { font-size: 1.1rem; }
.soft, figcaption, dt { color: var(--soft); }
small, figcaption, .soft { font-size: 0.9rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.45rem 0.8rem; text-align: left; white-space: nowrap;
  border-top: 1px solid var(--line); }
thead th { background: var(--head); border-top: 0; }
th:first-child { position: sticky; left: 0; background: var(--page); }
thead th:first-child { background: var(--head); }
td small { color: var(--soft); margin-left: 0.35rem; }
.narrow td small { display: block; margin-left: 0; }
.narrow th { white-space: normal; min-width: 4.5rem; }
th.taken, td.taken { background: var(--good-page); }
td.below { background: var(--warn-page); }
td abbr { color: var(--warn); font-weight: 700; margin-right: 0.25rem; text-decoration: none; }
figure { margin: 1rem 0; }
.card { display: block; background: #ffffff; border: 1px solid var(--line); border-radius: 8px;
  padding: 0.75rem; }
.card img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
img.pixels { display: block; max-width: 100%; height: auto; image-rendering: pixelated; }
figcaption { margin-top: 0.5rem; max-width: 48rem; }
.warning { border-left: 4px solid var(--warn); background: var(--warn-page);
  padding: 0.75rem 1rem; margin: 0.75rem 0; border-radius: 0 8px 8px 0; }
.warning h3 { color: var(--warn); margin-top: 0; }
.verdict { border-left: 4px solid var(--warn); background: var(--warn-page);
  padding: 0.75rem 1rem; margin: 0.75rem 0; border-radius: 0 8px 8px 0; }
.verdict.good { border-color: var(--good); background: var(--good-page); }
.verdict p { margin: 0.25rem 0; }
.big { font-size: 1.5rem; font-weight: 600; }
.tag { display: inline-block; font-size: 0.95rem; font-weight: 600;
  border: 1.5px solid currentColor; border-radius: 1rem; padding: 0 0.6rem;
  margin-left: 0.4rem; color: var(--warn);
  vertical-align: middle; }
.good .tag { color: var(--good); }
.asked-for { font-size: 1.1rem; }
dt { margin-top: 0.5rem; font-size: 0.9rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.numbers { display: grid; gap: 0 1rem;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.numbers div { padding: 0.2rem 0; }
.numbers dd { font-variant-numeric: tabular-nums; }
.numbers dd small { color: var(--soft); display: inline-block; }
summary { cursor: pointer; padding: 0.4rem 0; }
code, pre { font: 0.9rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
p code, li code { overflow-wrap: anywhere; }
pre { overflow-x: auto; background: var(--head);
  border: 1px solid var(--line); border-radius: 8px; padding: 0.75rem; margin: 0.5rem 0; }
.knobs td { white-space: normal; overflow-wrap: anywhere; }
.sheets { display: grid; gap: 1.25rem 1.5rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
.sheets figure, .near figure { margin: 0; }
.sheets figcaption { margin: 0 0 0.35rem; color: var(--text); }
.sheets figcaption small { color: var(--soft); }
.near { display: grid; gap: 0.75rem 1.5rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
.near > div { display: flex; gap: 0.5rem; border-top: 1px solid var(--line); padding-top: 0.6rem; }
.near figure { flex: 1 1 0; min-width: 0; }
.near figure:first-child { border-right: 1px solid var(--line); }
.near figcaption { margin-top: 0.2rem; font-size: 0.8rem; }
.explorer { display: grid; gap: 0.75rem 1.5rem; margin: 1rem 0; position: relative;
  grid-template-columns: minmax(0, 1fr); }
.explorer > input { position: absolute; opacity: 0; width: 1px; height: 1px; margin: 0; }
.chips { display: flex; flex-wrap: wrap; gap: 0.4rem; }
.chip { border: 1.5px solid var(--line); border-radius: 1.25rem; padding: 0.35rem 0.85rem;
  cursor: pointer; min-height: 2.5rem; display: inline-flex; align-items: center; gap: 0.4rem; }
.plot { position: relative; max-width: 34rem; width: 100%; align-self: start; }
.plot svg { display: block; width: 100%; height: auto; overflow: visible; }
.plot text { fill: var(--text); font: 13px system-ui, sans-serif; }
.plot .tick { fill: var(--soft); font-size: 12px; text-anchor: middle; }
.plot .name { text-anchor: middle; }
.plot .end { text-anchor: end; }
.plot .label { paint-order: stroke; stroke: var(--page); stroke-width: 3px;
  stroke-linejoin: round; }
.plot .strong { font-weight: 700; }
.plot .wish { fill: var(--link); font-size: 12px; }
.plot .grid { stroke: var(--grid); }
.plot .axis { stroke: var(--soft); fill: none; }
.plot .path { fill: none; stroke: var(--soft); stroke-opacity: 0.55; stroke-width: 1.5; }
.plot .interval { fill: none; stroke: var(--soft); stroke-width: 1.2; }
.plot .leader { stroke: var(--soft); stroke-width: 0.8; }
.plot .seed { fill: var(--soft); }
.plot .asked { fill: var(--asked); }
.plot .bound { stroke: var(--link); stroke-width: 1.2; stroke-dasharray: 5 3; }
.plot .dot { stroke: var(--page); stroke-width: 1.2; }
@media (prefers-color-scheme: dark) { .plot .dot { stroke: var(--text); } }
.plot .chosen { fill: none; stroke: var(--text); stroke-width: 1.6; }
.plot .ring { fill: none; stroke: var(--link); stroke-width: 2.4; opacity: 0; }
.hit { position: absolute; width: 30px; height: 30px; margin: -15px 0 0 -15px; border-radius: 50%;
  cursor: pointer; }
.panels { min-width: 0; border: 1px solid var(--line); border-radius: 8px; padding: 0.75rem 1rem; }
.panel { display: none; }
.panel h3 { margin-top: 0; font-size: 1.15rem; }
.store { position: absolute; }
.cloud { display: block; width: 100%; max-width: 20rem; aspect-ratio: 1; background: #ffffff;
  border: 1px solid var(--line); border-radius: 8px; }
.points { stroke-width: 2.4; stroke-linecap: round; fill: none; stroke-opacity: 0.75; }
#real-points { stroke: #c4c4c4; }
@media (min-width: 56rem) {
  .explorer { grid-template-columns: minmax(0, 1.15fr) minmax(0, 1fr); }
  .chips { grid-column: 1 / -1; } }
@media print { main { max-width: none; } .chips, .hit { display: none; }
  .explorer .panels > .panel { display: block; break-inside: avoid; }
  .scroll { overflow: visible; } figure, .near > div, tr { break-inside: avoid; } }
"""

_GLOSSARY = """<p class="soft"><strong>Precision</strong>: the share of generated samples that look
real. <strong>Recall</strong>: the share of real data that the generator can make. No generator is
best at both, so each λ is one choice between them: a small λ asks for recall, a large λ for
precision.</p>"""

PLANE = """Each circle is one λ, small λ dark and large λ light, joined in order of λ; up is more
precision, right is more recall. Lines through a mark are {spread}. The star is real data scored in
the generator's place: about the best that can be reached at this size."""

CAPTIONS = {
    "calibration": "When the critic says that a sample is real with some probability, does that "
    "share of them turn out real? On the diagonal it does. Checked on held-out data at the last "
    "check; a dot's area is the share of samples it stands for.",
    "health": "What is watched for collapse and for a critic that cannot be believed. Precision "
    "and recall here are of one held-out batch in simple features, to be watched over time: the "
    "table's are the numbers to quote. A cross below marks a step that a run went back to.",
    "training": "What the critic and the generator did at every step; dotted lines mark where an "
    "ideal estimate lies. Held-out values come from data that neither of them trained on. "
    "Long curves are shown faint, with their moving average.",
}


def render(page: Page) -> str:
    """The page as HTML."""
    link = ""
    if page.findings:
        count = "1 check is" if len(page.findings) == 1 else f"{len(page.findings)} checks are"
        link = f'<p><a href="#warnings">{count} off: see the warnings.</a></p>'
    headline = f'<p class="lead">{_glued(page.headline)}</p>'
    # What was decided stands first; without a wish, what was found does.
    decided = page.data.get("goal") is not None
    title = f"{text(page.title)}: precision and recall by λ"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_CSS}{_picking(len(page.picks))}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{"" if decided else headline}
{link}
<section id="goal"><h2>The goal</h2>
{report_sections.goal(page.data)}</section>
<section id="frontier"><h2>Precision against recall</h2>
{headline if decided else ""}
{_GLOSSARY}
{_explorer(page)}
{_table_html(page)}
<p class="soft">{text(page.caveat)}</p></section>
<section id="samples"><h2>Samples</h2>
{_samples_html(page)}</section>
<section id="classes"><h2>Who gains and who pays</h2>
{report_sections.classes(page.data)}</section>
<section id="nearest"><h2>Nearest training images</h2>
{report_sections.nearest(page.data)}</section>
<section id="warnings"><h2>Warnings</h2>
{_warnings_html(page)}</section>
<section><h2>Calibration of the critic</h2>
{_figure(page, "calibration") or absent("no reliability curves in metrics.jsonl")}</section>
<section><h2>Training</h2>
{_figure(page, "training") or absent("no training curves in metrics.jsonl")}
{_about_curves(page)}</section>
<section id="health"><h2>Health</h2>
{_events_html(page)}
{_figure(page, "health")}</section>
<section id="cost"><h2>Cost</h2>
{report_sections.cost(page.seconds, page.plan)}</section>
<section><h2>Configuration</h2>
{_config_html(page.config)}</section>
<section><h2>How to repeat it</h2>
{_environment_html(page.environment)}
{report_sections.repeated(page.data)}</section>
</main>
</body>
</html>
"""


def _glued(said: str) -> str:
    """Text in which "λ = 2" is not broken."""
    return text(said).replace("λ = ", "λ&nbsp;=&nbsp;")


# ---- the explorer -------------------------------------------------------------------------------


def _picking(count: int) -> str:
    """The style by which mark i shows panel i: kept when picked, for a moment when pointed at."""
    rules = []
    for i in range(count):
        rules.append(f".pick-{i}:checked ~ .panels > .panel-{i} {{ display: block; }}")
        rules.append(f".pick-{i}:checked ~ .plot .mark-{i} .ring {{ opacity: 1; }}")
        rules.append(
            f".pick-{i}:checked ~ .chips .chip-{i} {{ border-color: var(--link); "
            "background: var(--head); font-weight: 600; }"
        )
        rules.append(
            f".pick-{i}:focus-visible ~ .chips .chip-{i} {{ outline: 3px solid var(--link); "
            "outline-offset: 2px; }"
        )
    # Rules of their own: a browser without :has drops them, and picking still works.
    for i in range(count):
        rules.append(f".explorer:has(.at-{i}:hover) > .panels > .panel {{ display: none; }}")
        rules.append(f".explorer:has(.at-{i}:hover) > .panels > .panel-{i} {{ display: block; }}")
        rules.append(f".explorer:has(.at-{i}:hover) .mark-{i} .ring {{ opacity: 0.7; }}")
    return "\n".join(rules) + "\n"


def _explorer(page: Page) -> str:
    if page.plane is None:
        return absent("no row has both precision and recall")
    picks = list(enumerate(page.picks))
    inputs = "".join(
        f'<input type="radio" name="pick" id="pick-{i}" class="pick-{i}"'
        f"{' checked' if i == page.picked else ''}>"
        for i, _ in picks
    )
    chips = "".join(
        f'<label class="chip chip-{i} at-{i}" for="pick-{i}">{text(pick.label)}</label>'
        for i, pick in picks
    )
    hits = "".join(
        f'<label class="hit at-{i}" for="pick-{i}" aria-hidden="true" title="{text(pick.label)}" '
        f'style="left:{100 * x:.2f}%;top:{100 * y:.2f}%"></label>'
        for (i, pick), (x, y) in zip(picks, page.plane.places, strict=True)
    )
    panels = "".join(
        f'<div class="panel panel-{i}"><h3>{text(pick.label)}</h3>{_numbers(pick)}'
        f"{f'<p>{_glued(pick.note)}</p>' if pick.note else ''}{pick.sheet}</div>"
        for i, pick in picks
    )
    spread = "intervals"
    if page.several_seeds:
        spread = "mean ± standard deviation over the seeds, small dots the single seeds"
    return (
        '<p class="soft">Point at a mark, tap it, or use the arrow keys: its samples and numbers '
        "stand beside it.</p>\n"
        '<div class="explorer" role="group" aria-label="Choose a λ to see its samples">'
        f'{inputs}<div class="chips">{chips}</div>\n'
        f'<div class="plot">{page.plane.svg}{hits}</div>\n'
        f'<div class="panels" aria-live="polite">{panels}</div></div>'
        f'\n<p class="soft">{text(PLANE.format(spread=spread))}</p>'
    )


def _numbers(pick: Pick) -> str:
    cells = "".join(
        f"<div><dt>{text(metric)}</dt><dd>{text(value)} <small>{text(spread)}</small></dd></div>"
        for metric, value, spread in pick.cells
    )
    return f'<dl class="numbers">{cells}</dl>'


# ---- tables and figures -------------------------------------------------------------------------


def _table_html(page: Page) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("name", "λ", *page.metrics))
    lines = []
    for row in page.rows:
        cells = [f'<th scope="row">{text(row.name)}</th>', f"<td>{row.lam}</td>"]
        cells += [f"<td>{value}<small>{spread}</small></td>" for value, spread in row.cells]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<p class="soft" id="about">{text(short(page.about))}</p>' + scroll(
        "Table of results",
        f'<table aria-describedby="about"><thead><tr>{head}</tr></thead>\n<tbody>'
        + "\n".join(lines)
        + "</tbody></table>",
    )


def _figure(page: Page, name: str) -> str:
    """A figure with its caption, "" if it was not drawn."""
    if name not in page.images:
        return ""
    alt = {
        "calibration": "Reliability curves of the critic, a panel for each run.",
        "health": "Curves of what is watched over training steps, a panel for each.",
        "training": "Curves of losses, log-ratios and held-out checks over training steps.",
    }[name]
    data = page.images[name]
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))  # PNG's header
    source = base64.b64encode(data).decode()
    # Drawn at 300 dpi, shown at up to half that: sharp on a dense screen.
    return (
        f'<figure><span class="card"><img src="data:image/png;base64,{source}" alt="{text(alt)}" '
        f'width="{width // 2}" height="{height // 2}"></span>'
        f"<figcaption>{text(CAPTIONS[name])}</figcaption></figure>"
    )


def _samples_html(page: Page) -> str:
    pairs = {row.label: row.pair for row in page.rows}
    figures = "".join(
        f"<figure><figcaption><strong>{_glued(label)}</strong><br><small>{text(pairs[label])}"
        f"</small></figcaption>{sheet}</figure>"
        for label, sheet in page.sheets
    )
    shown = absent("no samples are stored")
    if figures:
        shown = f'<p class="soft">{text(page.layout)}</p>\n<div class="sheets">{figures}</div>'
    items = "".join(f"<li>{text(label)}: {text(short(why))}</li>" for label, why in page.missing)
    gaps = f'<p class="soft">Not shown:</p><ul class="soft">{items}</ul>' if items else ""
    return page.shared + shown + gaps


def _warnings_html(page: Page) -> str:
    parts = ["<p>An estimate that is off is shown, not hidden.</p>"]
    for title, runs, meaning, mend in page.findings:
        parts.append(
            f'<div class="warning"><h3>{text(title)}</h3><p><strong>{text(runs)}</strong>'
            f"</p><p>{text(meaning)}</p><p>What to try: {text(mend)}</p></div>"
        )
    checked = any(r.ratio and r.last("heldout_calibration_error") is not None for r in page.runs)
    if not checked:
        parts.append(
            "<p>No held-out check of the critic is recorded, so nothing here says whether its "
            "estimates can be trusted: lower config.train.diagnose_every, or train longer.</p>"
        )
    elif not page.findings:
        parts.append("<p>None: every run's last held-out checks are within their bounds.</p>")
    return "\n".join(parts)


def _events_html(page: Page) -> str:
    if not page.runs and not page.events:
        return absent("nothing in metrics.jsonl")
    if not page.events:
        return "<p>No alarm rang while the runs of this page were trained.</p>"
    items = "".join(f"<li>{_glued(said)}</li>" for said in page.events)
    return f"<ul>{items}</ul>"


def _about_curves(page: Page) -> str:
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
    return f'<p class="soft">{text(" ".join(said))}</p>' if said else ""


# ---- configuration and environment --------------------------------------------------------------


def _config_html(config: Mapping[str, Any] | None) -> str:
    if config is None:
        return absent("config.json is not there")
    lines = "\n".join(
        f"<tr><td><code>{text(knob)}</code></td><td><code>{text(value)}</code></td></tr>"
        for knob, value in _flat(config)
    )
    settings = (
        '<table class="knobs"><thead><tr><th scope="col">setting</th><th scope="col">value</th>'
        f"</tr></thead>\n<tbody>{lines}</tbody></table>"
    )
    return (
        "<details><summary>Every setting of this run</summary>"
        f"{scroll('Settings', settings)}</details>"
    )


def _flat(tree: Mapping[str, Any], prefix: str = "config.") -> Iterator[tuple[str, str]]:
    for name, value in sorted(tree.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            value = short(value) if isinstance(value, str) else value
            yield prefix + name, short(json.dumps(value, ensure_ascii=False))


def _environment_html(environment: Mapping[str, Any] | None) -> str:
    if environment is None:
        return absent("environment.json is not there")
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
        f"<dt>{key}</dt><dd>{text(value)}</dd>" for key, value in facts.items() if value
    )
    cut = [_argument(part) for part in command]
    shown = f"<pre>{text(shlex.join(cut))}</pre>" if command else ""
    if cut != command:
        shown += '<p class="soft">Of a path only its last part is shown, after "…/".</p>'
    return f"{shown}<dl>{items}</dl>"


def _argument(part: str) -> str:
    """An argument of a command without its absolute path."""
    name, sign, value = part.partition("=")
    return f"{name}{sign}{short(value)}" if sign else short(part)
