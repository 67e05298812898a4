"""What all end-to-end tests use: commands in processes of their own, one compile cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # pytest's workers share what is compiled
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache-jax"),
        "PRPR_CACHE": str(folder / "cache-prpr"),
        # Compiling is most of these commands' time, and they train for a few steps only.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes",
    }


@pytest.fixture(scope="session")
def begin(environment):
    """Starts a command: its process, with output and errors in pipes."""

    def run(script, *options, **kwargs):
        return subprocess.Popen(
            [sys.executable, script, *options],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **kwargs,
        )

    return run


@pytest.fixture(scope="session")
def call(begin):
    """Runs a command to its end: (exit code, output, errors)."""

    def run(script, *options, **kwargs):
        process = begin(script, *options, **kwargs)
        try:
            out, err = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return process.returncode, out, err

    return run
