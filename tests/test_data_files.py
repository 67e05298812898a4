"""Data sets on disk in their real formats, made tiny, and read back; and what can be wrong."""

import json
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from data_tools import load
from PIL import Image

from prpr import data, errors
from prpr.data import cache, made_up, tfds, tfrecord
from prpr.data.splits import hold_out

KINDS = {  # name: shape at resolution 0 (None: several sizes), classes, sizes of the parts
    "imagenet2012": (None, 1000, (144, 16, 48)),
    "celeb_a": ((218, 178, 3), 1, (160, 48, 48)),
    "cifar10": ((32, 32, 3), 10, (144, 16, 48)),
    "mnist": ((28, 28, 1), 10, (144, 16, 48)),
    "fashion_mnist": ((28, 28, 1), 10, (144, 16, 48)),
    "imagenet32": ((32, 32, 3), 1000, (144, 16, 48)),
    "imagenet64": ((64, 64, 3), 1000, (144, 16, 48)),
    "folder": (None, 4, (144, 16, 48)),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRPR_CACHE", str(tmp_path / "cache"))


def _rows(dataset):
    batch = dataset.read(range(dataset.size))
    return {pixels.tobytes() for pixels in batch["image"]}


# --- formats ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_every_source(copies, name):
    shape, classes, sizes = KINDS[name]
    parts = [load(copies(name), name, split) for split in data.SPLITS]
    assert tuple(part.size for part in parts) == sizes
    channels = shape[-1] if shape else 3
    for part in parts:
        assert (part.shape, part.num_classes, part.name) == ((16, 16, channels), classes, name)
        batch = part.read([0, 3])
        assert batch["image"].shape == (2, 16, 16, channels)
        assert (batch["image"].dtype, batch["label"].dtype) == (np.uint8, np.int32)
        assert batch["image"].std() > 5
    # Disjoint, and together the whole.
    rows = [_rows(part) for part in parts]
    whole = load(copies(name), name, "train+valid+test")
    assert set.union(*rows) == _rows(whole)
    assert sum(map(len, rows)) == whole.size == sum(sizes)
    labels = whole.read(range(whole.size))["label"]
    assert set(labels) == set(range(classes)) if classes <= 10 else len(set(labels)) > 100
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("name", KINDS)
def test_as_stored(copies, name):
    shape = KINDS[name][0]
    if shape is None:
        with pytest.raises(
            errors.ConfigError, match=r"sizes: 1.0 × 1.0 .*, 1.0 × 1.0 .*data\.resolution"
        ):
            load(copies(name), name, resolution=0).read([0])
    else:
        assert load(copies(name), name, resolution=0).read([0])["image"].shape == (1, *shape)


def test_pixels_and_labels_are_the_files(copies):
    folder = copies("folder")
    got = load(folder, "folder", "test", resolution=120)
    paths = sorted((folder / "val").glob("*/*.jpg"))  # as torchvision's ImageFolder orders them
    batch = got.read(range(got.size), flips=np.arange(got.size) % 2 == 1)
    assert got.size == len(paths)
    names = sorted(path.name for path in (folder / "val").iterdir())
    assert list(got.class_names) == names
    for i, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        left, top = (image.width - 120) // 2, (image.height - 120) // 2
        want = np.asarray(image.crop((left, top, left + 120, top + 120)))
        np.testing.assert_array_equal(batch["image"][i], want[:, ::-1] if i % 2 else want)
        assert batch["label"][i] == names.index(path.parent.name)


def test_take_is_in_memory_and_scaled(copies):
    got = load(copies("cifar10"), "cifar10")
    taken, batch = got.take([5, 2, 9]), got.read([5, 2, 9])
    assert isinstance(taken, data.Dataset)
    np.testing.assert_allclose(taken.images, batch["image"] / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(taken.labels, batch["label"])
    data.check_images(taken.images, taken.labels, taken.num_classes)


def test_workers_and_batches_do_not_matter(copies):
    one, four = (load(copies("cifar10"), "cifar10", workers=n) for n in (1, 4))
    a, b = (data.Batches(d, 50, seed=2, flip=True).batch(2) for d in (one, four))
    np.testing.assert_array_equal(a["image"], b["image"])
    np.testing.assert_array_equal(a["label"], b["label"])


def test_random_crops_are_for_training_batches(copies):
    got = load(copies("imagenet2012"), "imagenet2012", crop="random")
    centre = load(copies("imagenet2012"), "imagenet2012")
    batches = data.Batches(got, 20)
    rows = batches.indices(0)
    np.testing.assert_array_equal(got.read(rows)["image"], centre.read(rows)["image"])
    assert (batches.batch(0)["image"] != centre.read(rows)["image"]).any()
    np.testing.assert_array_equal(batches.batch(0)["label"], centre.read(rows)["label"])


def test_hold_out():
    train, valid = hold_out(1005, seed=4)
    assert (len(train), len(valid)) == (905, 100)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, valid])), np.arange(1005))
    assert len(hold_out(300_000)[1]) == 10_000
    assert (hold_out(1005, seed=5)[1] != valid).any()


