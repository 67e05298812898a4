"""The page of a run for a person who decides: experiments/report.py.

What the page needs beyond a run's records is measured here and kept in WORKDIR/report_data.json,
which `prpr.report` then shows:

  asked     {"wish", "guard"}, as they were given
  goal      None, or {"words", "said", "bounds": [{"metric", "least", "bound"}], "answer"}, the
            answer as `choosing.to_json`
  guard     None, or {"bounds": [{"metric", "bound"}], "probability": {λ: of no class below}}
  classes   {"encoder", "k", "level", "rows": [{"name", "lam", "classes": {class: {metric: {"value",
            "low", "high"}}}}], "notes"}
  nearest   {"lam", "n", "n_held_out", "side", "authenticity", "held_out", "samples": [{"row",
            "image", "nearest": [{"row", "distance", "image"}]}]}, images as PNG in base64

`classes` and `nearest` are {"missing": why} where they cannot be had.

Classes are measured on the stored samples: each set of them for itself, as the run's own score is,
and the values and intervals of several sets are averaged.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prpr import build, choosing, data, files, record, report, report_sheets
from prpr.choosing.points import Reading, point
from prpr.choosing.wishes import Aim, Constraint, Cost, Target
from prpr.errors import ConfigError, DataError, PrprError
from prpr.evaluate import command, goal, runs, views
from prpr.metrics import Options, Statistics, authenticity, statistics
from prpr.metrics.family import Progress
from prpr.report_figures import Group

DATA = "report_data.json"
LEVEL = 0.95

_METRICS = ("precision", "recall")
_SHOWN, _NEAREST = 6, 3  # samples, and training images beside each
_MOST = 20_000  # training images that are read from disk


def make(
    workdir: str | os.PathLike[str],
    wish: str = "",
    guard: str = "",
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Measures what the page needs, keeps it in WORKDIR/report_data.json, and writes the page.

    Args:
      workdir: of a finished run.
      wish: see `prpr.choosing.wishes`; "" chooses no λ.
      guard: what no class may be below, such as "recall >= .3"; "" for none.
      out: the page's file; None is WORKDIR/report.html.
      progress: called as work is done.

    Returns:
      The path of the page.

    Raises:
      ConfigError: a wish or a guard that cannot be read, or an unknown metric.
      DataError: no finished run, or records or samples that are damaged.
      WorkdirError: not a directory, or a file that cannot be written.
    """
    if wish.strip():
        choosing.parse(wish)
    floors = _floors(guard)
    folder = Path(workdir).expanduser()
    target = None if out is None else Path(out).expanduser()
    if target is not None:
        command.check_writable(target)
    summary = report.read_summary(folder)
    groups = report.groups(summary)
    found = _goal(folder, wish, progress)
    held = _classes(folder, groups, summary, progress)
    kept = {
        "asked": {"wish": wish.strip(), "guard": guard.strip()},
        "goal": found,
        "guard": _guarded(floors, held) if floors else None,
        "classes": held.plain() if isinstance(held, _Classes) else {"missing": held},
        "nearest": _nearest(folder, groups, summary, found),
    }
    kept = record.to_plain(kept)
    record.write_json(folder / DATA, kept)
    return report.make(folder, kept, target)


# ---- the goal -----------------------------------------------------------------------------------


def _goal(folder: Path, wish: str, progress: Progress | None) -> dict[str, Any] | None:
    if not wish.strip():
        return None
    answer = goal.choose([str(folder)], wish, level=LEVEL, progress=progress)
    return {
        "words": words(answer.wish),
        "said": _said(answer),
        "bounds": [
            {"metric": one.target.metric, "least": one.least, "bound": one.bound}
            for one in answer.wish.constraints
            if one.target.of is None and one.target.metric in _METRICS
        ],
        "answer": choosing.to_json(answer),
    }


def _said(answer: choosing.Answer) -> str:
    """What to do, in the words of `choosing.to_text`: its second paragraph."""
    return " ".join(choosing.to_text(answer).split("\n\n")[1].split("\n"))


