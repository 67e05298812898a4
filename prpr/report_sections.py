"""Sections of the page about a goal, classes, training images and costs, as HTML.

They are made of plain records: what `prpr.evaluate.page` measured and wrote to report_data.json
(the keys are in that module's head), the run's seconds, and the planner's cards. A record that is
missing costs its section only, which then says what makes it. Every text is escaped, and absolute
paths of the machine are cut.
"""

import html
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

COMMAND = "python experiments/report.py --workdir=RUN"
_WISH = " --wish='precision >= 0.9'"

_TAGS = {
    "promised": "✓ promised",
    "best": "✓ best",
    "likely": "≈ likely, not promised",
    "unlikely": "✗ unlikely",
    "refuted": "✗ not met",
}
# An absolute path: not what follows a letter, a digit or a dot, as in "1/r̂" or "a/b".
_PATH = re.compile(r"(?<![\w.~…/])/(?:[^\s\"'<>|,;:()\[\]]*/)*([^\s\"'<>|,;:()\[\]/]+)/?")


def text(value: object) -> str:
    """Escaped."""
    return html.escape(str(value))


def short(said: str) -> str:
    """Text with every absolute path cut to "…/" and its last part."""
    if said.startswith("/") and "\n" not in said:
        return f"…/{said.rstrip('/').rpartition('/')[2]}"
    return _PATH.sub(r"…/\1", said)


def absent(what: str) -> str:
    """In place of a section that has nothing to show."""
    return f'<p class="soft">Nothing to show: {text(what)}.</p>'


