"""Models by name: `build(cfg, shape, num_classes)` gives a generator and a critic.

Every generator is called (z (N, dim_z), y (N,), train=) -> x (N, ...), every critic
(x (N, ...), y (N,), train=) -> (N,); y is ignored where there is one class. Flows are generators
that also know their density (`prpr.models.flows`); their dim_z is the size of an item.
"""

from typing import Any, cast

import flax.linen as nn

from prpr.errors import ConfigError, unknown_name
from prpr.models.dial import Woven

FLOWS = ("realnvp", "glow", "spline", "residual", "jet", "tarflow")
NAMES = ("biggan", "biggan_deep", "mlp", *FLOWS)
Span = tuple[float, float] | None
_RANK = {"biggan": 3, "biggan_deep": 3, "mlp": 1}
_DATA = {"biggan": "square images", "biggan_deep": "square images", "mlp": "points"}


def build(
    cfg: Any,
    shape: tuple[int, ...],
    num_classes: int,
    axis_name: str | None = None,
    *,
    levels: int = 0,
    dial: tuple[float, float] | None = None,
) -> tuple[nn.Module, nn.Module]:
    """(generator, critic) for one item's shape.

    Args:
      cfg: a configuration of `prpr.config`.
      shape: of one item: (side, side, channels) of an image, (D,) of a point.
      num_classes: of the labels.
      axis_name: of the devices over which batch norm's moments are taken; None for one.
      levels: values that an entry of an item can have, which a flow must know; 0: any.
      dial: the range of log λ where λ is an input, see `prpr.models.dial`.

    Raises:
      ConfigError: a model that is unknown, or that cannot make items of this shape.
    """
    name = cfg.model.name
    if name not in NAMES:
        raise unknown_name("model", name, NAMES)
    if name in FLOWS:
        flow = _flow(cfg.model, shape, num_classes, levels, dial)
        return flow, _flow_critic(cfg, shape, num_classes, dial)
    if len(shape) != _RANK[name]:
        raise ConfigError(
            f"config.model.name = {name!r} makes {_DATA[name]}, and config.data.name = "
            f"{cfg.data.name!r} holds items of shape {shape}."
        )
    woven = dial is not None and cfg.model.dial == "weights"
    dials = None if woven else dial, dial
    if name == "mlp":
        generator, critic = _mlp(cfg.model, shape, num_classes, dials)
    else:
        generator, critic = _biggan(cfg.model, shape, num_classes, axis_name, dials)
    if not woven or dial is None:
        return generator, critic
    made = Woven(generator, *dial, cfg.model.dial_scale, dial_items(cfg))
    return cast(nn.Module, made), critic


