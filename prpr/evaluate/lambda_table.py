"""λ trained for against λ measured, of all runs of a workdir: experiments/lambda_table.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prpr.errors import ConfigError, unknown_name
from prpr.evaluate import choose, command, conventions, runs
from prpr.evaluate.features import Features, Settings, channels_of
from prpr.evaluate.inputs import open_input
from prpr.jobs import Job
from prpr.metrics import Options, Statistics, checks, curves, intervals, trained_measured
from prpr.metrics.family import Progress
from prpr.metrics.groups import FAKE
from prpr.run import lam_name


class Measured(NamedTuple):
    """The table of a workdir, and what it was measured on.

    Attributes:
      table: see `prpr.metrics.trained_measured`.
      encoder: what made the features.
      n_real, n_fake: samples of each side.
      seed: of the runs; `estimator`: of the frontier.
      warnings: what to know before trusting it.
    """

    table: trained_measured.Table
    encoder: str
    n_real: int
    n_fake: int
    seed: int
    estimator: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The table and its head as plain values."""
        head = {key: value for key, value in self._asdict().items() if key != "table"}
        return {**trained_measured.to_json(self.table), **head, "warnings": list(self.warnings)}

    def to_text(self) -> str:
        """The table, its head and its notes, for a terminal."""
        lines = [
            f"{self.n_real} real and {self.n_fake} samples of each run (seed {self.seed}), "
            f"{self.encoder}, frontier by the {self.estimator} estimator",
            "",
            trained_measured.to_text(self.table),
        ]
        return "\n".join([*lines, "", *(f"note: {line}" for line in self.warnings)]).rstrip()


def lambda_table(
    workdir: str,
    *,
    encoder: str | None = None,
    resize: str | None = None,
    estimator: str = "classifier",
    seed: int | None = None,
    n_fake: int = 0,
    level: float = 0.95,
    progress: Progress | None = None,
) -> Measured:
    """Measures the frontier of every λ that a workdir's runs were trained for.

    One run after the other: each is forgotten before the next is opened.

    Args:
      workdir: of experiments/finetune_biggan.py or train_gan.py.
      encoder: as `evaluate`; by default the one that the run was scored with.
      resize: as `evaluate`.
      estimator: of the frontier: "classifier" (cross-fitted) or "knn".
      seed: of the runs; by default the first of the configuration.
      n_fake: samples of each run; 0 is as many as real ones.
      level: of the intervals.
      progress: called as work is done.

    Raises:
      ConfigError: no workdir of a run, no run at a λ, an unknown encoder or estimator, a level or
        a number that cannot be used.
      CheckpointError, DataError: runs or data that cannot be read.
    """
    if estimator not in curves.ESTIMATORS:
        raise unknown_name("estimator", estimator, curves.ESTIMATORS)
    intervals.check_level(level)
    if not checks.is_whole(n_fake) or n_fake < 0:
        raise ConfigError(f"n_fake={n_fake!r} must be a whole number >= 0; 0 takes as many as real")
    choose.check_encoder(encoder, resize)
    folder, cfg = runs.workdir(workdir)
    seed = int(cfg.seeds[0]) if seed is None else seed
    lams = _trained(folder, seed, [float(lam) for lam in cfg.lams])

    real, train = open_input(f"{folder}?real", "real"), open_input(f"{folder}?train", "train")
    count = n_fake or real.size
    wanted = None if real.images is None else encoder or cfg.score.encoder
    # Samples of the runs are what real ones are, points or images of as many channels.
    spec, resized = choose.encoder_name((), [real], wanted, resize)
    channels = channels_of(real, train)
    settings = Settings(spec, resized, 0, train=train, channels=channels, progress=progress)
    features = Features(settings, real)
    stats = features.of(real, np.arange(real.size), "real", spec)
    said = [*real.notes.lines(), *train.notes.lines()]
    sizes: list[int] = []

    def sets() -> Iterator[tuple[Statistics, Statistics]]:
        for lam in lams:
            yield stats, measured(lam)

    def measured(lam: float) -> Statistics:
        fake = open_input(f"{folder}?lam={lam!r}&seed={seed}", "fake", count)
        rows = conventions.shuffled(min(count, fake.size), fake.size, 0, FAKE)
        made = features.of(fake, rows, f"λ={lam:g}", spec)
        features.forget(fake)
        said.extend(fake.notes.lines())
        sizes.append(made.n)
        return made

    options = Options(level=level, progress=progress)
    table = trained_measured.of_each(lams, sets(), options, estimator)
    said += table.notes
    if estimator == "knn":
        said += conventions.few(stats.n, min(sizes))
    return Measured(
        table,
        stats.encoder,
        stats.n,
        min(sizes),
        seed,
        estimator,
        tuple(dict.fromkeys(said)),
    )


def _trained(folder: Path, seed: int, lams: list[float]) -> list[float]:
    """The λ of the configuration that have a run of this seed; ConfigError for none."""
    known = runs.runs_of(folder)
    made = [lam for lam in lams if Job(lam_name(lam), lam, seed).run in known]
    if not made:
        raise ConfigError(
            f"{folder} holds no run of seed {seed} at a λ ({', '.join(map(str, lams)) or 'none'} "
            "configured): train one first, or name another seed"
        )
    return made


def main(workdir: str, json_path: str, **settings: Any) -> None:
    """Prints the table, writes JSON to a file, or with "-" prints JSON alone."""
    command.deliver(
        json_path,
        lambda bars: lambda_table(workdir, progress=bars, **settings),
        Measured.to_text,
    )
