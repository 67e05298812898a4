"""Where every tensor of a BigGAN-PyTorch state dict goes in our Flax trees, and back.

Notation: "theirs" is the original's name and layout, "ours" is the path of a Flax leaf,
"collection/module/.../leaf". Both count residual blocks in order, so BigGAN and BigGAN-deep
share one table:

    theirs                               ours
    shared.weight                        params/shared/w/kernel        table (classes, dim)
    linear.{weight,bias,u0}              linear (a generator's: rows reordered, see `_first`)
    input_conv.*                         conv_in
    blocks.i.j.conv{1..4}.*, .conv_sc.*  block{k}/conv{1..4}, block{k}/shortcut
    blocks.i.j.bn{1..4}.{gain,bias}.*    block{k}/norm{1..4}/{gain,bias}
    blocks.i.(j+1).*                     attention{k}
    output_layer.{0,2}.*                 norm_out, conv_out
    embed.*                              embed

    within a layer: weight -> params/.../w/kernel, bias -> params/.../bias, u0 -> spectral/.../w/u,
    sv0 -> spectral/.../w/sigma, stored_mean and stored_var -> batch_stats/.../norm/{mean,var}

The k-th residual block is i = k, j = 0; in the critic of BigGAN-deep i counts stages and j the
blocks of one.

Kernels are OIHW there and HWIO here, matrices (out, in) there and (in, out) here. The tensors of
`plan` stand in the order in which the original's modules register them, which is also the order
of its parameters in an optimiser's state.

Source: github.com/ajbrock/BigGAN-PyTorch, layers.py, BigGAN.py, BigGANdeep.py.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np

from prpr.errors import DataError
from prpr.models.architecture import BOTTOM

Flat = dict[str, np.ndarray]

# Names of the running moments, and of a counter beside them, by the kind of batch norm that the
# original was built with: its own (default), --mybn, --cross_replica.
NORMS: dict[str, tuple[str, str, str | None]] = {
    "default": ("stored_mean", "stored_var", None),
    "mybn": ("bn.stored_mean", "bn.stored_var", "bn.accumulation_counter"),
    "cross_replica": ("bn.running_mean", "bn.running_var", "bn.num_batches_tracked"),
}
_CONVS = ("conv1", "conv2", "conv3", "conv4", "conv_sc")
_BLOCK_NORMS = ("1", "2", "3", "4")


class Layout(NamedTuple):
    """The two directions of one reordering of axes; each is the other's inverse."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda x: x, lambda x: x)
MATRIX = Layout(lambda x: x.T, lambda x: x.T)
CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
ROW = Layout(lambda x: x.reshape(-1), lambda x: x.reshape(1, -1))
SCALAR = Layout(lambda x: x.reshape(()), lambda x: x.reshape(1))


def _first(side: int, then: Layout) -> Layout:
    """A generator's first layer: it makes (C, side, side) there and (side, side, C) here."""

    def to_ours(x: np.ndarray) -> np.ndarray:
        rows = x.reshape(-1, side, side, *x.shape[1:])
        return then.to_ours(np.moveaxis(rows, 0, 2).reshape(x.shape))

    def to_theirs(x: np.ndarray) -> np.ndarray:
        x = then.to_theirs(x)
        rows = x.reshape(side, side, -1, *x.shape[1:])
        return np.moveaxis(rows, 2, 0).reshape(x.shape)

    return Layout(to_ours, to_theirs)


def _first_row(side: int) -> Layout:
    """As `_first`, for u0 (1, rows)."""
    inner = _first(side, SAME)
    return Layout(
        lambda x: inner.to_ours(x.reshape(-1)), lambda x: inner.to_theirs(x).reshape(1, -1)
    )


