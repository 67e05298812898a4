"""Records of (λ, metrics), from a run's workdir or from anybody's JSON or CSV.

What is read:

  WORKDIR            its summary.json; rows without a λ (base, control) are kept to compare with
  FILE.json          of experiments/evaluate.py (λ and seed from its samples' name, "RUN?lam=5"),
                     {"rows": [...]} as a summary, or a plain list of rows
  FILE.csv           a row a model, columns lam, seed, METRIC, METRIC_low, METRIC_high, level, n

A row of a list is {"lam": 5, "seed": 0, "metrics": {"recall": {"value": .9, "low": .88, "high":
.92}}} or, flat as in CSV, {"lam": 5, "recall": .9, "recall_low": .88, "recall_high": .92}. A column
`n` (or `n_fake`) gives a share without an interval that of n independent draws. Records of several
encoders, numbers of samples or k are not comparable and are refused.
"""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prpr import record
from prpr.choosing.points import Reading, f_score
from prpr.choosing.wishes import Target, is_proportion
from prpr.errors import ConfigError, DataError
from prpr.metrics import intervals, registry

_HEAD = ("encoder", "n_real", "n_fake", "k", "k_coverage", "convention", "resize", "split")
_PLAIN = ("lam", "seed", "level", "name", "n", *_HEAD)
_MANY = 1e30


class Row(NamedTuple):
    """One model: name, λ (None: trained at none), seed, its metrics and those of its classes."""

    name: str
    lam: float | None
    seed: int | None
    metrics: dict[str, Reading]
    classes: dict[str, dict[str, Reading]]
    where: str


class Records(NamedTuple):
    """Rows that can be compared.

    Attributes:
      rows: of every model, λ ascending, those without λ first.
      made: {"encoder": ..., "n_fake": ...}, as far as the records say.
      notes: what to know before trusting them.
    """

    rows: tuple[Row, ...]
    made: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def lams(self) -> tuple[float, ...]:
        """Every λ, once, ascending."""
        return tuple(sorted({row.lam for row in self.rows if row.lam is not None}))

    def at(self, lam: float | None) -> list[Row]:
        """The rows of one λ."""
        return [row for row in self.rows if row.lam == lam]


def read(paths: Iterable[str | Path]) -> Records:
    """The records of all paths together.

    Raises:
      ConfigError: no path, or one that is no record.
      DataError: records that cannot be read or compared, with file, row and column.
    """
    rows: list[Row] = []
    made: list[tuple[str, dict[str, Any]]] = []
    for given in paths:
        for row, head in _of_path(Path(given).expanduser()):
            rows.append(row)
            made.append((row.where, head))
    if not rows:
        raise ConfigError("no records: name the workdir of a run, or files of records.")
    head = _one_head(made)
    notes = []
    if missing := [key for key in ("encoder", "n_fake") if key not in head]:
        notes.append(
            f"the records do not say their {' and '.join(missing)}; numbers of different ones "
            "cannot be compared."
        )
    seen: dict[tuple[Any, ...], str] = {}
    for row in rows:
        key = (row.name, row.lam, row.seed)
        if row.seed is not None and key in seen:
            raise DataError(
                f"{row.where}: λ={row.lam!r}, seed {row.seed} is also in {seen[key]}; one record "
                "a model."
            )
        seen[key] = row.where
    rows.sort(key=lambda row: (row.lam is not None, row.lam or 0.0, row.seed or 0))
    return Records(tuple(rows), head, tuple(notes))


