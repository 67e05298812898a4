"""ImageNet at 128x128: the published BigGAN (ch 96), fine-tuned at five λ, as in the paper.

    scripts/convert_biggan --generator G.pth --ema G_ema.pth --critic D.pth --out weights/biggan128
    python experiments/finetune_biggan.py --config=configs/imagenet.py \\
        --config.base.path=weights/biggan128 --config.data.path=TFDS_DIR

Data: TFDS `imagenet2012`, or, faster, what scripts/prepare_data --resolution 128 made of it
(--config.data.name=prepared). Eight H100s with --config.train.accumulate=2, on paper (--plan
'--plan_device=8*h100-sxm'): 40 GB each; control and five λ 18 h (9 to 38). A v5e-256 slice: 7 GB
each, 3.7 h (1.6 to 8), less with --config.model.dtype=bfloat16. Others in docs/scale.md; measured
on the machine itself: --plan --probe.

Settings: the paper's λ, rates, batch and critic steps; 7,800 steps are 25 epochs, from the
published 220 to the paper's 245. The critic's scale and the objective's τ are those that
worked on the digits (configs/digits.py); at this size they have not been measured here.

Arguments: `:smoke` runs the same path in seconds, on a made-up copy of the data.
"""

from collections.abc import Iterator
from typing import Any

from prpr import config
from prpr.errors import unknown_name

ARGUMENTS = ("", "smoke")
LAMS = (0.2, 0.5, 1.0, 2.0, 5.0)


def get_config(argument: str = "") -> config.Config:
    if argument not in ARGUMENTS:
        raise unknown_name("argument of configs/imagenet.py", argument, ARGUMENTS)
    cfg = config.defaults()
    cfg.name, cfg.lams = "imagenet", LAMS
    cfg.data.name, cfg.data.resolution = "imagenet2012", 128
    cfg.model.generator_ch = cfg.model.critic_ch = 96
    cfg.model.dim_z, cfg.model.shared_dim, cfg.model.attention_at = 120, 128, (64,)
    cfg.model.sn_eps = 1e-6
    cfg.base.required = True
    # For a base that is trained here after all: the rates of the published run.
    cfg.base.steps, cfg.base.critic_lr, cfg.base.generator_lr = 138_000, 4e-4, 1e-4
    cfg.control_recipe = "finetune"
    cfg.critic.steps, cfg.critic.scale = 2, 5.0
    cfg.critic.lr = cfg.generator.lr = 1e-5
    cfg.critic.b2 = cfg.generator.b2 = 0.999
    cfg.critic.eps = cfg.generator.eps = 1e-6
    cfg.generator.ema = cfg.base.ema = 0.9999
    cfg.train.batch, cfg.train.steps, cfg.train.warmup = 2048, 7_800, 500
    cfg.train.layout, cfg.train.replica_check_every = "data", 500
    cfg.train.diagnose_every, cfg.train.checkpoint_every, cfg.train.keep_best = 250, 500, 1
    cfg.score.n_real = cfg.score.n_fake = 10_000
    return config.shrink(cfg) if argument == "smoke" else cfg


def sweep() -> Iterator[dict[str, Any]]:
    """The paper's λ, a run each."""
    for lam in LAMS:
        yield {"lams": (lam,)}
