"""Published BigGAN weights -> a folder of ours (`prpr.weights`), and back.

    converted = convert.from_files(ema="G_ema.pth", critic="D.pth")
    convert.write("weights", converted)
    convert.to_files("weights", "pth")

Families: BigGAN and BigGAN-deep of ajbrock/BigGAN-PyTorch (generator, critic, and Adam's moments,
which are kept for the way back only), and huggingface's BigGAN-deep (generator). `from_states` and
`to_states` are the pure mappings between state dicts {name: array} and Flax trees; only
`prpr.convert.pth` knows PyTorch. Every tensor is accounted for by name (`prpr.convert.names`), or
nothing is written.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from prpr import weights
from prpr.convert import adam, huggingface, infer, names
from prpr.errors import ConfigError, DataError, WorkdirError
from prpr.weights import Weights

State = Mapping[str, np.ndarray]


class Converted(NamedTuple):
    """What a folder of weights is made of, and what to tell the user.

    Attributes:
      weights, model, resolution, num_classes, source: as `weights.write_weights` takes them.
      lines: what was recognised, in words.
    """

    weights: Weights
    model: dict[str, Any]
    resolution: int
    num_classes: int
    source: dict[str, Any]
    lines: list[str]


def flat(tree: Any) -> names.Flat:
    """{"collection/module/leaf": value} of nested dictionaries."""
    return dict(traverse_util.flatten_dict(tree, sep="/"))  # pyright: ignore


def _nested(leaf_of: Mapping[str, Any]) -> Any:
    return traverse_util.unflatten_dict(dict(leaf_of), sep="/")


def leaf_shapes(net: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """{path: shape} of a net of `weights.shapes`, its collections side by side."""
    return {path: leaf.shape for path, leaf in flat(_variables(net)).items()}


def _variables(net: Mapping[str, Any]) -> dict[str, Any]:
    return {"params": net["params"], **net["extra"]}


def stage(network: str, model: Mapping[str, Any]) -> int:
    """Blocks that the original counts as one; see `names.plan`."""
    return model["depth"] if network == "critic" and model["name"] == "biggan_deep" else 1


def _net(leaf_of: names.Flat) -> dict[str, Any]:
    tree = _nested(leaf_of)
    return {"params": tree.pop("params"), "extra": tree}


def from_states(
    states: Mapping[str, State],
    optimizers: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    truncation: float | None = None,
    sn_eps: float | None = None,
    bn_eps: float | None = None,
    files: Mapping[str, str] | None = None,
) -> Converted:
    """State dicts as Flax trees.

    Args:
      states: {"generator", "ema", "critic": {name: array}}; at least one of the first two, and
        one of them alone stands for both.
      optimizers: {what messages call it: an optimiser's state}, as `pth.read_optimizer` gives.
      truncation: at which huggingface's tables of moments are read; None for 1.
      sn_eps, bn_eps: of the norms; None for those of the published runs.
      files: {key of `states`: what messages call it}.

    Raises:
      DataError: tensors that are missing, left over, misshapen or not finite, all listed;
        networks that do not belong together.
      ConfigError: no generator, a truncation outside (0, 1] or for files that have no tables, an
        ε that is not positive and finite.
    """
    _check_options(states, sn_eps, bn_eps)
    files = {**{name: name for name in states}, **(files or {})}
    huggingfaces = [name for name in states if huggingface.is_huggingface(states[name])]
    family = "huggingface" if huggingfaces else "BigGAN-PyTorch"
    if truncation is not None and not huggingfaces:
        raise ConfigError(
            f"truncation = {truncation!r}: BigGAN-PyTorch's files have no moments by truncation, "
            "only huggingface's; leave --truncation out"
        )
    truncation = 1.0 if truncation is None else truncation
    states = {
        name: huggingface.to_biggan(state, truncation) if name in huggingfaces else state
        for name, state in states.items()
    }
    found = {name: infer.recognise(state, files[name]) for name, state in states.items()}
    for name, one in found.items():
        expected = "critic" if name == "critic" else "generator"
        if one.network != expected:
            raise DataError(
                f"{files[name]} is a {one.network}, given as {name}: --generator and --ema take "
                "generators, --critic a critic"
            )
    model, resolution, classes = infer.together({files[name]: f for name, f in found.items()})
    logged = any(key.endswith(".sv0") for state in states.values() for key in state)
    sn, bn, why = infer.epsilons(family, model, logged)
    whys = ["as given" if given is not None else why for given in (sn_eps, bn_eps)]
    model |= {
        "sn_eps": sn if sn_eps is None else sn_eps,
        "bn_eps": bn if bn_eps is None else bn_eps,
    }
    size = (model, resolution, classes)
    leaves = {
        network: leaf_shapes(weights.shapes(*size, network))
        for network in ("generator", "critic")
        if network == "generator" or "critic" in states
    }
    nets, counters = {}, {}
    for name, state in states.items():
        kind = found[name].network
        leaf_of, counters[name] = names.to_ours(
            state, leaves[kind], files[name], stage(kind, model)
        )
        nets[name] = _net(leaf_of)
    generator = nets.get("generator", nets.get("ema"))
    moments, settings = _optimizers(optimizers or {}, leaves, model)
    source = {
        "family": family,
        "norm": names.norm_of(states.get("generator", states.get("ema", {}))),
        "files": {name: os.path.basename(files[name]) for name in states},
        "counters": {name: kept for name, kept in counters.items() if kept},
        "optimizers": settings,
    }
    if huggingfaces:
        source["truncation"] = truncation
    return Converted(
        Weights(generator, nets.get("ema", generator), nets.get("critic"), **moments),
        *size,
        source,
        _told(family, *size, leaves, whys),
    )


def _check_options(
    given: Mapping[str, Any], sn_eps: float | None = None, bn_eps: float | None = None, **_: Any
) -> None:
    """What can be refused before files are read; see `from_states`."""
    if "generator" not in given and "ema" not in given:
        raise ConfigError("no generator: give --generator G.pth, --ema G_ema.pth, or both")
    for name, value in (("sn_eps", sn_eps), ("bn_eps", bn_eps)):
        if value is not None and not (math.isfinite(value) and value > 0):
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} = {value!r}: must be a finite number above 0")


def _optimizers(
    optimizers: Mapping[str, Mapping[str, Any]],
    leaves: Mapping[str, dict[str, tuple[int, ...]]],
    model: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """({"generator_opt" or "critic_opt": moments}, {the same: settings})."""
    tables = {
        network: (names.plan(own, stage=stage(network, model)), own)
        for network, own in leaves.items()
    }
    moments, settings = {}, {}
    for what, state in optimizers.items():
        network = adam.owner(state, tables, what)
        key = f"{network}_opt"
        if key in moments:
            raise DataError(f"{what} is a second optimiser of the {network}: give one for each")
        own = adam.to_optax(state, tables[network][0], what)
        moments[key] = {**own, "mu": _nested(own["mu"]), "nu": _nested(own["nu"])}
        settings[key] = adam.groups(state, what)
    return moments, settings


def _told(
    family: str,
    model: Mapping[str, Any],
    resolution: int,
    classes: int,
    leaves: Mapping[str, dict[str, tuple[int, ...]]],
    whys: Sequence[str],
) -> list[str]:
    kind = "BigGAN-deep" if model["name"] == "biggan_deep" else "BigGAN"
    lines = [f"{kind} of {family}, {resolution} x {resolution}, {classes} classes"]
    for network, own in leaves.items():
        count = sum(
            int(np.prod(shape)) for path, shape in own.items() if path.startswith("params/")
        )
        lines.append(f"{network}: ch {model[f'{network}_ch']}, {count:,} parameters")
    if "critic" not in leaves:
        lines.append("no critic: one is made and fitted before the generator moves")
    parts = [f"z {model['dim_z']}"]
    if model["shared_embedding"]:
        parts.append(f"class embedding {model['shared_dim']}")
    parts.append("hierarchical" if model["hierarchical"] else "not hierarchical")
    sides = ", ".join(map(str, model["attention_at"])) or "none"
    lines.append(f"{', '.join(parts)}; attention at {sides}")
    sn, bn = (f"{model[name]:g}" for name in ("sn_eps", "bn_eps"))
    sn += f" ({whys[0]})" if whys[0] != whys[1] else ""
    lines.append(f"ε: spectral norm {sn}, batch norm {bn} ({whys[1]})")
    if family == "BigGAN-PyTorch" and model["bn_eps"] != 1e-5:
        lines.append("the original's last batch norm has ε = 1e-05 whatever the others have")
    return lines


def from_files(
    *,
    generator: str | os.PathLike | None = None,
    ema: str | os.PathLike | None = None,
    critic: str | os.PathLike | None = None,
    optimizers: Sequence[str | os.PathLike] = (),
    **options: Any,
) -> Converted:
    """`from_states` on .pth files; `options` are its own. Needs PyTorch.

    Raises:
      DataError: also for files that are damaged, hold code, or are none of PyTorch's.
    """
    from prpr.convert import pth

    given = {"generator": generator, "ema": ema, "critic": critic}
    files = {name: os.fspath(path) for name, path in given.items() if path}
    _check_options(files, **options)
    states = {name: pth.read_state(path) for name, path in files.items()}
    moments = {os.fspath(path): pth.read_optimizer(path) for path in optimizers}
    return from_states(states, moments, files=files, **options)


def write(directory: str | os.PathLike, converted: Converted, overwrite: bool = False) -> None:
    """Writes the folder that `config.base.path` may name; see `weights.write_weights`."""
    fields = converted._asdict()
    fields.pop("lines")
    weights.write_weights(directory, fields.pop("weights"), overwrite=overwrite, **fields)


def to_states(
    held: Weights, model: Mapping[str, Any], source: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The inverse of `from_states`: {"G", "G_ema", "D", "G_optim", "D_optim": state dict}.

    Those that were not there are left out. Weights that came from huggingface get
    BigGAN-PyTorch's names, for its BigGANdeep.
    """
    norm, counters = source.get("norm", "default"), source.get("counters", {})
    out: dict[str, dict[str, Any]] = {}
    for name, file in (("generator", "G"), ("ema", "G_ema"), ("critic", "D")):
        net = getattr(held, name)
        if net is not None:
            # A generator that stood for both has its counters under the other name.
            kept = counters.get(name) or next(
                (counters[n] for n in ("generator", "ema") if n in counters and name != "critic"),
                {},
            )
            out[file] = names.to_theirs(flat(_variables(net)), norm, kept, stage(name, model))
    for key, file in (("generator_opt", "G_optim"), ("critic_opt", "D_optim")):
        moments = getattr(held, key)
        if moments is not None:
            network = key.removesuffix("_opt")
            table = names.plan(leaf_shapes(getattr(held, network)), stage=stage(network, model))
            own = {**moments, "mu": flat(moments["mu"]), "nu": flat(moments["nu"])}
            out[file] = adam.from_optax(own, table, source.get("optimizers", {}).get(key, {}))
    return out


def to_files(
    directory: str | os.PathLike, out: str | os.PathLike, overwrite: bool = False
) -> list[Path]:
    """Writes G.pth, G_ema.pth, D.pth (and optimisers) that the original loads, all or none.

    Needs PyTorch.

    Raises:
      CheckpointError: `directory` holds no weights.
      WorkdirError: a file of these names is there already, or the folder cannot be made.
    """
    from prpr.convert import pth

    held, info = weights.read_weights(directory)
    states = to_states(held, info.model, info.source)
    folder = Path(out)
    paths: dict[Path, Any] = {folder / f"{name}.pth": state for name, state in states.items()}
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise WorkdirError(
            f"{there[0]} exists: choose another folder for --out, or give --overwrite"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"cannot make the folder {folder}: {error.strerror}") from error
    pth.write(paths)
    return list(paths)
