"""Encoders: equal to the originals on made-up weights; fitted ones; a user's; the protocol."""

import os
import subprocess
import sys

import encoder_tools as tools
import jax
import metric_oracles as oracles
import numpy as np
import pytest
from fixtures import make_encoder_fixtures as originals

from prpr import encoders, errors, score
from prpr.encoders import base, compiled, dinov2, networks, small, weights


def relative(got, expected):
    """The largest difference, of the largest expected magnitude."""
    return np.abs(got - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def vgg16():
    return tools.encoder_of("vgg16", batch=2)


# --- networks --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["inception", "vgg16", "dinov2"])
def test_a_network_is_the_original(name):
    record, size = originals.load(name), originals.SIZES[name]
    got = tools.encoder_of(name, batch=2).encode_all(originals.images(size, size))
    assert got.features.dtype == np.float32
    assert relative(got.features, record["features"]) < 3e-6
    if name == "inception":
        assert got.probabilities is not None
        assert relative(got.probabilities, record["probabilities"]) < 3e-6
        np.testing.assert_allclose(got.probabilities.sum(axis=1), 1, rtol=1e-5)
    else:
        assert got.probabilities is None


def test_positions_are_resampled_as_the_original_does():
    record = originals.load("dinov2")
    learned = originals.recorded_state(record)["pos_embed"]
    got = np.asarray(dinov2._positions(learned, 16, 16))[0]
    np.testing.assert_allclose(got, record["positions"], atol=2e-6)
    assert dinov2._positions(learned, 37, 37) is learned
    matrix = dinov2.resampling(16)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    # Without the offset of 0.1, positions would be elsewhere by far more than rounding.
    where = (np.arange(16) + 0.5) * 37 / 16 - 0.5
    assert np.abs(matrix @ np.arange(37) - where).max() > 0.1


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("inception", 23849952), ("vgg16", 134260544), ("dinov2_vitb14", 86579712)],
)
def test_the_published_networks_have_as_many_parameters_as_the_originals(name, parameters):
    # Of the originals' own classes, without Inception's fc.bias, VGG's last layer, mask_token.
    shapes = compiled.shapes(networks.spec_of(name))
    found = sum(int(np.prod(s)) for path, s in shapes.items() if path.startswith("params/"))
    assert found == parameters


def test_normalisation_is_that_of_the_resize():
    from prpr.encoders import inception

    x = np.array([0.0, 128, 255], np.float32)
    np.testing.assert_array_equal(inception.normalise(x, "clean"), (x - 128) / 128)
    np.testing.assert_array_equal(inception.normalise(x, "legacy_tf"), (x - 128) / 128)
    np.testing.assert_allclose(inception.normalise(x, "legacy_pytorch"), [-1, 1 / 255, 1], 1e-3)


def test_batches_and_their_padding_do_not_change_features(vgg16):
    x = originals.images(32, 40, 5)
    whole = vgg16.encode(x)
    assert whole.shape == (5, 256)
    for i in (0, 3):
        np.testing.assert_allclose(vgg16.encode(x[i : i + 1])[0], whole[i], rtol=1e-5, atol=1e-6)
    prepared = np.stack([vgg16.prepare(image) for image in x])
    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(vgg16.forward(prepared).features, whole)


def test_one_compilation_serves_all_batches(vgg16):
    counted = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: counted.append(event) if "backend_compile" in event else None
    )
    vgg16.encode(originals.images(20, 20, 3))
    counted.clear()
    for n in (1, 2, 3, 5):
        vgg16.encode(originals.images(24, 20, n))
    assert not counted


def test_grey_is_repeated_to_three_channels(vgg16):
    grey = originals.images(30, 30, 2)[..., :1]
    np.testing.assert_array_equal(vgg16.encode(grey), vgg16.encode(np.repeat(grey, 3, axis=3)))


