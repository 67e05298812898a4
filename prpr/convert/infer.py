"""Which model a state dict is of: read off the names and shapes of its tensors.

What cannot be read off them is neither in the file: ε of the norms, see `epsilons`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from prpr.errors import DataError
from prpr.models import architecture
from prpr.models.architecture import Block

Shapes = Mapping[str, tuple[int, ...]]

# The original has no 8. A BigGAN-deep of that size and depth 3 has as many blocks, of the same
# widths, as one at 32 of depth 1.
_SIZES = tuple(size for size in architecture.ARCHITECTURES if size != 8)
# Three digits: a name of the original's form must not make a list of any length.
_CONV = re.compile(r"blocks\.([0-9]{1,3})\.([0-9]{1,3})\.conv.*")


class Found(NamedTuple):
    """One network.

    Attributes:
      network: "generator" or "critic".
      model: the knobs of config.model that it determines.
      attention: {side: whether attention follows the blocks of this side}.
      resolution, num_classes: of what it makes or judges.
    """

    network: str
    model: dict[str, Any]
    attention: dict[int, bool]
    resolution: int
    num_classes: int


def recognise(state: Mapping[str, np.ndarray], what: str) -> Found:
    """The model of a state dict in BigGAN-PyTorch's names.

    Raises:
      DataError: neither a generator nor a critic, or of no size in the table.
    """
    shapes = {name: value.shape for name, value in state.items()}
    if any(name.startswith("output_layer.") for name in shapes):
        return _checked(_generator(shapes, what), what)
    if "embed.weight" in shapes:
        return _checked(_critic(shapes, what), what)
    some = ", ".join(list(shapes)[:3])
    raise DataError(
        f"{what} is no BigGAN: it has neither a generator's output_layer nor a critic's embed "
        f"(its tensors begin with {some}). Give G.pth, G_ema.pth or D.pth of BigGAN-PyTorch, or "
        "a huggingface pytorch_model.bin."
    )


def _checked(found: Found, what: str) -> Found:
    """The same; raises DataError for a size that no network has."""
    sizes = {"number of classes": found.num_classes, **found.model}
    for name, value in sizes.items():
        if isinstance(value, int) and not isinstance(value, bool):
            if value > 0 or name == "output_ch":
                continue
            raise DataError(
                f"{what}: by the shapes of its tensors {name} is {value}, which no BigGAN has; "
                "nothing is written. Give a whole, unmodified state dict."
            )
    return found


def _shape(shapes: Shapes, name: str, rank: int, what: str) -> tuple[int, ...]:
    """The shape of a tensor without which nothing can be told."""
    if len(shapes.get(name, ())) != rank:
        state = (
            f"has {len(shapes[name])} axes instead of {rank}" if name in shapes else "is missing"
        )
        raise DataError(f"{what}: {name} {state}, so its model cannot be told; nothing is written")
    return shapes[name]


def _positions(shapes: Shapes) -> list[tuple[int, int]]:
    """(i, j) of every residual block blocks.i.j in order, gaps filled.

    Other names below blocks are passed over here, and found left over by `names.to_ours`.
    """
    found = [(int(m[1]), int(m[2])) for m in map(_CONV.fullmatch, shapes) if m]
    inner = max((j for _, j in found), default=0) + 1
    return [(i, j) for i in range(max((i for i, _ in found), default=-1) + 1) for j in range(inner)]


def _widths(shapes: Shapes, deep: bool) -> list[int]:
    """Output channels of every residual block, in order; 0 where that tensor has none."""
    last = "conv4" if deep else "conv2"
    names = [f"blocks.{i}.{j}.{last}.weight" for i, j in _positions(shapes)]
    return [(shapes.get(name) or (0,))[0] for name in names]


def _fit(
    widths: list[int], rows: Mapping[tuple[int, int], list[Block]], what: str
) -> tuple[int, int, int]:
    """(resolution, depth, ch) of the row with as many blocks, and most of its widths."""
    fitting = {key: row for key, row in rows.items() if len(row) == len(widths)}
    if not fitting or not widths:
        sizes = ", ".join(f"{r} ({len(row)})" for (r, _), row in rows.items())
        raise DataError(
            f"{what} has {len(widths)} residual blocks; the sizes and their numbers of blocks are "
            f"{sizes}"
        )

    def ch_of(row: list[Block]) -> int:
        whole = [w // b.features for w, b in zip(widths, row, strict=True) if w % b.features == 0]
        return max(set(whole) - {0}, key=whole.count, default=0)

    def agreeing(key: tuple[int, int]) -> int:
        row = fitting[key]
        return sum(w == b.features * ch_of(row) for w, b in zip(widths, row, strict=True))

    best = max(fitting, key=agreeing)
    if ch_of(fitting[best]) == 0:
        raise DataError(
            f"{what}: blocks of {widths} channels are no multiple of "
            f"{[block.features for block in fitting[best]]}"
        )
    return (*best, ch_of(fitting[best]))


def _attention(shapes: Shapes, row: list[Block]) -> dict[int, bool]:
    out: dict[int, bool] = {}
    for (i, j), block in zip(_positions(shapes), row, strict=True):
        if block.last:
            there = f"blocks.{i}.{j + 1}.gamma" in shapes
            out[block.side] = out.get(block.side, False) or there
    return out


def _generator(shapes: Shapes, what: str) -> Found:
    deep = any(".conv4." in name for name in shapes)
    rows = {
        (size, depth): architecture.generator_blocks(size, depth)
        for size in _SIZES
        for depth in (range(1, 5) if deep else (1,))
    }
    resolution, depth, ch = _fit(_widths(shapes, deep), rows, what)
    first = _shape(shapes, "linear.weight", 2, what)[1]
    gain = _shape(shapes, "blocks.0.0.bn1.gain.weight", 2, what)
    shared = deep or "shared.weight" in shapes  # the original has no deep one without
    model: dict[str, Any] = {
        "name": "biggan_deep" if deep else "biggan",
        "generator_ch": ch,
        "generator_spectral_norm": "linear.u0" in shapes,
        "shared_embedding": shared,
    }
    if shared:
        classes, shared_dim = _shape(shapes, "shared.weight", 2, what)
        chunk = gain[1] - shared_dim
        model |= {"shared_dim": shared_dim, "hierarchical": deep or chunk > 0}
        if deep:
            model |= {"dim_z": first - shared_dim, "depth": depth}
        else:
            slots = len(rows[resolution, 1]) + 1
            model["dim_z"] = chunk * slots if chunk > 0 else first
    else:
        classes = gain[0]
        model |= {"dim_z": first, "hierarchical": False}
    outputs = _shape(shapes, "output_layer.2.weight", 4, what)[0]
    model["output_ch"] = outputs if outputs > 3 else 0
    return Found(
        "generator", model, _attention(shapes, rows[resolution, depth]), resolution, classes
    )


def _critic(shapes: Shapes, what: str) -> Found:
    deep = any(".conv4." in name for name in shapes)
    rows = {
        (size, depth): architecture.critic_blocks(size, deep, depth)
        for size in _SIZES
        for depth in (max((j for _, j in _positions(shapes)), default=0) + 1,)
    }
    resolution, depth, ch = _fit(_widths(shapes, deep), rows, what)
    model: dict[str, Any] = {
        "name": "biggan_deep" if deep else "biggan",
        "critic_ch": ch,
        "critic_spectral_norm": "linear.u0" in shapes,
    }
    if deep:
        model["depth"] = depth
    classes = _shape(shapes, "embed.weight", 2, what)[0]
    return Found("critic", model, _attention(shapes, rows[resolution, depth]), resolution, classes)


def together(parts: Mapping[str, Found]) -> tuple[dict[str, Any], int, int]:
    """(model, resolution, num_classes) of networks that belong to one another.

    Args:
      parts: {file: what was found in it}.

    Raises:
      DataError: lists in what they do not belong together, or in what the original allows two
        networks to differ and prpr does not: depth, and where attention is applied. At 32 the
        original gives all blocks of a critic the side 16, so that its D_attn = 16 is
        attention_at = 8, 16 here, and fits a generator of G_attn = 8_16 only.
    """
    (first, one), *others = parts.items()
    wrong, apart = [], []
    model, attention = dict(one.model), dict(one.attention)
    for what, found in others:
        for name, a, b in (
            ("resolution", one.resolution, found.resolution),
            ("number of classes", one.num_classes, found.num_classes),
        ):
            if a != b:
                wrong.append(f"{name}: {a} in {first}, {b} in {what}")
        ours = apart if found.network != one.network else wrong
        for knob, value in found.model.items():
            if model.setdefault(knob, value) != value:
                line = f"{knob}: {model[knob]} before, {value} in {what}"
                (ours if knob == "depth" else wrong).append(line)
        for side, present in found.attention.items():
            if attention.setdefault(side, present) != present:
                which = f"{what} only" if present else f"{first} only"
                ours.append(f"attention at {side}: in {which}")
    if wrong:
        raise DataError(
            f"these networks do not belong together: {'; '.join(wrong + apart)}. Give files of one "
            "run."
        )
    if apart:
        if one.resolution == 32 and any(line.startswith("attention") for line in apart):
            apart.append("at 32 the original's D_attn = 16 is attention at 8 and 16 here")
        raise DataError(
            "these networks may be of one run, but prpr has one attention_at and one depth for "
            f"both: {'; '.join(apart)}. Leave the critic out, and one is made and fitted, or give "
            "networks of equal attention and depth."
        )
    model["attention_at"] = [side for side, present in sorted(attention.items()) if present]
    return model, one.resolution, one.num_classes


def epsilons(family: str, model: Mapping[str, Any], has_sigma: bool) -> tuple[float, float, str]:
    """(sn_eps, bn_eps, why): what the published runs of such a model were made with."""
    if family == "huggingface":
        return 1e-4, 1e-4, "as in the configurations of pytorch_pretrained_biggan"
    if model.get("generator_spectral_norm") and not has_sigma:
        return 1e-4, 1e-4, "no sv0: converted from TensorFlow Hub, whose ε these are"
    if model.get("hierarchical"):
        return 1e-6, 1e-5, "as in the original's launch scripts for ImageNet"
    return 1e-8, 1e-5, "the defaults of the original's train.py"
