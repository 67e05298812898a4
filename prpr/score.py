"""From trained generators to the rows of summary.json: sample, store, encode, count.

What is scored is what is stored: samples/<run>.npz holds the very arrays, so that any other tool
can check the numbers. Scores are against held-out data, never against what was trained on; the
row "real" scores real training images in the samples' place, which is what a perfect generator
would get at these sizes.
"""

import io
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prpr import build, config, data, encoders, record, sampling, train
from prpr.errors import DataError
from prpr.metrics import prdc

_MANY = 10_000  # images read from disk where a configuration sets no number
_LATENTS = 20_240_101  # seed of the scoring latents: the same ones for every λ and seed


def to_stored(x: np.ndarray) -> dict[str, np.ndarray]:
    """Images in [−1, 1] as bytes, points as they are: what samples/*.npz holds."""
    if x.ndim == 4:
        return {"images": np.rint((np.clip(x, -1, 1) + 1) * 127.5).astype(np.uint8)}
    return {"points": np.asarray(x, np.float32)}


def from_stored(arrays: Any) -> np.ndarray:
    """The inverse of `to_stored`, up to the rounding to bytes."""
    if "images" in arrays:
        return arrays["images"].astype(np.float32) / 127.5 - 1
    return arrays["points"]


def _store(path: Path, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    arrays = to_stored(x)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, labels=labels, allow_pickle=False, **arrays)
    record.write_bytes(path, buffer.getvalue())
    return from_stored(arrays)


class Scorer:
    """Scores generators of one configuration on its held-out data.

    Args:
      cfg: a valid configuration.
      parts: its data.
      workdir: samples/ is written below it.
    """

    def __init__(self, cfg: config.Config, parts: build.Splits, workdir: Path):
        self.cfg, self.workdir = cfg, workdir
        self.held_out = _in_memory(parts.held_out(cfg.score.split), cfg.score.n_real)
        self.n_fake = cfg.score.n_fake or self.held_out.size
        # Only what is fitted needs more of these than the shape of one.
        n = 1 if cfg.score.encoder == "pixels" else 0
        fit, valid = _in_memory(parts.train, n), _in_memory(parts.valid, n)
        fitted = encoders.fit(
            cfg.score.encoder, fit.images, fit.labels, held_out=(valid.images, valid.labels)
        )
        self.encoder = fitted.name
        self._encode = fitted.encode
        self._real = fitted.encode(_stored(self.held_out.images))
        self.rows: list[dict[str, Any]] = []
        _store(workdir / "samples" / "real.npz", self.held_out.images, self.held_out.labels)
        self._row("real", None, None, _stored(_spread(parts.train, self.n_fake).images))

    def _row(self, name: str, lam: float | None, seed: int | None, x: np.ndarray) -> None:
        """Appends a row: `x` holds sets of `n_fake` items each, whose scores are averaged."""
        s = self.cfg.score
        sets = [
            prdc.prdc_with_intervals(
                self._real, self._encode(part), s.k, s.k_coverage, level=s.level
            )
            for part in np.split(x, max(1, len(x) // self.n_fake))
        ]
        # The mean of the sets' intervals is that of one set, so it errs on the wide side.
        metrics = {
            metric: {
                part: float(np.mean([getattr(found[metric], part) for found in sets]))
                for part in ("value", "low", "high")
            }
            for metric in prdc.METRICS
        }
        self.rows.append({"name": name, "lam": lam, "seed": seed, "metrics": metrics})

    def add(
        self, system: train.System, name: str, lam: float | None, seed: int, net: train.Net
    ) -> None:
        """Samples from a generator, stores the samples and appends its row."""
        # Labels as they are held out, so that classes weigh as they do in the data.
        labels = np.resize(self.held_out.labels, self.n_fake)
        labels = np.tile(labels, self.cfg.score.repeats)
        s = self.cfg.score
        net, key = ready(self.cfg, system, net, s.truncation)
        try:
            x = sampling.sample(system, net, labels, key, truncation=s.truncation, batch=s.batch)
        except DataError as error:
            raise DataError(f"{name}-seed{seed}: {error}") from error
        self._row(name, lam, seed, _store(self._path(name, seed), x, labels))

    def _path(self, name: str, seed: int) -> Path:
        return self.workdir / "samples" / f"{name}-seed{seed}.npz"

    def summary(self, seconds: float) -> dict[str, Any]:
        """summary.json."""
        s = self.cfg.score
        return {
            "rows": self.rows,
            "encoder": self.encoder,
            "k": s.k,
            "k_coverage": s.k_coverage,
            "n_real": self.held_out.size,
            "n_fake": self.n_fake,
            "repeats": s.repeats,
            "split": s.split,
            "level": s.level,
            "seconds": seconds,
        }


def ready(
    cfg: config.Config, system: train.System, net: train.Net, truncation: float
) -> tuple[train.Net, jax.Array]:
    """(a generator as it is sampled for its score, with standing statistics; the latents' key)."""
    key, s = jax.random.key(_LATENTS), cfg.score
    if s.standing:
        net = sampling.standing_statistics(
            system,
            net,
            jax.random.fold_in(key, 1),
            batches=s.standing,
            batch=s.batch,
            truncation=truncation,
        )
    return net, key


def _stored(x: np.ndarray) -> np.ndarray:
    return from_stored(to_stored(x))


def _spread(dataset: data.AnyDataset, n: int) -> data.Dataset:
    """`n` items of a data set spread evenly over it (all of them where there are fewer)."""
    return dataset.take(build.spread(dataset.size, n))


def _in_memory(dataset: data.AnyDataset, n: int) -> data.Dataset:
    """`n` items spread evenly; 0 is all of what is in memory, and `_MANY` of what is on disk."""
    if isinstance(dataset, data.Dataset) and not n:
        return dataset
    return _spread(dataset, n or _MANY)