def test_names_tell_encoder_weights_and_resize(vgg16):
    assert vgg16.name == "vgg16 (made up, clean)"
    network = networks.NETWORKS["inception"]
    published = {"sha256": "6726825d00", "file": "weights-inception-2015-12-05-6726825d.pth"}
    assert networks.identity(network, published) == "pt_inception-2015-12-05"
    other = {"sha256": "0123456789", "file": "mine.pth"}
    assert networks.identity(network, other) == "mine 01234567"
    large = {"sha256": "0123456789", "file": "dinov2_vitl14_pretrain.pth"}
    assert networks.identity(networks.NETWORKS["dinov2"], large) == (
        "dinov2_vitl14_pretrain 01234567"
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"type float32: networks take bytes.*to_stored"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"shape \(8, 8, 4\).*drop an alpha channel"),
        (np.zeros((2, 0, 8, 3), np.uint8), r"shape \(0, 8, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"shape \(0, 8, 8, 3\): vgg16 .*at least one image"),
        (np.zeros((8, 8, 3), np.uint8), r"takes \(N, height, width, channels\)"),
    ],
)
def test_images_that_a_network_cannot_take(vgg16, images, message):
    with pytest.raises(errors.DataError, match=message):
        vgg16.encode(images)


def test_forward_refuses_what_was_not_prepared(vgg16):
    with pytest.raises(errors.DataError, match=r"\(N, 224, 224, 3\), got \(2, 8, 8, 3\)"):
        vgg16.forward(np.zeros((2, 8, 8, 3), np.float32))


def test_weights_that_give_infinity_are_refused():
    spec = tools.spec_of("vgg16")
    arrays = tools.converted("vgg16").arrays
    arrays["params/classifier_3/bias"][7] = np.inf
    variables = compiled.nested(arrays, compiled.shapes(spec), "x")
    encoder = compiled.build(spec, variables, "vgg16", "w", "clean", 2)
    with pytest.raises(errors.DataError, match="NaN or infinity for 2 of 2 images: its weights"):
        encoder.encode(originals.images(8, 8))


def test_several_devices_share_a_batch_and_change_nothing(vgg16):
    code = (
        "import encoder_tools as t, numpy as np, jax, sys;"
        "from fixtures import make_encoder_fixtures as o;"
        "e = t.encoder_of('vgg16', batch=3);"
        "assert e.batch == 4 and jax.local_device_count() == 2;"
        "np.save(sys.argv[1], e.encode(o.images(16, 16, 3)))"
    )
    path = os.path.join(os.environ["PRPR_CACHE"], "two_devices.npy")
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
           "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}  # fmt: skip
    subprocess.run([sys.executable, "-c", code, path], check=True, env=env)
    assert relative(np.load(path), vgg16.encode(originals.images(16, 16, 3))) < 1e-6


# --- loading ---------------------------------------------------------------------------


def test_missing_weights_tell_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("PRPR_ENCODERS", str(tmp_path))
    with pytest.raises(errors.CheckpointError) as error:
        encoders.load("inception")
    for part in (
        f"{tmp_path}/inception.npz does not exist",
        "Download pt_inception-2015-12-05-6726825d.pth from https://github.com/mseitzer/pytorch-fid",
        "scripts/convert_encoder --name inception --from pt_inception-2015-12-05-6726825d.pth",
    ):
        assert part in str(error.value)
    with pytest.raises(errors.CheckpointError, match=r"--name dinov2 --from .*--out other\.npz"):
        encoders.load("dinov2", weights="other.npz")


def test_the_folder_of_weights(monkeypatch):
    monkeypatch.delenv("PRPR_ENCODERS", raising=False)
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(weights.path_of("vgg16")) == "/somewhere/.cache/prpr/encoders/vgg16.npz"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inceptoin",), "unknown encoder 'inceptoin'. Did you mean 'inception'"),
        (("vgg16", "cleen"), "unknown resize 'cleen'. Did you mean 'clean'"),
        (("pca",), r"encoders\.fit\('pca'"),
    ],
)
def test_bad_names(arguments, message):
    with pytest.raises(errors.ConfigError, match=message):
        encoders.load(*arguments)


def test_a_batch_has_an_image():
    with pytest.raises(errors.ConfigError, match="batch = 0"):
        encoders.load("vgg16", batch=0)


def test_load_reads_what_was_converted(tmp_path, monkeypatch):
    monkeypatch.setenv("PRPR_ENCODERS", str(tmp_path))
    monkeypatch.setattr(networks, "spec_of", tools.spec_of)
    about = {"encoder": "vgg16", "file": "vgg16-397923af.pth", "sha256": "397923af00"}
    weights.write(weights.path_of("vgg16"), tools.converted("vgg16").arrays, about)
    encoder = encoders.load("vgg16", "legacy_tf", batch=2)
    assert encoder.name == "vgg16 (vgg16, legacy_tf)"
    x = originals.images(224, 224)
    assert relative(encoder.encode(x), originals.load("vgg16")["features"]) < 1e-5


