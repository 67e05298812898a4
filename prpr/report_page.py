"""The page of a run's report: from pieces that are computed already to one string of HTML.

No scripts, nothing loaded from elsewhere, every text escaped; nothing is read or written here.
What the pieces say is decided in `prpr.report`.
"""

import base64
import html
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prpr.report_figures import Run


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
      runs: the training runs with their curves.
      sampled: labels of the rows in the samples figure.
      points: whether samples are points, not images.
      missing: (label, why) of the rows whose samples are not shown.
      images: {name: PNG} of the figures that were drawn; the names are those of `CAPTIONS`.
      config, environment: config.json and environment.json, None where there is none.
    """

    title: str
    headline: str
    about: str
    caveat: str
    metrics: Sequence[str]
    rows: Sequence[Row]
    several_seeds: bool
    findings: Sequence[Finding]
    runs: Sequence[Run]
    sampled: Sequence[str]
    points: bool
    missing: Sequence[tuple[str, str]]
    images: Mapping[str, bytes]
    config: Mapping[str, Any] | None
    environment: Mapping[str, Any] | None


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

CAPTIONS = {
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


def render(page: Page) -> str:
    """The page as HTML."""
    link = ""
    if page.findings:
        count = "1 check is" if len(page.findings) == 1 else f"{len(page.findings)} checks are"
        link = f'<p><a href="#warnings">{count} off: see the warnings.</a></p>'
    lead = _text(page.headline).replace("λ = ", "λ&nbsp;=&nbsp;")
    title = f"{_text(page.title)}: precision and recall by λ"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_CSS}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="lead">{lead}</p>
{link}
{_GLOSSARY}
<section><h2>Results</h2>
{_table_html(page)}
{_figure(page, "precision_recall")}
<p class="soft">{_text(page.caveat)}</p></section>
<section><h2>Samples</h2>
{_samples_html(page)}</section>
<section id="warnings"><h2>Warnings</h2>
{_warnings_html(page)}</section>
<section><h2>Calibration of the critic</h2>
{_figure(page, "calibration") or _absent("no reliability curves in metrics.jsonl")}</section>
<section><h2>Training</h2>
{_figure(page, "training") or _absent("no training curves in metrics.jsonl")}
{_about_curves(page)}</section>
<section><h2>Configuration</h2>
{_config_html(page.config)}</section>
<section><h2>How to repeat it</h2>
{_environment_html(page.environment)}</section>
</main>
</body>
</html>
"""


def _text(value: object) -> str:
    return html.escape(str(value))


def _absent(what: str) -> str:
    return f'<p class="soft">Nothing to show: {_text(what)}.</p>'


def _scroll(label: str, content: str) -> str:
    """A box that scrolls, so that the page does not: a keyboard has to reach it."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{content}</div>'


def _table_html(page: Page) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("name", "λ", *page.metrics))
    lines = []
    for row in page.rows:
        cells = [f'<th scope="row">{_text(row.name)}</th>', f"<td>{row.lam}</td>"]
        cells += [f"<td>{value}<small>{spread}</small></td>" for value, spread in row.cells]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<p class="soft" id="about">{_text(page.about)}</p>' + _scroll(
        "Table of results",
        f'<table aria-describedby="about"><thead><tr>{head}</tr></thead>\n<tbody>'
        + "\n".join(lines)
        + "</tbody></table>",
    )


def _figure(page: Page, name: str) -> str:
    """A figure with its caption, "" if it was not drawn."""
    if name not in page.images:
        return ""
    caption = CAPTIONS[name].format(
        spread="mean ± standard deviation over the seeds, small dots the single seeds"
        if page.several_seeds
        else "intervals",
        layout="grey dots are real data"
        if page.points
        else "where there are few classes, a column is a class",
    )
    pairs = "; ".join(f"{row.label}: {row.pair}" for row in page.rows)
    alt = {
        "precision_recall": f"Precision against recall. {pairs}.",
        "samples": f"Samples of {', '.join(page.sampled)}.",
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


def _samples_html(page: Page) -> str:
    items = "".join(f"<li>{_text(label)}: {_text(why)}</li>" for label, why in page.missing)
    gaps = f'<p class="soft">Not shown:</p><ul class="soft">{items}</ul>' if items else ""
    return (_figure(page, "samples") or _absent("no samples are stored")) + gaps


def _warnings_html(page: Page) -> str:
    parts = ["<p>An estimate that is off is shown, not hidden.</p>"]
    for title, runs, meaning, mend in page.findings:
        parts.append(
            f'<div class="warning"><h3>{_text(title)}</h3><p><strong>{_text(runs)}</strong>'
            f"</p><p>{_text(meaning)}</p><p>What to try: {_text(mend)}</p></div>"
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
    return f'<p class="soft">{_text(" ".join(said))}</p>' if said else ""


def _config_html(config: Mapping[str, Any] | None) -> str:
    if config is None:
        return _absent("config.json is not there")
    lines = "\n".join(
        f"<tr><td><code>{_text(knob)}</code></td><td><code>{_text(value)}</code></td></tr>"
        for knob, value in _flat(config)
    )
    settings = (
        '<table class="knobs"><thead><tr><th scope="col">setting</th><th scope="col">value</th>'
        f"</tr></thead>\n<tbody>{lines}</tbody></table>"
    )
    return (
        "<details><summary>Every setting of this run</summary>"
        f"{_scroll('Settings', settings)}</details>"
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
