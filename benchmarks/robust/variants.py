"""VARIANTS: how the fine-tune is set, one row each; and the controls, which have no λ.

A new row is one line: the name, and {dotted knob: value}. The values are first guesses, and none is
tuned.
"""

from collections.abc import Mapping
from typing import Any

from prpr import config
from prpr.errors import unknown_name

from .conditions import DIGITS, changed, get

VARIANTS: dict[str, Mapping[str, Any]] = {
    "default": {},
    "r1r2": {"critic.r1": 0.01, "critic.r2": 0.01},
    "normalise": {"normalise": True},
    "clip": {"critic.clip": 1.0, "generator.clip": 1.0},
    "ema": {"generator.ema": 0.995},
    "augment": {"augment.policy": "translation,cutout"},
    "adaptive": {"augment.policy": "translation,cutout", "augment.p": 0.0, "augment.adaptive": 0.6},
    "noise": {"augment.policy": "noise", "augment.sigma": 0.1},
    "lecam": {"critic.lecam": 0.01},
    "consistency": {"critic.consistency": 1.0, "critic.consistency_policy": "translation,cutout"},
    "mode_seeking": {"generator.mode_seeking": 0.1},
    "freeze": {"critic.freeze": 1},
    "balanced": {"train.balance": True},
    "joint": {"conditional_ratio": False},
    "from_1": {"schedule.lam_from": 1.0, "schedule.steps": 300},
    "tau_1": {"dials.tau": 1.0},  # a wider window: at low λ bad samples are pushed too
}
IMAGES_ONLY = ("augment", "adaptive", "consistency")  # points cannot be shifted or cut

# As many further updates with a loss that has no λ, once a condition: see config.control_of.
CONTROLS: dict[str, Mapping[str, Any]] = {
    "hinge": {"base.loss": "hinge"},
    "logistic": {"base.loss": "logistic"},
}


def fits(condition: str, name: str) -> bool:
    """Whether a condition's data can take that variant or control."""
    return name not in IMAGES_ONLY or get(condition).source is DIGITS


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
