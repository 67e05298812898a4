"""Copies that TensorFlow Datasets prepared, read without TensorFlow.

array_record copies go through TFDS's own data source, TFRecord copies (TFDS's default)
through `tfrecord`; the tf.train.Example of a record is parsed with the protocol buffer that TFDS
ships. So a prepared copy of either format works, and the tensorflow package is not needed.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prpr import errors
from prpr.data.tfrecord import TFRecords


class Layout(NamedTuple):
    """What is used of a TFDS data set.

    Attributes:
      splits: its splits. imagenet2012 may hold a third, "test", which has no labels.
      pad: small images are padded with zeros, not enlarged, see `decode.Decoder`.
      builder: what TFDS calls it, where that is not the name here.
      config: of that builder; "" for one that has none.
    """

    splits: tuple[str, ...]
    pad: bool = False
    builder: str = ""
    config: str = ""

    def place(self, name: str) -> Path:
        """Its folder below a data_dir, which also is what `tfds build` takes."""
        return Path(self.builder or name, self.config)


LAYOUTS: dict[str, Layout] = {
    "imagenet2012": Layout(("train", "validation")),
    "celeb_a": Layout(("train", "validation", "test")),
    "cifar10": Layout(("train", "test")),
    "mnist": Layout(("train", "test"), pad=True),
    "fashion_mnist": Layout(("train", "test"), pad=True),
    # Chrabaszcz, Loshchilov & Hutter 2017, arXiv:1707.08819; its labels are not imagenet2012's.
    "imagenet32": Layout(("train", "validation"), builder="imagenet_resized", config="32x32"),
    "imagenet64": Layout(("train", "validation"), builder="imagenet_resized", config="64x64"),
}


def _layout(name: str) -> Layout:
    """Of LAYOUTS; scripts and evaluations may name others, by TFDS's own name."""
    return LAYOUTS.get(name) or Layout(())


class Copy:
    """A prepared copy of a TFDS data set.

    Args:
      name: of LAYOUTS, or TFDS's own.
      path: TFDS's data_dir, the data set's folder in it (or that of its config), or that of a
        version; "" is $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
      DataError: no copy there, or one that TFDS cannot open.
    """

    def __init__(self, name: str, path: str = ""):
        root = Path(path or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
        self.name, layout = name, _layout(name)
        self.folder = version_folder(root, name)
        import tensorflow_datasets as tfds  # a second to import

        try:
            self._builder = tfds.builder_from_directory(self.folder)
            self._features: Any = self._builder.info.features
            self._image = self._features["image"]
        except Exception as error:
            raise errors.DataError(
                f"{self.folder} is not a copy of {name!r} that TFDS {tfds.__version__} can open: "
                f"{type(error).__name__}: {error}"
            ) from None
        info: Any = self._builder.info
        held = Path(info.name, (info.config_name or "") if layout.config else "")
        wanted = layout.place(name)
        if held != wanted:
            raise errors.DataError(
                f"{self.folder} holds {str(held)!r}, not {str(wanted)!r}: mend data.path or "
                "data.name"
            )

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(H, W, C) if all images have one declared size."""
        height, width, channels = self._image.shape
        return (height, width, channels) if height and width else None

    @property
    def channels(self) -> int:
        return self._image.shape[-1]

    def records(self, split: str) -> "ExampleRecords":
        """The records of a split; see `encoded.Records`.

        Raises:
          DataError: a split that is not there, shards that are missing or damaged, or a file
            format that is not read.
        """
        there = self._builder.info.splits
        if split not in there:
            raise errors.DataError(
                f"{self.folder} has no split {split!r}, only {', '.join(sorted(there)) or 'none'}: "
                f"prepare {self.name!r} again, or mend data.path"
            )
        info = there[split]
        paths = [Path(path) for path in info.filepaths]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise errors.DataError(
                f"{len(missing)} of {len(paths)} files of split {split!r} are missing, the "
                f"first is {missing[0]}: copy them there, or prepare the data set again"
            )
        kind = getattr(self._builder.info.file_format, "value", "unknown")
        if kind == "tfrecord":
            source: Any = TFRecords(paths, info.shard_lengths)
        elif kind == "array_record":
            _allow_open_files(len(paths))
            source = self._array_records(split)
        else:
            raise errors.DataError(
                f"{self.folder} is of format {kind!r}, which is not read here: "
                f"prepare it again with `tfds build {_layout(self.name).place(self.name)} "
                "--file_format=array_record`"
            )
        names = tuple(self._features["label"].names) if "label" in self._features else ("all",)
        return ExampleRecords(source, names, f"split {split!r} of {self.folder}")

    def _array_records(self, split: str) -> Any:
        import tensorflow_datasets as tfds

        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        builder: Any = self._builder  # its decorated method confuses type checkers
        try:
            return builder.as_data_source(split, deserialize_method=raw)
        except Exception as error:
            raise errors.DataError(
                f"split {split!r} of {self.folder} cannot be opened: {error}"
            ) from None


class ExampleRecords:
    """tf.train.Examples with the features image and perhaps label and file_name.

    Args:
      source: row -> bytes of an Example.
      class_names: one name: no labels are read.
      where: the source, for messages.
    """

    labels: np.ndarray | None = None  # only known once read

    def __init__(self, source: Any, class_names: Sequence[str], where: str):
        self._source, self.class_names, self._where = source, class_names, where
        from tensorflow_datasets.proto import tf_example_pb2

        messages: Any = tf_example_pb2  # its classes are made at run time
        self._parse = messages.Example.FromString

    def __len__(self) -> int:
        return len(self._source)

    def place(self, row: int) -> str:
        exact = getattr(self._source, "place", None)
        where = exact(row) if exact else f"record {row} of {self._where}"
        try:
            feature = self._parse(self._source[row]).features.feature
            name = feature["file_name"].bytes_list.value[0].decode()
        except Exception:  # a name is only there in some data sets, and in whole records
            return where
        return f"{name} ({where})"

    def record(self, row: int) -> tuple[bytes, int]:
        feature = self._parse(self._source[row]).features.feature
        # Not feature["image"] straight away: a protobuf map makes what it lacks.
        if "image" not in feature:
            raise ValueError("the record has no image")
        label = feature["label"].int64_list.value[0] if len(self.class_names) > 1 else 0
        return feature["image"].bytes_list.value[0], label


def version_folder(root: Path, name: str) -> Path:
    """The folder with dataset_info.json: `root`, or the newest version below it."""
    place = _layout(name).place(name)
    for folder in (root, root / place, root / place.name):
        if (folder / "dataset_info.json").is_file():
            return folder
        versions = [path.parent for path in folder.glob("*/dataset_info.json")]
        versions = [path for path in versions if re.fullmatch(r"\d+(\.\d+)*", path.name)]
        if versions:
            return max(versions, key=lambda path: tuple(map(int, path.name.split("."))))
    if not root.is_dir():
        raise errors.DataError(
            f"no folder {root}: set data.path to a TFDS data_dir that holds {name!r}"
        )
    raise errors.DataError(
        f"no copy of {name!r} in {root}: looked for {place}/<version>/dataset_info.json. "
        f"Make one with `tfds build {place} --file_format=array_record`, or set data.path"
    )


def _allow_open_files(count: int) -> None:
    """array_record keeps every shard open, and ImageNet's 1024 meet the usual limit."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = soft + count
    if count > 256 and (hard == resource.RLIM_INFINITY or soft < hard):
        top = want if hard == resource.RLIM_INFINITY else min(want, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
