"""Checkpoints: whole or not at all, bit for bit, and never into the wrong model.

This package is the one place that knows Orbax. On disk, below a `directory` on a POSIX file
system:

    step_00000010/           one whole checkpoint
        prpr.json            `meta`, the score, the table of leaves, and the checksums
        state/               Orbax's files (OCDBT, zarr3)
    step_00000010.replaced/  its predecessor, while step 10 is being written a second time
    tmp.*                    what an interrupted save or deletion left; the next save removes it

A state is any pytree of arrays. It is stored flat, leaf by leaf, under names such as
"generator/params/Dense_0/kernel", so only names, shapes and dtypes have to agree, not the
Python classes. An array that is replicated over devices or processes is stored once, so the
files do not depend on how many of either there were. prpr.json holds the caller's `meta`, the
score if one was given, shape and dtype of every leaf, and size and checksum of every file.

`save` returns when the checkpoint is on disk; a `Saver` returns at once and writes in a thread.
Either way process 0 alone writes, without waiting for the other processes, and every process
can read by itself.

Why, measured with Orbax 0.12.8: it restores a flipped bit in an array without a word, casts
to another dtype without a word, cannot store arrays without elements, and a file that is
truncated makes it fail with lines on standard error from its other threads. So `restore`
first compares the leaves with the model, then checks the files, and only then calls Orbax.
"""

from prpr.checkpoint.files import best, latest, read_meta
from prpr.checkpoint.reader import restore
from prpr.checkpoint.writer import Saver, save

__all__ = ["Saver", "best", "latest", "read_meta", "restore", "save"]
