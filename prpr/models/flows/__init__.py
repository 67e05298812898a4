"""Normalizing flows by name: `build(m, shape, num_classes, levels)` gives a `Flow`.

realnvp   affine couplings over checkerboards and channels       arXiv:1605.08803
glow      actnorm, invertible 1x1, affine couplings              arXiv:1807.03039
spline    the same with rational-quadratic splines               arXiv:1906.04032
residual  x + g(x) with Lip(g) < 1                               arXiv:1906.02735
jet       couplings whose networks are vision transformers       arXiv:2412.15129
tarflow   blocks of causal transformers over patches             arXiv:2412.06329
"""

from typing import Any

from prpr.errors import ConfigError
from prpr.models.flows.bijector import Bijector
from prpr.models.flows.dequantise import Dequantiser, Uniform, Variational
from prpr.models.flows.flow import Flow, bits_per_dim
from prpr.models.flows.glow import glow, realnvp, spline
from prpr.models.flows.jet import jet
from prpr.models.flows.residual import residual
from prpr.models.flows.tarflow import tarflow

__all__ = [
    "Flow",
    "bits_per_dim",
    "build",
    "glow",
    "jet",
    "realnvp",
    "residual",
    "spline",
    "tarflow",
]

_CLASSICAL = {"realnvp": realnvp, "glow": glow, "spline": spline, "residual": residual}


def bijector(m: Any, shape: tuple[int, ...], levels: int) -> Bijector:
    """The map from data to latent of a model configuration.

    Args:
      m: `config.model`: its name, depth (maps, at each scale of images), layers and generator_ch
        (of each map's network), scales, patch, heads.
      shape: of an item, (D,) or (H, W, C).
      levels: values that an entry can have; 0: any.

    Raises:
      ConfigError: a shape that the map cannot take.
    """
    if m.name in _CLASSICAL:
        return _CLASSICAL[m.name](
            shape,
            depth=m.depth,
            width=m.generator_ch,
            hidden=m.layers,
            scales=m.scales or None,
            levels=levels,
        )
    sizes = {"patch": m.patch, "width": m.generator_ch, "depth": m.layers, "heads": m.heads}
    if m.name == "tarflow":
        return tarflow(shape, blocks=m.depth, **sizes)
    if len(shape) != 3:
        raise ConfigError(
            f"config.model.name = 'jet' makes images, and the data hold items of shape {shape}; "
            "take 'spline' or 'tarflow' for points."
        )
    return jet(shape, couplings=m.depth, **sizes)


def build(m: Any, shape: tuple[int, ...], num_classes: int, levels: int) -> Flow:
    """The flow of a model configuration; arguments and errors as `bijector`."""
    variational = m.dequantiser == "variational" and levels
    noise: Dequantiser = Variational() if variational else Uniform()
    return Flow(shape, bijector(m, shape, levels), num_classes, m.shared_dim, levels, noise)