def words(wish: choosing.Wish) -> str:
    """A wish as a sentence."""
    asked = [
        f"{_named(one)} {'at least' if one.least else 'at most'} {one.bound:.4g}"
        for one in wish.constraints
    ]
    head = " and ".join(asked)
    aim = wish.aim
    if isinstance(aim, Cost):
        then = (
            f"the least expected cost, where a bad sample costs {aim.bad:g} and a kind of sample "
            f"that is missing costs {aim.missing:g}"
        )
    elif isinstance(aim, Aim):
        then = f"as {'much' if aim.largest else 'little'} {aim.target} as possible"
    else:
        then = ""
    said = "; beyond that ".join(part for part in (head, then) if part)
    return f"{said[:1].upper()}{said[1:]}."


def _named(one: Constraint) -> str:
    metric, of = one.target
    if of is None:
        return metric
    return f"{metric} of the worst class" if of == "worst" else f"{metric} of class {of}"


# ---- classes ------------------------------------------------------------------------------------


class _Classes(NamedTuple):
    """Metrics of classes: a row a run, {class: {metric: Reading}} each."""

    rows: tuple[choosing.Row, ...]
    encoder: str
    k: int
    notes: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """The mean over the seeds of each name, with its interval."""
        named: dict[str, list[choosing.Row]] = {}
        for row in self.rows:
            named.setdefault(row.name, []).append(row)
        return {
            "encoder": self.encoder,
            "k": self.k,
            "level": LEVEL,
            "notes": list(self.notes),
            "rows": [
                {"name": name, "lam": own[0].lam, "classes": _pooled(own)}
                for name, own in named.items()
            ],
        }


