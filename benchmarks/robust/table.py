"""Rows of runs -> means over seeds, λ's Spearman correlations, and both as Markdown."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from . import conditions, measure, variants

Row = Mapping[str, Any]

# What is averaged: the field of a row, and its heading.
COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "rare_precision": "rare: precision",
    "rare_recall": "rare: recall",
    "worst_recall": "worst class: recall",
    "rare_accuracy": "rare: classified so",
    "noise_share": "noise",
    "outlier_share": "outliers",
    "calibration_error": "calibration error",
}


# What λ is correlated with, and what a variant's effect is measured by.
CORRELATED = ("precision", "recall", "noise_share")
EFFECTS = ("precision", "recall", "rare_recall", "noise_share", "calibration_error")


class Cell(NamedTuple):
    """A number over seeds: its mean, its standard deviation (NaN of one), and how many."""

    mean: float
    sd: float
    n: int

    def text(self, sign: str = "") -> str:
        """With sign = "+" also that of a positive mean."""
        if not self.n:
            return "–"
        return f"{self.mean:{sign}.3f}" + (f" ± {self.sd:.3f}" if self.n > 1 else "")


def cell(values: Iterable[float | None]) -> Cell:
    """Mean and sd (n − 1) of what is there; None and NaN are not."""
    x = np.array([v for v in values if v is not None and not math.isnan(v)], float)
    if not x.size:
        return Cell(math.nan, math.nan, 0)
    return Cell(float(x.mean()), float(x.std(ddof=1)) if x.size > 1 else math.nan, x.size)


class Line(NamedTuple):
    """All seeds of one condition, variant and λ (or base, or control).

    Attributes:
      cells: {field of COLUMNS: its Cell}, of the runs that were finished.
      runs, failed, collapsed, rollbacks: counts; runs includes the failed.
    """

    condition: str
    variant: str
    lam: float | None
    cells: dict[str, Cell]
    runs: int
    failed: int
    collapsed: int
    rollbacks: int

    @property
    def label(self) -> str:
        """What was run: "base", "hinge", "λ = 5", or with another variant "λ = 5, clip"."""
        if self.lam is None:
            return self.variant
        return f"λ = {self.lam:g}" + ("" if self.variant == "default" else f", {self.variant}")


def judged(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows with "collapsed", by the recall of the base of the same condition and seed.

    None for a row with an error. A base has no start to be compared with.
    """
    bases = {
        (row["condition"], row["seed"]): row["recall"]
        for row in rows
        if row["variant"] == "base" and not row["error"]
    }
    out = []
    for row in rows:
        of_base = None if row["variant"] == "base" else bases.get((row["condition"], row["seed"]))
        out.append({**row, "collapsed": None if row["error"] else measure.collapsed(row, of_base)})
    return out


def lines(rows: Sequence[Row]) -> list[Line]:
    """Means over seeds, in the order of the tables: base, variants with their λ, controls."""
    groups: dict[tuple[str, str, float | None], list[dict[str, Any]]] = {}
    for row in judged(rows):
        groups.setdefault((row["condition"], row["variant"], row["lam"]), []).append(row)
    found = []
    for condition, variant, lam in sorted(groups, key=_place):
        group = groups[condition, variant, lam]
        done = [row for row in group if not row["error"]]
        cells = {field: cell(row.get(field) for row in done) for field in COLUMNS}
        collapsed = sum(bool(row["collapsed"]) for row in done)
        rollbacks = sum(row["rollbacks"] for row in done)
        failed = len(group) - len(done)
        found.append(Line(condition, variant, lam, cells, len(group), failed, collapsed, rollbacks))
    return found


def _place(key: tuple[str, str, float | None]) -> tuple[int, int, float]:
    condition, variant, lam = key
    order = ("base", *variants.VARIANTS, *variants.CONTROLS)
    return index(conditions.CONDITIONS, condition), index(order, variant), lam or 0.0


def index(names: Iterable[str], name: str) -> int:
    """Its place; behind all others for a name that the table no longer has."""
    known = list(names)
    return known.index(name) if name in known else len(known)


