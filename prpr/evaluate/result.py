"""What an evaluation gives: numbers with intervals, and all that they depend on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import prpr
from prpr import record
from prpr.evaluate.views import PerClass
from prpr.metrics import Comparison, Estimate
from prpr.samplers.settings import Cost, Sampler, settings, text

Numbers = Mapping[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Several models that differ in their seed: {metric: a value each}, {metric: their sd}."""

    names: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    sd: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Sampled:
    """How the generated samples were drawn: the sampler, {name of the samples: their cost}."""

    sampler: Sampler
    costs: Mapping[str, Cost]

    @property
    def total(self) -> Cost:
        """Of all samples together."""
        return Cost(*map(sum, zip(*self.costs.values(), strict=True)))

    def to_text(self) -> str:
        """The sampler and its cost."""
        return f"{text(self.sampler)}  ({self.total.to_text()})"

    def to_json(self) -> dict[str, Any]:
        """Name, settings, the cost of all samples and of each set."""
        return {
            "name": self.sampler.name,
            "settings": settings(self.sampler),
            "cost": self.total.to_json(),
            "costs": {name: cost.to_json() for name, cost in self.costs.items()},
        }


@dataclasses.dataclass(frozen=True)
class Result:
    """The numbers of a model against real data.

    Attributes:
      metrics: {name: Estimate} in the order that was asked for.
      level: probability that an interval covers.
      n_real, n_fake: samples that were used; 0 where a file of moments does not say, in JSON null.
      encoder: what made the features.
      encoders: {metric: encoder} of the metrics that use another one.
      k, k_coverage: neighbours of precision and recall, and of density and coverage; some metrics
        have a k of their own, which is in their `Estimate`.
      seed: of shuffles, groups and folds.
      convention, resize: by name; resize is None where features were given.
      real, fake, compare: the names of the samples.
      warnings: what to know before trusting the numbers.
      comparison: {name: Comparison} of `fake` less `compare`, or None.
      seeds, per_class: see `Seeds`, `PerClass`, or None.
      truncation: (truncation, numbers) of each that was asked for.
      sampler: how `fake` was drawn, and its cost; None where samples were taken as they are.
      sheet: the picture of the most memorised samples that was written, or None.
    """

    metrics: Numbers
    level: float
    n_real: int
    n_fake: int
    encoder: str
    k: int
    k_coverage: int
    seed: int
    convention: str
    resize: str | None
    real: str
    fake: str
    warnings: tuple[str, ...] = ()
    encoders: Mapping[str, str] = dataclasses.field(default_factory=dict)
    compare: str | None = None
    comparison: Mapping[str, Comparison] | None = None
    seeds: Seeds | None = None
    per_class: PerClass | None = None
    truncation: tuple[tuple[float, Numbers], ...] = ()
    sampler: Sampled | None = None
    sheet: str | None = None

    def to_json(self) -> dict[str, Any]:
        """One object of plain values; NaN and infinities as `prpr.record` writes them."""
        out: dict[str, Any] = {
            "metrics": self._numbers(self.metrics),
            "real": self.real,
            "fake": self.fake,
            "n_real": self.n_real or None,
            "n_fake": self.n_fake or None,
            "encoder": self.encoder,
            "k": self.k,
            "k_coverage": self.k_coverage,
            "seed": self.seed,
            "convention": self.convention,
            "resize": self.resize,
            "warnings": list(self.warnings),
            "version": prpr.__version__,
        }
        if self.encoders:
            out["encoders"] = dict(self.encoders)
        if self.compare is not None:
            out["compare"] = self.compare
        if self.comparison is not None:
            out["comparison"] = {
                name: {**one._asdict(), "level": self.level}
                for name, one in self.comparison.items()
            }
        if self.seeds is not None:
            out["seeds"] = {
                "names": list(self.seeds.names),
                "metrics": {
                    name: {"values": list(values), "sd": self.seeds.sd[name]}
                    for name, values in self.seeds.values.items()
                },
            }
        if self.per_class is not None:
            out["per_class"] = self._per_class(self.per_class)
        if self.truncation:
            out["truncation"] = [
                {"truncation": t, "metrics": self._numbers(numbers)}
                for t, numbers in self.truncation
            ]
        if self.sampler is not None:
            out["sampler"] = self.sampler.to_json()
        if self.sheet is not None:
            out["sheet"] = self.sheet
        return record.to_plain(out)

    def _per_class(self, found: PerClass) -> dict[str, Any]:
        rows = {
            name: {
                "metrics": self._numbers(numbers),
                "n_real": found.sizes[name][0],
                "n_fake": found.sizes[name][1],
            }
            for name, numbers in found.classes.items()
        }
        left_out = {
            name: {"n_real": n_real, "n_fake": n_fake}
            for name, (n_real, n_fake) in found.left_out.items()
        }
        return {"classes": rows, "worst": found.worst, "left_out": left_out}

    def _numbers(self, numbers: Numbers) -> dict[str, Any]:
        return {
            name: {
                "value": e.value,
                "low": e.low,
                "high": e.high,
                "level": self.level,
                **({} if e.k is None else {"k": e.k}),
            }
            for name, e in numbers.items()
        }