def _pooled(rows: Sequence[choosing.Row]) -> dict[str, dict[str, dict[str, float]]]:
    """The seeds of one name; they have the same classes."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for name in rows[0].classes:
        out[name] = {}
        for metric in _METRICS:
            each = [row.classes[name][metric] for row in rows]
            value, (low, high) = each[0].value, (each[0].low, each[0].high)
            if len(each) > 1 or low is None or high is None:
                one = point(each, proportion=True)
                value, (low, high) = one.value, one.interval(LEVEL)
            out[name][metric] = {"value": value, "low": low, "high": high}
    return out


def _classes(
    folder: Path, groups: Sequence[Group], summary: Mapping[str, Any], progress: Progress | None
) -> _Classes | str:
    """The metrics of classes, or why there are none."""
    if not any(g.lam is not None for g in groups):
        return "no λ was trained in this run"
    real = _stored(folder, "real")
    if real is None:
        return "samples/real.npz, the held-out data, is not there"
    if len(np.unique(real.labels)) < 2:
        return "the held-out data have no classes"
    if summary.get("encoder") != "pixels":
        return _measured(folder)
    k, n_fake = int(summary["k"]), int(summary["n_fake"])
    options = Options(k=k, level=LEVEL)
    reference = _pixels(real, "real")
    rows, notes = [], []
    jobs = [(g, seed) for g in groups if g.name != "real" for seed in g.seeds]
    for done, (g, seed) in enumerate(jobs):
        if progress is not None:
            progress("classes", done, len(jobs))
        run = _run(g.name, seed)
        samples = _stored(folder, run)
        if samples is None:
            return f"samples/{run}.npz is not there"
        found = [
            views.per_class(("real", reference), [(run, _pixels(one, run))], options, equal=False)
            for one in _sets(samples, n_fake)
        ]
        notes += [note for one in found for note in one.notes]
        rows.append(choosing.Row(g.name, g.lam, seed, {}, _averaged(found), run))
    repeats = int(summary.get("repeats") or 1)
    if repeats > 1:
        notes.append(
            f"means over the {repeats} sets of samples that were scored; an interval is that of "
            "one set, so it errs on the wide side"
        )
    return _Classes(_shared(rows), "pixels", k, tuple(dict.fromkeys(notes)))


def _shared(rows: Sequence[choosing.Row]) -> tuple[choosing.Row, ...]:
    """The rows with the classes that all seeds of their name have."""
    out = []
    for row in rows:
        own = [other for other in rows if other.name == row.name]
        classes = {
            name: metrics
            for name, metrics in row.classes.items()
            if all(name in other.classes for other in own)
        }
        out.append(row._replace(classes=classes))
    return tuple(out)


def _averaged(found: Sequence[views.PerClass]) -> dict[str, dict[str, Reading]]:
    """The means of values and of the ends of intervals, over sets of samples of one run."""
    shared = [name for name in found[0].classes if all(name in one.classes for one in found)]
    return {
        name: {
            metric: Reading(
                *(
                    float(np.mean([getattr(one.classes[name][metric], part) for one in found]))
                    for part in ("value", "low", "high")
                ),
                level=LEVEL,
            )
            for metric in _METRICS
        }
        for name in shared
    }


def _measured(folder: Path) -> _Classes | str:
    """What the last question about classes measured, if it is of the samples that are there."""
    wanted = (
        "the run was scored on another encoder than pixels, so that classes have to be measured "
        "first: python experiments/choose_lambda.py --workdir=RUN --wish='worst recall >= 0.3'"
    )
    path = folder / goal.KEPT
    if not path.exists():
        return wanted
    kept = record.read_json(path)
    held = choosing.read([path])
    rows = tuple(row for row in held.rows if row.lam is not None and row.classes)
    stamps = kept.get("settings", {}).get("runs", {})
    for run, stamp in stamps.items():
        stored = folder / "samples" / f"{run}.npz"
        if not stored.exists() or stored.stat().st_mtime_ns != stamp:
            return f"what {goal.KEPT} holds is of older samples; {wanted}"
    if not rows:
        return wanted
    return _Classes(
        _shared([row._replace(name=f"lam_{row.lam:g}") for row in rows]),
        str(held.made.get("encoder", "?")),
        int(held.made.get("k", 0)),
        (f"as experiments/choose_lambda.py measured them, from {goal.KEPT}",),
    )


# ---- the guard ----------------------------------------------------------------------------------


def _floors(guard: str) -> tuple[Constraint, ...]:
    """The floors of a guard; ConfigError for one that cannot be read."""
    if not guard.strip():
        return ()
    try:
        wish = choosing.parse(guard)
    except ConfigError as error:
        raise ConfigError(f"--guard={guard!r}: {error}") from error
    bad = wish.stated or any(
        not one.least or one.target.of is not None or one.target.metric not in _METRICS
        for one in wish.constraints
    )
    if bad:
        raise ConfigError(
            f"--guard={guard!r}: a guard is what no class may be below, of precision or recall: "
            "'recall >= 0.3'"
        )
    return wish.constraints


def _guarded(floors: Sequence[Constraint], held: _Classes | str) -> dict[str, Any]:
    """The guard, with the probability that no class is below it, of each λ for itself."""
    probability: dict[str, float] = {}
    if isinstance(held, _Classes):
        worst = [one._replace(target=Target(one.target.metric, "worst")) for one in floors]
        asked = choosing.Wish(tuple(worst), None, False)
        records = choosing.Records(held.rows, {})
        for lam in records.lams:
            answer = choosing.choose(records, asked, level=LEVEL, only=lam)
            probability[f"{lam:g}"] = answer.alone
    bounds = [{"metric": one.target.metric, "bound": one.bound} for one in floors]
    return {"bounds": bounds, "probability": probability}


# ---- stored samples -----------------------------------------------------------------------------


class _Stored(NamedTuple):
    """Samples in the form in which they were stored: images in bytes, or points; and labels."""

    values: np.ndarray
    labels: np.ndarray


def _stored(folder: Path, run: str) -> _Stored | None:
    """samples/<run>.npz; None where it is not there, DataError where it cannot be read."""
    path = folder / "samples" / f"{run}.npz"
    if not path.exists():
        return None
    try:
        held = files.read_npz(path)
        values = held["images" if "images" in held else "points"]
        labels = np.asarray(held["labels"]).reshape(-1)
        if len(labels) != len(values) or not len(values):
            raise ValueError(f"{len(values)} samples, {len(labels)} labels")
    except Exception as error:
        raise DataError(
            f"{path} cannot be read ({error}); run the training command again, which scores anew."
        ) from error
    return _Stored(values, labels)


def _run(name: str, seed: int | None) -> str:
    """The name of a row's samples."""
    return name if seed is None else f"{name}-seed{seed}"


