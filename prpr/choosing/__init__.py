"""From a goal to λ: records of (λ, metrics) and a wish in, the λ with its certainty out.

    held = choosing.read(["runs/digits"])
    answer = choosing.choose(held, "precision >= 0.85")
    print(choosing.to_text(answer))

Nothing is trained or measured here. How often promises are kept: benchmarks/choosing.py.
"""

from prpr.choosing.answers import to_json, to_text
from prpr.choosing.decision import VERDICTS, Answer, choose
from prpr.choosing.records import Records, Row, read
from prpr.choosing.wishes import Aim, Constraint, Cost, Target, Wish, parse

__all__ = [
    "VERDICTS",
    "Aim",
    "Answer",
    "Constraint",
    "Cost",
    "Records",
    "Row",
    "Target",
    "Wish",
    "choose",
    "parse",
    "read",
    "to_json",
    "to_text",
]
