"""The calls of Orbax: named host arrays to and from one folder.

Orbax's v1 interface (0.12.8) compares the path over all processes by a collective, even if only
one is declared active, so a save by process 0 alone would hang; its v0 interface heeds the
declaration. Every call here is active in the calling process only.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

_PLACEHOLDER = "__nothing__"  # Orbax refuses a tree without leaves


def write(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes {name: array} into a new folder; arrays without elements are left out.

    Raises:
      Exception: of any class that Orbax or the file system thinks of.
    """
    held = {name: value for name, value in arrays.items() if value.size}
    with _checkpointer() as checkpointer:
        checkpointer.save(folder, held or {_PLACEHOLDER: np.zeros(1, np.uint8)})


def read(folder: Path) -> Mapping[str, np.ndarray]:
    """What `write` wrote.

    Raises:
      Exception: of any class that Orbax or the file system thinks of.
    """
    with _checkpointer() as checkpointer:
        return checkpointer.restore(folder)


@contextlib.contextmanager
def _checkpointer() -> Iterator[Any]:
    with _quiet():
        from orbax import checkpoint as ocp

        me = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"prpr{me}"
        )
        handler = ocp.PyTreeCheckpointHandler(
            use_ocdbt=True, use_zarr3=True, multiprocessing_options=alone
        )
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            yield checkpointer


# ---- Orbax's log lines ----------------------------------------------------------------

_lock = threading.Lock()
_users = 0


def _foreign(line: logging.LogRecord) -> bool:
    # absl's own file: `logging.exception` does not say who called it.
    return not {"orbax", "absl"} & set(Path(line.pathname).parts)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax's log lines (absl's logger) off standard error; errors are raised.

    Counted, as the thread of a `Saver` and a reader may both be in here.
    """
    global _users
    logger = logging.getLogger("absl")
    with _lock:
        _users += 1
        logger.addFilter(_foreign)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                logger.removeFilter(_foreign)
