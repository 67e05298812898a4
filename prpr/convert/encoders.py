"""Published weights of the encoders' networks -> a file of `prpr.encoders.weights`.

    encoders.convert("inception", "pt_inception-2015-12-05-6726825d.pth", "inception.npz")

Where a tensor goes:

    theirs                              ours
    a.b.weight                          params/a/b/kernel     OIHW -> HWIO, (out, in) -> (in, out)
    a.bn.weight, norm.weight            params/a/bn/scale
    a.b.bias, ls1.gamma, pos_embed      the same name
    a.bn.running_mean, .running_var     batch_stats/a/bn/mean, var
    features.i, classifier.i, blocks.i  features_i, classifier_i, blocks_i
    patch_embed.proj                    patch_embed_proj

Every tensor is accounted for by name: in this table, in `UNUSED`, or the file is refused.
"""

import contextlib
import hashlib
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prpr.convert.names import CONV, MATRIX, SAME, Flat, Tensor
from prpr.encoders import compiled, networks, weights
from prpr.encoders.compiled import Shapes
from prpr.errors import DataError, WorkdirError, unknown_name

# What the published files hold beyond what features need: counters of training batches, the bias
# that the Inception Score leaves out, VGG's 1000 classes, the token of masked patches.
UNUSED = {
    "inception": r"fc\.bias|.*\.num_batches_tracked",
    "vgg16": r"classifier\.6\.(weight|bias)",
    "dinov2": r"mask_token",
    "dinov2_vitb14": r"mask_token",
}
# A name that only the network's own file has.
_SIGNS = {
    "inception": "Mixed_7c.branch_pool.conv.weight",
    "vgg16": "features.28.weight",
    "dinov2": "blocks.23.attn.qkv.weight",
    "dinov2_vitb14": "blocks.11.attn.qkv.weight",
}
# StyleGAN's vgg16.pt: convolutions and fully connected layers in order, and LPIPS beside them.
_STYLEGAN = {f"layers.conv{i + 1}": f"features.{at}" for i, at in enumerate(
    (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
)} | {f"layers.fc{i + 1}": f"classifier.{3 * i}" for i in range(3)}  # fmt: skip
_STYLEGAN_UNUSED = r"lpips\d"


class Converted(NamedTuple):
    """arrays by our paths; the tensors that are not used; what to tell the user."""

    arrays: Flat
    unused: list[str]
    lines: list[str]


def plan(leaves: Shapes) -> list[Tensor]:
    """The table of one network, by our leaves."""
    table = []
    for path, shape in leaves.items():
        collection, *modules, leaf = path.split("/")
        layout = SAME
        if leaf == "kernel":
            leaf, layout = "weight", CONV if len(shape) == 4 else MATRIX
        elif leaf == "scale":
            leaf = "weight"
        elif collection == "batch_stats":
            leaf = f"running_{leaf}"
        name = re.sub(r"^(features|classifier|blocks)_", r"\1.", ".".join([*modules, leaf]))
        table.append(Tensor(name.replace("patch_embed_proj", "patch_embed.proj"), path, layout))
    return table


def from_state(
    name: str, state: Mapping[str, np.ndarray], what: str, spec: compiled.Spec | None = None
) -> Converted:
    """A state dict as arrays of ours.

    Args:
      name: of `networks.NETWORKS`.
      state: {name: array} of the published file.
      what: the file, in messages.
      spec: another size of the network, for tests.

    Raises:
      ConfigError: an unknown name.
      DataError: lists every tensor that is missing, left over, of another shape or type, or not
        finite; or says which network the file is of.
    """
    _known(name)
    unused = UNUSED[name]
    if name == "vgg16" and "layers.conv1.weight" in state:
        unused += f"|{_STYLEGAN_UNUSED}"
        state = {_torchvision(key): value for key, value in state.items()}
    if spec is None:
        _recognise(name, state, what)
    leaves = compiled.shapes(spec or networks.spec_of(name))
    table = plan(leaves)
    wrong = []
    for line in table:
        expected = line.their_shape(leaves[line.ours])
        found = state.get(line.theirs)
        if found is None:
            wrong.append(f"{line.theirs}: missing")
        elif found.shape != expected:
            wrong.append(f"{line.theirs}: shape {found.shape} instead of {expected}")
        elif found.dtype != np.float32:
            wrong.append(f"{line.theirs}: {found.dtype} instead of float32")
        elif not np.isfinite(found).all():
            wrong.append(f"{line.theirs}: has NaN or infinity")
    left = [key for key in state if key not in {line.theirs for line in table}]
    wrong += [f"{key}: not in this network" for key in left if not re.fullmatch(unused, key)]
    if wrong:
        raise DataError(
            f"{what} does not fit the encoder {name!r}, so nothing is written; {len(wrong)} "
            f"tensors differ: {'; '.join(wrong)}. Give {networks.NETWORKS[name].file} unmodified."
        )
    arrays = {
        line.ours: np.array(line.layout.to_ours(state[line.theirs]), np.float32, order="C")
        for line in table
    }
    count = sum(array.size for path, array in arrays.items() if path.startswith("params/"))
    told = [f"{name}: {count:,} parameters in {len(arrays)} arrays"]
    if left:
        counters = [key for key in left if key.endswith("num_batches_tracked")]
        others = [key for key in left if key not in counters]
        told.append(
            "not used: "
            + ", ".join([*others, *([f"{len(counters)} counters of batches"] if counters else [])])
        )
    return Converted(arrays, left, told)


def _known(name: str) -> None:
    if name not in networks.NETWORKS:
        raise unknown_name("encoder with published weights", name, networks.NETWORKS)


def _torchvision(key: str) -> str:
    """A name of StyleGAN's vgg16.pt as torchvision's."""
    module, _, leaf = key.rpartition(".")
    return f"{_STYLEGAN[module]}.{leaf}" if module in _STYLEGAN else key


def _recognise(name: str, state: Mapping[str, np.ndarray], what: str) -> None:
    """Refuses a file that is another network's, rather than list hundreds of tensors.

    Raises:
      DataError: it has the sign of another network of `networks.NETWORKS`, and not its own; or it
        has registers.
    """
    found = [other for other, sign in _SIGNS.items() if sign in state]
    if found and found[0] != name:  # ViT-L's blocks include ViT-B's, and stand first
        raise DataError(
            f"{what} holds the weights of {found[0]!r}, not of {name!r}, so nothing is written: "
            f"give --name {found[0]}, or {networks.NETWORKS[name].file}"
        )
    if "register_tokens" in state:
        raise DataError(
            f"{what} is a DINOv2 with registers, which no published Fréchet distance uses, so "
            f"nothing is written: give {networks.NETWORKS[name].file}"
        )


def convert(
    name: str, path: str | os.PathLike, out: str | os.PathLike | None = None, *,
    overwrite: bool = False,
) -> list[str]:  # fmt: skip
    """Converts a published file; returns what to tell the user. Needs PyTorch.

    Args:
      name: of `networks.NETWORKS`.
      path: the .pth file.
      out: the .npz file to write; None for the one that `encoders.load` looks for.
      overwrite: whether it may be there already.

    Raises:
      ConfigError: an unknown name.
      DataError: a file that is damaged, holds code, or is not this network's.
      WorkdirError: `out` exists, or cannot be written.
    """
    from prpr.convert import pth

    _known(name)
    network = networks.NETWORKS[name]
    target = Path(out) if out else weights.path_of(name)
    if target.exists() and not overwrite:
        raise WorkdirError(f"{target} exists: choose another --out, or give --overwrite")
    what = os.fspath(path)
    _refuse_script(what)
    converted = from_state(name, pth.read_state(path, such_as=network.file), what)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    about: dict[str, Any] = {"encoder": name, "file": os.path.basename(what), "sha256": digest}
    weights.write(target, converted.arrays, about)
    lines = [*converted.lines, f"in tables: {name} ({networks.identity(network, about)}, RESIZE)"]
    if network.sha256 and not digest.startswith(network.sha256):
        lines.append(
            f"its SHA-256 begins with {digest[:8]}, not with {network.sha256}: these are not the "
            f"published {network.file}, and numbers will not compare with published ones"
        )
    return [*lines, f"written to {target}"]


def _refuse_script(path: str) -> None:
    """Says what to do with a TorchScript archive, whose tensors PyTorch reads only with its code.

    Raises:
      DataError: it is one.
    """
    script = False
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        script = any(member.endswith("/constants.pkl") for member in archive.namelist())
    if script:
        raise DataError(
            f"{path} is a TorchScript archive, which holds code: if you trust it, save its tensors "
            f'with python -c "import torch; torch.save(torch.jit.load({path!r}).state_dict(), '
            "'tensors.pth')\" and give tensors.pth"
        )