def readings(rows: Sequence[Row], target: Target) -> dict[str, list[Reading]]:
    """Of one λ: {class: a reading a seed}; {"": ...} for a metric of all samples.

    F_b, where a record has none, is that of its precision and recall.

    Raises:
      DataError: a metric or class that a row lacks, or values without any interval.
    """
    found: dict[str, list[Reading]] = {}
    for row in rows:
        if target.of is None:
            found.setdefault("", []).append(_one(row, row.metrics, target.metric, ""))
            continue
        if not row.classes:
            raise DataError(
                f"{row.where} has no metrics of classes, which {str(target)!r} asks for; measure "
                "with experiments/evaluate.py --per_class --json=FILE."
            )
        names = list(row.classes) if target.of == "worst" else [target.of]
        for name in names:
            if name not in row.classes:
                raise DataError(f"{row.where} has no class {name!r}; it has {_some(row.classes)}.")
            one = _one(row, row.classes[name], target.metric, f" of class {name}")
            found.setdefault(name, []).append(one)
    if target.of == "worst":
        short = [name for name, each in found.items() if len(each) != len(rows)]
        if short:
            raise DataError(f"{rows[0].where}: class {short[0]!r} is not in all seeds of this λ.")
    for each in found.values():
        bare = [one for one in each if one.low is None]
        if bare and (len(bare) < len(each) or len(each) < 3):
            raise DataError(
                f"{rows[0].where}: {target} has no interval, so that nothing can be promised; give "
                f"{target.metric}_low and {target.metric}_high, a column n (shares only), or three "
                "seeds a λ."
            )
    return found


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def _one(row: Row, metrics: Mapping[str, Reading], name: str, of: str) -> Reading:
    if name in metrics:
        return metrics[name]
    b = re.fullmatch(r"f_([\d.eE+-]+)", name)
    if b and {"precision", "recall"} <= set(metrics):
        try:
            return f_score(float(b[1]), metrics["precision"], metrics["recall"])
        except ValueError:
            pass
    registry.family_of(name)  # a name that nobody knows is a mistake in the wish
    raise DataError(
        f"{row.where} has no {name}{of}; it has {_some(metrics)}. Measure it with "
        f"experiments/evaluate.py --metrics={name} --json=FILE."
    )


def derived(rows: Sequence[Row], target: Target) -> bool:
    """Whether `readings` takes an F score from precision and recall."""
    return any(target.metric not in row.metrics for row in rows) and target.of is None


# ---- reading files ----------------------------------------------------------------------


def _of_path(path: Path) -> list[tuple[Row, dict[str, Any]]]:
    if path.is_dir():
        path = path / "summary.json"
        if not path.is_file():
            raise ConfigError(
                f"{path.parent} is no workdir of a finished run: it has no summary.json; run its "
                "training command to the end, or name files of records."
            )
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; name a workdir, or files of records.")
    if path.suffix.lower() == ".csv":
        return [_row(one, {}, f"{path}, line {i}") for i, one in _csv(path)]
    held = record.read_json(path)
    if isinstance(held, Mapping) and "metrics" in held and "rows" not in held:
        return [_row({**_of_evaluation(held), **held}, held, str(path))]
    head = held if isinstance(held, Mapping) else {}
    rows = held.get("rows") if isinstance(held, Mapping) else held
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(
            f"{path} holds no records: it must be a list of rows, or an object with 'rows' or "
            "'metrics' (see prpr/choosing/records.py)."
        )
    return [_row(row, head, f"{path}, row {i}") for i, row in enumerate(rows, 1)]


