"""The networks with published weights, and `load`, which finds an encoder by its name."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prpr.encoders import resize as resizing
from prpr.encoders import small, user
from prpr.encoders import weights as stored
from prpr.encoders.base import Encoder
from prpr.errors import ConfigError, unknown_name


class Network(NamedTuple):
    """Where a network's weights come from, and which module here computes it.

    Attributes:
      module: of this package; its `spec(name, resize)` is the network.
      file: the published file's name.
      page: the public page that offers it.
      sha256: how the published file's SHA-256 begins, where its name says so; else "".
    """

    module: str
    file: str
    page: str
    sha256: str


_DINOV2 = "https://github.com/facebookresearch/dinov2"
NETWORKS: dict[str, Network] = {
    "inception": Network(
        "inception",
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
        "6726825d",
    ),
    "vgg16": Network(
        "vgg",
        "vgg16-397923af.pth",
        "https://docs.pytorch.org/vision/main/models/vgg.html",
        "397923af",
    ),
    "dinov2": Network("dinov2", "dinov2_vitl14_pretrain.pth", _DINOV2, ""),
    "dinov2_vitb14": Network("dinov2", "dinov2_vitb14_pretrain.pth", _DINOV2, ""),
}


def load(
    name: str,
    resize: str = "clean",
    weights: str | os.PathLike | None = None,
    *,
    batch: int = 64,
) -> Encoder:
    """The network `name` with its weights, or the user's function FILE.py:FUNCTION.

    Args:
      name: of NETWORKS, or FILE.py:FUNCTION (see `user.load`; it gets images as they are).
      resize: of `resize.RESIZES`; "clean" unless numbers are to be compared with older ones.
      weights: a file of scripts/convert_encoder; None for NAME.npz in `weights.folder()`.
      batch: images computed at once; raised to a multiple of the number of devices.

    Raises:
      ConfigError: an unknown name or resize, a batch below 1.
      CheckpointError: weights that are missing, damaged or another network's; if they are missing
        the message says what to download and how to convert it.
    """
    if batch < 1:
        raise ConfigError(f"batch = {batch}: at least one image is computed at once")
    if user.is_user(name):
        return user.load(name)
    if name in small.ENCODERS:
        raise ConfigError(
            f"the encoder {name!r} has no weights to load: it is fitted, encoders.fit({name!r}, "
            "training images, labels)"
        )
    if name not in NETWORKS:
        raise unknown_name("encoder", name, [*NETWORKS, *small.ENCODERS, "FILE.py:FUNCTION"])
    resizing.get(resize)  # before files of gigabytes are read
    network = NETWORKS[name]
    arrays, about = stored.read(name, network.file, network.page, weights)
    from prpr.encoders import compiled

    spec = spec_of(name, resize)
    where = str(weights or stored.path_of(name))
    variables = compiled.nested(arrays, compiled.shapes(spec), where)
    return compiled.build(spec, variables, name, identity(network, about), resize, batch)


def spec_of(name: str, resize: str = "clean") -> Any:
    """The `compiled.Spec` of a network of NETWORKS; the first call imports JAX."""
    return importlib.import_module(f"prpr.encoders.{NETWORKS[name].module}").spec(name, resize)


def identity(network: Network, about: Mapping[str, Any]) -> str:
    """What names a file of weights in tables.

    The published file's own name where its checksum is the published one; otherwise the name that
    it had, and how its SHA-256 begins.
    """
    digest = str(about["sha256"])
    if network.sha256 and digest.startswith(network.sha256):
        return network.file.removesuffix(f"-{network.sha256}.pth")
    return f"{Path(str(about['file'])).stem} {digest[:8]}"
