"""PyTorch's files, the one place that imports torch: read without running what is in them.

A .pth is a pickle, and a pickle can hold code that runs when it is read. Everything here is
loaded with `weights_only=True`, which builds tensors and plain containers and refuses the rest,
by a PyTorch that keeps that promise.
"""

import contextlib
import os
import pickle
import re
import signal
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prpr.errors import DataError, PrprError

Path_ = str | os.PathLike
# Before 2.6 weights_only could run a file's code (CVE-2025-32434), before 2.10 a file could corrupt
# memory (CVE-2026-24747). As in setup.cfg.
OLDEST = (2, 10)
_BIGGAN = "G.pth, G_ema.pth or D.pth, not state_dict.pth; an optimiser's goes after --optimizer"


def _torch() -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise PrprError(
            "reading and writing .pth files needs PyTorch: pip install 'prpr[torch]'"
        ) from None
    version = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if not version or tuple(map(int, version.groups())) < OLDEST:
        raise PrprError(
            f"PyTorch {torch.__version__} may run code from a .pth file, or let one corrupt memory "
            "(CVE-2025-32434, CVE-2026-24747): install 2.10 or later, pip install -U 'prpr[torch]'"
        )
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


def _array(value: Any, where: str) -> np.ndarray:
    """A tensor as an array; half precision becomes float32, which holds it exactly.

    Raises:
      DataError: NumPy has no such tensor, sparse, quantised or of float8; `where` names it.
    """
    torch = _torch()
    value = value.detach()
    try:
        if value.dtype in (torch.float16, torch.bfloat16):
            value = value.float()
        return np.array(value.numpy())
    except (TypeError, RuntimeError, ValueError, MemoryError):
        kind = f"{value.layout} {value.dtype}".replace("torch.", "")
        raise DataError(
            f"{where} is a tensor of {kind}, which NumPy cannot hold: save it dense and in float32"
        ) from None


def read_state(path: Path_, such_as: str = _BIGGAN) -> dict[str, np.ndarray]:
    """A state dict as {name: array}, in its order; "module." of a DataParallel is taken off.

    Args:
      such_as: which files are meant, for the message about one that holds more.

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
            f"state_dict() alone ({such_as})"
        )
    prefix = "module." if all(str(key).startswith("module.") for key in content) else ""
    return {
        str(key)[len(prefix) :]: _array(value, f"{path}: {key}") for key, value in content.items()
    }


def read_optimizer(path: Path_) -> dict[str, Any]:
    """An optimiser's state dict: {"state": {index: {name: array or number}}, "param_groups"}.

    Raises:
      DataError: not a readable file, or not the state of an optimiser.
    """
    torch, content = _torch(), _load(path)
    if not isinstance(content, Mapping) or set(content) != {"state", "param_groups"}:
        raise _no_optimizer(path)
    entries, groups = content["state"], content["param_groups"]
    if not isinstance(entries, Mapping) or not isinstance(groups, list | tuple):
        raise _no_optimizer(path)
    if not all(isinstance(one, Mapping) for one in [*entries.values(), *groups]):
        raise _no_optimizer(path)

    def plain(one: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {
            name: _array(value, f"{path}: {name} of {where}")
            if isinstance(value, torch.Tensor)
            else value
            for name, value in one.items()
        }

    return {
        "state": {key: plain(one, f"parameter {key}") for key, one in entries.items()},
        "param_groups": [plain(one, f"group {i}") for i, one in enumerate(groups)],
    }


def _no_optimizer(path: Path_) -> DataError:
    return DataError(
        f"{path} is not the state of an optimiser: give G_optim.pth or D_optim.pth as "
        "BigGAN-PyTorch writes them"
    )


def write(contents: Mapping[Path, Mapping[str, Any]]) -> None:
    """Saves state dicts, arrays as tensors; the names appear together, when all files are whole.

    Raises:
      DataError: one of them cannot be written; then none is, or the message names those that are.
    """
    torch, renamed = _torch(), []

    def tensors(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(np.array(value))
        if isinstance(value, Mapping):
            kind = OrderedDict if isinstance(value, OrderedDict) else dict
            return kind((key, tensors(one)) for key, one in value.items())
        return value

    fresh = {file: file.with_name(f"tmp.{file.name}") for file in contents}
    file = Path()
    try:
        for file, content in contents.items():
            if file.is_dir():
                raise IsADirectoryError(f"{file} is a directory")
            torch.save(tensors(content), fresh[file])
        with _uninterrupted():
            for file, whole in fresh.items():
                os.replace(whole, file)
                renamed.append(file.name)
    except (OSError, RuntimeError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        already = f" ({', '.join(renamed)} already written)" if renamed else ""
        raise DataError(
            f"cannot write {file}{already}: {why}; free space or choose another --out"
        ) from error
    finally:
        for left in fresh.values():
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back until the block is done, so that several renames are as one."""
    before = signal.getsignal(signal.SIGINT)
    # Python delivers signals to the main thread alone; None is a handler that it did not set.
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []
    signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)
