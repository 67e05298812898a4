"""CelebA at 64x64: BigGAN without classes, fine-tuned at four λ, or from scratch as in the paper.

    python experiments/finetune_biggan.py --config=configs/celeba64.py --config.data.path=TFDS_DIR
    python experiments/train_gan.py --config=configs/celeba64.py:scratch --config.data.path=TFDS_DIR

Data: TFDS `celeb_a`. One H100, on paper (--plan '--plan_device=1*h100-sxm'): 8.4 GB; base 5.8 h
(2.7 to 12.7), each λ 1.2 h (.5 to 2.6). Elsewhere: --plan, or measured there, --plan --probe.

Settings: the paper's λ, rate, batch and critic steps; width 64 is the original's default.
`:scratch` takes 95,000 steps, the paper's 300 epochs; the fine-tune a base as long and a fifth of
that at each λ. They have not been run to the end here.

Arguments: `:scratch`; `:smoke` runs the same path in seconds, on a made-up copy of the data.
"""

from collections.abc import Iterator
from typing import Any

from prpr import config
from prpr.errors import unknown_name

ARGUMENTS = ("", "scratch", "smoke")
LAMS = (0.5, 1.0, 2.0, 5.0)


def get_config(argument: str = "") -> config.Config:
    if argument not in ARGUMENTS:
        raise unknown_name("argument of configs/celeba64.py", argument, ARGUMENTS)
    cfg = config.defaults()
    cfg.name, cfg.lams = "celeba64", LAMS
    cfg.data.name, cfg.data.resolution, cfg.data.flip = "celeb_a", 64, True
    cfg.model.generator_ch = cfg.model.critic_ch = 64
    cfg.model.dim_z, cfg.model.shared_dim, cfg.model.attention_at = 120, 128, (32,)
    cfg.base.steps, cfg.base.critic_steps = 95_000, 4
    cfg.base.critic_lr = cfg.base.generator_lr = 2e-4
    cfg.critic.steps, cfg.critic.scale = 4, 5.0
    cfg.critic.lr = cfg.generator.lr = 2e-4
    cfg.critic.b2 = cfg.generator.b2 = 0.999
    cfg.generator.ema = cfg.base.ema = 0.9999
    cfg.train.batch, cfg.train.steps, cfg.train.warmup = 128, 19_000, 500
    cfg.train.layout, cfg.train.replica_check_every = "data", 1000
    cfg.train.diagnose_every, cfg.train.checkpoint_every, cfg.train.keep_best = 500, 1000, 1
    cfg.score.n_real = cfg.score.n_fake = 10_000
    cfg.score.encoder = "pixels"  # one class: no classifier
    if argument == "scratch":
        cfg.name = "celeba64-scratch"
        cfg.train.steps, cfg.train.warmup, cfg.critic.scale = 95_000, 0, 1.0
        cfg.generator.ema_start = 1000
    return config.shrink(cfg) if argument == "smoke" else cfg


def sweep() -> Iterator[dict[str, Any]]:
    """The paper's λ, a run each."""
    for lam in LAMS:
        yield {"lams": (lam,)}