def _csv(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(line, row) of a CSV file; empty cells are left out, numbers are numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error
    reader = csv.DictReader(text.splitlines())
    if "lam" not in (reader.fieldnames or ()):
        raise DataError(
            f"{path} has no column lam; its first line must name the columns, and has "
            f"{_some(reader.fieldnames or ())}."
        )
    rows = []
    for cells in reader:
        line = reader.line_num
        if None in cells or None in cells.values():
            raise DataError(
                f"{path}, line {line}: {len(reader.fieldnames or ())} cells are expected."
            )
        rows.append((line, {k.strip(): _cell(v) for k, v in cells.items() if v.strip()}))
    return rows


def _cell(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def _of_evaluation(held: Mapping[str, Any]) -> dict[str, Any]:
    """λ and seed of a result of experiments/evaluate.py: its samples are "RUN?lam=5&seed=0"."""
    query = dict(
        part.split("=", 1)
        for part in str(held.get("fake", "")).partition("?")[2].split("&")
        if "=" in part
    )
    out: dict[str, Any] = {"name": held.get("fake")}
    if "lam" in query:
        out["lam"] = _cell(query["lam"])
    # An evaluation's own "seed" is that of its shuffles.
    return {**out, "seed": _cell(query["seed"]) if "seed" in query else None}


def _row(
    given: Mapping[str, Any], head: Mapping[str, Any], where: str
) -> tuple[Row, dict[str, Any]]:
    lam = given.get("lam")
    if lam is not None:
        number = isinstance(lam, int | float) and not isinstance(lam, bool)
        if not number or not 0 < lam < _MANY:
            raise DataError(f"{where}: lam = {lam!r} must be a number above 0.")
        lam = float(lam)
    of_evaluation = "real" in given and "fake" in given
    seed = _of_evaluation(given)["seed"] if of_evaluation else given.get("seed")
    if seed is not None and (not isinstance(seed, int | float) or seed != int(seed)):
        raise DataError(f"{where}: seed = {seed!r} must be a whole number.")
    level = given.get("level", head.get("level", 0.95))
    if not isinstance(level, int | float) or not 0 < level < 1:
        raise DataError(f"{where}: level = {level!r} must lie between 0 and 1.")
    n = given.get("n", given.get("n_fake", head.get("n_fake")))
    held = given.get("metrics")
    metrics = (
        {name: _nested(name, one, level, n, where) for name, one in held.items()}
        if isinstance(held, Mapping)
        else _flat(given, level, n, where)
    )
    classes = {}
    per_class = given.get("per_class")
    if isinstance(per_class, Mapping):
        for name, one in per_class.get("classes", {}).items():
            classes[str(name)] = {
                metric: _nested(metric, value, level, one.get("n_fake"), f"{where}, class {name}")
                for metric, value in one.get("metrics", {}).items()
            }
    made = {key: given.get(key, head.get(key)) for key in _HEAD}
    name = str(given.get("name", "")) or (f"lam{lam:g}" if lam else "control")
    row = Row(name, lam, None if seed is None else int(seed), metrics, classes, where)
    return row, {key: value for key, value in made.items() if value is not None}


def _flat(given: Mapping[str, Any], level: float, n: Any, where: str) -> dict[str, Reading]:
    out = {}
    for name, value in given.items():
        stem = re.sub(r"_(low|high)$", "", name)
        if name in _PLAIN or (stem != name and stem in given):
            continue
        ends = {end: given[f"{name}_{end}"] for end in ("low", "high") if f"{name}_{end}" in given}
        out[name] = _nested(name, {"value": value, **ends}, level, n, where)
    return out


def _nested(name: str, given: Any, level: float, n: Any, where: str) -> Reading:
    """A reading of {"value", "low", "high"[, "level"]} or of a bare number."""
    one = given if isinstance(given, Mapping) else {"value": given}
    level = one.get("level", level)
    parts: dict[str, float] = {}
    for part in ("value", "low", "high"):
        found = one.get(part)
        if found is None and part != "value":
            continue
        if (
            not isinstance(found, int | float)
            or isinstance(found, bool)
            or not math.isfinite(found)
        ):
            raise DataError(f"{where}: {name}'s {part} = {found!r} must be a finite number.")
        if is_proportion(name) and not 0 <= found <= 1:
            raise DataError(f"{where}: {name}'s {part} = {found!r} must lie between 0 and 1.")
        parts[part] = float(found)
    value, low, high = parts["value"], parts.get("low"), parts.get("high")
    if (low is None) != (high is None):
        raise DataError(f"{where}: {name} has one end of its interval only; give low and high.")
    if low is not None and high is not None and not low <= value <= high:
        raise DataError(
            f"{where}: {name} = {value!r} lies outside its own interval [{low!r}, {high!r}]."
        )
    if low is None and isinstance(n, int | float) and n >= 1 and is_proportion(name):
        low, high = intervals.proportion(value, float(n), intervals.quantile(level))
        low, high = min(low, value), max(high, value)
    return Reading(value, low, high, float(level))


def _one_head(made: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """What all records say; DataError where two differ."""
    out: dict[str, tuple[Any, str]] = {}
    for where, head in made:
        for key, value in head.items():
            known, first = out.setdefault(key, (value, where))
            if known != value:
                raise DataError(
                    f"the records cannot be compared: {key} is {known!r} in {first} and {value!r} "
                    f"in {where}; measure them alike."
                )
    return {key: value for key, (value, _) in out.items()}
