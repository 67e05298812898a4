"""CIFAR-10: BigGAN at 32x32, fine-tuned at seven λ, or from scratch at each as in the paper.

    python experiments/finetune_biggan.py --config=configs/cifar10.py --config.data.path=TFDS_DIR
    python experiments/train_gan.py --config=configs/cifar10.py:scratch --config.data.path=TFDS_DIR

Data: TFDS `cifar10`. One H100, on paper (--plan '--plan_device=1*h100-sxm'): 2.7 GB; base 76 min
(33 to 175), each λ 16 min (7 to 36). The flow (`:flow`, a Jet): 32 GB; base 6.7 h (3.9 to 12),
each λ 3.5 h (2 to 6.3). Elsewhere: --plan, or measured there, --plan --probe.

Settings: the original's CIFAR architecture (no hierarchical z, tables of gains and biases,
4,304,387 and 4,207,361 parameters); the paper's λ, rate, batch and critic steps. `:scratch` takes
88,000 steps, the paper's 900 epochs; the fine-tune a base of 49,000 steps (500 epochs, as the
original) and a fifth of that at each λ. They have not been run to the end here.

Arguments: `:scratch`; `:smoke` runs the same path in seconds, on a made-up copy of the data;
`:flow` and `:flow_smoke` are the flow's, which experiments/train_flow.py takes.
"""

from collections.abc import Iterator
from typing import Any

from prpr import config
from prpr.errors import unknown_name

ARGUMENTS = ("", "scratch", "smoke", "flow", "flow_smoke")
LAMS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def get_config(argument: str = "") -> config.Config:
    if argument not in ARGUMENTS:
        raise unknown_name("argument of configs/cifar10.py", argument, ARGUMENTS)
    cfg = config.defaults()
    cfg.name, cfg.lams = "cifar10", LAMS
    cfg.data.name, cfg.data.resolution = "cifar10", 32
    cfg.model.generator_ch = cfg.model.critic_ch = 64
    cfg.model.dim_z, cfg.model.init = 128, "normal"
    cfg.model.hierarchical = cfg.model.shared_embedding = False
    cfg.base.steps, cfg.base.critic_steps = 49_000, 4
    cfg.base.critic_lr = cfg.base.generator_lr = 2e-4
    cfg.critic.steps, cfg.critic.scale = 4, 5.0
    cfg.critic.lr = cfg.generator.lr = 2e-4
    cfg.critic.b2 = cfg.generator.b2 = 0.999
    cfg.generator.ema = cfg.base.ema = 0.9999
    cfg.train.batch, cfg.train.steps, cfg.train.warmup = 128, 9_800, 500
    cfg.train.layout, cfg.train.replica_check_every = "data", 1000
    cfg.train.diagnose_every, cfg.train.checkpoint_every, cfg.train.keep_best = 500, 1000, 1
    cfg.score.n_real = cfg.score.n_fake = 10_000
    if argument == "scratch":
        cfg.name = "cifar10-scratch"
        cfg.train.steps, cfg.train.warmup, cfg.critic.scale = 88_000, 0, 1.0
        cfg.generator.ema_start = 1000
    if argument.startswith("flow"):
        cfg = config.flow_of(cfg)
        cfg.model.name, cfg.model.depth, cfg.model.layers = "jet", 32, 2
        cfg.model.generator_ch, cfg.model.patch, cfg.model.heads = 256, 4, 4
        cfg.base.steps, cfg.base.generator_lr, cfg.generator.lr = 100_000, 2e-4, 2e-5
        cfg.train.accumulate, cfg.train.steps = 2, 5_000
    if argument.endswith("smoke"):
        cfg = config.shrink(cfg)
        cfg.train.accumulate = 2
    return cfg


def sweep() -> Iterator[dict[str, Any]]:
    """The paper's λ, a run each."""
    for lam in LAMS:
        yield {"lams": (lam,)}