class Tensor(NamedTuple):
    """One line of the table: a tensor there, a leaf here ("" for a counter, which has none)."""

    theirs: str
    ours: str
    layout: Layout = SAME

    @property
    def learned(self) -> bool:
        """Whether an optimiser has moments for it."""
        return self.ours.startswith("params/")

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape there of a leaf that has this shape here."""
        return self.layout.to_theirs(np.broadcast_to(np.float32(0), shape)).shape


def _layer(theirs: str, ours: str, kind: Layout, first_side: int = 0) -> list[Tensor]:
    """All tensors that a convolution, a linear layer or an embedding may have."""
    weight, bias, u = kind, SAME, ROW
    if first_side:
        weight, bias = _first(first_side, kind), _first(first_side, SAME)
        u = _first_row(first_side)
    return [
        Tensor(f"{theirs}.weight", f"params/{ours}/w/kernel", weight),
        Tensor(f"{theirs}.bias", f"params/{ours}/bias", bias),
        Tensor(f"{theirs}.u0", f"spectral/{ours}/w/u", u),
        Tensor(f"{theirs}.sv0", f"spectral/{ours}/w/sigma", SCALAR),
    ]


def _moments(theirs: str, ours: str, norm: str) -> list[Tensor]:
    mean, var, counter = NORMS[norm]
    out = [
        Tensor(f"{theirs}.{mean}", f"batch_stats/{ours}/norm/mean"),
        Tensor(f"{theirs}.{var}", f"batch_stats/{ours}/norm/var"),
    ]
    return [*out, Tensor(f"{theirs}.{counter}", "")] if counter else out


def _attention(theirs: str, ours: str) -> list[Tensor]:
    out = [Tensor(f"{theirs}.gamma", f"params/{ours}/gamma")]
    for name in ("theta", "phi", "g", "o"):
        out += _layer(f"{theirs}.{name}", f"{ours}/{name}", CONV)
    return out


def plan(
    leaves: Mapping[str, tuple[int, ...]], norm: str = "default", stage: int = 1
) -> list[Tensor]:
    """The table for one network, in the original's order.

    Args:
      leaves: {our path: shape} of every leaf of the network, all collections.
      norm: which kind of batch norm the original has; a key of `NORMS`.
      stage: blocks that one i counts: the depth in the critic of BigGAN-deep, otherwise 1.

    Raises:
      ValueError: a leaf that the table has no line for.
    """
    modules = {path.split("/")[1] for path in leaves}
    generator = "conv_out" in modules
    # Tables of classes in place of matrices: the one sign of a model without shared embedding.
    condition = MATRIX if "shared" in modules else SAME
    table: list[Tensor] = [Tensor("shared.weight", "params/shared/w/kernel")]
    if generator:
        table += _layer("linear", "linear", MATRIX, BOTTOM)
    table += _layer("input_conv", "conv_in", CONV)
    for i in range(sum(name.startswith("block") for name in modules)):
        there, here = f"blocks.{i // stage}.{i % stage}", f"block{i}"
        for name in _CONVS:
            own = "shortcut" if name == "conv_sc" else name
            table += _layer(f"{there}.{name}", f"{here}/{own}", CONV)
        for k in _BLOCK_NORMS:
            if f"batch_stats/{here}/norm{k}/norm/mean" in leaves:
                moments = _moments(f"{there}.bn{k}", f"{here}/norm{k}", norm)
                # Buffers of a module itself come before its children, such as gain and bias.
                table += moments if norm == "default" else []
                for name in ("gain", "bias"):
                    table += _layer(f"{there}.bn{k}.{name}", f"{here}/norm{k}/{name}", condition)
                table += [] if norm == "default" else moments
        table += _attention(f"blocks.{i // stage}.{i % stage + 1}", f"attention{i}")
    if generator:
        for name in ("gain", "bias"):
            table.append(Tensor(f"output_layer.0.{name}", f"params/norm_out/{name}"))
        table += _moments("output_layer.0", "norm_out", norm)
        table += _layer("output_layer.2", "conv_out", CONV)
    else:
        table += _layer("linear", "linear", MATRIX)
        table += _layer("embed", "embed", SAME)
    table = [line for line in table if not line.ours or line.ours in leaves]
    unplaced = set(leaves) - {line.ours for line in table}
    if unplaced:
        raise ValueError(f"no place in the original for {sorted(unplaced)}")
    return table


def norm_of(names: Collection[str]) -> str:
    """Which kind of batch norm a state dict is of."""
    for norm in ("mybn", "cross_replica"):
        if any(name.endswith("." + NORMS[norm][0]) for name in names):
            return norm
    return "default"


def to_ours(
    state: Mapping[str, np.ndarray],
    leaves: Mapping[str, tuple[int, ...]],
    what: str,
    stage: int = 1,
) -> tuple[Flat, dict[str, float]]:
    """A state dict of the original as flat leaves of ours: all of it, or an error.

    Args:
      state: {name: array}.
      leaves: {our path: shape}.
      what: names the file in messages.
      stage: see `plan`.

    Returns:
      (leaves, counters): counters are numbers of batches, which ours has no place for.

    Raises:
      DataError: lists every tensor that is missing, left over, of another shape, or not finite.
    """
    table = plan(leaves, norm_of(state), stage)
    state = _fill_sigma(state, table)
    wrong = []
    for line in table:
        if line.theirs not in state:
            wrong.append(f"{line.theirs}: missing")
        elif not line.ours:
            wrong += _wrong_counter(line.theirs, state[line.theirs])
        else:
            expected = line.their_shape(leaves[line.ours])
            found = state[line.theirs].shape
            if found != expected:
                wrong.append(f"{line.theirs}: shape {found} instead of {expected}")
            elif state[line.theirs].dtype != np.float32:
                wrong.append(f"{line.theirs}: {state[line.theirs].dtype} instead of float32")
            elif not np.isfinite(state[line.theirs]).all():
                wrong.append(f"{line.theirs}: has NaN or infinity")
    known = {line.theirs for line in table}
    wrong += [f"{name}: not in this model" for name in state if name not in known]
    if wrong:
        raise DataError(
            f"{what} does not fit the model that its shapes suggest, so nothing is written; "
            f"{len(wrong)} tensors differ: {'; '.join(wrong)}. Give a whole, unmodified state dict."
        )
    counters = {
        line.theirs: float(state[line.theirs].reshape(())) for line in table if not line.ours
    }
    out: Flat = {}
    for line in table:
        if line.ours:
            value = state[line.theirs]
            count = counters.get(_counter_of(line.theirs), 0.0)
            if count > 0 and line.theirs.endswith(("bn.stored_mean", "bn.stored_var")):
                # Standing statistics: the original stores sums, and divides when it evaluates.
                value = value / np.float32(count)
            out[line.ours] = np.array(line.layout.to_ours(value), np.float32, order="C")
    return out, {k: 0.0 if "accumulation" in k else v for k, v in counters.items()}


def _wrong_counter(name: str, value: np.ndarray) -> list[str]:
    """In what a counter of batches is none."""
    expected = _count(name, 0).shape
    if value.shape != expected:
        return [f"{name}: shape {value.shape} instead of {expected}"]
    if value.dtype.kind not in "iuf" or not np.isfinite(value).all():
        return [f"{name}: {value} is no number of batches"]
    return []


def _count(name: str, count: float) -> np.ndarray:
    """A counter as the original keeps it: PyTorch's own is a whole number without axes."""
    if name.endswith("num_batches_tracked"):
        return np.array(int(count), np.int64)
    return np.array([count], np.float32)


