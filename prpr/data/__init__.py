"""Data sets, their splits, and batches that depend on (seed, step) alone.

Notation
  images  (N, H, W, C): float32 in [−1, 1] in memory, uint8 x on its way from a file, which
          stands for x/127.5 − 1
  points  (N, D) float32 in their own units
  labels  (N,) int32 in [0, num_classes)
  p       density of a synthetic mixture, Σ_c w_c N(x; m_c, s² I)

`load` gives a `Dataset` (in memory) or a `FileDataset` (on disk, decoded as it is read). Both
have size, shape (of one item), num_classes, name, read(rows) and take(rows), so that `Batches`
and everything above it need not know which one they hold.
"""

from prpr.data.batches import Batches, balanced_rows
from prpr.data.dataset import AnyDataset, Dataset, FileDataset, check_images, identity
from prpr.data.loader import Loader
from prpr.data.made_up import miniature
from prpr.data.planar import LAWS, law
from prpr.data.sources import FILES, SOURCES, Options, check_options, load, pool
from prpr.data.splits import FRACTIONS, SPLITS, check_fractions, split_indices
from prpr.data.synthetic import MIXTURES, POINTS, Mixture, mixture

__all__ = [
    "FILES",
    "FRACTIONS",
    "LAWS",
    "MIXTURES",
    "POINTS",
    "SOURCES",
    "SPLITS",
    "AnyDataset",
    "Batches",
    "Dataset",
    "FileDataset",
    "Loader",
    "Mixture",
    "Options",
    "balanced_rows",
    "check_fractions",
    "check_images",
    "check_options",
    "identity",
    "law",
    "load",
    "miniature",
    "mixture",
    "pool",
    "split_indices",
]