def scroll(label: str, content: str) -> str:
    """A box that scrolls, so that the page does not: a keyboard has to reach it."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{content}</div>'


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def _lam(lam: float) -> str:
    return f"λ&nbsp;=&nbsp;{lam:g}"


def _interval(cell: Mapping[str, Any]) -> str:
    return f"[{float(cell['low']):.3f}, {float(cell['high']):.3f}]"


def _valued(cell: Mapping[str, Any]) -> str:
    return f"{float(cell['value']):.3f} <small>{_interval(cell)}</small>"


# ---- the goal -----------------------------------------------------------------------------------


def goal(data: Mapping[str, Any]) -> str:
    """The wish, the λ that was chosen, how sure that is, what it costs, and what to run next."""
    found = data.get("goal")
    if found is None:
        return (
            "<p>No goal was given, so no λ is chosen here. Say what the model must be, and the "
            "page answers with the λ to take and how sure that is:</p>"
            f"<pre>{text(COMMAND + _WISH)}</pre>"
        )
    answer = found["answer"]
    good = " good" if answer["verdict"] in ("promised", "best") else ""
    parts = [
        f'<p class="asked-for">{text(found["words"])}</p>'
        f'<p class="soft">As it was asked: <code>{text(answer["wish"])}</code></p>',
        f'<div class="verdict{good}"><p class="big">{_lam(answer["lam"])} '
        f'<span class="tag">{_TAGS[answer["verdict"]]}</span></p>'
        f"<p>{text(found['said'])}</p></div>",
        guard(data),
        '<dl class="numbers">',
        *(
            f"<div><dt>{text(name)}</dt><dd>{_valued(cell)}</dd></div>"
            for name, cell in answer["metrics"].items()
        ),
        "</dl>",
        "<h3>What is given up</h3>",
        _given_up(answer),
        "<h3>What to run next</h3>",
        f"<p>{_next(answer)}</p>",
        _every(answer),
    ]
    if answer["notes"]:
        notes = "".join(f"<li>{text(short(note))}</li>" for note in answer["notes"])
        parts.append(f"<h3>What to know before trusting it</h3><ul>{notes}</ul>")
    return "\n".join(parts)


def _given_up(answer: Mapping[str, Any]) -> str:
    items = []
    for name, one in answer["given_up"].items():
        if one["at"] == answer["lam"]:
            said = f"{text(name)}: {one['here']:.3f}, and no other λ has a better one"
        else:
            said = (
                f"{text(name)}: {one['here']:.3f}; {_lam(one['at'])} has "
                f"{_signed(one['difference'])} [{_signed(one['low'])}, {_signed(one['high'])}]"
            )
        if "control" in one:
            said += f"; the control, trained on without any λ, {_signed(one['control'])}"
        items.append(f"<li>{said}</li>")
    return f"<ul>{''.join(items)}</ul>" if items else "<p>Nothing that was measured.</p>"


def _next(answer: Mapping[str, Any]) -> str:
    why = text(short(answer["next_why"]))
    if answer["next_lam"] is None:
        return f"{why[:1].upper()}{why[1:]}."
    return f"{_lam(answer['next_lam'])}, since {why}."


def _every(answer: Mapping[str, Any]) -> str:
    """Each λ against the wish."""
    names = list(answer["metrics"])
    constrained = any(row["alone"] != 1 for row in answer["rows"])
    cost = {row["lam"]: row["cost"] for row in answer.get("cost", [])}
    heads = ["λ", "seeds", *map(text, names)]
    heads += ["probability, alone", "promised"] if constrained else []
    heads += ["expected cost"] if cost else []
    lines = []
    for row in answer["rows"]:
        taken = row["lam"] == answer["lam"]
        cells = [f"<td>{row['seeds']}</td>"]
        cells += [f"<td>{_valued(row['metrics'][name])}</td>" for name in names]
        if constrained:
            promised = row["probability"] >= answer["level"]
            cells += [f"<td>{row['alone']:.3f}</td>", f"<td>{'✓ yes' if promised else 'no'}</td>"]
        if cost:
            cells.append(f"<td>{cost[row['lam']]:.3f}</td>")
        head = f'<th scope="row"{" class=taken" if taken else ""}>{row["lam"]:g}'
        lines.append(f"<tr>{head}{' (taken)' if taken else ''}</th>{''.join(cells)}</tr>")
    table = f"<table>{_head(heads)}<tbody>{''.join(lines)}</tbody></table>"
    about = ""
    if constrained:
        about = (
            '<p class="soft">Probability, alone: that the wish holds at this λ, were it the only '
            "one. What is promised allows for the choice among all of them.</p>"
        )
    return (
        "<details><summary>Every λ against this wish</summary>"
        f"{scroll('Every λ against the wish', table)}{about}</details>"
    )


def _head(cells: Sequence[str]) -> str:
    row = "".join(f'<th scope="col">{cell}</th>' for cell in cells)
    return f"<thead><tr>{row}</tr></thead>"


def _signed(value: float) -> str:
    return f"{float(value):+.3f}".replace("-", "−")


# ---- classes ------------------------------------------------------------------------------------

_FEW = 5  # classes that are named in a sentence
_METRICS = {
    "precision": "Precision: the share of a class's samples that look like it",
    "recall": "Recall: the share of a class's real data that can be made",
}


def classes(data: Mapping[str, Any]) -> str:
    """Precision and recall of each class at each λ, and the guard."""
    found = data.get("classes")
    if found is None:
        return absent(f"classes are measured by {COMMAND}")
    if "missing" in found:
        return absent(short(found["missing"])) + guard(data)
    parts = [
        f'<p class="soft">Encoder {text(short(found["encoder"]))}, k = {text(found["k"])}; '
        f"{100 * float(found['level']):g} % intervals, each of one class for itself: the worst of "
        "several is low partly by chance.</p>",
        *(f"<p>{line}</p>" for line in _gains(found)),
        guard(data),
        *(_of_classes(found, metric, data) for metric in _METRICS),
    ]
    if found["notes"]:
        notes = "".join(f"<li>{text(short(note))}</li>" for note in found["notes"])
        parts.append(f'<ul class="soft">{notes}</ul>')
    return "\n".join(part for part in parts if part)


def _names(found: Mapping[str, Any]) -> list[str]:
    """Every class; numbers in their order."""
    names = list(dict.fromkeys(name for row in found["rows"] for name in row["classes"]))
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        return sorted(names, key=int)
    return names


def _ends(found: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The rows of the smallest and of the largest λ."""
    path = [row for row in found["rows"] if row["lam"] is not None]
    return (path[0], path[-1]) if len(path) > 1 else None


def _changes(found: Mapping[str, Any], metric: str) -> dict[str, float]:
    """{class: the metric at the largest λ less that at the smallest}."""
    ends = _ends(found)
    if ends is None:
        return {}
    low, high = (row["classes"] for row in ends)
    out = {
        name: float(high[name][metric]["value"]) - float(low[name][metric]["value"])
        for name in _names(found)
        if name in low and name in high
    }
    return {name: change for name, change in out.items() if math.isfinite(change)}


def _gains(found: Mapping[str, Any]) -> list[str]:
    ends = _ends(found)
    if ends is None:
        return []
    said = []
    for metric, verb, sign in (("precision", "rises", 1), ("recall", "falls", -1)):
        changes = _changes(found, metric)
        if not changes:
            continue
        moved = sum(sign * change > 0 for change in changes.values())
        most, least = max(changes, key=changes.__getitem__), min(changes, key=changes.__getitem__)
        said.append(
            f"{metric} {verb} in {moved} of {len(changes)} classes (from "
            f"{_signed(changes[least])} in class {text(least)} to {_signed(changes[most])} in "
            f"class {text(most)})"
        )
    if not said:
        return []
    return [f"From {_lam(ends[0]['lam'])} to {_lam(ends[1]['lam'])}, {'; '.join(said)}."]


