"""Evaluation: folders, arrays, records and runs -> numbers with intervals, and what they rest on.

    result = evaluate("data/test", "samples.npz", ("precision", "recall"))
    result.metrics["recall"].low, result.warnings, result.to_json()
    features = encode_images("data/test", "inception")                # (N, D) float32
    save("reference.npz", reference("data/test", encoder="inception"))   # used again as `real`

`inputs` says what can be evaluated, `pixels` how files become bytes, `conventions` what is used
where nothing is said. Images stream: only their features are held. `command` is
experiments/evaluate.py.
"""

from prpr.evaluate.conventions import CONVENTIONS
from prpr.evaluate.evaluation import evaluate
from prpr.evaluate.inputs import Input, open_input
from prpr.evaluate.reference import encode_images, reference
from prpr.evaluate.result import Result
from prpr.metrics import save

__all__ = [
    "CONVENTIONS",
    "Input",
    "Result",
    "encode_images",
    "evaluate",
    "open_input",
    "reference",
    "save",
]
