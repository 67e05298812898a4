"""FFHQ at 256x256 from a folder of images: BigGAN without classes, fine-tuned at five λ.

    python experiments/finetune_biggan.py --config=configs/ffhq256.py --config.data.path=FFHQ_FOLDER

Data: a folder of images of any size, or, faster, what scripts/prepare_data --resolution 256 made of
it (--config.data.name=prepared). One H100 with --config.train.accumulate=4, on paper (--plan
'--plan_device=1*h100-sxm'): 33 GB; base 16 h (7 to 37), each λ 10 h (4 to 22). Elsewhere: --plan,
or measured there, --plan --probe.

Settings: the paper's λ, batches and critic steps. Its rate of 5e-5 is the base's; "then 1e-5 /
1e-6" is read as the critic's and the generator's in the fine-tune. 56,000 of the 70,000 images
train, 10,500 are scored against. A base of 27,300 steps (250 epochs of them, at batch 128) and
8200 steps at each λ (150 epochs at batch 256). They have not been run to the end here.

Arguments: `:base` is the base run's own configuration (train_gan.py); `:smoke` runs the same
path in seconds, small, on a made-up copy of the data.
"""

from collections.abc import Iterator
from typing import Any

from prpr import config
from prpr.errors import unknown_name

ARGUMENTS = ("", "base", "smoke")
LAMS = (0.2, 0.5, 1.0, 2.0, 5.0)


def get_config(argument: str = "") -> config.Config:
    if argument not in ARGUMENTS:
        raise unknown_name("argument of configs/ffhq256.py", argument, ARGUMENTS)
    cfg = config.defaults()
    cfg.name, cfg.lams = "ffhq256", LAMS
    cfg.data.name, cfg.data.resolution, cfg.data.flip = "folder", 256, True
    cfg.data.classes = 1  # its folders of a thousand images are no classes
    cfg.data.fractions = (0.8, 0.05, 0.15)
    cfg.model.generator_ch = cfg.model.critic_ch = 64
    cfg.model.dim_z, cfg.model.shared_dim, cfg.model.attention_at = 119, 128, (64,)
    cfg.base.batch, cfg.base.steps, cfg.base.critic_steps = 128, 27_300, 4
    cfg.base.critic_lr = cfg.base.generator_lr = 5e-5
    cfg.critic.steps, cfg.critic.scale = 4, 5.0
    cfg.critic.lr, cfg.generator.lr = 1e-5, 1e-6
    cfg.critic.b2 = cfg.generator.b2 = 0.999
    cfg.critic.eps = cfg.generator.eps = 1e-6
    cfg.generator.ema = cfg.base.ema = 0.9999
    cfg.train.batch, cfg.train.steps, cfg.train.warmup = 256, 8_200, 500
    cfg.train.layout, cfg.train.replica_check_every = "data", 500
    cfg.train.diagnose_every, cfg.train.checkpoint_every, cfg.train.keep_best = 250, 500, 1
    cfg.score.n_real = cfg.score.n_fake = 10_000
    cfg.score.encoder = "pixels"  # one class: no classifier
    if argument == "base":
        return config.base_of(cfg)
    return config.shrink(cfg) if argument == "smoke" else cfg


def sweep() -> Iterator[dict[str, Any]]:
    """The paper's λ, a run each."""
    for lam in LAMS:
        yield {"lams": (lam,)}