def _of_classes(found: Mapping[str, Any], metric: str, data: Mapping[str, Any]) -> str:
    rows = found["rows"]
    chosen = _chosen(data)
    bounds = [
        one["bound"]
        for one in (data.get("guard") or {}).get("bounds", [])
        if one["metric"] == metric
    ]
    bound = max(bounds, default=None)
    changes = _changes(found, metric)
    heads = ["class", *(["smallest to largest λ"] if changes else [])]
    for row in rows:
        taken = chosen is not None and row["lam"] == chosen
        heads.append(f"{_label(row)}{' (chosen)' if taken else ''}")
    lines = []
    for name in _names(found):
        cells = [f'<th scope="row">{text(name)}</th>']
        if changes:
            cells.append(f"<td>{_arrow(changes[name])}</td>" if name in changes else "<td>–</td>")
        for row in rows:
            one = row["classes"].get(name, {}).get(metric)
            cells.append("<td>–</td>" if one is None else _guarded(one, bound))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    table = f'<table class="narrow">{_head(heads)}<tbody>{"".join(lines)}</tbody></table>'
    legend = ""
    if bound is not None:
        legend = (
            f'<p class="soft">▼: below the guard of {bound:g}; ?: not below, but its interval '
            "reaches there.</p>"
        )
    return f"<h3>{_METRICS[metric]}</h3>{scroll(f'{metric} of each class', table)}{legend}"


def _label(row: Mapping[str, Any]) -> str:
    return text(row["name"]) if row["lam"] is None else _lam(row["lam"])


def _guarded(cell: Mapping[str, Any], bound: float | None) -> str:
    kind, sign = "", ""
    if bound is not None and not float(cell["value"]) >= bound:
        kind, sign = ' class="below"', '<abbr title="below the guard">▼</abbr>'
    elif bound is not None and float(cell["low"]) < bound:
        kind, sign = ' class="unsure"', '<abbr title="not surely above the guard">?</abbr>'
    return f"<td{kind}>{sign}{_valued(cell)}</td>"


def _arrow(change: float) -> str:
    if abs(change) < 0.0005:
        return "→ stays"
    return f"{'↑ gains' if change > 0 else '↓ pays'} {_signed(change)}"


# ---- the guard ----------------------------------------------------------------------------------


def _chosen(data: Mapping[str, Any]) -> float | None:
    found = data.get("goal")
    return None if found is None else float(found["answer"]["lam"])


def guard(data: Mapping[str, Any]) -> str:
    """Which λ keep every class above the guard, the chosen one first; "" without a guard."""
    asked = data.get("guard")
    if asked is None:
        return ""
    floors = " and ".join(f"{one['metric']} {one['bound']:g}" for one in asked["bounds"])
    head = f"<strong>Guard: no class below {text(floors)}.</strong>"
    found = data.get("classes") or {}
    if "rows" not in found:
        said = "It could not be checked: there are no numbers of classes."
        return f'<div class="verdict"><p>{head} {said}</p></div>'
    chosen = _chosen(data)
    broken = {
        row["lam"]: _broken(row, asked["bounds"]) for row in found["rows"] if row["lam"] is not None
    }
    others = [lam for lam in broken if lam != chosen]
    kept = ", ".join(_lam(lam) for lam in others if not broken[lam])
    of = "the other" if chosen in broken else "the"
    rest = ""
    if others:
        rest = f"Of {of} λ, none keeps all classes above it."
    if kept:
        rest = f"Of {of} λ, all classes are above it, by their estimates, at {kept}."
    if chosen is None or chosen not in broken:
        return f"<p>{head} {rest}</p>"
    sure = asked["probability"].get(f"{chosen:g}", 0.0)
    good = " good" if not broken[chosen] and sure >= found["level"] else ""
    own = _at_chosen(chosen, broken[chosen], sure, found)
    return f'<div class="verdict{good}"><p>{head} {own} {rest}</p></div>'


def _at_chosen(chosen: float, broken: Sequence[str], sure: float, found: Mapping[str, Any]) -> str:
    if broken:
        shown = [*broken[:_FEW], *([f"and {len(broken) - _FEW} more"] if broken[_FEW:] else [])]
        return f"✗ {_lam(chosen)} does <strong>not pass</strong>: {'; '.join(shown)}."
    said = (
        f"{_lam(chosen)} <strong>passes</strong>, by the estimates of all {len(_names(found))} "
        "classes"
    )
    if sure >= found["level"]:
        return f"✓ {said}, and surely: with probability {sure:.3f} no class is below."
    return (
        f"≈ {said}, but not surely: that no class is below has probability {sure:.3f}, and "
        f"{found['level']:g} is asked."
    )


