"""What a prediction is, in words, as tables and as plain values."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from prpr import record
from prpr.evaluate import table
from prpr.evaluate.measure import METRICS
from prpr.metrics.curves import Curve
from prpr.planner import tradeoff
from prpr.predict.options import BOTH, REJECT, Advice, Option


class Costs(NamedTuple):
    """Seconds of one device here, on paper (`planner`): one λ's training, a generator's and a
    critic's pass for a sample."""

    tune: float
    generator: float
    critic: float

    def of(self, option: Option, samples: int) -> float:
        """Seconds of an option for this many samples, training included."""
        draws = self.generator * option.calls
        judged = self.critic * option.calls if option.action in (REJECT, BOTH) else 0.0
        return self.tune * option.trained + samples * (draws + judged)

    def even(self, calls: float) -> float:
        """Samples from which on fine-tuning is cheaper than rejection with so many calls."""
        return tradeoff.break_even(self.tune, 0.0, self.generator, self.critic, 1 / calls)


class Prediction(NamedTuple):
    """All of it.

    Attributes:
      about: generator, seeds, encoder, sizes, level, samples.
      critic: {seed: what its fit gave}.
      frontier: α and β at each λ, means over seeds of values and of intervals' ends.
      options: what can be done, with what it gives.
      at_most: {metric: {"value", "low", "high"}} of training data in the samples' place.
      costs: see `Costs`.
      advice: one for each wish.
      reached: {option: {"precision", "recall", "within"}} of what was trained already.
      notes: what to know.
    """

    about: dict[str, Any]
    critic: dict[int, dict[str, float]]
    frontier: Curve
    options: tuple[Option, ...]
    at_most: dict[str, dict[str, float]]
    costs: Costs
    advice: tuple[Advice, ...]
    reached: dict[str, dict[str, Any]]
    notes: tuple[str, ...]

    @property
    def room(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """D_λ = min(1, λ) − α(λ): the estimate, its low and high ends, and what it surely is."""
        top, f = np.minimum(1.0, self.frontier.lam), self.frontier
        surely = np.maximum(0, top - self.upper)
        return top - f.alpha, np.maximum(0, top - f.high), top - f.low, surely

    @property
    def upper(self) -> np.ndarray:
        """What α(λ) surely is at most."""
        assert self.frontier.upper is not None  # a critic's scores are held out
        return self.frontier.upper

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        level, samples = self.about["level"], self.about["samples"]
        f, (room, low, high, surely), top = self.frontier, self.room, self.upper
        return record.to_plain(
            {
                "about": self.about,
                "critic": {str(seed): one for seed, one in self.critic.items()},
                "frontier": [
                    {
                        "lam": f.lam[i],
                        "alpha": {"value": f.alpha[i], "low": f.low[i], "high": f.high[i]},
                        "beta": {
                            "value": f.beta[i],
                            "low": f.low[i] / f.lam[i],
                            "high": f.high[i] / f.lam[i],
                        },
                        "upper": top[i],
                        "room": {
                            "value": room[i],
                            "low": low[i],
                            "high": high[i],
                            "surely": surely[i],
                        },
                    }
                    for i in range(len(f.lam))
                ],
                "options": [
                    {**one.to_json(level), "seconds": self.costs.of(one, samples)}
                    for one in self.options
                ],
                "at_most": self.at_most,
                "costs": self.costs._asdict(),
                "advice": [
                    {
                        "wish": str(one.wish),
                        "action": one.option.action,
                        "option": one.option.name,
                        "lam": one.option.lam,
                        "sampler": one.option.sampler,
                        "verdict": one.verdict,
                        "probability": one.probability,
                        "sure": None if one.sure is None else one.sure.name,
                        "beats": one.beats,
                    }
                    for one in self.advice
                ],
                "reached": self.reached,
                "notes": self.notes,
            }
        )

    def to_text(self) -> str:
        """The tables, the advice and the notes."""
        a, level = self.about, self.about["level"]
        seeds = ", ".join(map(str, a["seeds"]))
        lines = [
            f"the frozen generator in {a['generator']}, seeds {seeds}; {a['n_real']} real and "
            f"{a['n_fake']} samples, {a['encoder']}, k = {a['k']}; intervals at {level:g}",
            "",
            *(
                f"critic, seed {seed}: {one['updates']:.0f} updates; held out: AUC "
                f"{one['heldout_auc']:.3f} (.5 sees nothing), calibration error "
                f"{one['heldout_calibration_error']:.3f} after the slope {one['slope']:.2f}"
                for seed, one in self.critic.items()
            ),
            "",
            "the frontier as this critic sees it; room: the most that training at λ can add to α",
            *table.columns(
                ["λ", "α(λ)", "β(λ)", "α surely at most", "room", "surely"], self._frontier_rows()
            ),
            "",
            "what can be done",
            *table.columns(
                ["", *METRICS, "calls", f"s for {a['samples']:g}", ""], self._option_rows()
            ),
            *self._even(),
        ]
        if self.reached:
            lines += ["", "guessed, and what the runs in this workdir reached"]
            lines += table.columns(["", *METRICS, "in the interval"], self._reached_rows())
        lines.append("")
        for one in self.advice:
            lines += [f"{one.wish}: {self._told(one)}"]
        return "\n".join([*lines, *(f"note: {line}" for line in self.notes)])

    def _frontier_rows(self) -> list[list[str]]:
        f, (room, low, high, surely), top = self.frontier, self.room, self.upper
        number, between = table.number, table.between
        return [
            [
                f"{f.lam[i]:g}",
                f"{number(f.alpha[i])} ({between(f.low[i], f.high[i])})",
                f"{number(f.beta[i])} ({between(f.low[i] / f.lam[i], f.high[i] / f.lam[i])})",
                number(top[i]),
                f"{number(room[i])} ({between(low[i], high[i])})",
                number(surely[i]),
            ]
            for i in range(len(f.lam))
        ]

    def _option_rows(self) -> list[list[str]]:
        rows = []
        for one in self.options:
            shown = one.to_json(self.about["level"])
            rows.append(
                [
                    one.name,
                    *(_shown(shown[metric]) for metric in METRICS),
                    f"{one.calls:.3g}",
                    f"{self.costs.of(one, self.about['samples']):.3g}",
                    "measured" if one.measured else "guessed",
                ]
            )
        real = [_shown(self.at_most[metric]) for metric in METRICS]
        return [*rows, ["real data in their place", *real, "", "", "measured"]]

    def _even(self) -> list[str]:
        """From how many samples on training is cheaper than rejection."""
        told = [
            f"{one.sampler} from {self.costs.even(one.calls):.3g}"
            for one in self.options
            if one.action == REJECT
        ]
        if not told:
            return []
        return [f"one fine-tune ({self.costs.tune:.3g} s) is cheaper than {', '.join(told)} on"]

    def _reached_rows(self) -> list[list[str]]:
        return [
            [
                name,
                *(
                    f"{table.number(one['guessed'][metric])} -> {table.number(one[metric])}"
                    for metric in METRICS
                ),
                ", ".join(m for m in METRICS if one["within"][m]) or "none",
            ]
            for name, one in self.reached.items()
        ]

    def _told(self, one: Advice) -> str:
        found = one.option
        text = f"{found.name} ({one.verdict}"
        if one.probability is not None:
            text += f", holds with probability {one.probability:.2f}"
        text += ", measured)" if found.measured else ", a guess)"
        if one.sure is not None:
            sure = one.sure.to_json(self.about["level"])
            values = ", ".join(f"{m} {table.number(sure[m]['value'])}" for m in METRICS)
            text += f"; promised: {one.sure.name} ({values})"
        return text


def _shown(one: Mapping[str, float]) -> str:
    return f"{table.number(one['value'])} ({table.between(one['low'], one['high'])})"
