"""VARIANTS: how the fine-tune is set, one row each; and the controls, which have no λ.

A new row is one line: the name, and {dotted knob: value}.
"""

from collections.abc import Mapping
from typing import Any

from prpr import config
from prpr.errors import unknown_name

from .conditions import changed

VARIANTS: dict[str, Mapping[str, Any]] = {
    "default": {},
    "r1r2": {"critic.r1": 0.01, "critic.r2": 0.01},
    "normalise": {"normalise": True},
    "clip": {"critic.clip": 1.0, "generator.clip": 1.0},
    "ema": {"generator.ema": 0.995},
    "joint": {"conditional_ratio": False},
    "augment": {"augment.policy": "translation,cutout"},
    "adaptive": {
        "augment.policy": "translation,cutout",
        "augment.p": 0.0,
        "augment.adaptive": 0.6,
        "augment.kimg": 50.0,
    },
    "noise": {"augment.policy": "noise", "augment.sigma": 0.1, "augment.sigma_steps": 500},
    "lecam": {"critic.lecam": 0.1},
    "consistency": {"critic.consistency": 10.0, "critic.consistency_policy": "translation"},
    "freeze": {"critic.freeze": 1},
    "mode_seeking": {"generator.mode_seeking": 0.1},
    "schedule": {"schedule.lam_from": 1.0, "schedule.steps": 375},
}

# As many further updates with a loss that has no λ, once a condition: see config.control_of.
CONTROLS: dict[str, Mapping[str, Any]] = {
    "hinge": {"base.loss": "hinge"},
    "logistic": {"base.loss": "logistic"},
}


def applied(cfg: config.Config, name: str) -> config.Config:
    """The configuration of a variant or of a control, whose `lams` are empty then.

    Raises ConfigError for a name in neither table.
    """
    if name in CONTROLS:
        out = changed(cfg, CONTROLS[name])
        out.lams, out.control = (), True
        return out
    if name not in VARIANTS:
        raise unknown_name("variant", name, VARIANTS)
    return changed(cfg, VARIANTS[name])