# --- fitted ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 8 - 1).astype(np.float32).reshape(-1, 8, 8, 1)
    return (x[:1000], y[:1000]), (x[1000:], y[1000:])


@pytest.fixture(scope="module")
def classifier(digits):
    return encoders.fit("classifier", *digits[0], seed=1, held_out=digits[1])


def test_pixels_flatten(digits):
    enc = encoders.fit("pixels", *digits[0])
    assert enc.name == "pixels"
    assert enc.accuracy is None
    got = enc.encode(digits[1][0])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, digits[1][0].reshape(797, 64))


@pytest.mark.parametrize("name", ["pixels", "pca", "classifier"])
def test_bytes_are_the_floats_that_they_store(name, digits):
    (x, y), _ = digits
    stored = score.to_stored(x)
    enc = encoders.fit(name, stored["images"][:300], y[:300])
    floats = score.from_stored(stored)
    np.testing.assert_array_equal(enc.encode(stored["images"]), enc.encode(floats))
    # Image by image, as a stream has them.
    stack = np.stack([enc.prepare(image) for image in stored["images"][:7]])
    assert relative(enc.forward(stack).features, enc.encode(floats[:7])) < 1e-5


def test_pca_is_the_projection_on_leading_components(digits):
    (x, _), (test, _) = digits
    enc = encoders.fit("pca", x[:200])
    assert enc.name == "pca(train split, 64 of 64, exact, not whitened)"
    flat, flat_test = x[:200].reshape(200, -1), test.reshape(797, -1)
    # All components: distances are those of the pixels.
    got = enc.encode(test)
    np.testing.assert_allclose(
        oracles.squared(got[:20], got[20:50]),
        oracles.squared(flat_test[:20], flat_test[20:50]),
        rtol=1e-4,
    )
    variances = enc.encode(x[:200]).var(axis=0)
    covariance = np.cov(flat.T, bias=True)
    np.testing.assert_allclose(variances, np.linalg.eigvalsh(covariance)[::-1], atol=1e-4)
    few = encoders.fit("pca", x[:5])
    assert few.encode(test).shape == (797, 4)


def test_randomised_pca_finds_the_leading_components(monkeypatch):
    monkeypatch.setattr(small, "_EXACT", 64)
    rng = np.random.default_rng(0)
    scales = 0.9 ** np.arange(150)
    x = (rng.standard_normal((200, 150)) * scales + 3).astype(np.float32)
    enc = encoders.fit("pca", x, seed=4)
    assert enc.name == "pca(train split, 64 of 150, randomised, not whitened)"
    exact = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)[:64] ** 2 / len(x)
    features = enc.encode(x)
    np.testing.assert_allclose(features.var(axis=0)[:40], exact[:40], rtol=1e-3)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_array_equal(features, encoders.fit("pca", x, seed=4).encode(x))


def test_pca_needs_two_images(digits):
    with pytest.raises(errors.DataError, match="at least 2 images to be fitted on, got 1"):
        encoders.fit("pca", digits[0][0][:1])


def test_classifier_knows_the_digits(classifier, digits):
    got = classifier.encode(digits[0][0])
    assert got.shape == (1000, 32)
    assert got.dtype == np.float32
    assert classifier.name == "classifier(train split, 64-32 MLP)"
    assert classifier.accuracy > 0.88  # 10 classes: chance is .1
    alive = got.std(axis=0) > 0
    assert alive.sum() >= 16
    np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-4)
    assert got.std(axis=0).max() == pytest.approx(1, abs=1e-3)
    # The features separate classes: nearest neighbours of held-out digits agree in class.
    test, labels = classifier.encode(digits[1][0]), digits[1][1]
    near = oracles.squared(test[:100], got).argmin(axis=1)
    assert (digits[0][1][near] == labels[:100]).mean() > 0.85


def test_classifier_is_deterministic_in_its_seed(digits):
    (x, y), _ = digits
    small = x[:200], y[:200]
    one, two, other = (encoders.fit("classifier", *small, seed=s).encode(x) for s in (5, 5, -6))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 0.1


