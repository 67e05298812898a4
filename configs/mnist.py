"""MNIST at 32x32: BigGAN, fine-tuned at four λ; --config.data.name=fashion_mnist for the other.

    python experiments/finetune_biggan.py --config=configs/mnist.py --config.data.path=TFDS_DIR
    python experiments/train_flow.py --config=configs/mnist.py --config.data.path=TFDS_DIR

Data: TFDS `mnist`. One H100, on paper (--plan '--plan_device=1*h100-sxm'): .3 GB; 9 minutes in
all (3 to 22). The flow: 3.9 GB; base 5 minutes (2.5 to 9), each λ 44 (19 to 99), since it samples
token by token. Elsewhere: --plan, or measured there, --plan --probe.

Settings: the recipe of configs/digits.py, with a longer moving average and more steps. They have
not been run to the end here.

Arguments: `:smoke` runs the same path in seconds, on a made-up copy of the data; `:flow` and
`:flow_smoke` are the flow's, which experiments/train_flow.py takes.
"""

from collections.abc import Iterator
from typing import Any

from prpr import config
from prpr.errors import unknown_name

ARGUMENTS = ("", "smoke", "flow", "flow_smoke")
LAMS = (0.2, 1.0, 5.0, 20.0)


def get_config(argument: str = "") -> config.Config:
    if argument not in ARGUMENTS:
        raise unknown_name("argument of configs/mnist.py", argument, ARGUMENTS)
    cfg = config.defaults()
    cfg.name, cfg.lams = "mnist", LAMS
    cfg.data.name, cfg.data.resolution = "mnist", 32
    cfg.model.generator_ch = cfg.model.critic_ch = 16
    cfg.model.dim_z, cfg.model.shared_dim = 64, 32
    cfg.base.steps, cfg.base.critic_lr, cfg.base.generator_lr = 10_000, 1e-3, 1e-3
    cfg.critic.steps, cfg.critic.scale = 4, 5.0
    cfg.critic.lr = cfg.generator.lr = 1e-3
    cfg.generator.ema = cfg.base.ema = 0.99
    cfg.train.batch, cfg.train.steps, cfg.train.warmup = 64, 5_000, 500
    cfg.train.decay = "late_linear"
    cfg.train.diagnose_every = cfg.train.checkpoint_every = 500
    cfg.score.n_real = cfg.score.n_fake = 10_000
    if argument.startswith("flow"):
        cfg = config.flow_of(cfg)
        cfg.model.name, cfg.model.depth, cfg.model.layers = "tarflow", 4, 4
        cfg.model.generator_ch, cfg.model.patch, cfg.model.heads = 128, 4, 4
        cfg.base.steps, cfg.base.generator_lr, cfg.generator.lr = 20_000, 5e-4, 1e-4
        cfg.generator.ema = cfg.base.ema = 0.999
    return config.shrink(cfg) if argument.endswith("smoke") else cfg


def sweep() -> Iterator[dict[str, Any]]:
    """Each λ, a run each."""
    for lam in LAMS:
        yield {"lams": (lam,)}
