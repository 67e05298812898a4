"""torch.optim.Adam's state <-> the moments of Optax's Adam, by name.

Both keep m = β₁m + (1 − β₁)g and v = β₂v + (1 − β₂)g², uncorrected, and count the steps, so the
numbers are the same; torch numbers its parameters in the order of the model's, which is that of
`names.plan`. The moments are kept for the way back to .pth: a fine-tune begins with fresh ones.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prpr.convert.names import Flat, Tensor
from prpr.errors import DataError

Moments = dict[str, Any]  # {"mu": Flat, "nu": Flat, "count": () int32}
_ARRAY = np.ndarray | np.generic  # NumPy makes the latter of what has no axes
_TORCH = {"mu": "exp_avg", "nu": "exp_avg_sq"}


def _parameters(table: Sequence[Tensor]) -> list[Tensor]:
    return [line for line in table if line.learned]


def _order(state: Mapping[str, Any], what: str) -> list[int]:
    """The names of the parameters, in their order; whole numbers in torch.

    Raises:
      DataError: groups without a list of them.
    """
    order = []
    for i, group in enumerate(state["param_groups"]):
        keys = group.get("params")
        if not isinstance(keys, list | tuple) or not all(isinstance(key, int) for key in keys):
            raise DataError(
                f"{what}: group {i} of its param_groups has no list of numbered params, so it is "
                "not the state of an optimiser; give G_optim.pth or D_optim.pth unmodified"
            )
        order += keys
    return order


def _shapes(state: Mapping[str, Any], what: str) -> list[tuple[int, ...] | None]:
    """Of the first moments, in the order of the parameters; None where there is none."""
    moments = [state["state"].get(key, {}).get("exp_avg") for key in _order(state, what)]
    return [x.shape if isinstance(x, _ARRAY) else None for x in moments]


def owner(
    state: Mapping[str, Any],
    networks: Mapping[str, tuple[Sequence[Tensor], Mapping[str, tuple[int, ...]]]],
    what: str,
) -> str:
    """Which network an optimiser is of: the one whose parameters have the shapes of its moments.

    Args:
      networks: {"generator" or "critic": (table, {our path: shape})}.

    Raises:
      DataError: of none of them.
    """
    found = _shapes(state, what)
    nearest = ""
    for name, (table, leaves) in networks.items():
        lines = _parameters(table)
        expected = [line.their_shape(leaves[line.ours]) for line in lines]
        if found == expected:
            return name
        if len(found) == len(expected):
            wrong = [
                f"{line.theirs}: {'missing' if a is None else a} instead of {b}"
                for line, a, b in zip(lines, found, expected, strict=True)
                if a != b
            ]
            nearest = f"; against the {name}: {'; '.join(wrong)}"
    counts = " or ".join(f"{len(_parameters(t))} ({name})" for name, (t, _) in networks.items())
    raise DataError(
        f"{what} is the state of an optimiser of {len(found)} parameters, which are not those of "
        f"the networks given: {counts}{nearest}. Give G_optim.pth with G.pth, D_optim.pth with "
        "D.pth."
    )


def to_optax(state: Mapping[str, Any], table: Sequence[Tensor], what: str) -> Moments:
    """The moments by our names.

    Raises:
      DataError: parameters that were stepped differently often, unknown, misshapen or non-finite
        entries.
    """
    order = _order(state, what)
    out: Moments = {"mu": {}, "nu": {}}
    counts = set()
    wrong = [f"parameter {key}: in no group" for key in state["state"].keys() - set(order)]
    for key, line in zip(order, _parameters(table), strict=True):
        entry = state["state"][key]
        unknown = set(entry) - {"step", *_TORCH.values()}
        missing = {"step", *_TORCH.values()} - set(entry)
        if unknown or missing:
            names = ", ".join(sorted(unknown | missing))
            wrong.append(f"{line.theirs}: {names} {'unknown' if unknown else 'missing'}")
            continue
        step = _number(entry["step"])
        if step is None or not 0 <= step < 2**31:
            wrong.append(f"{line.theirs}: step {entry['step']} is no number of steps")
        else:
            counts.add(int(step))
        shape = entry["exp_avg"].shape  # `owner` compared it with the parameter's
        for ours, theirs in _TORCH.items():
            value = entry[theirs]
            if not isinstance(value, _ARRAY) or value.dtype != np.float32:
                wrong.append(f"{line.theirs}: {theirs} is no tensor of float32")
            elif value.shape != shape:
                wrong.append(f"{line.theirs}: {theirs} of shape {value.shape} instead of {shape}")
            elif not np.isfinite(value).all():
                wrong.append(f"{line.theirs}: {theirs} has NaN or infinity")
            else:
                leaf = np.array(line.layout.to_ours(np.asarray(value)), np.float32, order="C")
                out[ours][line.ours.removeprefix("params/")] = leaf
    if len(counts) > 1:
        wrong.append(f"parameters were stepped between {min(counts)} and {max(counts)} times")
    if wrong:
        raise DataError(
            f"{what} cannot be kept as moments of Adam, so nothing is written: {'; '.join(wrong)}. "
            "Leave --optimizer out: moments are kept for --to-pth only, and a fine-tune begins "
            "with fresh ones either way."
        )
    out["count"] = np.array(counts.pop(), np.int32)
    return out


def _number(value: Any) -> float | None:
    """A finite number, also one in an array of one element; None for anything else."""
    if isinstance(value, _ARRAY) and value.size == 1:
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else None


def groups(state: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The settings beside the moments, as JSON keeps them; lr, β and ε among them.

    Raises:
      DataError: one that JSON cannot keep.
    """

    def plain(name: str, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, list | tuple):
            return type(value)([plain(name, one) for one in value])
        number = _number(value)
        if number is None:
            raise DataError(
                f"{what}: its setting {name} is {value!r}, no finite number; leave --optimizer out"
            )
        return number

    group = state["param_groups"][0]
    return {name: plain(name, value) for name, value in group.items() if name != "params"}


def from_optax(
    moments: Mapping[str, Any], table: Sequence[Tensor], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The inverse of `to_optax`: what torch.optim.Adam.load_state_dict takes."""
    lines = _parameters(table)
    state = {}
    for index, line in enumerate(lines):
        name = line.ours.removeprefix("params/")
        entry: Flat = {"step": np.array(moments["count"], np.float32)}
        for ours, theirs in _TORCH.items():
            value = line.layout.to_theirs(np.asarray(moments[ours][name]))
            entry[theirs] = np.array(value, order="C")
        state[index] = entry
    group = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return {"state": state, "param_groups": [{**group, "params": list(range(len(lines)))}]}
