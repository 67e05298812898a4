"""BigGAN-deep as huggingface's pytorch_pretrained_biggan stores it, in BigGAN-PyTorch's terms.

The function is the same in evaluation; what differs is told by `to_biggan`, one by one:

- names, and the attention counted among the blocks;
- the condition is (z, class) there and (class, z) here;
- the first layer makes (side, side, C) there and (C, side, side) in BigGAN-PyTorch;
- the running moments stand in a table over truncations;
- σ = uᵀ W v with a v that is stored, here v = Wᵀu/‖Wᵀu‖ from the stored u.

Its last convolution has ch outputs of which three are used; config.model.output_ch keeps them,
for σ is that of all.

Source: github.com/huggingface/pytorch-pretrained-BigGAN, model.py.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from prpr.errors import ConfigError, DataError
from prpr.models.architecture import BOTTOM

_SN = ("weight_orig", "weight_u", "weight_v")
_PARTS = {
    **{f"bn_{k}.scale": f"bn{k + 1}.gain" for k in range(4)},
    **{f"bn_{k}.offset": f"bn{k + 1}.bias" for k in range(4)},
    **{f"bn_{k}": f"bn{k + 1}" for k in range(4)},
    **{f"conv_{k}": f"conv{k + 1}" for k in range(4)},
    "snconv1x1_theta": "theta",
    "snconv1x1_phi": "phi",
    "snconv1x1_g": "g",
    "snconv1x1_o_conv": "o",
}
_LAYER = re.compile(r"generator\.layers\.([0-9]{1,3})\.(.+)")


def is_huggingface(names: Mapping[str, object]) -> bool:
    """Whether these are the names of such a generator."""
    return "generator.gen_z.weight_orig" in names or "generator.conv_to_rgb.weight_orig" in names


def _prefixes(state: Mapping[str, np.ndarray]) -> dict[int, str]:
    """{position among the layers: "blocks.i.0" or, of an attention, "blocks.i.1"}."""
    matches = [m for m in map(_LAYER.fullmatch, state) if m]
    attention = {int(m[1]) for m in matches if m[2].startswith("snconv1x1_")}
    out, block = {}, -1
    for position in sorted({int(m[1]) for m in matches}):
        block += position not in attention
        out[position] = f"blocks.{block}.{int(position in attention)}"
    return out


def _module(name: str, prefixes: Mapping[int, str]) -> str | None:
    """A module's name in BigGAN-PyTorch; None for one that is unknown."""
    fixed = {
        "generator.gen_z": "linear",
        "generator.bn": "output_layer.0",
        "generator.conv_to_rgb": "output_layer.2",
    }
    match = _LAYER.fullmatch(name)
    if match and match[2] in _PARTS:
        return f"{prefixes[int(match[1])]}.{_PARTS[match[2]]}"
    return fixed.get(name)


def interpolated(table: np.ndarray, truncation: float) -> np.ndarray:
    """Running moments (n, C) at one truncation in (0, 1], as the original reads them.

    Row i is of truncation i / (n − 1). Between rows the original weighs the lower one by the
    fraction by which the truncation exceeds it, and so does this. At 1 the division may come out
    above the last row (of 50 or 99), where the original fails and this takes the last.
    """
    fraction, row = math.modf(truncation / (1.0 / (len(table) - 1)))
    if fraction == 0.0 or row >= len(table) - 1:
        return table[min(int(row), len(table) - 1)]
    low = table[int(row)]
    high = table[int(row) + 1]
    return (low * np.float32(fraction) + high * np.float32(1 - fraction)).astype(np.float32)


