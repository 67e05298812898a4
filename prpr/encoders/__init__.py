"""Encoders: what turns images into the features that a metric measures.

    encoder = encoders.load("inception")                    # a network, from converted weights
    encoder = encoders.load("my.py:embed")                  # a function of the user's
    encoder = encoders.fit("pca", train.images, train.labels)
    features = encoder.encode(images)                       # (N, D) float32

Notation: images (N, H, W, C), bytes; features (N, D) float32.

An encoder's name belongs in every table, because numbers under two encoders, two files of weights
or two ways of resizing cannot be compared. Importing this package imports neither JAX nor sklearn.
"""

from prpr.encoders.base import Encoded, Encoder
from prpr.encoders.networks import NETWORKS, load
from prpr.encoders.resize import RESIZES
from prpr.encoders.small import ENCODERS, HIDDEN, fit, get

__all__ = [
    "ENCODERS",
    "HIDDEN",
    "NETWORKS",
    "RESIZES",
    "Encoded",
    "Encoder",
    "fit",
    "get",
    "load",
]
