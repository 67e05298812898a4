"""A ring of eight Gaussians in the plane: a small GAN, pre-trained with the hinge loss, at three λ.

    python experiments/train_gan.py --config=configs/toy_2d.py:base      # the base run alone
    python experiments/finetune_biggan.py --config=configs/toy_2d.py     # base, control and λ

`--config.data.name=grid25` (or skewed) trains on another mixture. Arguments: `:base` is the base
run's own configuration, `:smoke` runs everything in seconds.
"""

from prpr import config
from prpr.errors import unknown_name

ARGUMENTS = ("", "base", "smoke")


def get_config(argument: str = "") -> config.Config:
    if argument not in ARGUMENTS:
        raise unknown_name("argument of configs/toy_2d.py", argument, ARGUMENTS)
    cfg = config.defaults()
    cfg.name = "toy_2d"
    cfg.lams = (0.2, 1.0, 5.0)
    cfg.data.name = "ring8"
    cfg.data.fractions = (0.8, 0.1, 0.1)
    cfg.model.name = "mlp"
    cfg.model.generator_ch, cfg.model.critic_ch, cfg.model.dim_z = 16, 64, 2
    cfg.model.critic_spectral_norm = False
    cfg.base.steps, cfg.base.critic_steps = 1000, 5
    cfg.base.generator_lr, cfg.base.critic_lr = 5e-4, 1e-3
    cfg.generator.lr, cfg.critic.lr, cfg.critic.steps = 5e-4, 1e-3, 5
    cfg.generator.b1 = cfg.critic.b1 = 0.5
    cfg.dials.tau = 0.25
    cfg.train.batch, cfg.train.steps, cfg.train.warmup = 128, 3000, 300
    cfg.score.encoder = "pixels"
    if argument == "smoke":
        cfg.name = "toy_2d-smoke"
        cfg.lams = (0.2, 5.0)
        cfg.train.steps, cfg.train.warmup, cfg.base.steps = 6, 2, 6
        cfg.train.log_every, cfg.train.checkpoint_every, cfg.train.diagnose_every = 2, 4, 2
    return config.base_of(cfg) if argument == "base" else cfg


def sweep():
    """Each λ at two seeds, and their controls."""
    for lam in (0.2, 1.0, 5.0):
        yield {"lams": (lam,), "seeds": (0, 1)}
