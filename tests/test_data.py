"""Data sets × properties: ranges, splits that partition, batches that need only the step."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from prpr import data, errors
from prpr.data.randomness import permutation

NAMES = ("digits", *data.MIXTURES)


def _rows(dataset):
    """The samples with their labels, as sorted rows: a set that can be compared."""
    flat = dataset.images.reshape(dataset.size, -1)
    rows = np.concatenate([flat, dataset.labels[:, None]], axis=1)
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("name", NAMES)
def test_shapes_dtypes_and_ranges(name):
    got = data.load(name, "train")
    assert got.name == name
    assert got.images.dtype == np.float32
    assert got.labels.dtype == np.int32
    assert got.labels.shape == (got.size,)
    assert set(got.labels) == set(range(got.num_classes))
    assert np.isfinite(got.images).all()
    if name == "digits":
        assert got.images.shape[1:] == (8, 8, 1)
        assert (got.images.min(), got.images.max()) == (-1, 1)
        data.check_images(*got[:3])
    else:
        assert got.images.shape[1:] == (2,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fractions", [data.FRACTIONS, (0.1, 0.8, 0.1)])
def test_splits_partition_the_whole(name, fractions):
    parts = [data.load(name, s, seed=3, fractions=fractions) for s in data.SPLITS]
    whole = data.load(name, "train+valid+test", seed=3, fractions=fractions)
    joined = parts[0]._replace(
        images=np.concatenate([p.images for p in parts]),
        labels=np.concatenate([p.labels for p in parts]),
    )
    np.testing.assert_array_equal(_rows(joined), _rows(whole))
    assert whole.size == (1797 if name == "digits" else data.POINTS)
    two = data.load(name, "train+valid", seed=3, fractions=fractions)
    np.testing.assert_array_equal(two.images, np.concatenate([p.images for p in parts[:2]]))
    for part, fraction in zip(parts, fractions, strict=True):
        for label in range(whole.num_classes):
            ideal = fraction * np.sum(whole.labels == label)
            assert abs(np.sum(part.labels == label) - ideal) <= 1


def test_a_source_with_splits_of_its_own_is_not_cut(monkeypatch):
    """What a source holds out stays held out, whatever the fractions."""
    sizes = {"train": 4, "valid": 2, "test": 3}
    held = {
        split: data.Dataset(
            np.full((n, 2), i, np.float32), np.full(n, i, np.int32), 3, "own", levels=0
        )
        for i, (split, n) in enumerate(sizes.items())
    }
    monkeypatch.setitem(data.SOURCES, "own", lambda *_: held)
    for split in data.SPLITS:
        found = data.load("own", split, fractions=(0.0, 0.0, 1.0))
        np.testing.assert_array_equal(found.images, held[split].images)
    both = data.load("own", "valid+test")
    assert both.labels.tolist() == [1, 1, 2, 2, 2]
    assert both.images[:, 0].tolist() == [1, 1, 2, 2, 2]
    monkeypatch.setitem(held, "valid", held["valid"].take(np.arange(0)))
    with pytest.raises(errors.DataError, match="split 'valid' of 'own' is empty"):
        data.load("own", "valid")
    with pytest.raises(errors.DataError, match="'own' has 3 classes, and the model has 4"):
        data.load("own", "test", options=data.Options(classes=4))


def test_split_indices_are_disjoint():
    labels = np.random.default_rng(0).integers(0, 7, 500)
    got = data.split_indices(labels, seed=1)
    assert sorted(np.concatenate(list(got.values()))) == list(range(500))


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    whole = data.load("digits", "train+valid+test")
    want = data.Dataset(x / 8 - 1, y, 10, "")
    np.testing.assert_array_equal(_rows(whole), _rows(want))


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_and_nothing_else_decides(name):
    one, two, other = (data.load(name, "valid", seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.images, two.images)
    assert not np.array_equal(one.images, other.images)
    assert data.load(name, "valid", seed=-1).size


def test_split_is_the_same_for_ever():
    # Philox's words are promised not to change: neither with NumPy's version nor the machine.
    # The keys are SeedSequence(0, spawn_key=(0,)); the first word is checked, then the order.
    words = np.random.Philox(np.random.SeedSequence(0, spawn_key=(0,))).random_raw(6)
    np.testing.assert_array_equal(permutation(6, 0, 0), sorted(range(6), key=words.item))


@pytest.mark.parametrize("name", data.MIXTURES)
def test_log_density_is_scipys(name):
    m = data.mixture(name)
    assert m.weights.sum() == pytest.approx(1)
    x = np.random.default_rng(0).uniform(-2, 2, (4, 5, 2)).astype(np.float32)
    want = np.zeros((4, 5))
    for w, mean in zip(m.weights, m.means, strict=True):
        want += w * stats.norm.pdf(x, mean, m.scale).prod(axis=-1)
    log_density = jax.jit(m.log_density)
    got = log_density(jnp.asarray(x))
    assert got.shape == (4, 5)
    assert got.dtype == jnp.float32
    seen = want > 1e-30
    assert seen.sum() >= 3
    np.testing.assert_allclose(got[seen], np.log(want[seen]), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(log_density(jnp.asarray(x[0, 0])), got[0, 0], rtol=1e-5)
    grad = jax.jit(jax.grad(m.log_density))(jnp.asarray([1e3, -1e3]))
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("name", data.MIXTURES)
def test_samples_follow_the_mixture(name):
    m = data.mixture(name)
    x, c = m.sample(np.random.default_rng(1), 20_000)
    share = np.bincount(c, minlength=len(m.weights)) / len(c)
    sd = np.sqrt(m.weights * (1 - m.weights) / len(c))
    assert (np.abs(share - m.weights) < 4 * sd).all()
    z = (x - m.means[c]) / m.scale
    assert np.abs(z.mean(axis=0)).max() < 4 / np.sqrt(len(c))
    assert z.std(axis=0) == pytest.approx([1, 1], abs=0.03)  # 4·√(1/2n) = .02


# --- batches ---------------------------------------------------------------------------


def _toy(n):
    labels = np.arange(n, dtype=np.int32)
    return data.Dataset(labels[:, None].astype(np.float32), labels, n, "toy")


@pytest.mark.parametrize(("n", "size"), [(10, 3), (12, 4), (7, 7), (5, 1), (9, 8)])
def test_every_epoch_is_a_permutation(n, size):
    batches = data.Batches(_toy(n), size, seed=4)
    stream = np.concatenate([batches.batch(s)["label"] for s in range(4 * n)])
    epochs = stream[: len(stream) // n * n].reshape(-1, n)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(n), (len(epochs), 1)))
    assert len({tuple(e) for e in epochs}) > 1  # reshuffled
    assert batches.per_epoch == int(np.ceil(n / size))


def test_starting_at_a_step_is_never_having_stopped():
    dataset = data.load("digits", "valid")
    straight = list(itertools.islice(data.Batches(dataset, 100, seed=1).start(), 12))
    for s in (11, 0, 5, 3):  # out of order too: a batch depends on nothing before it
        resumed = itertools.islice(data.Batches(dataset, 100, seed=1).start(s), 12 - s)
        for a, b in zip(straight[s:], resumed, strict=True):
            np.testing.assert_array_equal(a["image"], b["image"])
            np.testing.assert_array_equal(a["label"], b["label"])


def test_one_object_asked_in_any_order():
    batches, order = data.Batches(_toy(10), 4), np.random.default_rng(0).permutation(40)
    for s in order:
        want = data.Batches(_toy(10), 4).indices(s)
        np.testing.assert_array_equal(batches.indices(s), want)
        assert len(batches._epochs) <= 2  # a long run keeps no epochs


def test_images_keep_their_labels_and_the_seed_matters():
    a = data.Batches(_toy(50), 20, seed=0).batch(3)
    assert a["image"].shape == (20, 1)
    assert (a["image"].dtype, a["label"].dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(a["image"][:, 0], a["label"])
    assert not np.array_equal(a["label"], data.Batches(_toy(50), 20, seed=1).batch(3)["label"])


def test_bad_batches():
    with pytest.raises(errors.ConfigError, match=r"batch_size=11 .* 10 samples of 'toy'.*most 10"):
        data.Batches(_toy(10), 11)
    with pytest.raises(errors.ConfigError, match="batch_size=0 must be at least 1"):
        data.Batches(_toy(10), 0)
    with pytest.raises(errors.ConfigError, match="step=-1"):
        data.Batches(_toy(10), 2).batch(-1)


# --- refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("digit", "train"), "unknown data set 'digit'. Did you mean 'digits'?"),
        (("digits", "trian"), "unknown split 'trian'. Did you mean 'train'?"),
        (("digits", "train+train"), "unknown split"),
        (("digits", ""), "unknown split"),
        (("digits", "train", 0, (0.5, 0.5)), r"fractions=\(0.5, 0.5\) must be three"),
        (("digits", "train", 0, (0.5, 0.6, 0.1)), "sum to 1"),
        (("digits", "train", 0, (1.5, -0.5, 0.0)), ">= 0"),
    ],
)
def test_bad_requests(args, message):
    with pytest.raises(errors.ConfigError, match=message.replace("?", r"\?")):
        data.load(*args)


def test_empty_split_and_unknown_mixture():
    with pytest.raises(errors.DataError, match="split 'valid' of 'digits' is empty"):
        data.load("digits", "valid", fractions=(0.7, 0.0, 0.3))
    with pytest.raises(errors.ConfigError, match="unknown mixture 'ring9'"):
        data.mixture("ring9")


def _images(value=0.0, at=()):
    x = np.zeros((6, 4, 4, 3), np.float32)
    x[list(at), 1, 2, 0] = value
    return x


LABELS = np.arange(6) % 3


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (_images(np.nan, (2, 4)), LABELS, "NaN or infinity in 2 of 6, first at 2"),
        (_images(-np.inf, (5,)), LABELS, "NaN or infinity in 1 of 6, first at 5"),
        (_images(255.0, (3,)), LABELS, r"\(from 0 to 255\) in 1 of 6, first at 3: scale bytes"),
        (_images()[..., 0], LABELS, r"must be \(N, H, W, C\), got shape \(6, 4, 4\)"),
        (_images(), LABELS + 1, "labels are outside 0 to 2 in 2 of 6, first at 2"),
        (_images(), LABELS - 1, "labels are outside 0 to 2 in 2 of 6, first at 0"),
        (_images(), LABELS[:5], "one integer per image"),
        (_images(), LABELS.astype(float), "dtype float64"),
    ],
)
def test_bad_images(images, labels, message):
    with pytest.raises(errors.DataError, match=message):
        data.check_images(images, labels, 3)


def test_good_images():
    data.check_images(_images(1.0, (0,)), LABELS, 3)
    data.check_images(_images(-1.0, (0,)).astype(np.float16), LABELS.astype(np.int64), 3)


def test_identity_tells_other_items():
    """By it processes see that one has another copy."""
    digits = data.load("digits", "train")
    same = data.identity(digits)
    assert same == data.identity(data.load("digits", "train"))
    assert data.identity(digits.take(np.arange(digits.size - 1))) != same
    assert data.identity(digits._replace(labels=digits.labels[::-1])) != same
    assert data.identity(data.load("digits", "train", seed=1)) != same


def test_identity_of_files(own):
    folder = own("folder")
    options = data.Options(str(folder), 16)
    same = data.identity(data.load("folder", "train", options=options))
    assert same == data.identity(data.load("folder", "train", options=options))
    next((folder / "train" / "class0000").iterdir()).unlink()
    assert data.identity(data.load("folder", "train", options=options)) != same


def test_balanced_batches_have_every_class_alike():
    """Of 12, 5 and 1 items and none of class 2: each of the three is 12 of 36 rows of an epoch."""
    labels = np.repeat([0, 1, 3], [12, 5, 1]).astype(np.int32)
    images = np.arange(18, dtype=np.float32)[:, None]
    uneven = data.Dataset(images, labels, 4, "uneven")
    rows = data.balanced_rows(uneven)
    assert np.bincount(labels[rows], minlength=4).tolist() == [12, 12, 0, 12]
    counts = np.bincount(rows, minlength=18)
    assert set(counts[:12]) == {1}
    assert set(counts[12:17]) == {2, 3}
    assert counts[17] == 12
    batches = data.Batches(uneven, 9, seed=3, balance=True)
    assert batches.per_epoch == 4
    epoch = [batches.batch(step) for step in range(4)]
    seen = np.concatenate([batch["image"][:, 0] for batch in epoch]).astype(int)
    np.testing.assert_array_equal(np.bincount(seen, minlength=18), counts)
    parts = [data.Batches(uneven, 9, 3, balance=True, shard=(i, 3)).indices(5) for i in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), batches.indices(5))

    class Unread:
        labels, name = None, "tfds"

    with pytest.raises(errors.ConfigError, match="labels of 'tfds' are known only once"):
        data.balanced_rows(Unread())  # pyright: ignore[reportArgumentType]
