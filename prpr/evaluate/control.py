"""Control after training beside training at λ, of all models of a workdir: experiments/control.py.

Each model (base, control, every λ) is drawn as it is and through each sampler at a few settings,
and measured against the held-out data: WORKDIR/control.json has a row for each model x sampler x
setting x seed, and figures/control shows them. A row is kept as long as its checkpoint and what it
is measured with stay; it is written when it is there, so that a command that was stopped goes on.
One model for every λ (`config.dial`) in a workdir of its own can be laid beside them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prpr import plotting, record, samplers
from prpr.errors import CheckpointError, ConfigError, DataError, PrprError
from prpr.evaluate import choose, command, runs, table
from prpr.evaluate.inputs import open_input
from prpr.evaluate.measure import METRICS, Measure, query
from prpr.jobs import Job, check_same
from prpr.metrics import checks, intervals
from prpr.metrics.family import Progress
from prpr.metrics.intervals import Estimate
from prpr.run import lam_name
from prpr.samplers.settings import text as sampler_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT = "control.json"
FIGURE = Path("figures") / "control"
PLAIN = "plain"  # the generator's samples as they come, without truncation
DEFAULT = ("truncation", "reject", "drs", "mh", "ddls")
BUDGETS, TRUNCATIONS = (1.5, 2.0, 4.0), (0.9, 0.7, 0.5)
_STEPS = {"mh": (20, 100), "ddls": (20,)}
_MARKERS = "osD^v"
_ONE = "one_"  # before the name of a λ that a model for every λ is turned to


class Point(NamedTuple):
    """A model through a sampler: the mean over seeds.

    Attributes:
      model, lam: "base", "control" or the name of a λ (after "one_" of a model for every λ), and λ
        or None.
      sampler: as `samplers.parse` reads it, or `PLAIN`.
      precision, recall: means of the seeds' values and of their intervals' ends; the interval is
        that of one seed, so it errs on the wide side.
      calls: {"generator", "critic", "gradient"}: calls for one sample.
      seeds: how many.
    """

    model: str
    lam: float | None
    sampler: str
    precision: Estimate
    recall: Estimate
    calls: dict[str, float]
    seeds: int

    @property
    def family(self) -> str:
        """The sampler without its settings."""
        return self.sampler.partition(":")[0]


class Controlled(NamedTuple):
    """The rows of a workdir, and what they were measured with.

    Attributes:
      rows: as in control.json.
      left_out: {"model", "sampler", "why"} of what could not be drawn.
      settings: what all rows have in common.
      reused: how many rows were there already.
      warnings: what to know before trusting them.
      ceiling: {metric: {"value", "low", "high"}} of training data in the samples' place; None where
        it was not asked for.
    """

    rows: tuple[dict[str, Any], ...]
    left_out: tuple[dict[str, str], ...]
    settings: dict[str, Any]
    reused: int
    warnings: tuple[str, ...]
    ceiling: dict[str, dict[str, float]] | None = None

    @property
    def points(self) -> list[Point]:
        """The rows of several seeds as one, in the order of the rows."""
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in self.rows:
            groups.setdefault((row["model"], row["sampler"]), []).append(row)
        return [_point(group) for group in groups.values()]

    def to_json(self) -> dict[str, Any]:
        """All as plain values."""
        return record.to_plain(self._asdict())

    def to_text(self) -> str:
        """The table, what was left out, and the notes."""
        s = self.settings
        rows = [
            [
                point.model,
                point.sampler,
                *(_with_interval(one) for one in (point.precision, point.recall)),
                *(f"{value:.4g}" for value in point.calls.values()),
                str(point.seeds),
            ]
            for point in self.points
        ]
        head = ["model", "sampler", *METRICS, "generator", "critic", "gradient", "seeds"]
        lines = [
            f"{s['n_real']} real and {s['n_fake']} samples of each, {s['encoder']}, k = {s['k']}; "
            "calls for one sample; intervals are of one seed",
            "",
            *table.columns(head, rows),
        ]
        whys: dict[str, list[str]] = {}
        for one in self.left_out:
            whys.setdefault(one["why"], []).append(f"{one['model']} {one['sampler']}")
        lines += ["", *(f"left out: {', '.join(what)}: {why}" for why, what in whys.items())]
        return "\n".join([*lines, *(f"note: {line}" for line in self.warnings)]).rstrip()


def _with_interval(one: Estimate) -> str:
    return f"{table.number(one.value)} ({table.between(one.low, one.high)})"


def _point(rows: Sequence[dict[str, Any]]) -> Point:
    def mean(metric: str) -> Estimate:
        found = [row["metrics"][metric] for row in rows]
        value, low, high = (
            float(np.mean([one[part] for one in found])) for part in ("value", "low", "high")
        )
        return Estimate(value, low, high)

    calls = {
        name: float(np.mean([row["cost"]["per_item"][name] for row in rows]))
        for name in ("generator", "critic", "gradient")
    }
    model, lam, sampler = (rows[0][name] for name in ("model", "lam", "sampler"))
    return Point(model, lam, sampler, mean("precision"), mean("recall"), calls, len(rows))


def settings_of(
    names: Sequence[str],
    budgets: Sequence[float] = BUDGETS,
    truncations: Sequence[float] = TRUNCATIONS,
) -> list[samplers.Sampler]:
    """The samplers of these names at a few settings each; one with settings is as it is.

    Raises:
      ConfigError: an unknown name, or settings that cannot be used.
    """
    grids = {
        "truncation": [f"at={t!r}" for t in truncations],
        "reject": [f"budget={b!r}" for b in budgets],
        **{name: [f"steps={steps}" for steps in grid] for name, grid in _STEPS.items()},
    }
    texts = [
        text
        for name in names
        for text in ([f"{name}:{one}" for one in grids[name]] if name in grids else [name])
    ]
    return list(dict.fromkeys(samplers.parse(text, "--samplers") for text in texts))


def control(
    workdir: str,
    *,
    seeds: Sequence[int] = (),
    lams: Sequence[float] = (),
    names: Sequence[str] = DEFAULT,
    budgets: Sequence[float] = BUDGETS,
    truncations: Sequence[float] = TRUNCATIONS,
    encoder: str | None = None,
    resize: str | None = None,
    n_fake: int = 0,
    level: float = 0.95,
    one: str = "",
    ceiling: bool = False,
    progress: Progress | None = None,
) -> Controlled:
    """Measures every model of a workdir as it is and through samplers; writes rows and figure.

    Args:
      workdir: of experiments/finetune_biggan.py or train_flow.py.
      seeds: of the runs; () takes the configuration's.
      lams: of the runs; () takes the configuration's.
      names: of samplers, at the settings of `settings_of`, or with settings of their own.
      budgets, truncations: settings of reject and of truncation.
      encoder: as `evaluate`; by default the one that the runs were scored with.
      resize: as `evaluate`.
      n_fake: samples of each row; 0 is as many as real ones.
      level: of the intervals.
      one: the workdir of a model for every λ, of the same data and seeds: measured at each λ as it
        is; "" for none.
      ceiling: whether training data are measured in the samples' place too.
      progress: called as work is done.

    Raises:
      ConfigError: no workdir of a run, no model in it, or settings that cannot be used.
      CheckpointError, DataError: runs or data that cannot be read.
      WorkdirError: files that cannot be written.
    """
    chosen = settings_of(names, budgets, truncations)
    intervals.check_level(level)
    if not checks.is_whole(n_fake) or n_fake < 0:
        raise ConfigError(f"n_fake={n_fake!r} must be a whole number >= 0; 0 takes as many as real")
    choose.check_encoder(encoder, resize)
    folder, cfg = runs.workdir(workdir)
    lams, seeds = lams or cfg.lams, seeds or cfg.seeds
    jobs = [(folder, job) for job in _models(folder, lams, seeds)]
    if one:
        jobs += [
            (_turned(one), Job(_ONE + lam_name(lam), float(lam), int(seed)))
            for lam in sorted(lams)
            for seed in seeds
        ]

    measures = {
        of: Measure(of, encoder, resize, n_fake, level, progress)
        for of in dict.fromkeys(of for of, _ in jobs)
    }
    measure = measures[folder]
    for of, other in measures.items():
        check_same(_comparable(other.settings), _comparable(measure.settings), of)
    kept = _kept({job: of for of, job in jobs}, folder, measure.settings)
    top = _kept_ceiling(folder, measure.settings)
    if ceiling and top is None:
        top = measure.numbers(open_input(f"{folder}?train", "train"), "real data")
    done: dict[tuple[str, int, str], dict[str, Any]] = {}
    left_out: list[dict[str, str]] = []
    reused = 0
    for of, job in jobs:
        stamp = runs.generator_stamp(of, query(job))
        for sampler in (None, *chosen) if of == folder else (None,):
            name = PLAIN if sampler is None else sampler_text(sampler)
            old = kept.pop((job.name, job.seed, name), None)
            if old is not None:
                reused += 1
                done[job.name, job.seed, name] = old
                continue
            try:
                row = measures[of].row(job, sampler)
            except (ConfigError, DataError) as error:
                if sampler is None:
                    raise
                left_out.append({"model": job.run, "sampler": name, "why": str(error)})
                continue
            done[job.name, job.seed, name] = {
                "model": job.name,
                "lam": job.lam,
                "seed": job.seed,
                "sampler": name,
                "generator": stamp,
                **row,
            }
            _write(folder, measure.settings, [*done.values(), *kept.values()], left_out, top)
    _write(folder, measure.settings, [*done.values(), *kept.values()], left_out, top)
    said = dict.fromkeys([*measure.said, *measure.few()])
    found = Controlled(
        tuple(done.values()), tuple(left_out), measure.settings, reused, tuple(said), top
    )
    plotting.save(draw(found.points), folder / FIGURE)
    return found


def _models(folder: Path, lams: Sequence[float], seeds: Sequence[int]) -> list[Job]:
    """base, control and λ of these seeds that are there; ConfigError for a λ that is not."""
    known = runs.runs_of(folder)
    jobs: list[Job] = []
    for seed in map(int, seeds):
        base, other = Job("base", None, seed), Job("control", None, seed)
        try:
            runs.check_generator(folder, query(base), str(folder))
            jobs.append(base)
        except CheckpointError:
            pass  # it lies elsewhere, or was deleted: the λ can still be compared
        jobs += [other] if other.run in known else []
        jobs += [Job(lam_name(lam), float(lam), seed) for lam in sorted(lams)]
    missing = [job.run for job in jobs if job.lam is not None and job.run not in known]
    if missing or not jobs:
        raise ConfigError(
            f"{folder} holds no {', '.join(missing) or 'model'}: train it, or name others with "
            f"--lams and --seeds; it holds {', '.join(known) or 'none'}"
        )
    return sorted(jobs, key=lambda job: (job.lam is not None, job.lam or 0.0, job.name, job.seed))


def _turned(text: str) -> Path:
    """The workdir of a model for every λ; ConfigError for another."""
    folder, cfg = runs.workdir(text)
    if not cfg.dial:
        raise ConfigError(
            f"--one={text}: its config.dial is empty, so that it holds no model for every λ; name "
            "the workdir of one, trained with --config.dial=0.2,20."
        )
    return folder


def _comparable(settings: dict[str, Any]) -> dict[str, Any]:
    """What two models must share for one table, {dotted name: value}: not how each is drawn."""
    out = {name: of for name, of in settings.items() if name not in ("score", "data")}
    data = {f"data.{name}": of for name, of in settings["data"].items()}
    return {**out, **data, "score.split": settings["score"]["split"]}


def _kept(
    jobs: Mapping[Job, Path], folder: Path, settings: dict[str, Any]
) -> dict[tuple[str, int, str], dict[str, Any]]:
    """The rows of an earlier command of these settings, of generators that are still the same.

    None of a file that is not whole.
    """
    path, stamps = folder / KEPT, {}
    try:
        held = record.read_json(path) if path.exists() else {}
        if held.get("settings") != settings:
            return {}
        for row in held["rows"]:
            job = Job(row["model"], row["lam"], row["seed"])
            if job not in stamps:
                stamps[job] = _stamp(jobs.get(job, folder), job)
        return {
            (row["model"], row["seed"], row["sampler"]): row
            for row in held["rows"]
            if row["generator"] == stamps[Job(row["model"], row["lam"], row["seed"])]
        }
    except (PrprError, KeyError, TypeError, AttributeError):
        return {}


def _kept_ceiling(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    try:
        held = record.read_json(folder / KEPT) if (folder / KEPT).exists() else {}
    except PrprError:
        return None
    return held.get("ceiling") if held.get("settings") == settings else None


def _stamp(folder: Path, job: Job) -> str | None:
    try:
        return runs.generator_stamp(folder, query(job))
    except PrprError:
        return None  # it is gone, and its rows with it


def _write(
    folder: Path,
    settings: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    left_out: Sequence[dict[str, str]],
    ceiling: dict[str, dict[str, float]] | None,
) -> None:
    held = {"settings": settings, "rows": list(rows), "left_out": list(left_out)}
    record.write_json(folder / KEPT, {**held, "ceiling": ceiling} if ceiling else held)


# ---- the figure ---------------------------------------------------------------------------------


@plotting.styled
def draw(points: Sequence[Point]) -> "Figure":
    """Precision against recall, and against the generator's calls for one sample.

    Trained λ are a black line; from each model a line of a sampler's colour goes through its
    settings, as they were asked for.
    """
    fig, (plane, price) = plotting.subplots(1, 2, (plotting.PAGE, 3.3))
    # A sampler looks the same whichever others are there.
    looks = dict(zip(samplers.NAMES, zip(plotting.LINES, _MARKERS, strict=False), strict=True))
    for family, lines in _lines(points).items():
        style, marker = looks[family]
        for i, line in enumerate(lines):
            look = {**style, "linewidth": 1.0, "label": family if i == 0 else None}
            _along(plane, [p.recall for p in line], line, look, marker)
            _along(price, [p.calls["generator"] for p in line], line, look, marker)
    trained = [p for p in points if p.sampler == PLAIN and p.lam is not None]
    for label, marker, colour, of in (
        ("trained λ", "*", plotting.BLACK, [p for p in trained if not p.model.startswith(_ONE)]),
        ("one model", "P", plotting.GREY, [p for p in trained if p.model.startswith(_ONE)]),
    ):
        if of:
            look = {"color": colour, "label": label}
            _along(plane, [p.recall for p in of], of, look, marker, skip=0)
            _along(price, [1.0] * len(of), of, {**look, "linestyle": "none"}, marker, skip=0)
    for p in (p for p in points if p.sampler == PLAIN):
        name = p.model if p.lam is None else f"λ = {p.lam:g}"
        at = (p.recall.value, p.precision.value)
        if p.lam is None:
            plane.plot(*at, marker="x", markersize=5, color=plotting.GREY)
        plane.annotate(name, at, (3, 3), textcoords="offset points", fontsize=6.5)
    plane.set(xlabel="recall", ylabel="precision", title="precision against recall")
    price.set(
        xlabel="calls of the generator for one sample",
        ylabel="precision",
        title="precision against cost",
        xscale="log",
    )
    price.xaxis.set_major_formatter("{x:g}")
    plane.legend(loc="best")
    return fig


def _lines(points: Sequence[Point]) -> dict[str, list[list[Point]]]:
    """{sampler: a line for each model, which begins at the model as it is}."""
    plain = {p.model: p for p in points if p.sampler == PLAIN}
    out: dict[str, dict[str, list[Point]]] = {}
    for p in points:
        if p.sampler != PLAIN:
            out.setdefault(p.family, {}).setdefault(p.model, [plain[p.model]]).append(p)
    return {family: list(of.values()) for family, of in out.items()}


def _along(
    ax: "Axes",
    x: Sequence[Estimate] | Sequence[float],
    line: Sequence[Point],
    look: dict[str, Any],
    marker: str,
    skip: int = 1,
) -> None:
    """A line with intervals; without those of its first `skip` points, which others draw."""
    at = np.array([_parts(one) for one in x]).reshape(-1, 3)
    y = np.array([_parts(p.precision) for p in line]).reshape(-1, 3)
    size = 3 if skip else 6
    ax.plot(at[:, 0], y[:, 0], marker=marker, markersize=size, markevery=slice(skip, None), **look)
    ax.errorbar(
        at[skip:, 0],
        y[skip:, 0],
        xerr=_sides(at[skip:]),
        yerr=_sides(y[skip:]),
        fmt="none",
        ecolor=look["color"],
        elinewidth=0.5,
        alpha=0.5,
    )


def _parts(one: Estimate | float) -> tuple[float, float, float]:
    return (one.value, one.low, one.high) if isinstance(one, Estimate) else (one, one, one)


def _sides(parts: np.ndarray) -> np.ndarray:
    """(2, N): how far the interval goes down and up."""
    return np.stack([parts[:, 0] - parts[:, 1], parts[:, 2] - parts[:, 0]]).clip(min=0)


def main(workdir: str, json_path: str, **settings: Any) -> None:
    """Prints the table, writes JSON to a file, or with "-" prints JSON alone."""
    folder = Path(workdir).expanduser()
    # Only where there is a workdir: another path is refused, and no folder made.
    there = (folder / "config.json").is_file()
    written = [str(folder / KEPT), str(folder / FIGURE.with_suffix(".png"))] if there else []
    command.deliver(
        json_path,
        lambda bars: control(workdir, progress=bars, **settings),
        Controlled.to_text,
        *written,
    )
