"""Small configurations of the experiments in the plane."""

import importlib.util
from pathlib import Path

from prpr import config

ROOT = Path(__file__).parents[1]


def get_config(argument: str) -> config.Config:
    """configs/toy_2d.py with tiny networks and batches."""
    spec = importlib.util.spec_from_file_location("toy_2d", ROOT / "configs/toy_2d.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cfg = module.get_config(argument)
    cfg.model.generator_ch, cfg.model.critic_ch, cfg.train.batch = 8, 8, 16
    cfg.critic.steps = cfg.base.critic_steps = 1
    cfg.model.depth = 2
    return cfg
