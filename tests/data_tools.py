"""What the tests of data sets on disk share."""

from typing import Any

from prpr import data


def load(path: Any, name: str, split: str = "train", **options: Any) -> data.Dataset:
    """A split at 16x16, two workers."""
    options = {"resolution": 16, "workers": 2, **options}
    return data.load(name, split, options=data.Options(path=str(path), **options))
