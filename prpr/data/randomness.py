"""Random choices as ranks and bits of Philox words, keyed by (seed, purpose, epoch).

NumPy promises that stream for all versions, so a split is the same everywhere and for ever.
"""

import numpy as np

# Purposes of randomness, which must not share a stream.
SPLIT, SHUFFLE, SAMPLE, AUGMENT = range(4)


def philox(seed: int, *purpose: int) -> np.random.Philox:
    """The stream of a purpose; any integer is a seed."""
    # A SeedSequence wants no number below 0.
    return np.random.Philox(np.random.SeedSequence(seed % 2**64, spawn_key=purpose))


def permutation(n: int, seed: int, *purpose: int) -> np.ndarray:
    """A permutation of 0 to n − 1, (n,) int64: the rank order of n words."""
    return np.argsort(philox(seed, *purpose).random_raw(n), kind="stable")
