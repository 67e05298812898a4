"""Converted weights of an encoder: one .npz file, read with its checksums.

    $PRPR_ENCODERS or ~/.cache/prpr/encoders
      inception.npz       {"collection/module/leaf": array} and "about", JSON

A .npz is a ZIP whose members carry a CRC-32, which is compared when they are read. The file is
written under another name first, so that one that stands there is whole.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prpr import files
from prpr.errors import CheckpointError, WorkdirError

ABOUT = "about"
FORMAT = 1


class Read(NamedTuple):
    """Weights of a file: {path: array}, and what is known of their origin."""

    arrays: dict[str, np.ndarray]
    about: dict[str, Any]


def folder() -> Path:
    """Where weights are looked for and converted to: $PRPR_ENCODERS, or ~/.cache/prpr/encoders."""
    named = os.environ.get("PRPR_ENCODERS")
    return Path(named) if named else Path.home() / ".cache/prpr/encoders"


def path_of(name: str) -> Path:
    """The file of the encoder `name` in `folder()`."""
    return folder() / f"{name}.npz"


def read(name: str, file: str, page: str, path: str | os.PathLike | None = None) -> Read:
    """The weights of the encoder `name`, every byte checked.

    Args:
      file, page: the published file and where it is, for the message if there are no weights.

    Raises:
      CheckpointError: no file, a damaged one, or one of another encoder.
    """
    where = Path(path) if path else path_of(name)
    if not where.is_file():
        out = f" --out {where}" if path else ""
        raise CheckpointError(
            f"the encoder {name!r} needs its weights, and {where} does not exist. Download {file} "
            f"from {page} and convert it: scripts/convert_encoder --name {name} --from {file}{out}"
        )
    try:
        arrays = files.read_npz(where)
        about = dict(json.loads(str(arrays.pop(ABOUT))))
    except Exception as error:  # zipfile and NumPy have a dozen kinds for damage
        raise CheckpointError(
            f"{where} is damaged, or no file of scripts/convert_encoder "
            f"({type(error).__name__}: {error}): convert {file} again"
        ) from None
    if about.get("encoder") != name or about.get("format") != FORMAT:
        raise CheckpointError(
            f"{where} holds {about.get('encoder')!r} (format {about.get('format')}), not {name!r} "
            f"(format {FORMAT}): convert {file} again"
        )
    return Read(arrays, about)


def write(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> None:
    """Writes a file that `read` reads, whole or not at all.

    Args:
      about: JSON: "encoder", and "file" and "sha256" of the published file.

    Raises:
      WorkdirError: it cannot be written; an older one stays.
    """
    where = Path(path)
    text = json.dumps({**about, "format": FORMAT})
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(where) as file:
            np.savez(file, **{**arrays, ABOUT: np.array(text)})  # pyright: ignore
    except OSError as error:
        raise WorkdirError(
            f"cannot write {where}: {error.strerror}; free space or choose another --out"
        ) from error
