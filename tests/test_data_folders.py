"""Image folders, and images that cannot be read."""

import shutil

import numpy as np
import pytest
from data_tools import load
from PIL import Image

from prpr import data, errors

# --- folders ---------------------------------------------------------------------------


def test_a_flat_folder_is_one_class_cut_by_fractions(copies):
    flat = copies("folder", 1)
    sizes = [load(flat, "folder", split).size for split in data.SPLITS]
    assert sizes == [80, 32, 48]
    assert load(flat, "folder").num_classes == 1
    with pytest.raises(errors.DataError, match="split 'test' of 'folder' is empty"):
        data.load("folder", "test", 0, (0.5, 0.5, 0.0), options=data.Options(str(flat), 16))


def test_classes_without_splits_are_stratified(copies):
    folder = copies("folder") / "train"
    for split, share in zip(data.SPLITS, data.FRACTIONS, strict=True):
        got = load(folder, "folder", split)
        counts = np.bincount(got.read(range(got.size))["label"], minlength=4)
        np.testing.assert_allclose(counts, 40 * share, atol=1)


def test_a_lone_train_is_a_split_and_not_a_class(own):
    folder = own("folder")
    shutil.rmtree(folder / "val")
    inside = load(folder, "folder", "train+valid+test")
    assert inside.num_classes == 4
    assert inside.size == load(folder / "train", "folder", "train+valid+test").size
    # Beside another folder it is a class like that one: planes, trains.
    shutil.copytree(folder / "train" / "class0000", folder / "plane")
    assert tuple(load(folder, "folder", "train+valid+test").class_names) == ("plane", "train")


def test_one_class_whatever_the_subfolders(copies):
    # FFHQ keeps its images in a folder a thousand.
    got = load(copies("folder") / "train", "folder", "train+valid+test", classes=1)
    assert (got.size, got.num_classes) == (160, 1)
    got = load(copies("folder"), "folder", "train+valid+test", classes=1)
    assert (got.size, got.num_classes) == (208, 1)


def test_three_folders_are_the_three_parts(own):
    folder = own("folder")
    shutil.copytree(folder / "val", folder / "test")
    (next((folder / "test").glob("*/*.jpg"))).unlink()
    assert [load(folder, "folder", s).size for s in data.SPLITS] == [160, 48, 47]


def test_bad_folders(own, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(errors.DataError, match=r"no image in .*empty.*\.jpg"):
        load(empty, "folder")
    folder = own("folder")
    shutil.rmtree(folder / "val" / "class0001")
    got = load(folder, "folder", "test")  # held-out labels are those of the training classes
    assert set(got.read(range(got.size))["label"]) == {0, 2, 3}
    assert got.num_classes == 4
    (folder / "val" / "zebra").mkdir()
    with pytest.raises(errors.DataError, match="class folders zebra that the training split does"):
        load(folder, "folder", "test")
    (folder / "train" / "zebra").mkdir()
    with pytest.raises(errors.DataError, match=r"1 class folders .* no image, such as 'zebra'"):
        load(folder, "folder")


def test_one_image_of_another_size_ends_the_run(tmp_path):
    # Sizes are taken from some headers at first; a later surprise is not a corrupt image.
    seen = {int(row) for row in np.linspace(0, 99, 64)}
    odd = next(row for row in range(100) if row not in seen)
    for row in range(100):
        side = 5 if row == odd else 4
        Image.new("RGB", (side, side)).save(tmp_path / f"{row:03d}.png")
    got = load(tmp_path, "folder", "train+valid+test", resolution=0)
    assert got.shape == (4, 4, 3)
    with pytest.raises(errors.ConfigError, match=rf"4 × 4 \(others\), 5 × 5 .*{odd:03d}\.png"):
        got.read(range(100))
    assert not got.corrupt


# --- corrupt images --------------------------------------------------------------------


def _damage(folder, count):
    paths = sorted((folder / "train").glob("*/*.jpg"))
    for path in paths[5 : 5 + count]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return paths[5 : 5 + count]


@pytest.mark.parametrize("workers", [1, 4])
def test_corrupt_images_are_named_counted_and_replaced(own, capsys, workers):
    folder = own("folder")
    clean = load(folder, "folder", "train+valid", max_corrupt=2)
    at = np.argsort(clean.rows)[:9]  # the rows of the first nine files
    want = clean.read(at)
    damaged = _damage(folder, 2)
    got = load(folder, "folder", "train+valid", max_corrupt=2, workers=workers)
    for _ in range(2):  # once noted, they are not tried or counted again
        batch = got.read(np.tile(at, 3))
        np.testing.assert_array_equal(
            np.delete(batch["image"][:9], [5, 6], 0)[:7], want["image"][[0, 1, 2, 3, 4, 7, 8]]
        )
        # The next one that can be read, with its own label.
        for row in (5, 6):
            next_rows = [(at[row] + k) % got.size for k in range(1, 4)]
            after = next(r for r in next_rows if clean.rows[r] not in (5, 6))
            np.testing.assert_array_equal(batch["image"][row], got.read([after])["image"][0])
            assert batch["label"][row] == got.read([after])["label"][0]
    assert len(got.corrupt) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for path in damaged:
        assert sum(str(path) in line for line in lines) == 1
        assert any(str(path) in text and "truncated" in text for text in got.corrupt)


@pytest.mark.parametrize("workers", [1, 4])
def test_too_many_corrupt_images(own, workers):
    folder = own("folder")
    damaged = _damage(folder, 3)
    got = load(folder, "folder", "train+valid", max_corrupt=2, workers=workers)
    with pytest.raises(errors.DataError, match="3 images of 'folder' cannot be read") as caught:
        got.read(range(got.size))
    assert all(str(path) in str(caught.value) for path in damaged)
    strict = load(folder, "folder", "train+valid", max_corrupt=0)
    with pytest.raises(errors.DataError, match=r"1 images .* max_corrupt=0 allows no more"):
        strict.read(np.argsort(strict.rows)[5:6])


def test_unreadable_files_and_records(own, copies):
    folder = own("folder", 1)
    path = sorted(folder.glob("*.jpg"))[0]
    path.unlink()
    path.symlink_to(folder / "gone.jpg")
    got = load(folder, "folder", "train+valid+test", max_corrupt=1)
    got.read(range(got.size))
    assert "FileNotFoundError" in got.corrupt[0]
    for path in folder.glob("*.jpg"):
        path.unlink()
        path.write_bytes(b"nothing")
    got = load(folder, "folder", "train+valid+test", max_corrupt=1000)
    with pytest.raises(errors.DataError, match="no image of 'folder' can be read"):
        got.read([0])
    with pytest.raises(errors.DataError, match="no image can be read, such as"):
        load(folder, "folder", resolution=0)
    # A label that a data set does not have, such as the −1 of ImageNet's test split.
    mnist = load(copies("mnist"), "mnist", "test")
    mnist.items._records.class_names = ("0", "1")
    mnist.read(np.arange(mnist.size)[:3])
    assert any("is outside 0 to 1" in text for text in mnist.corrupt)