# --- TFRecord --------------------------------------------------------------------------


def _crc32c(block):
    crc = 0xFFFFFFFF
    for byte in block:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
    return crc ^ 0xFFFFFFFF


def _masked(block):
    crc = _crc32c(block)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _frame(record):
    length = struct.pack("<Q", len(record))
    return length + _masked(length) + record + _masked(record)


def test_checksum_of_the_writer():
    assert _crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


@pytest.fixture(scope="session")
def tfrecords(copies, tmp_path_factory):
    """The miniature of mnist as TFDS writes it by default, in shards of TFRecord."""
    records = tfds.Copy("mnist", copies("mnist"))
    folder = tmp_path_factory.mktemp("tfrecord") / "mnist" / "3.0.1"
    shutil.copytree(records.folder, folder, ignore=shutil.ignore_patterns("*array_record*"))
    table = json.loads((folder / "dataset_info.json").read_text())
    table["fileFormat"] = "tfrecord"
    for split in table["splits"]:
        examples = [bytes(x) for x in records.records(split["name"])._source]
        cuts = [examples[:7], examples[7:7], examples[7:]]  # an empty shard too
        split["shardLengths"] = [str(len(part)) for part in cuts]
        for i, part in enumerate(cuts):
            name = f"mnist-{split['name']}.tfrecord-{i:05d}-of-00003"
            (folder / name).write_bytes(b"".join(map(_frame, part)))
    (folder / "dataset_info.json").write_text(json.dumps(table))
    return folder


def test_tfrecord_is_array_record(copies, tfrecords, monkeypatch):
    for split in data.SPLITS:
        a, b = load(copies("mnist"), "mnist", split), load(tfrecords, "mnist", split)
        rows = np.arange(a.size)
        np.testing.assert_array_equal(a.read(rows)["image"], b.read(rows)["image"])
        np.testing.assert_array_equal(a.read(rows)["label"], b.read(rows)["label"])
    # The index is built once.
    monkeypatch.setattr(tfrecord, "_scan", lambda _: pytest.fail("scanned again"))
    again = load(tfrecords, "mnist", "test")
    np.testing.assert_array_equal(again.read(rows)["image"], b.read(rows)["image"])
    assert "00002-of-00003, record 2" in again.items.place(9)
    assert "tensorflow" not in sys.modules