def dial_items(cfg: Any) -> int:
    """How many items of a batch in a row share a λ, in a model for every λ."""
    if cfg.model.dial == "input":
        return 1
    return cfg.model.dial_items or max(1, cfg.train.batch // cfg.train.accumulate // 4)


def _mlp(
    m: Any, shape: tuple[int, ...], num_classes: int, dials: tuple[Span, Span]
) -> tuple[nn.Module, nn.Module]:
    from prpr.models import small

    if m.dtype != "float32":
        raise ConfigError(f"config.model.dtype = {m.dtype!r}: model mlp has float32 only.")
    generator = small.Generator(shape[0], num_classes, m.dim_z, m.generator_ch, m.depth, dials[0])
    return generator, _critic_of_points(m, num_classes, m.depth, dials[1])


def _critic_of_points(m: Any, num_classes: int, depth: int, dial: Span) -> nn.Module:
    from prpr.models import small

    if m.fourier and m.critic_spectral_norm:
        raise ConfigError(
            f"config.model.fourier = {m.fourier}: Fourier features have no Lipschitz bound, which "
            "critic_spectral_norm is for; set one of the two to 0 (False)."
        )
    return small.Critic(num_classes, m.critic_ch, depth, m.critic_spectral_norm, m.fourier, dial)


def _flow(m: Any, shape: tuple[int, ...], num_classes: int, levels: int, dial: Span) -> nn.Module:
    from prpr.models import flows

    return flows.build(m, shape, num_classes, levels, dial)


def _flow_critic(cfg: Any, shape: tuple[int, ...], num_classes: int, dial: Span) -> nn.Module:
    """A flow's critic: that of mlp for points, BigGAN's for images."""
    m = cfg.model
    if len(shape) == 1:
        return _critic_of_points(m, num_classes, 2, dial)
    try:
        return _biggan_critic(m, shape, num_classes, None, dial)
    except ConfigError as error:
        raise ConfigError(f"the critic of a flow of images is BigGAN's: {error}") from None


def _biggan(
    m: Any,
    shape: tuple[int, ...],
    num_classes: int,
    axis_name: str | None,
    dials: tuple[Span, Span],
) -> tuple[nn.Module, nn.Module]:
    """`dials`: of the generator and of the critic."""
    from prpr.models import architecture, biggan

    deep = m.name == "biggan_deep"
    _check_conditions(m, deep)
    if dials[0] is not None and not m.shared_embedding:
        raise ConfigError(
            "config.model.shared_embedding = False: tables by class cannot take λ; set it to True, "
            "or config.dial to ()."
        )
    architecture.check(shape, m.dim_z, split_z=m.hierarchical and not deep)
    _check_attention(m, shape, deep)
    if 0 < m.output_ch < shape[-1]:
        raise ConfigError(
            f"config.model.output_ch = {m.output_ch}: the images have {shape[-1]} channels; use "
            "at least as many, or 0 for just them."
        )

    generator = biggan.Generator(
        **_shared(m, shape, num_classes),
        image_channels=shape[-1],
        ch=m.generator_ch,
        dim_z=m.dim_z,
        shared_dim=m.shared_dim,
        hierarchical=m.hierarchical,
        shared_embedding=m.shared_embedding,
        output_ch=m.output_ch,
        style=_style(m, m.generator_spectral_norm, axis_name),
        dial=dials[0],
    )
    return generator, _biggan_critic(m, shape, num_classes, axis_name, dials[1])


def _biggan_critic(
    m: Any, shape: tuple[int, ...], num_classes: int, axis_name: str | None, dial: Span
) -> nn.Module:
    from prpr.models import architecture, biggan

    architecture.check(shape, m.dim_z, split_z=False)
    _check_attention(m, shape, m.name == "biggan_deep")
    style = _style(m, m.critic_spectral_norm, axis_name)
    return biggan.Critic(**_shared(m, shape, num_classes), ch=m.critic_ch, style=style, dial=dial)


def _shared(m: Any, shape: tuple[int, ...], num_classes: int) -> dict[str, Any]:
    """What a BigGAN's generator and critic have in common."""
    deep = m.name == "biggan_deep"
    return {
        "resolution": shape[0],
        "num_classes": num_classes,
        "attention_at": tuple(m.attention_at),
        "deep": deep,
        "depth": m.depth if deep else 1,
        "remat": m.remat,
    }


def _style(m: Any, spectral_norm: bool, axis_name: str | None) -> Any:
    from prpr.models import layers

    return layers.Style(spectral_norm, m.sn_eps, m.bn_eps, m.init, m.dtype, axis_name)


def _check_attention(m: Any, shape: tuple[int, ...], deep: bool) -> None:
    from prpr.models import architecture

    architecture.check_attention(shape[0], m.attention_at, deep)
    architecture.check_width(shape[0], m.attention_at, m.generator_ch, m.critic_ch, deep)


def _check_conditions(m: Any, deep: bool) -> None:
    if m.hierarchical and not m.shared_embedding:
        raise ConfigError(
            "config.model.shared_embedding = False: tables by class cannot take a part of z; set "
            "config.model.hierarchical = False too."
        )
    if deep and not m.hierarchical:
        raise ConfigError(
            "config.model.hierarchical = False: every block of biggan_deep sees z; set it to True."
        )
