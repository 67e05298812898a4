"""Resizes: each equals its original; they differ, by this much."""

import numpy as np
import pytest
from fixtures import make_encoder_fixtures as originals

from prpr.encoders import RESIZES, resize
from prpr.errors import ConfigError

SIDE = originals.RESIZED


def cubic(t):
    """Keys' kernel with a = −1/2, which Pillow calls bicubic."""
    t = np.abs(t)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t < 1, near, np.where(t < 2, far, 0))


def weights_of(size, out, kernel, support):
    """(out, size): the antialiased filter, widened by the factor that it shrinks by."""
    scale = size / out
    wide = max(scale, 1)
    matrix = np.zeros((out, size))
    for i in range(out):
        centre = (i + 0.5) * scale
        low = max(int(centre - support * wide + 0.5), 0)
        high = min(int(centre + support * wide + 0.5), size)
        taps = np.arange(low, high)
        row = kernel((taps - centre + 0.5) / wide)
        matrix[i, low:high] = row / row.sum()
    return matrix


def antialiased(image, out):
    """The image by the definition of "clean", in float64."""
    rows, columns = (weights_of(n, out, cubic, 2) for n in image.shape[:2])
    whole = np.einsum("ip,jq,pqc->ijc", rows, columns, image.astype(float))
    return np.clip(whole, 0, 255)


def photograph(side):
    """A picture as photographs are: a spectrum of 1/f, edges, and fine stripes; (side, side, 3)."""
    rng = np.random.default_rng(3)
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    phases = rng.standard_normal((3, *f.shape)) + 1j * rng.standard_normal((3, *f.shape))
    soft = np.fft.irfft2(phases / np.maximum(f, 1 / side), (side, side))
    soft = 120 + 45 * soft / soft.std()
    y, x = np.mgrid[:side, :side]
    soft[:, (x - side / 3) ** 2 + (y - side / 2) ** 2 < (side / 5) ** 2] += 60
    soft[:, side // 2 :, side // 2 :] += 40 * (-1) ** (x + y)[side // 2 :, side // 2 :]
    return np.rint(np.clip(soft, 0, 255)).astype(np.uint8).transpose(1, 2, 0)


def rms(a, b):
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("image", originals.IMAGES)
@pytest.mark.parametrize("name", RESIZES)
def test_a_resize_is_its_original(name, image):
    given = originals.images(*originals.IMAGES[image], 1)[0]
    expected = originals.load("resizes")[f"{name}/{image}/{SIDE}"]
    got = resize.get(name)(given, SIDE)
    assert got.dtype == np.float32
    assert got.shape == (SIDE, SIDE, 3)
    np.testing.assert_allclose(got, expected, atol=1e-3)  # of 255


@pytest.mark.parametrize("shape", [(40, 31), (11, 13), (29, 64), (200, 29)])
def test_clean_is_the_antialiased_bicubic_not_rounded(shape):
    given = originals.images(*shape, 1)[0]
    got = resize.get("clean")(given, SIDE)
    np.testing.assert_allclose(got, antialiased(given, SIDE), atol=2e-4)
    assert np.abs(got - np.rint(got)).max() > 0.3
    assert got.min() >= 0
    assert got.max() <= 255
    rounded = resize.get("clean_bytes")(given, SIDE)
    assert rms(rounded, got) < 1
    np.testing.assert_array_equal(rounded, np.rint(rounded))


@pytest.mark.parametrize("name", ["legacy_tf", "legacy_pytorch"])
def test_the_bilinear_ones_by_their_definition(name):
    given = originals.images(7, 12, 1)[0].astype(float)
    got = resize.get(name)(given.astype(np.uint8), 5)
    half = 0.5 if name == "legacy_pytorch" else 0
    for i in range(5):
        for j in range(5):
            y, x = ((t + half) * n / 5 - half for t, n in ((i, 7), (j, 12)))
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, 6), min(x0 + 1, 11)
            top = given[y0, x0] + (given[y0, x1] - given[y0, x0]) * (x - x0)
            bottom = given[y1, x0] + (given[y1, x1] - given[y1, x0]) * (x - x0)
            np.testing.assert_allclose(got[i, j], top + (bottom - top) * (y - y0), atol=1e-3)


@pytest.mark.parametrize("name", RESIZES)
def test_an_image_of_the_size_is_left_as_it_is(name):
    given = originals.images(SIDE, SIDE, 1)[0]
    np.testing.assert_array_equal(resize.get(name)(given, SIDE), given)


def test_constant_images_stay_constant():
    given = np.full((50, 20, 3), 200, np.uint8)
    for name in RESIZES:
        np.testing.assert_allclose(resize.get(name)(given, SIDE), 200, atol=1e-4)


# Levels of 255 (root mean square) from "clean", on a picture brought to 299.
@pytest.mark.parametrize(
    ("side", "levels"),
    [
        (1024, {"clean_bytes": 0.32, "legacy_tf": 20.2, "legacy_pytorch": 14.7}),
        (512, {"clean_bytes": 0.35, "legacy_tf": 12.0, "legacy_pytorch": 8.9}),
        (256, {"clean_bytes": 0.39, "legacy_tf": 6.1, "legacy_pytorch": 4.9}),
        (32, {"clean_bytes": 0.40, "legacy_tf": 22.2, "legacy_pytorch": 5.4}),
    ],
)
def test_the_resizes_differ_by_this_much(side, levels):
    given = photograph(side)
    clean = resize.get("clean")(given, 299)
    found = {name: rms(resize.get(name)(given, 299), clean) for name in levels}
    assert found == pytest.approx(levels, rel=0.05)


def test_the_legacy_ones_fold_fine_stripes_into_false_ones_and_clean_does_not():
    stripes = np.zeros((598, 598, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than 299 pixels can show: it is grey
    assert rms(resize.get("clean")(stripes, 299), np.float64(127.5)) < 8
    assert resize.get("legacy_tf")(stripes, 299).min() == 255  # white
    odd = resize.get("legacy_pytorch")(stripes[:, :597], 299)
    assert rms(odd, np.float64(127.5)) > 30


def test_the_legacy_of_tensorflow_shifts_the_picture():
    ramp = np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], 32, axis=0)
    ramp = np.repeat(ramp, 3, axis=2)
    inner = slice(40, -40)
    shift = resize.get("legacy_tf")(ramp, 299) - resize.get("legacy_pytorch")(ramp, 299)
    # Half a source pixel less half a target pixel, at 8 levels a source pixel.
    np.testing.assert_allclose(shift[inner, inner], 8 * (0.5 - 0.5 * 32 / 299), atol=1e-3)


def test_an_unknown_resize():
    with pytest.raises(ConfigError, match="unknown resize 'tf'"):
        resize.get("tf")
