"""Points in the plane, where the densities of data and flow are known: a small GAN, a small flow.

    python experiments/toy_2d.py --config=configs/toy_2d.py              # both, against the truth
    python experiments/train_gan.py --config=configs/toy_2d.py:base      # the base run alone
    python experiments/finetune_biggan.py --config=configs/toy_2d.py     # base, control and λ
    python experiments/train_flow.py --config=configs/toy_2d.py          # likelihood, then λ

`--config.data.name=grid25` (skewed, two_moons, spirals, checkerboard, pinwheel) trains on other
data. Arguments: `:base` is the base run's own configuration; `:gan` and `:flow` are the two that
experiments/toy_2d.py compares over nine λ; `:smoke`, `:gan_smoke` and `:flow_smoke` run everything
in seconds.
"""

from prpr import config
from prpr.errors import unknown_name

ARGUMENTS = ("", "base", "smoke", "gan", "gan_smoke", "flow", "flow_smoke")
LAMS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


def get_config(argument: str = "") -> config.Config:
    if argument not in ARGUMENTS:
        raise unknown_name("argument of configs/toy_2d.py", argument, ARGUMENTS)
    cfg = config.defaults()
    cfg.name = "toy_2d"
    cfg.lams = (0.2, 1.0, 5.0)
    cfg.data.name = "ring8"
    cfg.data.fractions = (0.8, 0.1, 0.1)
    cfg.model.name = "mlp"
    cfg.model.generator_ch, cfg.model.critic_ch, cfg.model.dim_z = 64, 64, 2
    cfg.model.depth = 3
    # Without Fourier features the critic's ratio is too smooth, and λ acts on what it cannot see.
    cfg.model.critic_spectral_norm, cfg.model.fourier = False, 1.0
    cfg.base.steps, cfg.base.critic_steps = 1000, 5
    cfg.base.generator_lr, cfg.base.critic_lr = 5e-4, 1e-3
    cfg.base.loss, cfg.base.r1, cfg.base.r2 = "logistic", 0.1, 0.1  # else it loses modes
    cfg.generator.lr, cfg.critic.lr, cfg.critic.steps = 2e-4, 1e-3, 5
    cfg.generator.b1 = cfg.critic.b1 = 0.5
    cfg.dials.tau = 0.25
    cfg.train.batch, cfg.train.steps, cfg.train.warmup = 128, 3000, 300
    cfg.train.decay = "late_linear"
    cfg.score.encoder = "pixels"
    kind, _, small = argument.rpartition("_") if "_" in argument else (argument, "", "")
    if kind in ("gan", "flow"):
        cfg.lams = LAMS
    if kind == "flow":
        cfg = config.flow_of(cfg)
        # Small enough that it cannot have both ends: a spline flow fits these data too well.
        cfg.model.name, cfg.model.depth, cfg.model.layers = "realnvp", 6, 2
        cfg.model.generator_ch, cfg.model.fourier = 32, 2.0
        cfg.base.steps, cfg.base.generator_lr, cfg.generator.lr = 2000, 1e-3, 2.5e-4
        cfg.train.steps, cfg.critic.steps = 5000, 2
        cfg.generator.b1, cfg.generator.b2, cfg.critic.b1 = 0.5, 0.99, 0.5
    if "smoke" in (argument, small):
        cfg.name = f"{cfg.name}-smoke"
        cfg.lams = (0.2, 5.0)
        cfg.train.steps, cfg.train.warmup, cfg.base.steps = 6, 2, 6
        cfg.train.log_every, cfg.train.checkpoint_every, cfg.train.diagnose_every = 2, 4, 2
    return config.base_of(cfg) if argument == "base" else cfg


def sweep():
    """Each λ at two seeds, and their controls."""
    for lam in (0.2, 1.0, 5.0):
        yield {"lams": (lam,), "seeds": (0, 1)}
