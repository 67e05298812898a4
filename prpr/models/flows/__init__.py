"""Normalizing flows by name: `build(m, shape, num_classes, levels)` gives a `Flow`.

realnvp   affine couplings over checkerboards and channels       arXiv:1605.08803
glow      actnorm, invertible 1x1, affine couplings              arXiv:1807.03039
spline    the same with rational-quadratic splines               arXiv:1906.04032
residual  x + g(x) with Lip(g) < 1                               arXiv:1906.02735
jet       couplings whose networks are vision transformers       arXiv:2412.15129
tarflow   blocks of causal transformers over patches             arXiv:2412.06329
"""

import re
from typing import Any

from prpr.errors import ConfigError
from prpr.models.flows.bijector import Bijector
from prpr.models.flows.dequantise import Dequantiser, Uniform, Variational
from prpr.models.flows.flow import Flow, bits_per_dim
from prpr.models.flows.glow import glow, realnvp, spline
from prpr.models.flows.jet import jet
from prpr.models.flows.residual import drawn_for, residual
from prpr.models.flows.tarflow import tarflow

__all__ = [
    "Flow",
    "bits_per_dim",
    "build",
    "drawn_for",
    "glow",
    "jet",
    "realnvp",
    "residual",
    "spline",
    "tarflow",
]

_CLASSICAL = {"realnvp": realnvp, "glow": glow, "spline": spline, "residual": residual}
# What a builder's argument is called in a configuration, where it has another name there.
_OF_CLASSICAL = {"width": "generator_ch", "hidden": "layers"}
_OF_TRANSFORMERS = {
    "width": "generator_ch",
    "depth": "layers",
    "blocks": "depth",
    "couplings": "depth",
}


def bijector(m: Any, shape: tuple[int, ...], levels: int) -> Bijector:
    """The map from data to latent of a model configuration.

    Args:
      m: `config.model`: its name, depth (maps, at each scale of images), layers and generator_ch
        (of each map's network), scales, patch, heads.
      shape: of an item, (D,) or (H, W, C).
      levels: values that an entry can have; 0: any.

    Raises:
      ConfigError: a shape that the map cannot take, or a size that it cannot have.
    """
    try:
        return _bijector(m, shape, levels)
    except ConfigError as error:
        words = str(error)
        names = _OF_CLASSICAL if m.name in _CLASSICAL else _OF_TRANSFORMERS
        said = {own: knob for own, knob in names.items() if re.search(rf"\b{own} =", words)}
        told = ", ".join(f"{own} is config.model.{knob}" for own, knob in said.items())
        given = f"config.model.name = {m.name!r}, data of shape {tuple(shape)}: "
        raise ConfigError(given + words + f" ({told})" * bool(told)) from None


def _bijector(m: Any, shape: tuple[int, ...], levels: int) -> Bijector:
    if m.name in _CLASSICAL:
        return _CLASSICAL[m.name](
            shape,
            depth=m.depth,
            width=m.generator_ch,
            hidden=m.layers,
            scales=m.scales or None,
            levels=levels,
        )
    sizes = {
        "patch": m.patch,
        "width": m.generator_ch,
        "depth": m.layers,
        "heads": m.heads,
        "remat": m.remat,
    }
    if m.name == "tarflow":
        return tarflow(shape, blocks=m.depth, **sizes)
    if len(shape) != 3:
        raise ConfigError(
            "jet makes images, and these are points; take 'spline' or 'tarflow' for them."
        )
    return jet(shape, couplings=m.depth, **sizes)


def build(
    m: Any,
    shape: tuple[int, ...],
    num_classes: int,
    levels: int,
    dial: tuple[float, float] | None = None,
) -> Flow:
    """The flow of a model configuration; arguments and errors as `bijector`, `dial` as `Flow`'s.

    Raises:
      ConfigError: also settings that this flow would not read.
    """
    if m.remat and m.name in _CLASSICAL:
        raise ConfigError(
            f"config.model.remat = True: {m.name} has no blocks to recompute; set it to False, or "
            "raise config.train.accumulate to save memory."
        )
    if m.dequantiser == "variational" and not levels:
        raise ConfigError(
            "config.model.dequantiser = 'variational': the data have no grid of values to put "
            "noise between; set it to 'uniform'."
        )
    noise: Dequantiser = Variational() if m.dequantiser == "variational" else Uniform()
    return Flow(shape, bijector(m, shape, levels), num_classes, m.shared_dim, levels, noise, dial)