def _counter_of(name: str) -> str:
    return f"{name.rpartition('.')[0]}.accumulation_counter"


def _fill_sigma(state: Mapping[str, np.ndarray], table: list[Tensor]) -> dict[str, np.ndarray]:
    """The state with sv0 = 1 throughout if it has none at all.

    They are a log of the singular values that nothing reads; the original's own conversion of
    the TensorFlow Hub weights leaves them out, and loads with ones there.
    """
    out = dict(state)
    names = [line.theirs for line in table if line.theirs.endswith(".sv0")]
    if names and not any(name in out for name in names):
        out.update((name, np.ones(1, np.float32)) for name in names)
    return out


def to_theirs(
    ours: Mapping[str, np.ndarray], norm: str, counters: Mapping[str, float], stage: int = 1
) -> dict[str, np.ndarray]:
    """The inverse of `to_ours`: a state dict with the original's names, order and shapes."""
    table = plan({path: np.shape(leaf) for path, leaf in ours.items()}, norm, stage)
    out = {}
    for line in table:
        if line.ours:
            out[line.theirs] = np.array(
                line.layout.to_theirs(np.asarray(ours[line.ours])), order="C"
            )
        else:
            out[line.theirs] = _count(line.theirs, counters.get(line.theirs, 0))
    return out
