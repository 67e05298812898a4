"""From a workdir and a wish to λ: experiments/choose_lambda.py.

What the wish reads and the run's score has not is measured first, run by run, on the samples that
the score stored; what was measured is kept in WORKDIR/goal.json for the next question.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prpr import choosing, record
from prpr.choosing.wishes import Wish
from prpr.errors import ConfigError, DataError, PrprError
from prpr.evaluate import command, runs
from prpr.evaluate.evaluation import evaluate
from prpr.jobs import Job
from prpr.metrics import intervals, registry
from prpr.metrics.family import Progress
from prpr.run import lam_name

KEPT = "goal.json"


class Chosen(NamedTuple):
    """An answer that `command.deliver` can write."""

    answer: choosing.Answer

    def to_json(self) -> dict[str, Any]:
        """See `choosing.to_json`."""
        return choosing.to_json(self.answer)

    def to_text(self) -> str:
        """See `choosing.to_text`."""
        return choosing.to_text(self.answer)


def choose(
    sources: Sequence[str],
    wish: str,
    *,
    level: float = 0.95,
    monotone: bool = False,
    lam: float | None = None,
    encoder: str | None = None,
    resize: str | None = None,
    progress: Progress | None = None,
) -> choosing.Answer:
    """The λ for a wish, from a workdir (what its score lacks is measured) or from files of records.

    Args:
      sources: one workdir, or files; see `prpr.choosing.records`.
      wish: see `prpr.choosing.wishes`.
      level, monotone: see `choosing.choose`.
      lam: answer for this λ instead of choosing one.
      encoder, resize: of what is measured here; by default the encoder of the run's score.
      progress: called as work is done.

    Raises:
      As `choosing.read`, `choosing.choose` and `evaluate`.
    """
    understood = choosing.parse(wish)
    intervals.check_level(level)
    if not sources:
        raise ConfigError("no records: name --workdir=RUN, or --records=FILE,FILE.")
    held = choosing.read(sources)
    folder = Path(sources[0]).expanduser()
    if len(sources) == 1 and folder.is_dir() and _lacks(held, understood):
        held = _measured(folder, held, understood, level, encoder, resize, progress)
    return choosing.choose(held, understood, level=level, monotone=monotone, only=lam)


def _lacks(held: choosing.Records, wish: Wish) -> list[str]:
    """The metrics that a wish reads and some record of a λ has not."""
    rows = [row for row in held.rows if row.lam is not None]
    missing = []
    for target in wish.targets:
        derived = target.metric.startswith("f_")
        held_by = (row.classes.values() if target.of else [row.metrics] for row in rows)
        if not derived and any(
            not of or any(target.metric not in one for one in of) for of in held_by
        ):
            missing.append(target.metric)
    return list(dict.fromkeys(missing))


def _measured(
    folder: Path,
    held: choosing.Records,
    wish: Wish,
    level: float,
    encoder: str | None,
    resize: str | None,
    progress: Progress | None,
) -> choosing.Records:
    """The same runs, with all that the wish reads measured alike."""
    metrics = [target.metric for target in wish.targets if target.of is None]
    metrics = list(dict.fromkeys(["precision", "recall", *metrics]))
    per_class = any(target.of is not None for target in wish.targets)
    for name in metrics:
        registry.family_of(name)
    for target in wish.targets:
        if target.of is not None and target.metric not in ("precision", "recall"):
            raise ConfigError(
                f"{str(target)!r}: of classes precision and recall are measured, not "
                f"{target.metric}."
            )
    cfg = runs.configuration(folder)
    settings = {
        "metrics": metrics,
        "level": level,
        "encoder": encoder or cfg.score.encoder,
        "resize": resize,
        "k": cfg.score.k,
        "k_coverage": cfg.score.k_coverage,
        "per_class": per_class,
        "runs": _stamps(folder, held),
    }
    kept = _kept(folder / KEPT, settings)
    if kept is None:
        kept = {
            "settings": settings,
            "rows": [
                _one(folder, row, settings, progress) for row in held.rows if row.lam is not None
            ],
        }
        record.write_json(folder / KEPT, kept)
    return choosing.read([folder / KEPT])


def _one(
    folder: Path, row: choosing.Row, settings: dict[str, Any], progress: Progress | None
) -> dict[str, Any]:
    found = evaluate(
        f"{folder}?real",
        f"{folder}?lam={row.lam!r}&seed={row.seed}",
        settings["metrics"],
        train=f"{folder}?train",
        progress=progress,
        **{
            key: settings[key]
            for key in ("level", "encoder", "resize", "k", "k_coverage", "per_class")
        },
    ).to_json()
    return {**found, "lam": row.lam}


def _stamps(folder: Path, held: choosing.Records) -> dict[str, int]:
    """{run: when its samples were written}: other samples are measured anew."""
    out = {}
    for row in held.rows:
        if row.lam is None or row.seed is None:
            continue
        run = Job(lam_name(row.lam), row.lam, row.seed).run
        path = folder / "samples" / f"{run}.npz"
        if not path.exists():
            raise DataError(
                f"{path} is missing: run the training command again, which scores anew."
            )
        out[run] = path.stat().st_mtime_ns
    return out


def _kept(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    try:
        kept = record.read_json(path) if path.exists() else None
    except PrprError:
        return None
    same = isinstance(kept, dict) and kept.get("settings") == record.to_plain(settings)
    return kept if same else None


def main(sources: Sequence[str], wish: str, json_path: str, **settings: Any) -> None:
    """Prints the answer; writes JSON to a file, or with "-" prints JSON alone."""
    command.deliver(
        json_path,
        lambda bars: Chosen(choose(sources, wish, progress=bars, **settings)),
        Chosen.to_text,
    )
