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


class Cell(NamedTuple):
    """A number over seeds: its mean, its standard deviation (NaN of one), and how many."""

    mean: float
    sd: float
    n: int

    def text(self) -> str:
        if not self.n:
            return "–"
        return f"{self.mean:.3f}" + (f" ± {self.sd:.3f}" if self.n > 1 else "")


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
    return _index(conditions.CONDITIONS, condition), _index(order, variant), lam or 0.0


def _index(names: Iterable[str], name: str) -> int:
    """Its place; behind all others for a name that the table no longer has."""
    known = list(names)
    return known.index(name) if name in known else len(known)


def correlations(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Spearman's correlation of λ with precision and recall for each condition, variant and seed.

    Of at least three λ; NaN where a metric is the same at all of them.
    """
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        if row["lam"] is not None and not row["error"]:
            groups.setdefault((row["condition"], row["variant"], row["seed"]), []).append(row)
    found = []
    for (condition, variant, seed), group in groups.items():
        if len(group) < 3:
            continue
        about: dict[str, Any] = {"condition": condition, "variant": variant, "seed": seed}
        for metric in ("precision", "recall"):
            lams, values = zip(*((row["lam"], row[metric]) for row in group), strict=True)
            flat = len(set(values)) == 1  # scipy warns
            rho: Any = None if flat else spearmanr(lams, values)
            about[metric] = math.nan if rho is None else float(rho.statistic)
        found.append(about)
    return found


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
            parts.append(_grid(["λ's Spearman with", "precision", "recall"], some, _correlated))
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
        f"Collapsed: a fatal alarm, or recall below {measure.LOST:.2f} of the base's."
    ]
    return "\n".join([*said, *(f"{source}: {words}" for source, words in checks.items())]) + "\n"


def _fields(line: Line) -> list[str]:
    each = [one.text() for one in line.cells.values()]
    done = line.runs - line.failed
    return [line.label, *each, f"{line.collapsed}/{done}", str(line.rollbacks), str(line.failed)]


def _correlated(one: Mapping[str, Any]) -> list[str]:
    return [
        f"{one['variant']}, seed {one['seed']}",
        f"{one['precision']:+.2f}",
        f"{one['recall']:+.2f}",
    ]


def _grid(heads: Sequence[str], items: Sequence[Any], fields: Callable[[Any], list[str]]) -> str:
    body = [heads, ["---"] * len(heads), *(fields(item) for item in items)]
    return "\n".join("| " + " | ".join(row) + " |" for row in body) + "\n"
