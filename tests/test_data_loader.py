"""Shards of a batch, mirroring, crops, and batches prepared ahead."""

import itertools
import threading

import numpy as np
import pytest

from prpr import data, errors


def _images(n, side=4):
    pixels = np.random.default_rng(0).uniform(-1, 1, (n, side, side, 3)).astype(np.float32)
    return data.Dataset(pixels, np.arange(n, dtype=np.int32), n, "toy")


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_shards_together_are_the_batch(count):
    whole = data.Batches(_images(20), 12, seed=3, flip=True)
    parts = [data.Batches(_images(20), 12, 3, flip=True, shard=(i, count)) for i in range(count)]
    for step in range(12):  # most of them straddle epochs
        want = whole.batch(step)
        for key in ("image", "label"):
            got = np.concatenate([part.batch(step)[key] for part in parts])
            np.testing.assert_array_equal(got, want[key])
        np.testing.assert_array_equal(
            np.concatenate([part.indices(step) for part in parts]), whole.indices(step)
        )
    assert parts[0].per_epoch == whole.per_epoch == 2


def test_half_are_mirrored_and_the_position_decides():
    dataset = _images(400)
    plain, flip = data.Batches(dataset, 200, 1), data.Batches(dataset, 200, 1, flip=True)
    epochs = []
    for step in range(4):
        a, b = plain.batch(step), flip.batch(step)
        np.testing.assert_array_equal(a["label"], b["label"])
        same = (a["image"] == b["image"]).all((1, 2, 3))
        mirrored = (a["image"][:, :, ::-1] == b["image"]).all((1, 2, 3))
        assert (same ^ mirrored).all()
        assert abs(mirrored.sum() - 100) < 30  # 4 standard deviations
        epochs.append(mirrored)
    assert (epochs[0] != epochs[2]).any()
    again = data.Batches(dataset, 200, 1, flip=True).batch(3)
    np.testing.assert_array_equal(again["image"], b["image"])
    # The memory was not written to.
    np.testing.assert_array_equal(dataset.images, _images(400).images)


def test_random_crops_are_drawn_once_for_each_position():
    class Recorder:
        size, shape, num_classes, name, crop = 10, (4, 4, 3), 1, "toy", "random"

        def read(self, rows, crops, **_):
            return {"image": crops, "label": np.asarray(rows)}

    batches = data.Batches(Recorder(), 5, 0)
    crops = np.concatenate([batches.batch(step)["image"] for step in range(100)])
    assert (crops >= 0).all()
    assert (crops < 1).all()
    assert len(set(crops)) == len(crops)
    assert crops.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 500))
    np.testing.assert_array_equal(batches.batch(7)["image"], crops[35:40])
    flips = data.Batches(Recorder(), 5, 0, flip=True)
    np.testing.assert_array_equal(flips.batch(7)["image"], crops[35:40])


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 5), (0, 0)])
def test_bad_shards(shard):
    with pytest.raises(errors.ConfigError, match=r"shard=\(.*\) of batch_size=12"):
        data.Batches(_images(20), 12, shard=shard)


def test_points_are_not_mirrored():
    with pytest.raises(errors.ConfigError, match="'ring8' holds items of shape"):
        data.Batches(data.load("ring8", "valid"), 12, flip=True)


def test_read_and_take_in_memory():
    dataset = _images(10)
    taken = dataset.take([3, 1])
    np.testing.assert_array_equal(taken.labels, [3, 1])
    np.testing.assert_array_equal(taken.images, dataset.images[[3, 1]])
    batch = dataset.read([3, 1], flips=np.array([False, True]))
    np.testing.assert_array_equal(batch["image"][1], dataset.images[1, :, ::-1])
    assert taken.shape == (4, 4, 3)


# --- loader ----------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_loader_gives_the_batches_in_order(prefetch):
    batches = data.Batches(_images(30), 8, flip=True)
    with data.Loader(batches.batch, range(5, 25), images=8, prefetch=prefetch) as loader:
        got = list(loader)
    assert [step for step, _ in got] == list(range(5, 25))
    for step, batch in got:
        np.testing.assert_array_equal(batch["image"], batches.batch(step)["image"])
    assert loader.images_per_second > 0
    assert 0 <= loader.waiting <= 1


def test_loader_keeps_ahead_but_not_further():
    made, lock = [], threading.Lock()

    def batch(step):
        with lock:
            made.append(step)
        return {"label": np.zeros(2)}

    with data.Loader(batch, itertools.count(), prefetch=3) as loader:
        for step, _ in itertools.islice(loader, 10):
            assert max(made) <= step + 3
    threads = [t for t in threading.enumerate() if t.name.startswith("batches")]
    assert not threads
    assert len(made) <= 13
    with pytest.raises(StopIteration):
        next(loader)


def test_loader_raises_where_the_batch_would_have_come():
    def batch(step):
        if step == 4:
            raise errors.DataError("batch 4 is bad")
        return {"label": np.zeros(2)}

    loader = data.Loader(batch, range(10), prefetch=2)
    assert [step for step, _ in itertools.islice(loader, 4)] == [0, 1, 2, 3]
    with pytest.raises(errors.DataError, match="batch 4"):
        next(loader)
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]
    loader.close()


def test_loader_works_in_the_background():
    names = set()

    def batch(step):
        names.add(threading.current_thread().name)
        return step

    with data.Loader(batch, range(4)) as loader:
        assert list(loader) == [(step, step) for step in range(4)]
    assert threading.current_thread().name not in names


def test_bad_prefetch():
    with pytest.raises(errors.ConfigError, match="prefetch=-1"):
        data.Loader(lambda _: {}, range(3), prefetch=-1)
