"""Strict JAX for every test: silent rank or dtype promotion is an error."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Made-up data sets and indices go to a folder of the session, not to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRPR_CACHE", str(tmp_path_factory.mktemp("prpr-cache")))
        yield
