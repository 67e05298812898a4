"""Image folders: one subfolder a class, as torchvision's ImageFolder, or one class."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prpr import errors

EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
    *(".JPG", ".JPEG", ".PNG"),
)


class FolderRecords:
    """The images below a folder, in sorted order; see `encoded.Records`.

    Args:
      folder: its subfolders are the classes, sorted by name; images directly in it, or
        `one_class`, make it one class, with everything below.
      class_names: the classes of the training split, for a held-out one.
      one_class: subfolders are not classes (FFHQ's thousands).

    Raises:
      DataError: no image in it or in one of its classes, or a class that training has not.
    """

    def __init__(
        self, folder: Path, class_names: Sequence[str] | None = None, one_class: bool = False
    ):
        self._folder = folder
        entries = list(os.scandir(folder))
        found = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        loose = any(e.name.endswith(EXTENSIONS) for e in entries)
        if one_class or not found or loose:
            self._paths = _images(folder, ".")
            self.class_names: Sequence[str] = ("all",)
            self.labels = np.zeros(len(self._paths), np.int32)
        else:
            self.class_names = found if class_names is None else class_names
            unknown = sorted(set(found) - set(self.class_names))
            if unknown:
                raise errors.DataError(
                    f"{folder} has the class folders {', '.join(unknown[:5])} that the training "
                    "split does not have: give both the same classes"
                )
            each = {name: _images(folder, name) for name in found}
            empty = [name for name, paths in each.items() if not paths]
            if empty:
                raise errors.DataError(
                    f"{len(empty)} class folders of {folder} hold no image, such as {empty[0]!r}: "
                    f"remove them, or add images ({', '.join(EXTENSIONS[:9])})"
                )
            self._paths = [path for paths in each.values() for path in paths]
            index = {name: i for i, name in enumerate(self.class_names)}
            counts = [len(paths) for paths in each.values()]
            self.labels = np.repeat(np.array([index[name] for name in each], np.int32), counts)
        if not self._paths:
            raise errors.DataError(
                f"no image in {folder}: looked for {', '.join(EXTENSIONS[:9])} there and below; "
                "mend the path (data.path)"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def place(self, row: int) -> str:
        return str(self._folder / self._paths[row])

    def record(self, row: int) -> tuple[bytes, int]:
        with open(self._folder / self._paths[row], "rb") as file:
            return file.read(), int(self.labels[row])


def _images(folder: Path, name: str) -> list[str]:
    """Paths of the images below folder/name, relative to folder, in ImageFolder's order."""
    found = []
    for root, _, files in sorted(os.walk(folder / name, followlinks=True)):
        inside = os.path.relpath(root, folder)
        found += [os.path.join(inside, f) for f in sorted(files) if f.endswith(EXTENSIONS)]
    return found
