"""The result as text: what it rests on, a table with intervals, and the warnings."""

import math
from collections.abc import Sequence

from prpr.evaluate.result import Result
from prpr.metrics import Estimate


def text(result: Result) -> str:
    """All of a result, for a terminal."""
    r, own_k = result, any(one.k is not None for one in result.metrics.values())
    n_real, n_fake = (n or "unknown" for n in (r.n_real, r.n_fake))
    lines = [
        f"real     {r.real}  (n = {n_real})",
        f"fake     {r.fake}  (n = {n_fake})",
        *([f"sampler  {r.sampler.to_text()}"] if r.sampler else []),
        f"encoder  {r.encoder}" + (f", resize {r.resize}" if r.resize else ""),
        f"         k = {r.k}, k_coverage = {r.k_coverage}, convention {r.convention}, "
        f"seed {r.seed}",
        "",
        *columns(
            [
                *("metric", "value", _level(r.level)),
                *(["k"] if own_k else []),
                *(["sd of seeds"] if r.seeds else []),
            ],
            [_row(r, name, own_k) for name in r.metrics],
        ),
    ]
    if r.encoders:
        lines += [f"{name}: on {encoder}" for name, encoder in r.encoders.items()]
    if r.comparison is not None:
        rows = [
            [name, number(one.difference), between(one.low, one.high), f"{one.p:.3g}"]
            for name, one in r.comparison.items()
        ]
        head = ["metric", "difference", _level(r.level), "p"]
        lines += ["", f"less {r.compare}", *columns(head, rows)]
    if r.truncation:
        rows = [[f"{t:g}", *map(_cell, numbers.values())] for t, numbers in r.truncation]
        lines += ["", *columns(["truncation", *r.metrics], rows)]
    if r.per_class is not None:
        lines += ["", *_classes(result)]
    if r.sheet is not None:
        lines += ["", f"most memorised samples: {r.sheet}"]
    return "\n".join([*lines, *(["", *(f"note: {w}" for w in r.warnings)] if r.warnings else [])])


def _row(result: Result, name: str, own_k: bool) -> list[str]:
    one = result.metrics[name]
    row = [name, number(one.value), between(one.low, one.high)]
    if own_k:
        row.append("" if one.k is None else str(one.k))
    return [*row, number(result.seeds.sd[name])] if result.seeds else row


def _classes(result: Result, most: int = 20) -> list[str]:
    """The classes that are worst by precision, at most `most`, and the worst by each metric."""
    found = result.per_class
    assert found is not None  # the caller has looked
    by = sorted(found.classes, key=lambda name: found.classes[name]["precision"].value)
    rows = [
        [name, *map(str, found.sizes[name]), *map(_cell, found.classes[name].values())]
        for name in by[:most]
    ]
    lines = columns(["class", "n real", "n fake", "precision", "recall"], rows)
    if len(by) > most:
        lines.append(f"... and {len(by) - most} classes of higher precision (all in the JSON)")
    worst = ", ".join(f"{metric}: {name}" for metric, name in found.worst.items())
    lines.append(f"worst class, {worst}")
    if found.left_out:
        sizes = [f"{name} ({r} real, {f} fake)" for name, (r, f) in found.left_out.items()]
        few = ", ".join(sizes[:5]) + (" ..." if len(sizes) > 5 else "")
        lines.append(f"{len(sizes)} classes have too few samples: {few}")
    return lines


def _level(level: float) -> str:
    return f"{100 * level:g} % interval"


def number(x: float) -> str:
    """Four decimals; five digits from 10 on, four below 0.1; NaN and infinities by name."""
    if not math.isfinite(x):
        return str(x)
    if 0 < abs(x) < 0.1:
        return f"{x:#.4g}"
    return f"{x:.4f}" if abs(x) < 10 else f"{x:.5g}"


def between(low: float, high: float) -> str:
    """An interval."""
    return f"{number(low)} to {number(high)}"


def _cell(one: Estimate) -> str:
    return f"{number(one.value)} ({between(one.low, one.high)})"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their content; the first is text, the others are numbers."""
    cells = [list(head), *map(list, rows)]
    wide = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, wide, strict=True))
        ).rstrip()
        for row in cells
    ]
