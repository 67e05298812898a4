"""What is read: every kind of file, and what is refused, by name and with the mend."""

import io
import pickle
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from prpr import data, evaluate
from prpr.data.decode import Decoder
from prpr.encoders import Encoded, Encoder
from prpr.errors import ConfigError, DataError
from prpr.evaluate import arrays, images, inputs, pixels
from prpr.evaluate.encode import encode
from prpr.evaluate.notes import Notes


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decode(data):
    """(pixels, warnings) of encoded bytes."""
    notes = Notes("set")
    return pixels.decode(data, "dir/a.png", notes), notes.lines()


def write(folder, count, rng, size=(8, 8), suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        x = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(x).save(folder / f"{i:03d}{suffix}")
    return folder


def refused(given, kind=DataError, **settings):
    with pytest.raises(kind) as caught:
        evaluate.evaluate(given, given, ("precision",), encoder="pixels", **settings)
    return str(caught.value)


# ---- pixels -----------------------------------------------------------------------------------


def test_rgb_grey_bilevel_and_palette_are_read_without_loss(rng):
    x = rng.integers(0, 256, (5, 7, 3), np.uint8)
    assert (decode(encoded(Image.fromarray(x)))[0] == x).all()
    grey = x[..., 0]
    for image, expected in (
        (Image.fromarray(grey), grey),
        (Image.fromarray(grey > 99), 255 * (grey > 99)),
        (Image.fromarray(grey // 16).convert("P"), grey // 16),
    ):
        found, said = decode(encoded(image))
        assert found.shape == (5, 7, 3)
        assert (found == expected[..., None]).all()
        assert not said


def test_transparent_pixels_are_laid_over_white_and_counted(rng):
    x = rng.integers(0, 256, (4, 4, 4), np.uint8)
    x[0, 0], x[0, 1], x[0, 2] = (10, 20, 30, 0), (10, 20, 30, 255), (0, 100, 255, 51)
    found, said = decode(encoded(Image.fromarray(x, "RGBA")))
    assert found[0, 0].tolist() == [255, 255, 255]  # not the colour below: [10, 20, 30]
    assert found[0, 1].tolist() == [10, 20, 30]
    assert found[0, 2].tolist() == [204, 224, 255]  # 255 − 0.2 (255 − c)
    assert said == ["set: images with transparent pixels, laid over white: 1, such as dir/a.png"]
    assert np.abs(pixels.over_white(x).astype(int) - found).max() <= 1
    x[..., 3] = 255
    assert not decode(encoded(Image.fromarray(x, "RGBA")))[1]
    palette = Image.fromarray(x[..., 0] // 128, "P")
    palette.putpalette([9, 9, 9, 200, 0, 0])
    found, said = decode(encoded(palette, transparency=0))
    assert {tuple(p) for p in found.reshape(-1, 3).tolist()} <= {(255, 255, 255), (200, 0, 0)}
    assert "transparent" in said[0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    x = np.array([[0, 128, 257, 300], [32768, 65000, 65278, 65535]], np.uint16)
    found, said = decode(encoded(Image.fromarray(x), kind))
    assert found[..., 1].tolist() == [[0, 0, 1, 1], [128, 253, 254, 255]]
    assert "16 bits" in said[0]


def sixteen_bits(x, colour):
    """A PNG of (H, W, C) uint16, which Pillow does not write; colour 2: RGB, 4: LA, 6: RGBA."""

    def chunk(kind, held):
        crc = struct.pack(">I", zlib.crc32(kind + held))
        return struct.pack(">I", len(held)) + kind + held + crc

    head = struct.pack(">IIBBBBB", x.shape[1], x.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in x)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_that_pillow_cuts_are_counted(colour, channels):
    x = np.full((2, 2, channels), 0x12FF, np.uint16)
    x[..., 3 if channels == 4 else 1 if channels == 2 else 3 :] = 65535  # opaque
    found, said = decode(sixteen_bits(x, colour))
    assert (found == 0x12).all()
    assert said == [
        "set: images of 16 bits a channel, of which Pillow keeps the upper 8: 1, such as dir/a.png"
    ]


def test_an_orientation_is_counted_and_premultiplied_grey_is_read(rng):
    x = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    for value, counted in ((1, 0), (6, 1)):
        exif = Image.Exif()
        exif[0x0112] = value
        found, said = decode(encoded(x, "JPEG", exif=exif))
        assert found.shape == (5, 7, 3)
        assert len(said) == counted
        assert all("orientation in EXIF, which was not applied" in line for line in said)
    notes = Notes("set")
    grey = Image.merge("LA", (Image.new("L", (2, 2), 90), Image.new("L", (2, 2), 0)))
    assert (pixels.rgb(grey.convert("La"), "x", notes) == 255).all()
    assert "transparent" in notes.lines()[0]


def test_unknown_ranges_are_refused():
    for image in (
        Image.fromarray(np.array([[0.0, 0.5]], np.float32)),
        Image.fromarray(np.array([[0, 70000]], np.int32)),
    ):
        with pytest.raises(DataError, match=r"dir/a\.png .* convert it to 8 bits"):
            decode(encoded(image, "TIFF"))


def test_cmyk_is_converted_and_counted(rng):
    x = np.full((8, 8, 4), 0, np.uint8)
    x[..., 0] = 255  # cyan
    found, said = decode(encoded(Image.fromarray(x, "CMYK"), "TIFF"))
    assert (found == [0, 255, 255]).all()
    assert "CMYK" in said[0]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken_and_counted(kind):
    frames = [Image.new("RGB", (6, 6), color) for color in ("red", "blue", "green")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **_lossless(kind))
    found, said = decode(data)
    assert (found == [255, 0, 0]).all()
    assert "files of several frames" in said[0]


def _lossless(kind):
    return {"lossless": True} if kind == "WEBP" else {}


def test_corrupt_images_are_named(rng):
    data = encoded(Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)))
    for bad in (data[: len(data) // 2], b"", b"not an image", data[:40]):
        with pytest.raises(DataError, match=r"dir/a\.png .*make it again, or remove it"):
            decode(bad)


# ---- folders ----------------------------------------------------------------------------------


def test_a_folder_is_read_in_order_with_its_classes(tmp_path, rng):
    write(tmp_path / "b", 3, rng)
    write(tmp_path / "a" / "deep", 2, rng)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "b" / "Thumbs.db").write_text("no image")
    found = inputs.open_input(tmp_path, "real")
    assert found.images is not None
    assert (found.size, found.images.class_names) == (5, ("a", "b"))
    places = [found.images.place(i).removeprefix(f"{tmp_path}/") for i in range(5)]
    assert places == ["a/deep/000.png", "a/deep/001.png", "b/000.png", "b/001.png", "b/002.png"]
    read = found.images.read(np.array([4, 0]))
    assert [label for _, label in read] == [1, 0]
    assert (read[0][0] == np.asarray(Image.open(tmp_path / "b" / "002.png"))).all()
    assert found.notes.lines() == [
        f"{tmp_path}: 2 files that are no images were left out, such as a/notes.txt"
    ]


def test_images_beside_folders_are_one_class_and_links_are_read_once(tmp_path, rng):
    write(tmp_path, 2, rng)
    write(tmp_path / "more", 2, rng)
    (tmp_path / "again").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "loop").symlink_to(tmp_path)
    found = inputs.open_input(tmp_path, "real")
    assert found.images is not None
    assert (found.size, found.images.class_names) == (4, None)


def test_an_empty_folder_and_no_folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.npz").write_bytes(b"")
    assert "no image in" in refused(tmp_path / "data")
    assert f"did you mean {tmp_path / 'data'}?" in refused(tmp_path / "dats")
    (tmp_path / "list.txt").write_text("a.png")
    assert "neither a folder" in refused(tmp_path / "list.txt")


def test_one_image(tmp_path, rng):
    write(tmp_path / "one", 1, rng)
    message = refused(tmp_path / "one")
    assert str(tmp_path / "one") in message
    assert "gives 1 sample, and precision with k=3 needs at least 5" in message
    assert "is one image" in refused(tmp_path / "one" / "000.png")


def test_mixed_sizes_are_named_unless_the_encoder_resizes(tmp_path, rng):
    write(tmp_path / "x" / "a", 9, rng)
    write(tmp_path / "x" / "b", 1, rng, size=(8, 9))
    message = refused(tmp_path / "x")
    assert "b/000.png is 8 × 9 × 3" in message
    assert "a/000.png is 8 × 8 × 3" in message
    network = evaluate.open_input(tmp_path / "x", "real")
    resizing = Encoder("net", lambda x: x[:4, :4], lambda x: Encoded(x.mean((1, 2))), batch=4)
    assert network.images is not None
    assert encode(network.images, resizing).n == 10


def test_mixed_sizes_are_named_wherever_batches_end(tmp_path, rng):
    """Also where every batch has one size: the last four images are a batch by themselves."""
    write(tmp_path / "x" / "a", 8, rng)
    write(tmp_path / "x" / "b", 4, rng, size=(9, 8))
    mine = Encoder("mine", lambda x: x, lambda x: Encoded(x.mean((1, 2))), batch=4)
    source = evaluate.open_input(tmp_path / "x", "real").images
    assert source is not None
    for batch in (4, 8, 12):
        with pytest.raises(DataError, match=r"b/000\.png is 9 × 8 × 3 .*a/000\.png is 8 × 8 × 3"):
            encode(source, mine, batch=batch)


def test_two_sides_of_different_sizes_are_named(tmp_path, rng):
    real, fake = write(tmp_path / "r", 8, rng), write(tmp_path / "f", 8, rng, size=(4, 4))
    with pytest.raises(DataError, match=r"f/000\.png is 4 × 4 × 3 .*r/000\.png is 8 × 8 × 3"):
        evaluate.evaluate(real, fake, ("precision",), encoder="pixels")


def test_a_corrupt_image_in_a_folder_is_named(tmp_path, rng):
    write(tmp_path / "x", 12, rng)
    path = tmp_path / "x" / "007.png"
    path.write_bytes(path.read_bytes()[:100])
    assert str(path) in refused(tmp_path / "x")


def test_listing_a_large_folder_holds_no_images(tmp_path):
    """Memory of a folder is that of its paths, whatever its images are."""
    count = 5000
    (tmp_path / "a").mkdir()
    first = tmp_path / "a" / "0000000.png"
    Image.new("RGB", (2, 2)).save(first)
    for i in range(1, count):
        (tmp_path / "a" / f"{i:07d}.png").hardlink_to(first)
    images.Folder(tmp_path, Notes("warm"))  # what is imported and cached at the first time
    tracemalloc.start()
    found = images.Folder(tmp_path, Notes("x"))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.size == count
    assert found.place(1234).endswith("a/0001234.png")
    # A path is 13 bytes; with its end and its class 25. While a folder is listed, its names, too.
    assert held < count * 25 * 1.3 + 20_000
    assert peak < count * 150 + 50_000


def test_a_resolution_comes_after_the_rules_of_pixels(tmp_path, rng):
    """Training's decoder alone would clip 16 bits, show the colours of transparent pixels, ..."""
    folder = tmp_path / "x"
    folder.mkdir()
    grey = Image.fromarray(np.full((8, 12), 32896, np.uint16))
    clear = Image.fromarray(np.zeros((8, 12, 4), np.uint8), "RGBA")
    photo = Image.fromarray(rng.integers(0, 256, (64, 80, 3), np.uint8))
    for name, image in (("a.png", grey), ("b.png", clear), ("c.jpg", photo)):
        image.save(folder / name)
    found = inputs.open_input(f"{folder}?resolution=4", "real").images
    assert found is not None
    read = [image for image, _ in found.read(np.arange(3))]
    assert (read[0] == 128).all()
    assert (read[1] == 255).all()
    # A JPEG that needs no rule is decoded as for training, at a part of its size.
    assert (read[2] == Decoder(4)((folder / "c.jpg").read_bytes())).all()
    said = "\n".join(found.notes.lines())
    assert "16 bits" in said
    assert "transparent" in said
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif .*convert it to 8 bits"):
        inputs.open_input(f"{folder}?resolution=4", "real").images.read(np.arange(4))


def test_what_training_skips_is_counted(tmp_path, rng, capsys):
    folder = write(tmp_path / "x", 12, rng)
    (folder / "003.png").write_bytes(b"damaged")
    options = data.Options(path=str(folder), resolution=8, workers=1)
    parts = [data.load("folder", name, options=options) for name in data.SPLITS]
    said = []
    for part in parts:
        source = images.Loaded(part, Notes("run"))
        for _ in range(2):
            source.read(np.arange(part.size))
        said += source.notes.lines()
    assert len(said) == 1
    assert "each replaced by the next: 1, such as" in said[0]
    assert "003.png" in said[0]


# ---- arrays -----------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_in_an_npz_are_mapped_or_read(tmp_path, rng, save):
    x = rng.integers(0, 256, (6, 5, 4, 3), np.uint8)
    path = tmp_path / "x.npz"
    save(path, images=x, labels=np.arange(6), mu=np.zeros(2048), sigma=np.eye(2048))
    found = inputs.open_input(path, "real")
    assert found.images is not None
    assert isinstance(arrays.read(path)["images"], np.memmap) == (save is np.savez)
    read = found.images.read(np.array([5, 2]))
    assert [label for _, label in read] == [5, 2]
    assert (np.stack([image for image, _ in read]) == x[[5, 2]]).all()
    assert found.moments is not None


def test_an_array_with_a_long_local_header_is_mapped(tmp_path, rng):
    """The zip's directory and the member's own header may have extra fields of two lengths."""
    x = rng.integers(0, 256, (3, 4, 4, 1), np.uint8)
    member = io.BytesIO()
    np.save(member, x)
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("arr_0.npy")
        info.extra = struct.pack("<HH8s", 0x9999, 8, b"anything")
        archive.writestr(info, member.getvalue())
    assert (arrays.read(path)["arr_0"] == x).all()


@pytest.mark.parametrize("name", ["images", "arr_0", "samples", "pictures"])
def test_names_of_arrays(tmp_path, rng, name):
    x = rng.integers(0, 256, (6, 5, 7), np.uint8)
    np.savez(tmp_path / "x.npz", **{name: x})
    found = inputs.open_input(tmp_path / "x.npz", "real")
    assert found.images is not None
    assert found.images.read(np.arange(1))[0][0].shape == (5, 7, 1)


def test_float_images_of_a_known_range_are_bytes(rng):
    x = rng.integers(0, 256, (6, 5, 4, 3), np.uint8)
    x.ravel()[:2] = 0, 255
    for given in (x / 255, (x / 127.5 - 1).astype(np.float32)):
        found = inputs.open_input(given, "real")
        assert found.images is not None
        assert (np.stack([p for p, _ in found.images.read(np.arange(6))]) == x).all()
        assert "float images were read as from" in found.notes.lines()[0]


def floats(low, high):
    x = np.linspace(low, high, 9 * 4 * 4 * 3, dtype=np.float32)
    return x.reshape(9, 4, 4, 3)


def test_floats_just_outside_their_range_are_cut_and_said():
    for low, high, black in ((-9e-4, 1.0, 0), (0.0, 1.0009, 0), (-1.0009, 1.0, -1)):
        found = inputs.open_input(floats(low, high), "real")
        assert found.images is not None
        read = np.stack([image for image, _ in found.images.read(np.arange(9))])
        assert (read.min(), read.max()) == (0, 255)
        said = found.notes.lines()
        assert f"read as from {black} (black) to 1" in said[0]
        assert "were cut to that range" in said[1]
    inside = inputs.open_input(floats(0.0, 1.0), "real")
    assert len(inside.notes.lines()) == 1


def test_two_sides_of_two_ranges_are_said():
    both = floats(0.0, 1.0), floats(-1.0, 1.0)
    for real, fake, count in ((*both, 1), (*both[::-1], 1), (both[0], both[0], 0)):
        said = evaluate.evaluate(real, fake, ("precision",), encoder="pixels").warnings
        found = [line for line in said if "if both are of one range" in line]
        assert len(found) == count


@pytest.mark.parametrize(
    ("x", "mend"),
    [
        (floats(-0.4, 1.0), r"known ranges .* these could be of either: make bytes"),
        (floats(-1.1, 1.0), r"from -1\.1 to 1; known ranges are \[0, 1\] and \[-1, 1\]: make"),
        (np.zeros((40, 50, 3), np.uint8), r"is it one image\? .* x\[None\]"),
        (np.zeros((40, 50, 4), np.uint8), "is it one image"),
        (np.zeros((3, 40, 50), np.uint8), "is it one image"),
        (np.zeros((9, 64, 1, 1), np.float32), r"are they features\? .*x\[:, :, 0, 0\]"),
        (np.full((9, 4, 4, 3), 255.0), r"known ranges are \[0, 1\] and \[-1, 1\]: make bytes"),
        (np.full((9, 4, 4, 3), np.nan), "NaN or infinity, first in image 0"),
        (np.full((9, 4, 4, 3), 7, np.int64), "make bytes of them"),
        (np.full((9, 4, 4, 3), 7, np.uint16), "make bytes of them"),
        (np.zeros((9, 3, 4, 5), np.uint8), r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((9, 4, 4, 7), np.uint8), "the last axis is colour"),
        (np.zeros((0, 4, 4, 3), np.uint8), "holds no image"),
        (np.zeros((0, 4)), "hold no sample"),
        (np.zeros((9, 2, 4, 4, 3), np.uint8), r"images \(N, H, W\) or"),
        (np.zeros(9), r"images \(N, H, W\) or"),
        (np.where(np.arange(27).reshape(9, 3) == 13, np.nan, 0.0), "first in row 4"),
        (np.where(np.arange(27).reshape(9, 3) == 13, np.inf, 0.0), "first in row 4"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path, x, mend):
    path = tmp_path / "x.npy"
    np.save(path, x)
    with pytest.raises(DataError, match=mend) as caught:
        evaluate.evaluate(path, path, ("precision",), encoder="pixels")
    assert str(path) in str(caught.value)


def test_pickles_are_not_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    assert "Python objects" in refused(tmp_path / "x.npy")
    (tmp_path / "y.npy").write_bytes(pickle.dumps([1, 2, 3]))
    assert "Python objects" in refused(tmp_path / "y.npy")
    np.savez(tmp_path / "z.npz", images=np.array([[[{}]]], object))
    assert "Python objects" in refused(tmp_path / "z.npz")


def test_truncated_files(tmp_path, rng):
    x = rng.integers(0, 256, (50, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=x)
    np.save(tmp_path / "y.npy", x)
    for path in (tmp_path / "x.npz", tmp_path / "y.npy"):
        path.write_bytes(path.read_bytes()[:-500])
        message = refused(path)
        assert str(path) in message
        assert "damaged or truncated" in message


def test_what_else_an_npz_may_lack(tmp_path, rng):
    np.savez(tmp_path / "x.npz", a=np.zeros((5, 2)), b=np.zeros((5, 2)))
    assert "holds a, b, and none of the names" in refused(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", images=np.zeros((9, 4, 4, 3), np.uint8), labels=np.zeros(8, int))
    assert "must be 9 whole numbers" in refused(tmp_path / "y.npz")


def test_an_empty_archive_with_labels_and_an_about_that_is_a_list(tmp_path, rng):
    empty = {"images": np.zeros((0, 4, 4, 3), np.uint8), "labels": np.zeros(0, int)}
    np.savez(tmp_path / "x.npz", **empty)
    assert "holds no image" in refused(tmp_path / "x.npz")
    about = np.frombuffer(b"[1, 2]", np.uint8)
    np.savez(tmp_path / "y.npz", features=rng.normal(size=(9, 2)), about=about)
    assert "'about' is no JSON object" in refused(tmp_path / "y.npz")


def test_what_is_named_features_has_a_row_a_sample(tmp_path, rng):
    x = rng.normal(size=(20, 4))
    np.savez(tmp_path / "x.npz", features=x[:, :, None, None])
    found = inputs.open_input(tmp_path / "x.npz", "real")
    assert (found.needed.features == x).all()
    np.savez(tmp_path / "y.npz", features=x.reshape(4, 5, 4))
    assert "'features' of" in refused(tmp_path / "y.npz")
    assert "has shape (4, 5, 4): features are (N, D)" in refused(tmp_path / "y.npz")


def test_a_large_compressed_array_is_told(tmp_path, monkeypatch):
    x = np.zeros((6, 5, 4, 3), np.uint8)
    np.savez_compressed(tmp_path / "x.npz", images=x)
    np.savez(tmp_path / "y.npz", images=x)
    assert not inputs.open_input(tmp_path / "x.npz", "real").notes.lines()
    monkeypatch.setattr(arrays, "WHOLE", 100)
    (said,) = inputs.open_input(tmp_path / "x.npz", "real").notes.lines()
    assert "was read into memory whole: stored without compression, np.savez" in said
    assert not inputs.open_input(tmp_path / "y.npz", "real").notes.lines()


def test_labels_are_not_counted_up_to(rng):
    """A label of 10⁹ is one class and not 10⁹ names."""
    labels = np.array([0, 10**9] * 3)
    source = images.Array(np.zeros((6, 4, 4, 3), np.uint8), Notes("x"), labels)
    tracemalloc.start()
    encoder = Encoder("mine", lambda x: x, lambda x: Encoded(x.mean((1, 2))), batch=4)
    found = encode(source, encoder, workers=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6
    assert found.labels is not None
    assert (found.labels == labels).all()
    assert "class_names" not in found.about


def test_truncation_of_what_is_no_run(rng):
    x = rng.normal(size=(9, 2))
    for given in (x, x.tolist(), evaluate.reference(x)):
        with pytest.raises(ConfigError, match="the fake set is no run of prpr: truncation needs"):
            inputs.open_input(given, "fake", truncation=0.5)


def test_features_of_two_widths(tmp_path, rng):
    for name, d in (("a", 4), ("b", 5)):
        np.savez(tmp_path / f"{name}.npz", features=rng.normal(size=(20, d)))
    with pytest.raises(DataError, match=r"b\.npz has features of D=5 and .*a\.npz of D=4"):
        evaluate.evaluate(tmp_path / "a.npz", tmp_path / "b.npz", ("precision",))


def test_queries_that_cannot_be_understood(tmp_path, rng):
    write(tmp_path / "x", 8, rng, size=(12, 8))
    assert "resolution='big'" in refused(f"{tmp_path}/x?resolution=big", ConfigError)
    assert "Did you mean 'resolution'" in refused(f"{tmp_path}/x?resolutoin=4", ConfigError)
    assert "tfds:NAME/SPLIT" in refused("tfds:cifar10", ConfigError)
    found = inputs.open_input(f"{tmp_path}/x?resolution=4", "real")
    assert found.images is not None
    assert found.images.read(np.arange(1))[0][0].shape == (4, 4, 3)


def test_a_tfds_split(copies):
    folder = copies("cifar10")
    found = inputs.open_input(f"tfds:cifar10/test?data_dir={folder}", "real")
    assert found.images is not None
    assert found.images.class_names is not None
    assert len(found.images.class_names) == 10
    assert found.images.read(np.arange(2))[1][0].shape == (32, 32, 3)
    # Small digits are put into zeros, as for training, and not enlarged.
    folder = copies("mnist")
    options = data.Options(path=str(folder), resolution=32)
    trained_on = data.load("mnist", "test", options=options).read(np.arange(2))["image"]
    padded = inputs.open_input(f"tfds:mnist/test?data_dir={folder}&resolution=32", "real")
    assert padded.images is not None
    for (image, _), expected in zip(padded.images.read(np.arange(2)), trained_on, strict=True):
        assert (image == expected).all()
    folder = copies("cifar10")
    with pytest.raises(DataError, match="has no split 'tset'"):
        inputs.open_input(f"tfds:cifar10/tset?data_dir={folder}", "real")