def _sets(samples: _Stored, n: int) -> list[_Stored]:
    """The sets of n samples that were scored, one after another."""
    count = max(1, len(samples.values) // n)
    return [
        _Stored(samples.values[i * n : (i + 1) * n], samples.labels[i * n : (i + 1) * n])
        for i in range(count)
    ]


def _pixels(samples: _Stored, place: str) -> Statistics:
    """Pixels from −1 to 1, or points, as features."""
    x = samples.values
    if x.ndim == 4:
        x = x.astype(np.float32) / 127.5 - 1
    return statistics(x.reshape(len(x), -1), encoder="pixels", labels=samples.labels, place=place)


# ---- nearest training images --------------------------------------------------------------------


def _nearest(
    folder: Path,
    groups: Sequence[Group],
    summary: Mapping[str, Any],
    found: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The samples that are most suspect of being copies, with what they may be copies of."""
    path = [g for g in groups if g.lam is not None]
    if not path:
        return {"missing": "no λ was trained in this run"}
    lam = path[-1].lam if found is None else found["answer"]["lam"]
    chosen = next(g for g in path if g.lam == lam)
    run = _run(chosen.name, chosen.seeds[0])
    samples, real = _stored(folder, run), _stored(folder, "real")
    if samples is None or real is None:
        gone = run if samples is None else "real"
        return {"missing": f"samples/{gone}.npz is not there"}
    if samples.values.ndim != 4:
        return {"missing": "the samples are points, not images"}
    trained = _training(folder)
    if isinstance(trained, str):
        return {"missing": trained}
    samples = _sets(samples, int(summary["n_fake"]))[0]
    train, fake, held_out = (
        _pixels(one, place)
        for one, place in ((trained, "train"), (samples, "fake"), (real, "real"))
    )
    if not train.width == fake.width == held_out.width:
        return {"missing": "the training images have another size than the samples"}
    most = authenticity.memorised(train, fake, count=_SHOWN, k=_NEAREST)
    return {
        "lam": lam,
        "n": fake.n,
        "n_held_out": held_out.n,
        "side": min(samples.values.shape[1], report_sheets.SIDE),
        "authenticity": float(authenticity.authentic(train, fake).mean()),
        "held_out": float(authenticity.authentic(train, held_out).mean()),
        "samples": [
            {
                "row": int(row),
                "image": _png(samples.values[row]),
                "nearest": [
                    {"row": int(at), "distance": float(d), "image": _png(trained.values[at])}
                    for at, d in zip(most.nearest[i], most.distances[i], strict=True)
                ],
            }
            for i, row in enumerate(most.samples)
        ],
    }


def _training(folder: Path) -> _Stored | str:
    """The training images as they would be stored, or why they cannot be looked at."""
    if not (folder / "config.json").exists():
        return "config.json, which says what was trained on, is not there"
    try:
        train = build.splits(runs.configuration(folder)).train
        if isinstance(train, data.FileDataset):
            if train.size > _MOST:
                return (
                    f"the {train.size} training images are too many to be looked at here (at most "
                    f"{_MOST}); experiments/evaluate.py --train='RUN?train' --sheet=FILE.png does"
                )
            train = train.take(np.arange(train.size))
    except PrprError as error:
        return f"the training data are not at hand: {error}"
    images = np.rint((np.clip(train.images, -1, 1) + 1) * 127.5).astype(np.uint8)
    return _Stored(images, train.labels)


def _png(image: np.ndarray) -> str:
    small = report_sheets.shrunk(image, max(image.shape[:2]))
    return base64.b64encode(report_sheets.png(small)).decode()


# ---- the command --------------------------------------------------------------------------------


def main(workdir: str, wish: str, guard: str, out: str | None) -> None:
    """Writes the page, and prints where it is and what it says of the wish."""
    with command.quiet() as bars:
        page = make(workdir, wish, guard, out, progress=bars)
    kept = record.read_json(Path(workdir).expanduser() / DATA)
    if kept["goal"] is not None:
        print(f"{kept['goal']['words']} {kept['goal']['said']}")
    print(f"report: {page}")
