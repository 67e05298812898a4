"""Data sets, their splits, and batches that depend on (seed, step) alone.

Notation
  images  (N, H, W, C) float32 in [−1, 1], or points (N, D) float32 in their own units
  labels  (N,) int32 in [0, num_classes)
  p       density of a synthetic mixture, Σ_c w_c N(x; m_c, s² I)

Every random choice here is the rank of a word of Philox keyed by (seed, purpose, epoch):
NumPy promises that stream for all versions, so a split is the same everywhere and for ever.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from prpr import errors

SPLITS = ("train", "valid", "test")
FRACTIONS = (0.5, 0.2, 0.3)
POINTS = 10_000  # samples of a synthetic data set, all splits together

_SPLIT, _SHUFFLE, _SAMPLE = range(3)  # purposes of randomness, which must not share a stream


class Dataset(NamedTuple):
    """Images (N, H, W, C) in [−1, 1] or points (N, D), float32, with labels (N,) int32."""

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    name: str

    @property
    def size(self) -> int:
        return len(self.labels)


def _philox(seed: int, *purpose: int) -> np.random.Philox:
    # A seed is any integer; a SeedSequence wants none below 0.
    return np.random.Philox(np.random.SeedSequence(seed % 2**64, spawn_key=purpose))


def _permutation(n: int, seed: int, *purpose: int) -> np.ndarray:
    return np.argsort(_philox(seed, *purpose).random_raw(n), kind="stable")


# --- sources ---------------------------------------------------------------------------


class Mixture(NamedTuple):
    """Σ_c w_c N(x; m_c, s² I): means (K, D), scale s, weights w (K,) that sum to 1."""

    means: np.ndarray
    scale: float
    weights: np.ndarray

    def sample(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """n points (n, D) float32 and the component of each, (n,) int32."""
        edges = np.cumsum(self.weights)
        component = np.searchsorted(edges[:-1], rng.random(n), side="right")
        noise = rng.standard_normal((n, self.means.shape[1]))
        points = self.means[component] + self.scale * noise
        return points.astype(np.float32), component.astype(np.int32)

    def log_density(self, x: jax.Array) -> jax.Array:
        """log p(x) = log Σ_c w_c (2πs²)^(−D/2) exp(−|x − m_c|² / 2s²); x (..., D) -> (...)."""
        count, d = self.means.shape
        ones = (1,) * (x.ndim - 1)
        means = jnp.asarray(self.means, x.dtype).reshape(*ones, count, d)
        log_weights = jnp.asarray(np.log(self.weights), x.dtype).reshape(*ones, count)
        z = (jnp.expand_dims(x, -2) - means) / self.scale
        constant = d * (np.log(self.scale) + 0.5 * np.log(2 * np.pi))
        log_each = log_weights - 0.5 * jnp.sum(z * z, axis=-1) - float(constant)
        return jax.nn.logsumexp(log_each, axis=-1)


def _equal(means: np.ndarray, scale: float) -> Mixture:
    return Mixture(means, scale, np.full(len(means), 1 / len(means)))


def _ring(modes: int, radius: float, scale: float) -> Mixture:
    angle = 2 * np.pi * np.arange(modes) / modes
    return _equal(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), scale)


def _grid(side: int, spacing: float, scale: float) -> Mixture:
    line = spacing * (np.arange(side) - (side - 1) / 2)
    return _equal(np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2), scale)


MIXTURES: dict[str, Mixture] = {
    "ring8": _ring(8, radius=2.0, scale=0.1),
    "grid25": _grid(5, spacing=1.0, scale=0.05),
    # A mode of one sample in 101: what a model that trades recall away drops first.
    "skewed": Mixture(np.array([[-1.0, 0.0], [1.0, 0.0]]), 0.25, np.array([100.0, 1.0]) / 101),
}


def mixture(name: str) -> Mixture:
    """The mixture `name`; ConfigError for a name not in MIXTURES."""
    if name not in MIXTURES:
        raise errors.unknown_name("mixture", name, MIXTURES)
    return MIXTURES[name]


def _points(name: str, seed: int) -> Dataset:
    source = mixture(name)
    rng = np.random.Generator(_philox(seed, _SAMPLE))
    return Dataset(*source.sample(rng, POINTS), len(source.weights), name)


def _digits(name: str, seed: int) -> Dataset:
    del seed  # the same 1797 images for every seed; only the split differs
    from sklearn.datasets import load_digits  # a second to import

    images, labels = load_digits(return_X_y=True)
    images = (np.asarray(images, np.float32) / 8 - 1).reshape(-1, 8, 8, 1)  # from 0..16
    return Dataset(images, np.asarray(labels, np.int32), 10, name)


SOURCES: dict[str, Callable[[str, int], Dataset]] = {
    "digits": _digits,
    **dict.fromkeys(MIXTURES, _points),
}


# --- splits ----------------------------------------------------------------------------


def check_fractions(fractions: Sequence[float]) -> None:
    """ConfigError unless there are three fractions >= 0 that sum to 1."""
    ok = len(fractions) == len(SPLITS) and min(fractions) >= 0 and abs(sum(fractions) - 1) < 1e-6
    if not ok:
        raise errors.ConfigError(
            f"fractions={tuple(fractions)!r} must be three numbers >= 0 that sum to 1, "
            f"for {', '.join(SPLITS)}"
        )


def split_indices(
    labels: np.ndarray, seed: int = 0, fractions: Sequence[float] = FRACTIONS
) -> dict[str, np.ndarray]:
    """{split: sorted indices}: disjoint, together everything, stratified by label.

    Each class is cut at the rounded cumulative fractions of its own shuffled samples, so a
    class's share of a split is right to within one sample.

    Raises:
      ConfigError: fractions that are not three numbers >= 0 with sum 1.
    """
    check_fractions(fractions)
    shuffled = _permutation(len(labels), seed, _SPLIT)
    of = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = shuffled[labels[shuffled] == label]
        cuts = np.rint(np.cumsum(fractions)[:-1] * len(own)).astype(int)
        for split, part in enumerate(np.split(own, cuts)):
            of[part] = split
    return {name: np.flatnonzero(of == split) for split, name in enumerate(SPLITS)}


def load(name: str, split: str, seed: int = 0, fractions: Sequence[float] = FRACTIONS) -> Dataset:
    """A split of a data set, the same for the same (name, split, seed, fractions).

    Args:
      name: of SOURCES: "digits" (scikit-learn's 1797 images, 8 × 8 × 1), or a mixture
        ("ring8", "grid25", "skewed": POINTS samples in the plane, labels are components).
      split: "train", "valid", "test", or several joined by "+", such as "train+valid".
      seed: of the split, and of the samples of a mixture.
      fractions: of train, valid and test.

    Raises:
      ConfigError: an unknown name or split, or fractions that do not sum to 1.
      DataError: a split that is empty with these fractions.
    """
    if name not in SOURCES:
        raise errors.unknown_name("data set", name, SOURCES)
    parts = split.split("+")
    for part in parts:
        if part not in SPLITS or parts.count(part) > 1:
            raise errors.unknown_name("split", split, (*SPLITS, "train+valid"))
    whole = SOURCES[name](name, seed)
    indices = split_indices(whole.labels, seed, fractions)
    chosen = np.concatenate([indices[part] for part in parts])
    if not chosen.size:
        raise errors.DataError(
            f"split {split!r} of {name!r} is empty with fractions={tuple(fractions)!r}: "
            "give it a larger fraction"
        )
    return whole._replace(images=whole.images[chosen], labels=whole.labels[chosen])


# --- batches ---------------------------------------------------------------------------


class Batches:
    """Batches of a data set as a pure function of (seed, step): resuming needs the step only.

    Epochs are put end to end, each a permutation of (seed, epoch), and step s takes the
    samples s·B to (s+1)·B − 1 of that stream. So a batch may straddle two epochs, no sample is
    ever dropped, and all samples are seen equally often over whole epochs.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int = 0):
        """Raises ConfigError unless 1 <= batch_size <= the number of samples."""
        if batch_size < 1:
            raise errors.ConfigError(f"batch_size={batch_size!r} must be at least 1")
        if batch_size > dataset.size:
            raise errors.ConfigError(
                f"batch_size={batch_size} is larger than the {dataset.size} samples of "
                f"{dataset.name!r}: choose at most {dataset.size}"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self._orders: dict[int, np.ndarray] = {}  # of the last epochs: a memo, not a state

    @property
    def per_epoch(self) -> int:
        """Steps that see every sample once: N/B, rounded up."""
        return -(-self.dataset.size // self.batch_size)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            if len(self._orders) > 1:
                self._orders.clear()
            self._orders[epoch] = _permutation(self.dataset.size, self.seed, _SHUFFLE, epoch)
        return self._orders[epoch]

    def indices(self, step: int) -> np.ndarray:
        """Rows of the data set in the batch of this step: (B,) int64."""
        step, n = operator.index(step), self.dataset.size
        if step < 0:
            raise errors.ConfigError(f"step={step} of a batch must be 0 or more")
        epoch, start = divmod(step * self.batch_size, n)
        first = self._order(epoch)[start : start + self.batch_size]
        missing = self.batch_size - len(first)
        return np.concatenate([first, self._order(epoch + 1)[:missing]]) if missing else first

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """{"image": (B, ...) float32, "label": (B,) int32} of this step, counted from 0."""
        rows = self.indices(step)
        return {"image": self.dataset.images[rows], "label": self.dataset.labels[rows]}

    def start(self, step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Endless batches from this step on; equal to never having stopped before it."""
        while True:
            yield self.batch(step)
            step += 1


def check_images(images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """DataError unless images are finite (N, H, W, C) in [−1, 1] with labels in range.

    Raises:
      DataError: names how many samples are wrong, the first one, and the mend.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4:
        raise errors.DataError(
            f"images must be (N, H, W, C), got shape {images.shape}: grey images need C = 1"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise errors.DataError(
            f"labels must be one integer per image, got shape {labels.shape} and dtype "
            f"{labels.dtype} for {len(images)} images"
        )
    flat = images.reshape(len(images), -1)
    _check_rows(~np.isfinite(flat).all(axis=1), "images have NaN or infinity", "drop them")
    low, high = flat.min(initial=0), flat.max(initial=0)
    _check_rows(
        (np.abs(flat) > 1).any(axis=1),
        f"images leave [−1, 1] (from {low:g} to {high:g})",
        "scale bytes by x / 127.5 − 1",
    )
    _check_rows(
        (labels < 0) | (labels >= num_classes),
        f"labels are outside 0 to {num_classes - 1}",
        "correct num_classes or the labels",
    )


def _check_rows(bad: ArrayLike, what: str, mend: str) -> None:
    bad = np.asarray(bad)
    rows = np.flatnonzero(bad)
    if rows.size:
        raise errors.DataError(f"{what} in {rows.size} of {len(bad)}, first at {rows[0]}: {mend}")