def test_classifier_of_two_classes_and_gaps_in_labels(digits):
    (x, y), _ = digits
    some = (y == 3) | (y == 8)
    enc = encoders.fit("classifier", x[some], y[some], held_out=(x[some], y[some]))
    assert enc.accuracy is not None
    assert enc.accuracy > 0.95


def test_bad_encoders(classifier, digits):
    (x, y), _ = digits
    with pytest.raises(
        errors.ConfigError, match=r"unknown encoder 'pixel'\. Did you mean 'pixels'"
    ):
        encoders.get("pixel")
    with pytest.raises(errors.DataError, match=r"shape \(3, 28, 28, 1\).*fitted on \(N, 8, 8, 1"):
        classifier.encode(np.zeros((3, 28, 28, 1)))
    with pytest.raises(errors.DataError, match="1 of 2, first in image 1"):
        classifier.encode(np.stack([x[0], np.full_like(x[0], np.nan)]))
    with pytest.raises(errors.DataError, match="at least 2 classes among its 50"):
        encoders.fit("classifier", x[:50], np.zeros(50, int))
    with pytest.raises(errors.DataError, match="one label per image, got 50 images"):
        encoders.fit("classifier", x[:50], y[:49])


# --- a user's --------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path):
    """(source, function) -> the encoder of a file with that source."""

    def load(source, function="embed"):
        path = tmp_path / "mine.py"
        path.write_text(source)
        return encoders.load(f"{path}:{function}")

    return load


def test_a_function_of_the_user(mine, tmp_path):
    (tmp_path / "beside.py").write_text("SCALE = 2.0\n")
    encoder = mine(
        "from beside import SCALE\n"
        "def embed(images):\n"
        "    assert images.dtype == 'uint8' and len(images) <= 64\n"
        "    return SCALE * images.mean(axis=(1, 2))\n"
    )
    x = originals.images(9, 7, 70)
    np.testing.assert_allclose(encoder.encode(x), 2 * x.mean(axis=(1, 2)), rtol=1e-6)
    assert encoder.encode(x).dtype == np.float32
    assert encoder.name.startswith("mine.py:embed (crc ")
    assert mine("def embed(images): return images.mean(axis=(1, 2))").name != encoder.name


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return images", r"array of shape \(3, 9, 7, 3\) for 3 images: it must return \(3, D\)"),
        ("return images[:2, 0, :, 0]", r"shape \(2, 7\) for 3 images"),
        ("return images[:, 0, :0, 0]", r"shape \(3, 0\)"),
        ("return images[:, 0, :, 0].astype(str)", "returned <U.*: it must return real numbers"),
        ("return images[:, 0, :, 0] / 0.0 * 0", "returned NaN or infinity"),
        ("raise KeyError('x')", r"fails on images of shape \(3, 9, 7, 3\), KeyError: 'x'"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in divide", "ignore:.*encountered in multiply")
def test_what_a_function_may_not_return(mine, body, message):
    encoder = mine(f"def embed(images):\n    {body}\n")
    with pytest.raises(errors.DataError, match=message):
        encoder.encode(originals.images(9, 7, 3))


def test_a_function_that_changes_its_mind(mine):
    encoder = mine("def embed(images): return images[:, 0, :len(images) + 1, 0]")
    with pytest.raises(errors.DataError, match="features of 6 and of 65 numbers"):
        encoder.encode(originals.images(9, 99, 69))


@pytest.mark.parametrize(
    ("source", "function", "message"),
    [
        ("def other(x): return x", "embed", "has no function 'embed'; it has other"),
        ("embed = 3", "embed", "has no function 'embed'; it has none"),
        ("import nowhere_at_all", "embed", "fails when it is run, ModuleNotFoundError"),
        ("def embed(:", "embed", "fails when it is run, SyntaxError"),
    ],
)
def test_files_without_the_function(mine, source, function, message):
    with pytest.raises(errors.ConfigError, match=message):
        mine(source, function)


def test_a_file_that_is_not_there():
    with pytest.raises(errors.ConfigError, match=r"there is no file nowhere\.py"):
        encoders.load("nowhere.py:embed")


def test_joined_keeps_probabilities():
    part = base.Encoded(np.ones((2, 3)), np.ones((2, 5)))
    whole = base.joined([part, part])
    assert whole.features.shape == (4, 3)
    assert whole.probabilities is not None
    assert whole.probabilities.shape == (4, 5)