def _start_vector(w: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The u from which one power iteration arrives at the stored v: Wᵀu ∝ v. W (out, in).

    The stored u is that iteration's result; to start from it would give the next σ, which
    differs where the iteration has not converged. Where v is no result of an iteration (its
    residual says so) u itself is taken.
    """
    start = np.linalg.lstsq(w.T.astype(np.float64), v.astype(np.float64), rcond=None)[0]
    reached = w.T.astype(np.float64) @ start
    if np.linalg.norm(reached - v) > 1e-4 * np.linalg.norm(v):
        return u.astype(np.float32)
    return (start / np.linalg.norm(start)).astype(np.float32)


def to_biggan(state: Mapping[str, np.ndarray], truncation: float = 1.0) -> dict[str, np.ndarray]:
    """A state dict as BigGANdeep.Generator of BigGAN-PyTorch would have it.

    Tensors of unknown names keep them, so that whoever compares names finds them left over; u and
    v without their weight are among those.

    Args:
      state: {name: array}.
      truncation: in (0, 1]: at which the running moments are read.

    Raises:
      ConfigError: a truncation outside (0, 1].
      DataError: tensors that the translation needs are missing or misshapen, or two are the same.
    """
    if not 0 < truncation <= 1:
        raise ConfigError(f"truncation = {truncation!r}: must be in (0, 1]")
    prefixes = _prefixes(state)
    _check(state)
    classes = state["embeddings.weight"].shape[0]
    out: dict[str, np.ndarray] = {"shared.weight": state["embeddings.weight"].T}

    def put(name: str, value: np.ndarray, source: str) -> None:
        if name in out:
            raise DataError(f"{source} is a second {name}: give an unmodified pytorch_model.bin")
        out[name] = value

    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        there = _module(module, prefixes)
        alone = leaf in _SN[1:] and f"{module}.weight_orig" not in state
        if name == "embeddings.weight" or (leaf in _SN[1:] and there and not alone):
            continue  # with its weight
        layer = _LAYER.fullmatch(name)
        if layer and layer[2] == "gamma":
            gamma = value.reshape(()) if value.shape == (1,) else value
            put(f"{prefixes[int(layer[1])]}.gamma", gamma, name)
        elif there is None or alone:
            put(name, value, name)
        elif leaf == "weight_orig":
            u, v = state[f"{module}.weight_u"], state[f"{module}.weight_v"]
            matrix = value.reshape(len(value), -1)
            put(f"{there}.weight", value, name)
            put(f"{there}.u0", _start_vector(matrix, u, v)[None], name)
            put(f"{there}.sv0", np.array([u @ matrix @ v], np.float32), name)
        elif leaf in ("running_means", "running_vars"):
            own = {"running_means": "stored_mean", "running_vars": "stored_var"}[leaf]
            put(f"{there}.{own}", interpolated(value, truncation), name)
        else:
            own = "gain" if (there, leaf) == ("output_layer.0", "weight") else leaf
            put(f"{there}.{own}", value, name)
    _reorder(out, classes)
    return out


def _check(state: Mapping[str, np.ndarray]) -> None:
    """What `to_biggan` reads before shapes can be compared must be there, and finite."""
    wrong = []
    if state.get("embeddings.weight", np.zeros(())).ndim != 2:
        wrong.append("embeddings.weight: missing, or no matrix")
    for leaf, rank in (("weight_orig", 2), ("bias", 1)):
        if state.get(f"generator.gen_z.{leaf}", np.zeros(())).ndim != rank:
            wrong.append(f"generator.gen_z.{leaf}: missing, or of other than {rank} axes")
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        if leaf in ("running_means", "running_vars") and (value.ndim != 2 or len(value) < 2):
            wrong.append(f"{name}: shape {value.shape} instead of (truncations, channels)")
        if leaf == "weight_orig" and (value.ndim < 2 or not value.size):
            wrong.append(f"{name}: shape {value.shape} instead of (outputs, inputs, ...)")
        elif leaf == "weight_orig":
            sizes = (len(value), value[0].size)
            for other, size in zip(_SN[1:], sizes, strict=True):
                found = state.get(f"{module}.{other}")
                if found is None:
                    wrong.append(f"{module}.{other}: missing")
                elif found.shape != (size,):
                    wrong.append(f"{module}.{other}: shape {found.shape} instead of ({size},)")
        if value.dtype.kind != "f":
            wrong.append(f"{name}: {value.dtype} instead of float32")
        elif not np.isfinite(value).all():
            wrong.append(f"{name}: has NaN or infinity")
    if wrong:
        raise DataError(
            f"no whole huggingface BigGAN, so nothing is written: {'; '.join(wrong)}. "
            "Give an unmodified pytorch_model.bin."
        )


def _reorder(state: dict[str, np.ndarray], classes_dim: int) -> None:
    """Columns (z, class) -> (class, z), and the first layer's rows (side, side, C) -> (C, ...)."""
    for name, value in state.items():
        conditional = name == "linear.weight" or re.fullmatch(
            r"blocks\.\d+\.0\.bn\d\.(gain|bias)\.weight", name
        )
        if conditional and value.ndim == 2:
            state[name] = np.roll(value, classes_dim, axis=1)
    for name in ("linear.weight", "linear.bias", "linear.u0"):
        value = state[name].T if name == "linear.u0" else state[name]
        if value.shape[0] % BOTTOM**2:
            continue  # misshapen; found when shapes are compared
        rows = value.reshape(BOTTOM, BOTTOM, -1, *value.shape[1:])
        rows = np.moveaxis(rows, 2, 0).reshape(value.shape)
        state[name] = rows.T if name == "linear.u0" else rows
