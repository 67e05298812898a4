"""torch.optim.Adam's state <-> the moments of Optax's Adam, by name.

Both keep m = β₁m + (1 − β₁)g and v = β₂v + (1 − β₂)g², uncorrected, and count the steps, so the
numbers are the same; torch numbers its parameters in the order of the model's, which is that of
`names.plan`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prpr.convert.names import Flat, Tensor
from prpr.errors import DataError

Moments = dict[str, Any]  # {"mu": Flat, "nu": Flat, "count": () int32}
_TORCH = {"mu": "exp_avg", "nu": "exp_avg_sq"}


def _parameters(table: Sequence[Tensor]) -> list[Tensor]:
    return [line for line in table if line.learned]


def _shapes(state: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Of the first moments, in the order of the parameters; () where there is none."""
    order = [key for group in state["param_groups"] for key in group["params"]]
    return [np.shape(state["state"].get(key, {}).get("exp_avg", np.zeros(()))) for key in order]


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
    found = _shapes(state)
    nearest = ""
    for name, (table, leaves) in networks.items():
        lines = _parameters(table)
        expected = [line.their_shape(leaves[line.ours]) for line in lines]
        if found == expected:
            return name
        if len(found) == len(expected):
            wrong = [
                f"{line.theirs}: {a} instead of {b}"
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
      DataError: parameters that were stepped differently often, unknown or non-finite entries.
    """
    order = [key for group in state["param_groups"] for key in group["params"]]
    out: Moments = {"mu": {}, "nu": {}}
    wrong, counts = [], set()
    for key, line in zip(order, _parameters(table), strict=True):
        entry = state["state"][key]
        unknown = set(entry) - {"step", *_TORCH.values()}
        missing = {"step", *_TORCH.values()} - set(entry)
        if unknown or missing:
            names = ", ".join(sorted(unknown | missing))
            wrong.append(f"{line.theirs}: {names} {'unknown' if unknown else 'missing'}")
            continue
        counts.add(int(np.asarray(entry["step"]).reshape(())))
        for ours, theirs in _TORCH.items():
            if not np.isfinite(entry[theirs]).all():
                wrong.append(f"{line.theirs}: {theirs} has NaN or infinity")
            value = line.layout.to_ours(np.asarray(entry[theirs]))
            out[ours][line.ours.removeprefix("params/")] = np.array(value, np.float32, order="C")
    if len(counts) > 1:
        wrong.append(f"parameters were stepped between {min(counts)} and {max(counts)} times")
    if wrong:
        raise DataError(
            f"{what} cannot be continued by Optax's Adam, so nothing is written: "
            f"{'; '.join(wrong)}. Leave --optimizer out to begin with fresh moments."
        )
    out["count"] = np.array(counts.pop(), np.int32)
    return out


def groups(state: Mapping[str, Any]) -> dict[str, Any]:
    """The settings beside the moments, as JSON keeps them; lr, β and ε among them."""
    return {key: value for key, value in state["param_groups"][0].items() if key != "params"}


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