def test_a_cut_off_tfrecord_is_named(tfrecords, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(tfrecords, folder)
    shard = folder / "mnist-train.tfrecord-00002-of-00003"
    content = shard.read_bytes()
    shard.write_bytes(content[:-30])
    with pytest.raises(errors.DataError, match="00002-of-00003 ends within record 152"):
        load(folder, "mnist")
    # At the end of a record only the declared number tells.
    first = struct.unpack("<Q", content[:8])[0] + 16
    shard.write_bytes(content[:first])
    with pytest.raises(errors.DataError, match=r"holds 1 records and should hold 153"):
        load(folder, "mnist")


def test_index_without_a_cache(tfrecords, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRPR_CACHE", str(tmp_path / "file"))
    assert load(tfrecords, "mnist", "test").size == 48


# --- where things are ------------------------------------------------------------------


def test_tfds_paths(copies, tmp_path, monkeypatch):
    root = copies("cifar10")
    version = root / "cifar10" / "3.0.2"
    for path in (root, root / "cifar10", version):
        assert load(path, "cifar10").size == 144
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert load("", "cifar10").size == 144
    # The newest version, by number.
    for number in ("3.0.10", "3.0.9"):
        shutil.copytree(version, tmp_path / "cifar10" / number)
    assert tfds.Copy("cifar10", str(tmp_path)).folder.name == "3.0.10"


def test_a_config_of_a_builder(copies, tmp_path):
    """TFDS keeps imagenet32 in imagenet_resized/32x32/VERSION."""
    root, other = copies("imagenet32"), copies("imagenet64")
    version = root / "imagenet_resized" / "32x32" / "0.1.0"
    assert (version / "dataset_info.json").is_file()
    declared = json.loads((version / "features.json").read_text())
    declared = declared["featuresDict"]["features"]
    # As the real one, whose PNG is TFDS's default and not said.
    shape = {"dimensions": ["32", "32", "3"]}
    assert declared["image"]["image"] == {"shape": shape, "dtype": "uint8"}
    assert declared["label"]["classLabel"] == {"numClasses": "1000"}
    for path in (root, root / "imagenet_resized", version.parent, version):
        assert load(path, "imagenet32").size == 144
    # One data_dir holds both; each name finds its own.
    both = tmp_path / "imagenet_resized"
    shutil.copytree(root / "imagenet_resized", both)
    shutil.copytree(other / "imagenet_resized", both, dirs_exist_ok=True)
    assert load(tmp_path, "imagenet32", resolution=0).shape == (32, 32, 3)
    assert load(tmp_path, "imagenet64", resolution=0).shape == (64, 64, 3)
    holds = "holds 'imagenet_resized/32x32', not 'imagenet_resized/64x64'"
    with pytest.raises(errors.DataError, match=holds):
        load(version, "imagenet64")
    with pytest.raises(errors.DataError, match="tfds build imagenet_resized/64x64 --file_format"):
        load(root, "imagenet64")


def test_what_is_not_there(copies, own, tmp_path):
    with pytest.raises(errors.DataError, match=r"no folder .*nowhere.*data\.path"):
        load(tmp_path / "nowhere", "cifar10")
    with pytest.raises(errors.DataError, match=r"no copy of 'cifar10'.*tfds build cifar10"):
        load(tmp_path, "cifar10")
    with pytest.raises(errors.DataError, match="holds 'mnist', not 'cifar10'"):
        load(copies("mnist") / "mnist" / "3.0.1", "cifar10")
    with pytest.raises(errors.DataError, match="no folder"):
        load(tmp_path / "nowhere", "folder")
    with pytest.raises(errors.ConfigError, match=r"'folder' needs data\.path"):
        load("", "folder")
    broken = own("cifar10") / "cifar10" / "3.0.2"
    (shard,) = broken.glob("*train.array_record*")
    shard.unlink()
    with pytest.raises(errors.DataError, match=r"1 of 1 files of split 'train' are missing.*train"):
        load(broken, "cifar10")
    (broken / "dataset_info.json").write_text("{")
    with pytest.raises(errors.DataError, match="is not a copy of 'cifar10' that TFDS"):
        load(broken, "cifar10")


def test_a_split_that_was_not_prepared(own):
    folder = own("imagenet2012") / "imagenet2012" / "5.1.0"
    path = folder / "dataset_info.json"
    table = json.loads(path.read_text())
    table["splits"] = [s for s in table["splits"] if s["name"] == "train"]
    path.write_text(json.dumps(table))
    assert load(folder, "imagenet2012", "train").size == 144
    with pytest.raises(errors.DataError, match="has no split 'validation', only train"):
        load(folder, "imagenet2012", "test")


def test_other_file_formats(own):
    folder = own("mnist") / "mnist" / "3.0.1"
    path = folder / "dataset_info.json"
    path.write_text(path.read_text().replace('"array_record"', '"riegeli"'))
    for file in folder.glob("*array_record*"):
        file.rename(str(file).replace("array_record", "riegeli"))
    with pytest.raises(errors.DataError, match=r"'riegeli', which is not read.*=array_record"):
        load(folder, "mnist")


@pytest.mark.parametrize("split", data.SPLITS)
def test_another_number_of_classes(copies, split):
    assert load(copies("cifar10"), "cifar10", split, classes=10).size
    with pytest.raises(errors.DataError, match="'cifar10' has 10 classes, and the model has 1000"):
        load(copies("cifar10"), "cifar10", split, classes=1000)
    with pytest.raises(errors.DataError, match="'digits' has 10 classes, and the model has 12"):
        data.load("digits", split, options=data.Options(classes=12))


# --- miniatures, options, imports ------------------------------------------------------


def test_miniature_by_option(tmp_path):
    options = data.Options(resolution=8, miniature=True, path="is not read", classes=1)
    first = data.load("folder", "train", options=options)
    folder = tmp_path / "cache" / "miniature" / "v1" / "folder-1"
    stamp = folder.stat().st_mtime_ns
    again = data.load("folder", "train", options=options)
    assert folder.stat().st_mtime_ns == stamp
    assert _rows(first) == _rows(again)
    assert (first.size, first.num_classes) == (80, 1)
    assert [path.name for path in folder.parent.iterdir()] == ["folder-1"]


def test_miniatures_are_the_same_everywhere(copies, tmp_path):
    again = data.miniature("cifar10", tmp_path)
    assert _rows(load(again, "cifar10")) == _rows(load(copies("cifar10"), "cifar10"))


def test_a_miniature_is_whole_or_not_there(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(made_up, "_encoded", stop)
    with pytest.raises(KeyboardInterrupt):
        data.miniature("folder", tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"]
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.DataError, match=r"cannot be written.*PRPR_CACHE"):
        data.miniature("folder", tmp_path / "file")
    with pytest.raises(errors.ConfigError, match="unknown miniature data set 'digits'"):
        data.miniature("digits", tmp_path)


def test_two_processes_may_make_a_folder_at_once(tmp_path):
    def make(part):
        (part / "x").write_text("second")
        (tmp_path / "y").mkdir()  # meanwhile another process finished
        (tmp_path / "y" / "x").write_text("first")

    assert (cache.made(tmp_path / "y", make) / "x").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["y"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": -1}, "resolution=-1"),
        ({"crop": "centre"}, "unknown crop 'centre'. Did you mean 'center'"),
        ({"workers": -1}, "workers=-1"),
        ({"max_corrupt": -1}, "max_corrupt=-1"),
        ({"classes": -1}, "classes=-1"),
        ({"resolution": 32}, "resolution=32: 'digits' holds items of shape"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(errors.ConfigError, match=message):
        data.load("digits", "train", options=data.Options(**options))


def test_importing_is_cheap():
    code = (
        "import sys, prpr.data; "
        "print([m for m in ('tensorflow_datasets', 'tensorflow', 'torch', 'sklearn', 'orbax') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
