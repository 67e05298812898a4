"""One model after another through samplers, measured against the held-out data of its workdir."""

from pathlib import Path
from typing import Any

import numpy as np

import prpr
from prpr import record, samplers
from prpr.errors import ConfigError
from prpr.evaluate import choose, conventions, runs
from prpr.evaluate.features import Features, Settings, channels_of
from prpr.evaluate.inputs import Input, open_input
from prpr.jobs import Job
from prpr.metrics import Options, intervals, registry
from prpr.metrics.family import Progress
from prpr.metrics.groups import FAKE

METRICS = ("precision", "recall")


def query(job: Job) -> dict[str, str]:
    """What asks `runs` for a job."""
    of = {"run": job.name} if job.lam is None else {"lam": repr(job.lam)}
    return {**of, "seed": str(job.seed)}


class Measure:
    """What all rows are measured against, and with.

    Attributes:
      settings: as plain values; rows of other settings cannot stand beside these.
      said: what to know.
    """

    def __init__(
        self,
        folder: Path,
        encoder: str | None,
        resize: str | None,
        n_fake: int,
        level: float,
        progress: Progress | None,
    ):
        self._folder, cfg = folder, runs.configuration(folder)
        real, train = open_input(f"{folder}?real", "real"), open_input(f"{folder}?train", "train")
        self._count = n_fake or real.size
        wanted = None if real.images is None else encoder or cfg.score.encoder
        self._encoder, resized = choose.encoder_name((), [real], wanted, resize)
        channels = channels_of(real, train)
        settings = Settings(
            self._encoder, resized, 0, train=train, channels=channels, progress=progress
        )
        self._options = Options(cfg.score.k, cfg.score.k_coverage, level, progress=progress)
        conventions.check_enough(METRICS, [real], self._options, [real.size])
        least = conventions.needed(cfg.score.k, self._options.groups)
        if self._count < least:
            raise ConfigError(
                f"n_fake={n_fake}: recall with k={cfg.score.k} needs at least {least}; 0 takes as "
                "many as real"
            )
        self._features = Features(settings, real)
        self._real = self._features.of(real, np.arange(real.size), "real", self._encoder)
        self.said = [*real.notes.lines(), *train.notes.lines()]
        self.settings = record.to_plain(
            {
                "encoder": self._real.encoder,
                "resize": resized,
                "k": cfg.score.k,
                "level": level,
                "n_real": real.size,
                "n_fake": self._count,
                "score": cfg.score.to_dict(),
                "data": cfg.data.to_dict(),
                "version": prpr.__version__,
            }
        )

    def row(self, job: Job, sampler: samplers.Sampler | None) -> dict[str, Any]:
        """The numbers of a model through a sampler, its cost and its notes."""
        asked = "&".join(f"{name}={value}" for name, value in query(job).items())
        bound = 0.0 if sampler is None else None
        fake = open_input(
            f"{self._folder}?{asked}", "fake", self._count, truncation=bound, sampler=sampler
        )
        cost = fake.cost or samplers.Cost(self._count, self._count)
        return {
            "metrics": self.numbers(fake, job.run),
            "cost": cost.to_json(),
            "notes": [line.partition(": ")[2] for line in fake.notes.lines()],
        }

    def numbers(self, fake: Input, name: str) -> dict[str, dict[str, float]]:
        """{metric: {"value", "low", "high"}} of samples, as many as a row has."""
        rows = conventions.shuffled(self._count, fake.size, 0, FAKE)
        stats = self._features.of(fake, rows, name, self._encoder)
        self._features.forget(fake)
        found = registry.replicates(METRICS, self._real, stats, self._options)
        level = self._options.level
        estimates = {name: intervals.estimate(one, level) for name, one in found.items()}
        return {
            name: {"value": e.value, "low": e.low, "high": e.high} for name, e in estimates.items()
        }

    def few(self) -> list[str]:
        """The warnings of the numbers of samples."""
        n_real, n_fake = self._real.n, self._count
        said = conventions.few(n_real, n_fake)
        if n_real != n_fake:
            said.append(
                f"{n_real} real and {n_fake} samples: precision and recall are not on equal terms"
            )
        return said
