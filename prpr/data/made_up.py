"""Tiny made-up copies of data sets in their real formats, for smoke runs and tests.

160 images for training (so that a tenth, held out, is still 16) and 48 in other splits: coloured
blobs on gradients, whose colours and places depend on the class, encoded as the real ones are
(JPEG, PNG), with labels spread over the real number of classes.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from prpr import errors
from prpr.data import cache, randomness, tfds

COUNTS = (160, 48, 48)  # images of the first split, which trains, and of the others
_VERSION = "v1"


class _Kind(NamedTuple):
    """How the images of a data set look: (height, width), channels, encoding, classes.

    `declares`: whether the data set's own features name the encoding.
    """

    size: tuple[int, int]
    channels: int
    encoding: str
    classes: int
    version: str
    declares: bool = True


_KINDS = {
    "imagenet2012": _Kind((120, 160), 3, "jpeg", 1000, "5.1.0"),
    "celeb_a": _Kind((218, 178), 3, "jpeg", 1, "2.1.0"),
    "cifar10": _Kind((32, 32), 3, "png", 10, "3.0.2"),
    "mnist": _Kind((28, 28), 1, "png", 10, "3.0.1"),
    "fashion_mnist": _Kind((28, 28), 1, "png", 10, "3.0.1"),
    "imagenet32": _Kind((32, 32), 3, "png", 1000, "0.1.0", declares=False),
    "imagenet64": _Kind((64, 64), 3, "png", 1000, "0.1.0", declares=False),
    "folder": _Kind((120, 160), 3, "jpeg", 4, ""),
}


def cached(name: str, classes: int = 0) -> Path:
    """The miniature of a data set below the cache folder, made if it is not there."""
    return miniature(name, cache.folder() / "miniature" / _VERSION, classes)


def miniature(name: str, folder: str | Path, classes: int = 0) -> Path:
    """Writes a tiny copy of a data set in its real format; a path for `Options.path`.

    Args:
      name: a TFDS name (array_record, with TFDS's metadata) or "folder".
      folder: where to; the copy gets a folder of its own there, which is reused if it is there.
      classes: of a "folder": class folders, or for 1 images without class folders; 0 is 4.

    Raises:
      ConfigError: a data set of which there is no miniature.
      DataError: a folder that cannot be written.
    """
    if name not in _KINDS:
        raise errors.unknown_name("miniature data set", name, _KINDS)
    kind = _KINDS[name]
    if name == "folder":
        kind = kind._replace(classes=classes or kind.classes)
        target = Path(folder) / f"folder-{kind.classes}"
    else:
        target = Path(folder) / name
    try:
        if name == "folder":
            return cache.made(target, lambda part: _write_folder(kind, part))
        return cache.made(target, lambda part: _write_tfds(name, kind, part))
    except OSError as error:
        raise errors.DataError(
            f"the miniature of {name!r} cannot be written to {target}: {error}; set PRPR_CACHE "
            "to a folder that can"
        ) from None


def _pixels(kind: _Kind, label: int, rng: np.random.Generator, upright: bool) -> np.ndarray:
    """(H, W, C) uint8: a gradient, and three blobs in colours of the class."""
    height, width = kind.size[::-1] if upright else kind.size
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    own = np.random.Generator(randomness.philox(label, randomness.SAMPLE))  # of the class
    slope = rng.uniform(-60, 60, (2, 1, 1, 1))
    image = 110 + (slope[0] * x[..., None] + slope[1] * y[..., None]) * np.ones(kind.channels)
    for _ in range(3):
        at = own.uniform(0.2, 0.8, 2) + rng.normal(0, 0.06, 2)
        colour = own.uniform(-140, 140, kind.channels) + rng.normal(0, 12, kind.channels)
        radius = own.uniform(0.08, 0.25)
        blob = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / radius**2)
        image = image + blob[..., None] * colour
    image = image + rng.normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def _encoded(pixels: np.ndarray, encoding: str) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    image.save(stream, encoding.upper(), **({"quality": 92} if encoding == "jpeg" else {}))
    return stream.getvalue()


def _images(kind: _Kind, part: int) -> Iterator[tuple[int, int, bytes]]:
    """(index, label, encoded image) of a split."""
    rng = np.random.Generator(randomness.philox(part, randomness.SAMPLE, kind.classes))
    count = COUNTS[part]
    for i in range(count):
        label = i * kind.classes // count if kind.classes > count else i % kind.classes
        # A photograph in three is upright, where sizes vary.
        upright = kind.size == _KINDS["imagenet2012"].size and i % 3 == 0
        yield i, label, _encoded(_pixels(kind, label, rng, upright), kind.encoding)


def _write_folder(kind: _Kind, target: Path) -> None:
    """Class folders, in train/ and val/; without class folders there is no split either."""
    for part, split in enumerate(("train", "val") if kind.classes > 1 else (".",)):
        for i, label, encoded in _images(kind, part):
            inside = target / split / (f"class{label:04d}" if kind.classes > 1 else ".")
            inside.mkdir(parents=True, exist_ok=True)
            (inside / f"{i:05d}.jpg").write_bytes(encoded)


def _write_tfds(name: str, kind: _Kind, target: Path) -> None:
    """array_record files with dataset_info.json and features.json, in <version>/."""
    import tensorflow_datasets

    features, more = _features(name, kind, tensorflow_datasets)
    layout, version = tfds.LAYOUTS[name], tensorflow_datasets.core.Version(kind.version)
    config = tensorflow_datasets.core.BuilderConfig(name=layout.config, version=version)

    class Builder(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = version
        BUILDER_CONFIGS = [config] if layout.config else []
        url_infos = None  # nothing is downloaded; looking for its checksums needs more packages

        def _info(self) -> Any:
            return tensorflow_datasets.core.DatasetInfo(
                builder=self, description=f"A made-up miniature of {name}.", features=features
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            del dl_manager
            return {s: self._generate_examples(i) for i, s in enumerate(layout.splits)}

        def _generate_examples(self, part: int) -> Iterator[tuple[str, dict[str, Any]]]:
            for i, label, encoded in _images(kind, part):
                yield f"{i:05d}", {"image": io.BytesIO(encoded), **more(i, label)}

    Builder.name = layout.builder or name
    builder = Builder(data_dir=target, file_format="array_record")
    tensorflow_datasets.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how large the download is
            builder.download_and_prepare()
    finally:
        tensorflow_datasets.enable_progress_bar()


def _features(name: str, kind: _Kind, lib: Any) -> tuple[Any, Any]:
    """The features of the real data set, and (index, label) -> all values but the image."""
    f = lib.features
    declared = (*kind.size, kind.channels) if name != "imagenet2012" else (None, None, 3)
    image = f.Image(shape=declared, encoding_format=kind.encoding if kind.declares else None)
    if name == "celeb_a":
        # Two of each suffice: they are not read.
        landmarks, attributes = ("nose_x", "nose_y"), ("Smiling", "Young")
        spec = {
            "image": image,
            "landmarks": dict.fromkeys(landmarks, np.int64),
            "attributes": dict.fromkeys(attributes, np.bool_),
        }
        values = {
            "landmarks": dict.fromkeys(landmarks, 90),
            "attributes": dict.fromkeys(attributes, True),
        }
        return f.FeaturesDict(spec), lambda *_: values
    spec = {"image": image, "label": f.ClassLabel(num_classes=kind.classes)}
    text = {"imagenet2012": "file_name", "cifar10": "id"}.get(name)
    if text is None:
        return f.FeaturesDict(spec), lambda _, label: {"label": label}
    spec[text] = f.Text()
    return f.FeaturesDict(spec), lambda i, label: {"label": label, text: f"n{label:08d}_{i}.JPEG"}
