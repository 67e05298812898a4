"""Strict JAX for every test: silent rank or dtype promotion is an error."""

import gc
import os
import pathlib
import shutil
import socket
import subprocess

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from prpr import data

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_collection_modifyitems(items):
    """The long tests first: of two workers none is to wait for the other's last file."""
    items.sort(key=lambda item: "end_to_end" not in item.path.parts)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Made-up data sets and indices go to a folder of the session, not to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRPR_CACHE", str(tmp_path_factory.mktemp("prpr-cache")))
        yield


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    """Programs that a file has compiled are dropped after it, where there are many.

    XLA maps a dozen pieces of memory for each on a CPU, and Linux gives a process 65,530: a worker
    that kept those of all files ended with a segmentation fault.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 10_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def copies(tmp_path_factory):
    """name -> a miniature of that data set in its real format, for Options; made once."""
    root = tmp_path_factory.mktemp("copies")
    return lambda name, classes=0: data.miniature(name, root, classes)


@pytest.fixture(scope="session")
def small_base(tmp_path_factory):
    """The workdir of a trained base, of the model of recovery_tools.settings; made once."""
    from recovery_tools import settings

    from prpr import config, run

    folder = tmp_path_factory.mktemp("base")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        run.train_base(config.base_of(settings(2.0)), folder)
    return folder


@pytest.fixture
def own(copies, tmp_path):
    """name -> a copy that a test may damage."""

    def take(name, classes=0):
        target = tmp_path / "own"
        shutil.copytree(copies(name, classes), target)
        return target

    return take


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 900 kB."""
    root = tmp_path / "disk"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(root)]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting a tmpfs needs root")
    yield root
    subprocess.run(["umount", str(root)], check=True)


@pytest.fixture(scope="session")
def free_port():
    """() -> a port of loopback that nothing listens on."""

    def find() -> int:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            return found.getsockname()[1]

    return find
