"""scikit-learn's 8x8 digits: a small BigGAN, pre-trained with the hinge loss, fine-tuned at four λ.

    python experiments/finetune_biggan.py --config=configs/digits.py          # the whole
    python experiments/train_gan.py --config=configs/digits.py:base           # its base alone
    python experiments/train_flow.py --config=configs/digits.py               # a flow instead

Expect on the test split (pixels, k = 3, mean over seeds 0, 1, 2; README): precision
.84/.87/.88/.88 and recall .51/.53/.47/.38 at λ = .2/1/5/20, against the control's .85/.30.
One seed takes 2.5 minutes and 1.4 GiB on 2 CPU cores. The flow: docs/flows.md.

Arguments: `:base` is the base run's own configuration, `:smoke` runs everything in seconds;
`:flow` and `:flow_smoke` are the flow's, which experiments/train_flow.py takes.
"""

from prpr import config
from prpr.errors import unknown_name

ARGUMENTS = ("", "base", "smoke", "flow", "flow_smoke")


def get_config(argument: str = "") -> config.Config:
    if argument not in ARGUMENTS:
        raise unknown_name("argument of configs/digits.py", argument, ARGUMENTS)
    cfg = config.defaults()
    cfg.name = "digits"
    cfg.lams = (0.2, 1.0, 5.0, 20.0)
    cfg.data.name = "digits"
    cfg.model.name = "biggan"
    cfg.model.generator_ch, cfg.model.critic_ch = 16, 24
    cfg.model.dim_z, cfg.model.shared_dim = 16, 16
    cfg.base.steps, cfg.base.critic_steps = 1500, 1
    cfg.base.critic_lr = cfg.base.generator_lr = 1e-3
    cfg.critic.steps, cfg.critic.scale = 4, 5.0
    cfg.critic.lr = cfg.generator.lr = 1e-3
    # A short average: a long one lifts every model above the real data's own precision, where
    # precision no longer tells models apart (README).
    cfg.generator.ema = cfg.base.ema = 0.9
    cfg.objective, cfg.dials.tau = "envelope", 0.5
    cfg.train.steps, cfg.train.warmup, cfg.train.decay = 750, 150, "late_linear"
    cfg.score.encoder, cfg.score.repeats = "pixels", 8
    if argument.startswith("flow"):
        cfg = config.flow_of(cfg)
        cfg.model.name, cfg.model.depth, cfg.model.layers = "glow", 4, 2
        cfg.model.generator_ch = 32
        # It overfits the 898 training images after 400 steps.
        cfg.base.steps, cfg.base.generator_lr = 400, 2e-3
        cfg.train.steps, cfg.generator.lr = 400, 5e-4
        cfg.generator.ema = cfg.base.ema = 0.99
    if argument.endswith("smoke"):
        cfg.name = f"{cfg.name}-smoke"
        cfg.lams = (0.2, 5.0)
        cfg.train.steps, cfg.train.warmup, cfg.base.steps = 4, 2, 4
        cfg.train.batch, cfg.train.log_every, cfg.train.checkpoint_every = 16, 2, 3
        cfg.train.diagnose_every, cfg.score.repeats = 2, 1
    return config.base_of(cfg) if argument == "base" else cfg


def sweep():
    """The runs of README's table: each λ at three seeds, and their controls."""
    for lam in (0.2, 1.0, 5.0, 20.0):
        yield {"lams": (lam,), "seeds": (0, 1, 2)}
