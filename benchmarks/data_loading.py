#!/usr/bin/env python3
"""Images a second, and relative to plain Pillow: from class folders, and from prepared shards.

python benchmarks/data_loading.py [--resolution 128] [--images 512] [--rounds 3]

The images are scikit-learn's two sample photographs at ImageNet's usual 500 × 375, saved as
JPEG. All ways take turns in one run, the best round of each counts;
"a core" is images a second of processor time, in all threads and processes:

  plain       one after another in one thread: decode, centre square, resize, as the original does
  prpr 1      `prpr.data.FileDataset`, one thread
  prpr all    `prpr.data.Loader` over it, a thread a core
  prepared    the same over shards of scripts/prepare_data
  torch       PyTorch's DataLoader over Pillow, a process a core, if it is installed
"""

import argparse
import importlib.util
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prpr import data
from prpr.data import shards
from prpr.data.dataset import cores

BATCH = 64


def photographs(folder: Path, count: int) -> None:
    """`count` JPEG files of 500 × 375 in two class folders."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    for label, photograph in enumerate(load_sample_images().images):
        whole = Image.fromarray(photograph)
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(count // 2):
            left, top = (int(x) for x in rng.integers(0, 40, 2))
            crop = whole.crop((left, top, left + 600, top + 387))
            small = crop.resize((500, 375), Image.Resampling.LANCZOS)
            small.save(folder / f"class{label}" / f"{i:05d}.jpg", quality=92)


def pixels(path: Path, r: int) -> np.ndarray:
    """Pillow alone, as torchvision's transforms call it: (r, r, 3) uint8."""
    image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((r, r), Image.Resampling.BILINEAR))


def plain(folder: Path, r: int) -> Callable[[], int]:
    paths = sorted(folder.glob("*/*.jpg"))
    return lambda: len([pixels(path, r) for path in paths])


def ours(name: str, path: Path, r: int, workers: int) -> Callable[[], int]:
    """An epoch of this library's batches, prepared ahead where there are several threads."""
    options = data.Options(path=str(path), resolution=r, workers=workers)
    dataset = data.load(name, "train+valid+test", options=options)
    batches = data.Batches(dataset, BATCH, flip=True)

    def run() -> int:
        steps = dataset.size // BATCH
        with data.Loader(batches.batch, range(steps), prefetch=2 * (workers > 1)) as loader:
            return sum(len(batch["label"]) for _, batch in loader)

    return run


class Files:
    """A data set for PyTorch, with what torchvision's transforms compute at each image."""

    def __init__(self, folder: Path, r: int):
        self._paths, self._r = sorted(folder.glob("*/*.jpg")), r

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        import torch

        image = torch.from_numpy(pixels(self._paths[row], self._r).transpose(2, 0, 1).copy())
        if torch.rand(1) < 0.5:
            image = image.flip(-1)
        return image.float().div(127.5).sub(1), int(self._paths[row].parent.name[-1])


def pytorch(folder: Path, r: int) -> Callable[[], int]:
    """PyTorch's loader over the same files."""
    from torch.utils.data import DataLoader

    files: Any = Files(folder, r)
    loader = DataLoader(
        files,
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=cores(),
        multiprocessing_context="fork",  # anew in each round, so that their time is counted
    )
    return lambda: sum(len(labels) for _, labels in loader)


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    r = arguments.resolution
    with tempfile.TemporaryDirectory() as root:
        folder, out = Path(root) / "photographs", Path(root) / "prepared"
        photographs(folder, arguments.images)
        whole = data.pool("folder", data.Options(path=str(folder), resolution=r))["all"]()
        shards.write(whole, out / "all", {"dataset": "folder", "split": "all", "resolution": r})
        ways = {
            "plain": plain(folder, r),
            "prpr 1": ours("folder", folder, r, 1),
            "prpr all": ours("folder", folder, r, cores()),
            "prepared": ours("prepared", out, r, cores()),
        }
        if importlib.util.find_spec("torch"):
            ways["torch"] = pytorch(folder, r)
        best = dict.fromkeys(ways, 0.0)
        lean = dict.fromkeys(ways, 0.0)
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                began, used = time.perf_counter(), processor_seconds()
                count = way()
                best[name] = max(best[name], count / (time.perf_counter() - began))
                lean[name] = max(lean[name], count / (processor_seconds() - used))
    print(f"{arguments.images} JPEG files of 500 × 375 to {r} × {r}, {cores()} cores")
    print(f"{'':10} {'images/s':>9} {'to plain':>9} {'a core':>9} {'to plain':>9}")
    for name in ways:
        print(
            f"{name:10} {best[name]:9.0f} {best[name] / best['plain']:9.2f} "
            f"{lean[name]:9.0f} {lean[name] / lean['plain']:9.2f}"
        )


if __name__ == "__main__":
    main()
