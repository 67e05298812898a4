"""prpr: choose how a generative model trades precision against recall.

Modules are imported on first use (`prpr.divergences`, `prpr.frontier`, ...), so that
`import prpr` costs nothing.
"""

import importlib

__version__ = "0.1.0"

_MODULES = (
    "build",
    "checkpoint",
    "cli",
    "config",
    "convert",
    "data",
    "divergences",
    "encoders",
    "errors",
    "evaluate",
    "fdivergence",
    "fitting",
    "frontier",
    "metrics",
    "mixtures",
    "models",
    "numerics",
    "objectives",
    "parallel",
    "planner",
    "plotting",
    "preempt",
    "progress",
    "ratio",
    "record",
    "regularizers",
    "report",
    "run",
    "sampling",
    "score",
    "sweep",
    "theory_figures",
    "train",
    "trainer",
    "weights",
)


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"prpr.{name}")
    raise AttributeError(f"module 'prpr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
