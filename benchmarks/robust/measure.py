"""What is read off a finished run, against the clean test split.

    precision, recall       summary.json's own: kNN in pixels, as `prpr.score` has them
    class_precision, class_recall   (classes,) samples asked as a class against its test images
    rare_*, worst_recall    of the source's rare class, and of the class with the least recall
    rare_accuracy           share of the samples asked as the rare class that a classifier, fitted
                            to the clean training split, puts there
    noise_share, outlier_share   see `Odd`
    fatal, rollbacks, calibration_error   from metrics.jsonl

A class has few test images: 54 digits, 125 points. One image more or less is 2 % of a digit's
recall, so class numbers need several seeds; samples are scored in the sets of `score.repeats`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prpr import data, files, score
from prpr.metrics import prdc

from . import corrupt
from .conditions import Source

K = 3  # neighbours, as `score.k`
LOST = 1 / 3  # of the base's recall: below it a run has collapsed
LEAST = 0.05  # the base's recall with which there is something to lose: 27 of 539 digits
_SEED = 20_260_101  # of the fresh noise and of its held-out check
_TILE = 512


class Odd(NamedTuple):
    """A rule that tells odd items from clean ones: whose nearest neighbour is odd.

    Attributes:
      odd, clean: (N, D) as many of each.
      on_clean, on_odd: its rates on held-out clean items and on fresh odd ones: the check.
    """

    odd: np.ndarray
    clean: np.ndarray
    on_clean: float
    on_odd: float

    def share(self, items: np.ndarray) -> float:
        """Share of items (M, ...) that are nearer to an odd item than to any clean one."""
        return _nearer(items, self.odd, self.clean)


def _nearer(items: np.ndarray, odd: np.ndarray, clean: np.ndarray) -> float:
    flat = items.reshape(len(items), -1).astype(np.float64)
    count = 0
    for at in range(0, len(flat), _TILE):
        part = flat[at : at + _TILE]
        # |x − y|² without |x|², which is the same for both.
        near = [((y**2).sum(1) - 2 * part @ y.T).min(1) for y in (odd, clean)]
        count += int((near[0] < near[1]).sum())
    return count / len(flat)


def odd_rule(clean: data.Dataset, held_out: data.Dataset, kind: str) -> Odd:
    """The rule for "noise" or "outlier", and how it does on items that it has not seen.

    Args:
      clean: the items that count as clean; of odd ones there are as many.
      held_out: other clean items, for the check.
      kind: "noise": fresh uniform items. "outlier": the clean items, inverted or far out.
    """
    rng = np.random.default_rng(_SEED)
    if kind == "noise":
        odd = corrupt.noise_items(clean, clean.size, rng)
        other = corrupt.noise_items(clean, held_out.size, rng)
    else:
        odd, other = corrupt.outliers_of(clean.images), corrupt.outliers_of(held_out.images)
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (odd, clean.images))
    return Odd(a, b, _nearer(held_out.images, a, b), _nearer(other, a, b))


class Yardstick(NamedTuple):
    """What samples of a source are measured by.

    Attributes:
      test: the clean test split.
      classify: items (N, ...) -> their classes (N,).
      accuracy: its share of right answers on the test split.
      noise, outlier: the rules.
    """

    test: data.Dataset
    classify: Callable[[np.ndarray], np.ndarray]
    accuracy: float
    noise: Odd
    outlier: Odd


@functools.cache
def yardstick(source: Source) -> Yardstick:
    """The measures of a source, made from its clean splits."""
    from sklearn.svm import SVC  # a second to import

    clean, test = source.part("train"), source.part("test")
    fitted = SVC().fit(clean.images.reshape(clean.size, -1), clean.labels)

    def classify(items: np.ndarray) -> np.ndarray:
        return fitted.predict(items.reshape(len(items), -1))

    accuracy = float((classify(test.images) == test.labels).mean())
    noise, outlier = (odd_rule(clean, test, kind) for kind in ("noise", "outlier"))
    return Yardstick(test, classify, accuracy, noise, outlier)


def by_class(
    real: data.Dataset, items: np.ndarray, asked: np.ndarray, sets: int
) -> tuple[list[float], list[float]]:
    """(precision, recall) of each class, (classes,) each: means over the sets.

    Args:
      real: the test images.
      items, asked: (M, ...) samples and (M,) the classes that they were asked as.
      sets: how many scored sets the samples are, one after another.

    Returns:
      NaN for a class with too few images or samples to have K neighbours.
    """
    found = np.full((2, real.num_classes), np.nan)
    for label in range(real.num_classes):
        x = real.images[real.labels == label].reshape(-1, int(np.prod(real.shape)))
        values = []
        for part, own in zip(np.split(items, sets), np.split(asked, sets), strict=True):
            y = part[own == label].reshape(-1, x.shape[1])
            if min(len(x), len(y)) > K:
                counts = prdc.prdc(x, y, K, K)
                values.append((counts.precision, counts.recall))
        if values:
            found[:, label] = np.mean(values, axis=0)
    return found[0].tolist(), found[1].tolist()


def samples(path: Path, source: Source, sets: int) -> dict[str, Any]:
    """The numbers that stored samples give; see the module's head.

    Args:
      path: samples/<run>.npz.
      source: of the run's data.
      sets: `repeats` of summary.json.
    """
    arrays = files.read_npz(path)
    items, asked = score.from_stored(arrays), arrays["labels"]
    by, rare = yardstick(source), source.rare
    precision, recall = by_class(by.test, items, asked, sets)
    as_rare = items[asked == rare]
    return {
        "class_precision": precision,
        "class_recall": recall,
        "rare_precision": precision[rare],
        "rare_recall": recall[rare],
        "worst_recall": float(np.nanmin(recall)),
        "rare_accuracy": float((by.classify(as_rare) == rare).mean()),
        "noise_share": by.noise.share(items),
        "outlier_share": by.outlier.share(items),
    }


def logged(lines: Sequence[Mapping[str, Any]], run: str) -> dict[str, Any]:
    """What a run's record says: fatal alarms, rollbacks, the last held-out calibration error.

    Args:
      lines: of `record.read_metrics`.
      run: its name in the record.
    """
    own = [line for line in lines if line["run"] == run]
    errors = [x for line in own if (x := line.get("heldout_calibration_error")) is not None]
    fatal = {str(line["alarm"]) for line in own if line.get("severity") == "fatal"}
    return {
        "fatal": sorted(fatal),
        "rollbacks": sum("rollback" in line for line in own),
        "calibration_error": float(errors[-1]) if errors else None,
    }


def collapsed(row: Mapping[str, Any], base_recall: float | None) -> bool:
    """A fatal alarm rang, or recall is below LOST of the base's, which was LEAST at least."""
    had = base_recall is not None and base_recall >= LEAST
    return bool(row["fatal"]) or (had and row["recall"] < LOST * base_recall)
