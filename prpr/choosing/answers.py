"""An answer as one JSON object, and in words for a terminal."""

import textwrap
from typing import Any

from prpr import record
from prpr.choosing.decision import Answer
from prpr.choosing.wishes import Constraint, Cost, direction

WIDTH = 100


def to_json(answer: Answer) -> dict[str, Any]:
    """Plain values; "interval" is that of λ, and those of the metrics are in "metrics"."""
    out = {
        "wish": str(answer.wish),
        "verdict": answer.verdict,
        "feasible": answer.feasible,
        "lam": answer.lam,
        "interval": answer.interval,
        "probability": answer.probability,
        "probability_alone": answer.alone,
        "given_up": answer.given_up,
        "nearest_feasible": answer.nearest_feasible,
        "next_lam": answer.next_lam,
        "next_why": answer.next_why,
        "metrics": _metrics(answer.metrics),
        "rows": [{**row, "metrics": _metrics(row["metrics"])} for row in answer.rows],
        "level": answer.level,
        "notes": list(answer.notes),
    }
    if answer.cost is not None:
        out["cost"] = [{"lam": lam, "cost": cost} for lam, cost in answer.cost.items()]
    return record.to_plain(out)


def _metrics(found: dict[str, tuple[float, float, float]]) -> dict[str, dict[str, float]]:
    return {
        name: dict(zip(("value", "low", "high"), one, strict=True)) for name, one in found.items()
    }


def to_text(answer: Answer) -> str:
    """What to do, how sure it is, what it costs, the table, the notes."""
    lines = [f"wish: {answer.wish}", "", *_decision(answer), ""]
    lines += [*_given_up(answer), *_next(answer), "", *_table(answer)]
    if answer.cost is not None:
        lines += ["", *_of_cost(answer)]
    elif (ray := _ray(answer)) is not None:
        lines += ["", *textwrap.wrap(ray, WIDTH)]
    notes = [line for note in answer.notes for line in textwrap.wrap(f"note: {note}", WIDTH)]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _decision(answer: Answer) -> list[str]:
    sure, alone = f"{answer.probability:.3f}", f"{answer.alone:.3f}"
    lam, level = f"λ = {answer.lam:g}", f"{answer.level:g}"
    said = {
        "promised": f"Take {lam}. The wish holds there with probability {sure}, at least.",
        "likely": f"Take {lam} if you must choose now: its estimates meet the wish, with "
        f"probability {alone} if it were the only λ; {level} is asked, with the choice among all λ "
        f"allowed for ({sure}).",
        "unlikely": f"No λ can be promised. {lam} comes nearest (probability {alone} alone), and "
        "its estimates do not meet the wish.",
        "refuted": f"No λ between {answer.rows[0]['lam']:g} and {answer.rows[-1]['lam']:g} meets "
        f"the wish, as far as these records tell (level {level}). {lam} comes nearest.",
        "best": f"Take {lam}. It is the best of the λ that were trained, with probability {sure}.",
    }
    if answer.asked and answer.wish.constraints:
        met = "meet" if answer.verdict == "likely" else "do not meet"
        said = dict.fromkeys(
            said,
            f"At {lam} the estimates {met} the wish, with probability {alone}; {level} is asked.",
        )
        said["promised"] = f"At {lam} the wish holds with probability {sure}, at least."
    text = said[answer.verdict]
    if answer.verdict == "likely" and not answer.wish.constraints:
        text = f"Take {lam}: the best estimate. That it is the best λ has probability {sure}."
    lines = textwrap.wrap(text, WIDTH)
    if answer.interval is not None:
        low, high = answer.interval
        lines.append(f"The best λ for this wish lies in [{low:.3g}, {high:.3g}] ({level}).")
    if answer.nearest_feasible is not None:
        nearest = answer.nearest_feasible
        lines.append(f"What can be promised: {nearest['wish']}, at λ = {nearest['lam']:g}.")
    return lines


def _given_up(answer: Answer) -> list[str]:
    lines = []
    for name, one in answer.given_up.items():
        if one["at"] == answer.lam:
            text = f"{name}: {one['here']:.3f}, and no other λ has a better one"
        else:
            text = (
                f"{name}: {one['here']:.3f}; λ = {one['at']:g} has {one['difference']:+.3f} "
                f"[{one['low']:+.3f}, {one['high']:+.3f}]"
            )
        if "control" in one:
            text += f"; the control {one['control']:+.3f}"
        lines.append(f"  {text}")
    return ["given up:", *lines] if lines else []


def _next(answer: Answer) -> list[str]:
    if answer.next_lam is None:
        return textwrap.wrap(f"next: {answer.next_why}.", WIDTH)
    return textwrap.wrap(f"next: λ = {answer.next_lam:g}, since {answer.next_why}.", WIDTH)


def _table(answer: Answer) -> list[str]:
    names = list(answer.metrics)
    width = max(26, *(len(name) + 2 for name in names)) if names else 26
    head = f"{'λ':>8} {'seeds':>5}" + "".join(f"{name:>{width}}" for name in names)
    if answer.wish.constraints:
        head += f"{'P alone':>9}"
    if answer.cost is not None:
        head += f"{'cost':>9}"
    lines = [head]
    for row in answer.rows:
        mark = "*" if row["lam"] == answer.lam else " "
        line = f"{mark}{row['lam']:>7g} {row['seeds']:>5}"
        for value, low, high in row["metrics"].values():
            line += f"{f'{value:.3f} [{low:.3f}, {high:.3f}]':>{width}}"
        if answer.wish.constraints:
            line += f"{row['alone']:>9.3f}" + (" !" if row["probability"] >= answer.level else "")
        if answer.cost is not None:
            line += f"{answer.cost[row['lam']]:>9.3f}"
        lines.append(line)
    if answer.wish.constraints:
        lines.append("P alone: of the wish at this λ, were it the only one; !: promised; *: taken")
    return lines


def _ray(answer: Answer) -> str | None:
    """Where on the frontier a wish for quality a and variety b lies: the ray α = λβ."""
    at_least: dict[int, Constraint] = {}
    for one in answer.wish.constraints:
        if one.least and one.target.of is None:
            at_least[direction(one.target.metric)] = one
    if 1 not in at_least or -1 not in at_least or at_least[-1].bound <= 0:
        return None
    a, b = at_least[1].bound, at_least[-1].bound
    return (
        f"A point of precision a = {a:g} and recall b = {b:g} lies on the ray λ = a/b = {a / b:.3g}"
        " of the frontier, α(λ) = λβ(λ): D_λ at that λ asks for more of exactly this mixture. It "
        "tells where to look first; the records decide."
    )


def _of_cost(answer: Answer) -> list[str]:
    cost = answer.wish.aim
    assert isinstance(cost, Cost)
    worth = f"{cost.bad / cost.missing:.3g}"
    text = (
        f"The expected cost of a sample is {cost.bad:g}·(1 − precision) + {cost.missing:g}·"
        f"(1 − recall): one point of precision is worth {worth} of recall. Along a frontier it is "
        f"least where a point of precision begins to cost more than {worth} of recall; the table's "
        "last column is what each λ really costs."
    )
    return textwrap.wrap(text, WIDTH)
