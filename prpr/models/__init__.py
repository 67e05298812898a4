"""Models by name: `build(cfg, dataset)` gives a generator and a critic.

Every generator is called (z (N, dim_z), y (N,), train=) -> x (N, ...), every critic
(x (N, ...), y (N,), train=) -> (N,); y is ignored where there is one class.
"""

from typing import Any

import flax.linen as nn

from prpr.errors import ConfigError, unknown_name

NAMES = ("biggan", "mlp")
_RANK = {"biggan": 3, "mlp": 1}
_DATA = {"biggan": "square images", "mlp": "points"}


def build(cfg: Any, shape: tuple[int, ...], num_classes: int) -> tuple[nn.Module, nn.Module]:
    """(generator, critic) for one item's shape.

    Args:
      cfg: a configuration of `prpr.config`.
      shape: of one item: (side, side, channels) of an image, (D,) of a point.
      num_classes: of the labels.

    Raises:
      ConfigError: a model that is unknown, or that cannot make items of this shape.
    """
    name, m = cfg.model.name, cfg.model
    if name not in NAMES:
        raise unknown_name("model", name, NAMES)
    if len(shape) != _RANK[name]:
        raise ConfigError(
            f"config.model.name = {name!r} makes {_DATA[name]}, and config.data.name = "
            f"{cfg.data.name!r} holds items of shape {shape}."
        )
    if name == "mlp":
        from prpr.models import small

        generator = small.Generator(shape[0], num_classes, m.dim_z, m.generator_ch, m.depth)
        return generator, small.Critic(num_classes, m.critic_ch, m.depth, m.critic_spectral_norm)
    from prpr.models import biggan

    biggan.check(shape, m.dim_z, m.attention_at)
    biggan.check_width(shape[0], m.attention_at, m.generator_ch, m.critic_ch)
    attention = tuple(m.attention_at)
    generator = biggan.Generator(
        resolution=shape[0],
        num_classes=num_classes,
        image_channels=shape[-1],
        ch=m.generator_ch,
        dim_z=m.dim_z,
        shared_dim=m.shared_dim,
        attention_at=attention,
        spectral_norm=m.generator_spectral_norm,
    )
    critic = biggan.Critic(
        resolution=shape[0],
        num_classes=num_classes,
        ch=m.critic_ch,
        attention_at=attention,
        spectral_norm=m.critic_spectral_norm,
    )
    return generator, critic
