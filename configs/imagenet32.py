"""ImageNet at 32x32 or 64x64: a Jet flow by likelihood, then at four λ; and a BigGAN likewise.

    python experiments/train_flow.py --config=configs/imagenet32.py --config.data.path=TFDS_DIR
    python experiments/finetune_biggan.py --config=configs/imagenet32.py --config.data.path=TFDS_DIR

Data: TFDS `imagenet_resized/32x32`, or `imagenet_resized/64x64` with `:64`, since there the number
of couplings, the accumulation and BigGAN's attention differ too, so that the name of the data alone
would not do. One H100, on paper (--plan '--plan_device=1*h100-sxm'):

    flow      32 GB; base 13 h (7.7 to 23), each λ 4.7 h (2.7 to 8.4)
    flow, 64  35 GB; base 27 h (16 to 46), each λ 10 h (5.9 to 18)
    BigGAN    5.2 GB; base 3 h (1.3 to 6.9), each λ 37 min (16 to 84)
    BigGAN,64 15 GB; base 7.4 h (3.4 to 16), each λ 90 min (42 to 192)

Settings: Jet's published ImageNet flow (arXiv:2412.15129, big_vision's config for 64x64) has 32
couplings of two blocks, width 512, patches of 4, Adam at 3e-4 with β₂ = .95, gradients clipped at
1, and 200 epochs of batch 1024. Here it is half as wide, at 64x64 of half as many couplings, and
sees 20 epochs, and 1 at each λ. A Jet samples in one pass, so that λ costs little more than
likelihood does. BigGAN has CIFAR-10's width. None of it has been run to the end here.

Arguments: `:64`; `:smoke` runs the same path in seconds, on a made-up copy of the data; `:flow`,
`:flow_64` and `:flow_smoke` are the flow's, which experiments/train_flow.py takes.
"""

from collections.abc import Iterator
from typing import Any

from prpr import config
from prpr.errors import unknown_name

ARGUMENTS = ("", "64", "smoke", "flow", "flow_64", "flow_smoke")
LAMS = (0.2, 1.0, 5.0, 20.0)


def get_config(argument: str = "") -> config.Config:
    if argument not in ARGUMENTS:
        raise unknown_name("argument of configs/imagenet32.py", argument, ARGUMENTS)
    kind, _, size = argument.rpartition("_") if "_" in argument else (argument, "", argument)
    side = 64 if size == "64" else 32
    cfg = config.defaults()
    cfg.name, cfg.lams = f"imagenet{side}", LAMS
    cfg.data.name, cfg.data.resolution, cfg.data.flip = cfg.name, side, True
    cfg.model.generator_ch = cfg.model.critic_ch = 64
    cfg.model.dim_z, cfg.model.shared_dim = 120, 128
    cfg.model.attention_at = (32,) if side == 64 else ()
    cfg.base.steps, cfg.base.critic_steps = 100_000, 2
    cfg.base.critic_lr, cfg.base.generator_lr = 4e-4, 1e-4
    cfg.critic.steps, cfg.critic.scale = 2, 5.0
    cfg.critic.lr = cfg.generator.lr = 1e-4
    cfg.critic.b2 = cfg.generator.b2 = 0.999
    cfg.generator.ema = cfg.base.ema = 0.9999
    cfg.train.batch, cfg.train.steps, cfg.train.warmup = 256, 20_000, 500
    cfg.train.layout, cfg.train.replica_check_every = "data", 1000
    cfg.train.diagnose_every, cfg.train.checkpoint_every, cfg.train.keep_best = 500, 1000, 1
    cfg.score.n_real = cfg.score.n_fake = 10_000
    if kind == "flow":
        cfg = config.flow_of(cfg)
        cfg.model.name, cfg.model.layers = "jet", 2
        cfg.model.depth, cfg.train.accumulate = (16, 8) if side == 64 else (32, 4)
        cfg.model.generator_ch, cfg.model.patch, cfg.model.heads = 256, 4, 4
        cfg.model.critic_ch = 32
        cfg.base.generator_lr, cfg.generator.lr = 3e-4, 3e-5
        cfg.generator.b2, cfg.generator.clip, cfg.train.steps = 0.95, 1.0, 5_000
    if argument.endswith("smoke"):
        cfg = config.shrink(cfg)
        cfg.train.accumulate = 2
    return cfg


def sweep() -> Iterator[dict[str, Any]]:
    """Each λ, a run each."""
    for lam in LAMS:
        yield {"lams": (lam,)}