def _broken(row: Mapping[str, Any], bounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """The classes of a row that are below a bound, in words; the lowest first."""
    below = [
        (float(cell["value"]), f"{one['metric']} of class {text(name)}", _interval(cell))
        for one in bounds
        for name, metrics in row["classes"].items()
        for cell in (metrics[one["metric"]],)
        if not float(cell["value"]) >= one["bound"]
    ]
    return [f"{what} is {value:.3f} {interval}" for value, what, interval in sorted(below)]


# ---- nearest training images --------------------------------------------------------------------


def nearest(data: Mapping[str, Any]) -> str:
    """Generated samples beside the training images that are nearest to them."""
    found = data.get("nearest")
    if found is None:
        return absent(f"training images are looked at by {COMMAND}")
    if "missing" in found:
        return absent(short(found["missing"]))
    blocks = []
    for one in found["samples"]:
        figures = [_near(one["image"], "sample", f"Generated sample {one['row']}", found["side"])]
        figures += [
            _near(
                near["image"],
                f"d&nbsp;=&nbsp;{near['distance']:.3g}",
                f"Training image {near['row']}",
                found["side"],
            )
            for near in one["nearest"]
        ]
        blocks.append(f"<div>{''.join(figures)}</div>")
    share, beside = found["authenticity"], found["held_out"]
    return (
        f"<p>Samples of {_lam(found['lam'])}, each with the training images nearest to it: d is "
        "the distance between their pixels, as numbers from −1 to 1. Not chosen at random: of "
        f"{found['n']} samples these are the {len(blocks)} nearest to a training image for the "
        "distance at which that one has its own nearest other.</p>"
        f'<div class="near">{"".join(blocks)}</div>'
        f"<p>{100 * share:.0f} % of the samples are farther from their nearest training image than "
        "that one is from its own nearest other (authenticity); of "
        f"{found['n_held_out']} held-out real images {100 * beside:.0f} % are. "
        f"{_copies(share, beside)}</p>"
        '<p class="soft">Pixels only: a copy that is shifted or recoloured is not found, and two '
        "simple images can be near without one being a copy of the other. New images do not have "
        "100 % either, which is why the held-out ones stand beside them.</p>"
    )


def _copies(share: float, beside: float) -> str:
    if share < beside - 0.05:
        return "Fewer than of new real images: look at the pairs for copies."
    return "That is no sign of copying."


def _near(image: str, caption: str, alt: str, side: int) -> str:
    size = side * max(1, 64 // side)
    return (
        f'<figure><img class="pixels" src="data:image/png;base64,{text(image)}" alt="{text(alt)}" '
        f'width="{size}" height="{size}"><figcaption>{caption}</figcaption></figure>'
    )


# ---- cost, and the command ----------------------------------------------------------------------


def cost(seconds: float | None, plan: Any) -> str:
    """What the run took, and the planner's cards where there are some."""
    parts = []
    if seconds is None:
        parts.append('<p class="soft">summary.json does not say how long the run took.</p>')
    else:
        parts.append(
            f"<p>Training and scoring took {duration(float(seconds))}, all runs together.</p>"
        )
    if plan is None:
        parts.append(
            '<p class="soft">What it costs elsewhere, before it is run: the training command with '
            "--plan --plan_device=... --plan_json=RUN/plan.json puts its card here.</p>"
        )
        return "".join(parts)
    try:
        cards = plan if isinstance(plan, list) else [plan]
        lines = "".join(_card(card) for card in cards)
        said = dict.fromkeys(note for card in cards for note in card["warnings"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return "".join([*parts, absent("plan.json is not what --plan_json writes")])
    heads = ("device", "hours", "memory a device", "fits", "cost")
    table = f"<table>{_head(heads)}<tbody>{lines}</tbody></table>"
    notes = "".join(f"<li>{text(short(note))}</li>" for note in said)
    return "".join(
        [
            *parts,
            "<p>Planned before it was run (middle, and low to high):</p>",
            scroll("Planned costs", table),
            f'<ul class="soft">{notes}</ul>' if notes else "",
        ]
    )


def _card(card: Mapping[str, Any]) -> str:
    def of(one: Mapping[str, Any], scale: float = 1.0) -> str:
        low, middle, high = (float(one[end]) / scale for end in ("low", "middle", "high"))
        return f"{middle:.3g}<small>{low:.3g} to {high:.3g}</small>"

    money = card["money"]
    cells = (
        f"{card['devices']} × {text(card['device'])}",
        of(card["total_hours"]),
        f"{of(card['memory']['total'], 1e9)} GB",
        text(card["memory"]["fits"]),
        "–" if money is None else of(money),
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def repeated(data: Mapping[str, Any]) -> str:
    """The command that makes this page of the run."""
    asked = data.get("asked")
    if asked is None:
        return ""
    flags = [f"--{name}={value}" for name, value in asked.items() if value]
    return (
        '<p class="soft">This page, from the records of the run:</p>'
        f"<pre>{text(COMMAND)} {text(shlex.join(flags))}</pre>"
    )
