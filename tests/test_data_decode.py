"""Encoded images -> pixels, against Pillow used step by step as the original does."""

import io

import numpy as np
import pytest
from PIL import Image

from prpr.data import decode
from prpr.data.decode import Decoder


def _noise(height, width, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    pixels = {"L": pixels[..., 0], "RGB": pixels[..., :3]}.get(mode, pixels)
    return Image.fromarray(pixels, mode if mode == "CMYK" else None)


def _encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _plainly(encoded, r, left=None, top=None):
    """CenterCropLongEdge, then Resize: the offsets are those of torchvision's center_crop."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    side = min(image.size)
    left = int(round((image.width - side) / 2.0)) if left is None else left  # noqa: RUF046
    top = int(round((image.height - side) / 2.0)) if top is None else top  # noqa: RUF046
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((r, r), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", [(37, 50), (50, 37), (36, 41), (40, 40), (12, 9), (9, 12)])
@pytest.mark.parametrize("r", [8, 16, 40])
def test_centre_square_then_resize(size, r):
    encoded = _encoded(_noise(*size))
    got = Decoder(r)(encoded)
    assert got.shape == (r, r, 3)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, _plainly(encoded, r))


def test_random_crop_slides_along_the_long_edge():
    wide, tall = _encoded(_noise(20, 31)), _encoded(_noise(31, 20))
    for crop, offset in [(0.0, 0), (0.999, 11), (0.5, 6)]:
        np.testing.assert_array_equal(Decoder(16)(wide, crop), _plainly(wide, 16, offset, 0))
        np.testing.assert_array_equal(Decoder(16)(tall, crop), _plainly(tall, 16, 0, offset))


def _photographs(size):
    from sklearn.datasets import load_sample_images

    for pixels in load_sample_images().images:
        photograph = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
        yield _encoded(photograph, "JPEG", quality=95)


@pytest.mark.parametrize(
    ("size", "r", "scale"), [((500, 375), 64, 2), ((333, 500), 32, 4), ((640, 427), 24, 8)]
)
def test_scaled_decode_is_close_to_the_full_one(size, r, scale):
    for encoded in _photographs(size):
        with Image.open(io.BytesIO(encoded)) as image:
            assert Decoder(r)._draft(image) == scale
        wide, long = size[0] > size[1], max(size) - min(size)
        # The square is where it should be: moved by one pixel of the photograph's scaled decode
        # it would be off by several levels.
        for crop, offset in [(None, None), (0.0, 0), (0.9999, long)]:
            place = (offset, 0) if wide else (0, offset)
            plain = _plainly(encoded, r, *(place if crop is not None else (None, None)))
            far = np.abs(Decoder(r)(encoded, crop).astype(int) - plain)
            assert far.mean() < (0.5 if scale == 2 else 1.0)
            assert np.percentile(far, 99) <= 6


def test_imagenet_at_128_is_exact():
    # At 500 × 375 a half-size decode would leave less than GAP·128 pixels.
    for encoded in _photographs((500, 375)):
        np.testing.assert_array_equal(Decoder(128)(encoded), _plainly(encoded, 128))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("RGB", "BMP")],
)
def test_every_mode_becomes_rgb_or_grey(mode, kind):
    encoded = _encoded(_noise(20, 20, mode), kind)
    decoded = Image.open(io.BytesIO(encoded))
    np.testing.assert_array_equal(Decoder(0)(encoded), np.asarray(decoded.convert("RGB")))
    np.testing.assert_array_equal(Decoder(0, 1)(encoded)[..., 0], np.asarray(decoded.convert("L")))


def test_palette_with_transparency():
    image = _noise(20, 20).convert("P")
    encoded = _encoded(image, transparency=bytes(range(256)))
    got = Decoder(0)(encoded)  # Pillow warns about a direct conversion, and warnings are errors
    np.testing.assert_array_equal(got, np.asarray(image.convert("RGB")))


def test_digits_are_padded_not_enlarged():
    encoded = _encoded(_noise(28, 28, "L"))
    got = Decoder(32, 1, pad=True)(encoded)
    whole = np.asarray(Image.open(io.BytesIO(encoded)))
    np.testing.assert_array_equal(got[2:30, 2:30, 0], whole)
    assert got.sum() == whole.sum()
    assert Decoder(14, 1, pad=True)(encoded).shape == (14, 14, 1)
    assert Decoder(32, 1)(encoded)[:2].any()


def test_cut_off_files_are_errors():
    encoded = _encoded(_noise(40, 40), "JPEG")
    for damaged in (encoded[: len(encoded) // 2], b"", b"not an image", encoded[200:]):
        with pytest.raises((OSError, SyntaxError)):
            Decoder(16)(damaged)


def test_size_from_the_header():
    assert decode.size_of(_encoded(_noise(20, 31))) == (31, 20)
