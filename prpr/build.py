"""From a configuration to the parts of a run: data, models, losses, optimisers.

Nothing here trains; a configuration that cannot be built ends here, before anything is written.
"""

from typing import NamedTuple

import jax
import optax

from prpr import config, data, models, objectives, ratio, train
from prpr.errors import ConfigError


class Splits(NamedTuple):
    """The three disjoint parts of a data set; see `prpr.data.load`."""

    train: data.Dataset
    valid: data.Dataset
    test: data.Dataset

    def held_out(self, name: str) -> data.Dataset:
        """The part that scores are taken on."""
        return self.valid if name == "valid" else self.test


def splits(cfg: config.Config) -> Splits:
    """Loads the data; raises ConfigError or DataError for what cannot be used."""
    parts = Splits(
        *(
            data.load(cfg.data.name, name, cfg.data.split_seed, cfg.data.fractions)
            for name in data.SPLITS
        )
    )
    if parts.train.images.ndim == 4:
        for part in parts:
            data.check_images(part.images, part.labels, part.num_classes)
    if cfg.train.batch > parts.train.size:
        raise ConfigError(
            f"config.train.batch = {cfg.train.batch}: larger than the training split of "
            f"{cfg.data.name!r}, {parts.train.size} samples; choose at most that."
        )
    return parts


def _schedule(lr: float, decay: str, hold: int, steps: int) -> optax.Schedule:
    """`lr` for `hold` updates, then over `steps` updates constant or down to zero."""
    if decay == "constant":
        return optax.constant_schedule(lr)
    if decay == "linear":
        return optax.linear_schedule(lr, 0.0, steps, hold)
    if decay == "late_linear":
        return optax.linear_schedule(lr, 0.0, steps - steps // 2, hold + steps // 2)
    cosine = optax.cosine_decay_schedule(lr, steps)
    return optax.join_schedules([optax.constant_schedule(lr), cosine], [hold])


def _optimiser(opt: config.Config, schedule: optax.Schedule) -> optax.GradientTransformation:
    adam = optax.adam(schedule, b1=opt.b1, b2=opt.b2)
    return optax.chain(optax.clip_by_global_norm(opt.clip), adam) if opt.clip else adam


def system(cfg: config.Config, dataset: data.Dataset) -> train.System:
    """The system that `prpr.train` steps, for data like `dataset`."""
    generator, critic = models.build(cfg, dataset.images.shape[1:], dataset.num_classes)
    steps, warmup, each = cfg.train.steps, cfg.train.warmup, cfg.critic.steps
    decay = cfg.train.decay
    return train.System(
        generator=generator,
        critic=critic,
        critic_loss=ratio.get(
            cfg.critic.loss, scale=cfg.critic.scale, parametrisation=cfg.critic.parametrisation
        ),
        objective=objectives.get(cfg.objective),
        critic_tx=_optimiser(
            cfg.critic, _schedule(cfg.critic.lr, decay, warmup * each, steps * each)
        ),
        generator_tx=_optimiser(cfg.generator, _schedule(cfg.generator.lr, decay, 0, steps)),
        dim_z=cfg.model.dim_z,
        num_classes=dataset.num_classes,
        critic_steps=each,
        ema=cfg.generator.ema,
        r1=cfg.critic.r1,
        r2=cfg.critic.r2,
        normalise=cfg.normalise,
    )


def dials(cfg: config.Config, lam: float | None) -> dict[str, float]:
    """The objective's dials at this λ; a run without λ (a control) keeps λ = 1, unread."""
    return {"lam": 1.0 if lam is None else float(lam), **cfg.dials.to_dict()}


def check(cfg: config.Config) -> Splits:
    """Validates the configuration whole, without training: knobs, data, and models' shapes."""
    config.validate(cfg)
    parts = splits(cfg)
    example = jax.ShapeDtypeStruct((2, *parts.train.images.shape[1:]), "float32")
    parts_system = system(cfg, parts.train)
    jax.eval_shape(
        lambda key, x: train.init(parts_system, key, x, dials(cfg, None)),
        jax.random.key(0),
        example,
    )
    need = max(cfg.score.k, cfg.score.k_coverage) + 1
    held_out = parts.held_out(cfg.score.split).size
    n_fake = cfg.score.n_fake or held_out
    if min(n_fake, held_out) < need:
        raise ConfigError(
            f"config.score.k = {cfg.score.k}, k_coverage = {cfg.score.k_coverage}: "
            f"need at least {need} real and {need} generated samples, and there are "
            f"{held_out} and {n_fake}; lower k or raise config.score.n_fake."
        )
    return parts
