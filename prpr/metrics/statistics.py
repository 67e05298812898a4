"""Statistics: what a metric needs to know of one set of samples, made once and kept.

    features = encode(images)                      # prpr.encoders, or any other code
    real = statistics(features, encoder="...")     # save(path, real), load(path)
    metrics.measure(("precision", "fid"), real, fake)

Notation: N samples of D features; μ = mean (D,), Σ = covariance (D, D) with denominator N − 1.

A file of statistics is an .npz without pickles, so it can be read by anything: "features"
(N, D), or "mu" and "sigma" where only moments are known (the names that published FID
statistics have), "labels" (N,), "probabilities" (N, C), and "about", a JSON object in bytes
with the encoder's name and what else the maker said.
"""

import dataclasses
import functools
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from prpr import errors, files
from prpr.metrics import checks

UNNAMED = "given features"


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """One set of samples. Made by `statistics` or `load`; arrays are not copied.

    Attributes:
      n: number of samples, N.
      width: D.
      encoder: name of what made the features; numbers under two encoders cannot be compared.
      features: (N, D) in the dtype that was given; None where only moments are known.
      labels: (N,) integers, or None.
      probabilities: (N, C) of a classifier, for the Inception Score, or None.
      about: small JSON of the maker: resize, source, number of images skipped, ...
    """

    n: int
    width: int
    encoder: str
    features: np.ndarray | None
    labels: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    known_moments: tuple[np.ndarray, np.ndarray] | None = None

    def needed(self, place: str) -> np.ndarray:
        """The features; DataError where only moments are known. `place` is "real" or "fake"."""
        if self.features is None:
            raise errors.DataError(
                f"the {place} statistics hold mu and sigma alone, and this metric needs the "
                "features of every sample: make them with scripts/reference_stats"
            )
        return self.features

    @functools.cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """(μ, Σ) in float64, by blocks of rows; the mean is taken off first."""
        if self.known_moments is not None:
            return self.known_moments
        return moments(self.needed("given"))

    def take(self, rows: np.ndarray) -> "Statistics":
        """The statistics of some of the samples, by index or by mask."""
        features = self.needed("given")[rows]
        return dataclasses.replace(
            self,
            n=len(features),
            features=features,
            labels=None if self.labels is None else self.labels[rows],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            known_moments=None,
        )


def statistics(
    features: ArrayLike,
    *,
    encoder: str = UNNAMED,
    labels: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
    about: Mapping[str, Any] | None = None,
    place: str = "the features",
) -> Statistics:
    """Statistics of (N, D) features, any real dtype; they are looked at, not copied.

    Args:
      features: (N, D).
      encoder: the name of what made them.
      labels: (N,) integers, for metrics per class.
      probabilities: (N, C), rows that sum to 1, for the Inception Score.
      about: small JSON that is kept with them.
      place: what an error calls the features.

    Raises:
      DataError: features that are not finite or not (N, D), no sample, labels or
        probabilities of another length, probabilities that are none.
    """
    x = checks.check_rows(features, place)
    if len(x) == 0:
        raise errors.DataError(f"{place} hold no sample, shape {x.shape}: N must be >= 1")
    if labels is not None:
        labels = checks.check_labels(labels, len(x), place)
    if probabilities is not None:
        probabilities = checks.check_probabilities(probabilities, len(x), place)
    return Statistics(
        len(x), x.shape[1], encoder, x, labels, probabilities, dict(about or {}), None
    )


def moments(features: np.ndarray, rows: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """(μ, Σ) of (N, D) features in float64; Σ is zero for N = 1. Memory: rows × D and D × D."""
    n, width = features.shape
    # The mean first, then products of centred rows: offsets of any size cancel exactly there.
    total = np.zeros(width)
    for start in range(0, n, rows):
        total += features[start : start + rows].sum(axis=0, dtype=np.float64)
    mean = total / n
    scatter = np.zeros((width, width))
    for start in range(0, n, rows):
        block = features[start : start + rows].astype(np.float64) - mean
        scatter += block.T @ block
    return mean, scatter / max(n - 1, 1)


def save(path: str | os.PathLike, stats: Statistics) -> None:
    """Writes an .npz; the name appears when the file is whole.

    Raises:
      DataError: it cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    if stats.features is not None:
        arrays["features"] = stats.features
    else:
        arrays["mu"], arrays["sigma"] = stats.moments
    if stats.labels is not None:
        arrays["labels"] = stats.labels
    if stats.probabilities is not None:
        arrays["probabilities"] = stats.probabilities
    about = {**stats.about, "encoder": stats.encoder, "n": stats.n}
    arrays["about"] = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    path = Path(path)
    try:
        with files.replacing(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise errors.DataError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another place"
        ) from error


def load(path: str | os.PathLike) -> Statistics:
    """What `save` wrote, or any .npz with "features", or with "mu" and "sigma".

    Raises:
      DataError: no such file, a truncated one, one without these names, or with bad values.
    """
    try:
        arrays = files.read_npz(path)
    except FileNotFoundError:
        raise errors.DataError(
            f"no file {path}: make it with scripts/reference_stats, or mend the path"
        ) from None
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise errors.DataError(
            f"{path} is no whole .npz of statistics ({error}): make it again"
        ) from None
    return from_arrays(arrays, str(path))


def from_arrays(arrays: Mapping[str, np.ndarray], place: str) -> Statistics:
    """Statistics of the arrays of a file; see the module's head. Raises as `load`."""
    about: dict[str, Any] = {}
    if "about" in arrays:
        try:
            about = json.loads(arrays["about"].tobytes())
            if not isinstance(about, dict):
                raise ValueError
        except (ValueError, UnicodeDecodeError):
            raise errors.DataError(f"{place}: 'about' is no JSON object; make it again") from None
    encoder = str(about.pop("encoder", UNNAMED))
    count = about.pop("n", None)
    if "features" in arrays:
        return statistics(
            arrays["features"],
            encoder=encoder,
            labels=arrays.get("labels"),
            probabilities=arrays.get("probabilities"),
            about=about,
            place=f"the features of {place}",
        )
    if not {"mu", "sigma"} <= arrays.keys():
        raise errors.DataError(
            f"{place} holds {', '.join(sorted(arrays)) or 'nothing'}; statistics need "
            "'features', or 'mu' and 'sigma'"
        )
    mean, cov = checks.check_moments(arrays["mu"], arrays["sigma"], place)
    n = int(count) if checks.is_whole(count) and count > 0 else 0
    return Statistics(n, len(mean), encoder, None, None, None, about, (mean, cov))
