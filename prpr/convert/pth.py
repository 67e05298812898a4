"""PyTorch's files, the one place that imports torch: read without running what is in them.

A .pth is a pickle, and a pickle can hold code that runs when it is read. Everything here is
loaded with `weights_only=True`, which builds tensors and plain containers and refuses the rest.
"""

import os
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prpr.errors import DataError, PrprError

Path_ = str | os.PathLike


def _torch() -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise PrprError(
            "reading and writing .pth files needs PyTorch: pip install 'prpr[torch]'"
        ) from None
    return torch


def _load(path: Path_) -> Any:
    """What the file holds, tensors on the CPU.

    Raises:
      DataError: no such file, a damaged one, or one with anything but tensors and containers.
    """
    torch, file = _torch(), Path(path)
    if not file.is_file():
        why = "is a directory" if file.is_dir() else "does not exist"
        raise DataError(f"{path} {why}: give a .pth file that torch.save wrote")
    if not file.stat().st_size:
        raise DataError(f"{path} is empty: copy or download it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; an error says it better
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        called = re.search(r"GLOBAL (\w[\w.]*)", str(error))
        if called:
            raise DataError(
                f"{path} holds more than tensors: it calls {called[1]}. Reading that would run "
                "code from the file, so it was refused, not run; save the state_dict() alone and "
                "give that."
            ) from None
        raise _damaged(path, error) from None
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, ... for damage
        raise _damaged(path, error) from None


def _damaged(path: Path_, error: Exception) -> DataError:
    return DataError(
        f"{path} is no whole PyTorch file ({type(error).__name__}): it is truncated, or something "
        "else; copy or download it again"
    )


def _array(value: Any) -> np.ndarray:
    """A tensor as an array; half precision becomes float32, which holds it exactly."""
    torch = _torch()
    value = value.detach()
    if value.dtype in (torch.float16, torch.bfloat16):
        value = value.float()
    return np.array(value.numpy())


def read_state(path: Path_) -> dict[str, np.ndarray]:
    """A state dict as {name: array}, in its order; "module." of a DataParallel is taken off.

    Raises:
      DataError: not a readable file, or one that holds something else than named tensors.
    """
    torch, content = _torch(), _load(path)
    if not isinstance(content, Mapping) or not content:
        raise DataError(
            f"{path} holds a {type(content).__name__}, not the named tensors of a network: "
            "give the file of its state_dict()"
        )
    odd = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise DataError(
            f"{path} holds {odd[0]!r}, which is no tensor: give the file of a network's "
            "state_dict() alone (G.pth, G_ema.pth or D.pth, not state_dict.pth; an optimiser's "
            "goes after --optimizer)"
        )
    prefix = "module." if all(str(key).startswith("module.") for key in content) else ""
    return {str(key)[len(prefix) :]: _array(value) for key, value in content.items()}


def read_optimizer(path: Path_) -> dict[str, Any]:
    """An optimiser's state dict: {"state": {index: {name: array or number}}, "param_groups"}.

    Raises:
      DataError: not a readable file, or not the state of an optimiser.
    """
    torch, content = _torch(), _load(path)
    if not isinstance(content, Mapping) or set(content) != {"state", "param_groups"}:
        raise DataError(
            f"{path} is not the state of an optimiser: give G_optim.pth or D_optim.pth as "
            "BigGAN-PyTorch writes them"
        )

    def plain(value: Any) -> Any:
        return _array(value) if isinstance(value, torch.Tensor) else value

    state = {
        key: {name: plain(value) for name, value in one.items()}
        for key, one in content["state"].items()
    }
    return {"state": state, "param_groups": list(content["param_groups"])}


def write(path: Path_, content: Mapping[str, Any]) -> None:
    """Saves a state dict, arrays as tensors; the name appears when the file is whole.

    Raises:
      DataError: the file cannot be written.
    """
    torch, file = _torch(), Path(path)

    def tensors(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(np.array(value))
        if isinstance(value, Mapping):
            kind = OrderedDict if isinstance(value, OrderedDict) else dict
            return kind((key, tensors(one)) for key, one in value.items())
        return value

    fresh = file.with_name(f"tmp.{file.name}")
    try:
        torch.save(tensors(content), fresh)
        os.replace(fresh, file)
    except (OSError, RuntimeError) as error:
        fresh.unlink(missing_ok=True)
        raise DataError(
            f"cannot write {file}: {str(error).splitlines()[0]}; free space or choose another --out"
        ) from error
