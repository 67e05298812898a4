"""Prepared shards: equal to decoding each time, resumable, checked; and scripts/prepare_data."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from prpr import data, errors
from prpr.data import shards

SCRIPT = Path(__file__).parents[1] / "scripts" / "prepare_data"


def _options(path, **more):
    return data.Options(path=str(path), workers=2, **more)


def _prepare(name, path, out, resolution=16, shard_bytes=40 * 16 * 16 * 3, **options):
    """Shards of 40 images."""
    for split, whole in data.pool(name, _options(path, resolution=resolution, **options)).items():
        settings = {"dataset": name, "split": split, "resolution": resolution}
        shards.write(whole(), out / split, settings, shard_bytes=shard_bytes)


@pytest.fixture
def prepared(copies, tmp_path):
    _prepare("folder", copies("folder"), tmp_path / "out")
    return tmp_path / "out"


def _stamps(folder):
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*.npy")}


@pytest.mark.parametrize(("name", "classes"), [("imagenet2012", 0), ("folder", 0), ("folder", 1)])
def test_shards_are_what_decoding_gives(copies, tmp_path, name, classes):
    path = copies(name, classes)
    _prepare(name, path, tmp_path, classes=classes)
    for split in (*data.SPLITS, "train+valid", "valid+test"):
        a = data.load(name, split, 3, options=_options(path, resolution=16, classes=classes))
        b = data.load("prepared", split, 3, options=_options(tmp_path, classes=classes))
        assert (a.size, a.shape, a.num_classes) == (b.size, b.shape, b.num_classes)
        assert list(a.class_names) == list(b.class_names)
        x, y = (data.Batches(d, a.size, 1, flip=True).batch(0) for d in (a, b))
        np.testing.assert_array_equal(x["image"], y["image"])
        np.testing.assert_array_equal(x["label"], y["label"])
    sizes = [shards.check(tmp_path / s) for s in shards.splits(tmp_path)]
    assert sum(sizes) == (160 if classes else 208)


def test_a_stop_keeps_what_is_whole(copies, tmp_path):
    class Stopped(Exception):
        pass

    def stop(_):
        raise Stopped

    whole = data.pool("folder", _options(copies("folder"), resolution=16))["train"]()
    settings = {"dataset": "folder", "split": "train", "resolution": 16}
    size, done = 40 * 16 * 16 * 3, []

    def write(on_images):
        return shards.write(
            whole, tmp_path / "train", settings, shard_bytes=size, on_images=on_images
        )

    def twice(n):
        done.append(n)
        if len(done) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        write(twice)
    early = _stamps(tmp_path / "train")
    assert len(early) == 4
    with pytest.raises(errors.DataError, match=r"not finished \(2 of 4 shards are\): run the same"):
        data.load("prepared", "train", options=_options(tmp_path))
    with pytest.raises(errors.DataError, match="is not finished"):
        shards.check(tmp_path / "train")
    # A finished shard that was damaged meanwhile is made again, the other one is kept.
    path = tmp_path / "train" / "images-00001.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    counted = []
    meta = write(counted.append)
    assert sum(counted) == meta["size"] == 160
    late = _stamps(tmp_path / "train")
    assert late["images-00000.npy"] == early["images-00000.npy"]
    assert late["images-00001.npy"] != early["images-00001.npy"]
    assert shards.check(tmp_path / "train") == 160
    assert not list((tmp_path / "train").glob("*.part"))
    # And nothing is left to do.
    write(counted.append)
    assert _stamps(tmp_path / "train") == late
    with pytest.raises(Stopped):
        write(stop)


def test_other_settings_are_refused(copies, prepared):
    with pytest.raises(errors.WorkdirError, match=r"resolution = 16, and now it is 8.*--out"):
        _prepare("folder", copies("folder"), prepared, resolution=8)
    with pytest.raises(errors.ConfigError, match=r"resolution=32: the shards .* 16 pixels"):
        data.load("prepared", "train", options=_options(prepared, resolution=32))
    assert data.load("prepared", "train", options=_options(prepared, resolution=16)).size == 144


@pytest.mark.parametrize("name", ["images-00002.npy", "labels-00000.npy"])
def test_check_finds_damage(prepared, name):
    path = prepared / "train" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(errors.DataError, match=f"{name} does not have its checksum"):
        shards.check(prepared / "train")
    path.unlink()
    with pytest.raises(errors.DataError, match=f"{name} is missing"):
        shards.check(prepared / "train")
    with pytest.raises(errors.DataError, match=f"{name} is damaged.*--check"):
        data.load("prepared", "train", options=_options(prepared))


def test_damage_that_loading_finds(prepared):
    path = prepared / "train" / "images-00001.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(errors.DataError, match=r"images-00001\.npy is damaged"):
        data.load("prepared", "train", options=_options(prepared))
    (prepared / "train" / "meta.json").write_text('{"format": "other"}')
    with pytest.raises(errors.DataError, match=r"meta\.json is not the table of prepared shards"):
        data.load("prepared", "train", options=_options(prepared))


def test_what_is_not_there(copies, prepared, tmp_path):
    with pytest.raises(errors.DataError, match="no folder"):
        data.load("prepared", "train", options=_options(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.DataError, match=r"no prepared shards in .*scripts/prepare_data"):
        data.load("prepared", "train", options=_options(tmp_path / "empty"))
    # Of ImageNet the validation split is expected, whatever was prepared.
    whole = data.pool("imagenet2012", _options(copies("imagenet2012"), resolution=8))["train"]()
    settings = {"dataset": "imagenet2012", "split": "train", "resolution": 8}
    shards.write(whole, tmp_path / "half" / "train", settings)
    assert data.load("prepared", "train", options=_options(tmp_path / "half")).size == 144
    with pytest.raises(errors.DataError, match="has no split 'validation', only train"):
        data.load("prepared", "test", options=_options(tmp_path / "half"))
    with pytest.raises(errors.ConfigError, match="unknown data set on disk 'digits'"):
        data.pool("digits", data.Options())


def test_replaced_images_are_recorded(copies, tmp_path):
    import shutil

    own = tmp_path / "own"
    shutil.copytree(copies("folder"), own)
    path = sorted((own / "train").glob("*/*.jpg"))[50]
    path.write_bytes(path.read_bytes()[:1000])
    _prepare("folder", own, tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "train" / "meta.json").read_text())
    assert [str(path) in text for text in meta["replaced"]] == [True]
    a = data.load("folder", "train", options=_options(own, resolution=16))
    b = data.load("prepared", "train", options=_options(tmp_path / "out"))
    np.testing.assert_array_equal(a.read(range(a.size))["label"], b.read(range(b.size))["label"])


def _script(*arguments, **more):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def test_the_script(copies, tmp_path):
    out = tmp_path / "out"
    command = ("--folder", copies("folder"), "--resolution", 24, "--out", out)
    done = _script(*command)
    assert done.returncode == 0, done.stderr
    assert "train: 160 images of shape (24, 24, 3), 4 classes, 0 replaced" in done.stdout
    assert "prepare train: 160/160 (100 %)" in done.stderr
    assert data.load("prepared", "test", options=_options(out)).size == 48
    done = _script("--check", out)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "train: 160 images, all as written",
        "val: 48 images, all as written",
    ]
    path = out / "val" / "images-00000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = _script("--check", out)
    assert done.returncode == 1
    assert "prepare_data: " in done.stderr.splitlines()[-1]
    assert "images-00000.npy does not have its checksum" in done.stderr
    assert "Traceback" not in done.stderr
    done = _script(*command, "--split", "test")
    assert done.returncode == 2
    assert "--split=test: 'folder' has train, val" in done.stderr


@pytest.mark.slow
def test_kill_and_run_again(copies, tmp_path):
    out = tmp_path / "out"
    command = ["--folder", copies("folder"), "--resolution", 256, "--out", out, "--shard-mb", 3]
    command = [sys.executable, str(SCRIPT), *map(str, command), "--workers", "1"]
    for wanted in (1, 4):
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while len(list((out / "train").glob("labels-*.npy"))) < wanted:
            assert time.monotonic() < end
            time.sleep(0.002)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        assert len(list((out / "train").glob("labels-*.npy"))) < 10
    first = (out / "train" / "images-00000.npy").stat().st_mtime_ns
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert (out / "train" / "images-00000.npy").stat().st_mtime_ns == first
    a = data.load("folder", "train", options=_options(copies("folder"), resolution=256))
    b = data.load("prepared", "train", options=_options(out))
    np.testing.assert_array_equal(a.read(range(50))["image"], b.read(range(50))["image"])


def test_a_full_disk_is_one_error_and_the_same_command_goes_on(copies, small_disk, tmp_path):
    """No memory map: writing to one that has no room behind it would kill the process."""
    out = small_disk / "out"
    with pytest.raises(errors.WorkdirError, match=r"cannot be written.*No space left"):
        _prepare("folder", copies("folder"), out, resolution=64, shard_bytes=1 << 19)
    whole = sorted(_stamps(out / "train"))
    assert whole == ["images-00000.npy", "labels-00000.npy"]
    room = tmp_path / "room"
    shutil.copytree(out, room)
    before = _stamps(room / "train")
    _prepare("folder", copies("folder"), room, resolution=64, shard_bytes=1 << 19)
    assert before.items() <= _stamps(room / "train").items()
    shards.check(room / "train")