def correlations(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Spearman's correlation of λ with each of CORRELATED, for each condition and variant.

    Of every seed with at least three λ and, with "seed" None, of all runs of several such seeds
    together. NaN where a metric is the same at all of them.
    """
    groups: dict[tuple[str, str], dict[int, list[Row]]] = {}
    for row in rows:
        if row["lam"] is not None and not row["error"]:
            seeds = groups.setdefault((row["condition"], row["variant"]), {})
            seeds.setdefault(row["seed"], []).append(row)
    found = []
    for (condition, variant), seeds in groups.items():
        several: dict[int | None, list[Row]] = {
            seed: group for seed, group in sorted(seeds.items()) if len(group) >= 3
        }
        if len(several) > 1:
            several[None] = [row for group in several.values() for row in group]
        for seed, group in several.items():
            about = {"condition": condition, "variant": variant, "seed": seed}
            found.append(about | {metric: _with_lam(group, metric) for metric in CORRELATED})
    return found


def _with_lam(group: Sequence[Row], metric: str) -> float:
    lams, values = zip(*((row["lam"], row[metric]) for row in group), strict=True)
    if len(set(values)) == 1:  # scipy warns
        return math.nan
    rho: Any = spearmanr(lams, values)
    return float(rho.statistic)


class Effect(NamedTuple):
    """What a variant changes against the default, over the runs (λ, seed) that both finished.

    Attributes:
      cells: {field of EFFECTS: Cell of variant minus default}.
      runs: how many pairs.
      collapsed: (of the variant, of the default), among them.
    """

    condition: str
    variant: str
    cells: dict[str, Cell]
    runs: int
    collapsed: tuple[int, int]


def effects(rows: Sequence[Row]) -> list[Effect]:
    """Every variant's effect in every condition, in the order of the tables."""
    runs: dict[tuple[str, str], dict[tuple[float, int], dict[str, Any]]] = {}
    for row in judged(rows):
        if row["lam"] is not None and not row["error"]:
            own = runs.setdefault((row["condition"], row["variant"]), {})
            own[row["lam"], row["seed"]] = row
    found = []
    for condition, variant in sorted(runs, key=lambda key: _place((*key, None))):
        own, plain = runs[condition, variant], runs.get((condition, "default"), {})
        both = [(own[key], plain[key]) for key in own if key in plain]
        if variant == "default" or not both:
            continue
        cells = {field: cell(_less(a[field], b[field]) for a, b in both) for field in EFFECTS}
        collapsed = sum(a["collapsed"] for a, _ in both), sum(b["collapsed"] for _, b in both)
        found.append(Effect(condition, variant, cells, len(both), collapsed))
    return found


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def markdown(rows: Sequence[Row], checks: Mapping[str, str]) -> str:
    """The result as a page of Markdown.

    Args:
      rows: of all runs.
      checks: {source: how its yardstick does on held-out items, in words}.
    """
    all_lines, found = lines(rows), correlations(rows)
    parts = ["# What λ does on bad data\n", _about(all_lines, checks)]
    for condition in dict.fromkeys(line.condition for line in all_lines):
        words = conditions.CONDITIONS[condition].words if condition in conditions.CONDITIONS else ""
        parts.append(f"## {condition}: {words}\n")
        own = [line for line in all_lines if line.condition == condition]
        heads = ["", *COLUMNS.values(), "collapsed", "rollbacks", "failed"]
        parts.append(_grid(heads, own, _fields))
        some = [one for one in found if one["condition"] == condition]
        if some:
            heads = ["λ's Spearman with", *(COLUMNS[metric] for metric in CORRELATED)]
            parts.append(_grid(heads, some, _correlated))
    changes = effects(rows)
    if changes:
        parts.append("## What a variant changes\n")
        parts.append(
            "Variant minus default, mean ± sd over the pairs of runs of the same λ and seed.\n"
        )
        heads = ["", "", *(COLUMNS[field] for field in EFFECTS), "collapsed", "default", "pairs"]
        parts.append(_grid(heads, changes, _changed))
    errors = [row for row in rows if row["error"]]
    if errors:
        parts.append("## Failed\n")
        parts += [
            f"- {row['condition']}, {row['variant']}, {row['name']}, seed {row['seed']}: "
            f"{row['error']}"
            for row in errors
        ]
    return "\n".join(parts).rstrip() + "\n"


def _about(all_lines: Sequence[Line], checks: Mapping[str, str]) -> str:
    seeds = max((line.runs for line in all_lines), default=0)
    said = [
        f"Mean ± sd over at most {seeds} seeds, on the clean test split. `rare` is one class of "
        "each data set, under every condition; numbers of a class rest on 54 digits or 125 points. "
        f"Collapsed: a fatal alarm, or recall below {measure.LOST:.2f} of the base's, where that "
        f"is {measure.LEAST} at least."
    ]
    return "\n".join([*said, *(f"{source}: {words}" for source, words in checks.items())]) + "\n"


def _fields(line: Line) -> list[str]:
    each = [one.text() for one in line.cells.values()]
    done = line.runs - line.failed
    return [line.label, *each, f"{line.collapsed}/{done}", str(line.rollbacks), str(line.failed)]


def _correlated(one: Mapping[str, Any]) -> list[str]:
    seeds = "all seeds" if one["seed"] is None else f"seed {one['seed']}"
    values = [one[metric] for metric in CORRELATED]
    return [f"{one['variant']}, {seeds}", *("–" if x != x else f"{x:+.2f}" for x in values)]


def _changed(one: Effect) -> list[str]:
    each = [value.text("+") for value in one.cells.values()]
    return [one.condition, one.variant, *each, *map(str, one.collapsed), str(one.runs)]


def _grid(heads: Sequence[str], items: Sequence[Any], fields: Callable[[Any], list[str]]) -> str:
    body = [heads, ["---"] * len(heads), *(fields(item) for item in items)]
    return "\n".join("| " + " | ".join(row) + " |" for row in body) + "\n"
