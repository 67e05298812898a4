"""The controlled experiments in the plane: one program for the grid, files, numbers, refusals."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planar_tools import get_config

from prpr import data, parallel, planar, train
from prpr.errors import ConfigError
from prpr.planar import grid, one, truth


@pytest.fixture(scope="module", autouse=True)
def standard():
    # Optax raises a Python float to an int32 power, which is not for strict dtypes.
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    configs = {"gan": get_config("gan_smoke"), "flow": get_config("flow_smoke")}
    return folder, configs, planar.run(configs, ["ring8"], folder, cells=32)


def test_figure_table_and_summary_are_there(done):
    folder, _, result = done
    assert (folder / "ring8/figure.png").read_bytes().startswith(b"\x89PNG")
    held = json.loads((folder / "summary.json").read_text())
    for model in ("gan", "flow"):
        numbers = held["results"]["ring8"][model]
        assert {"spearman_precision", "spearman_recall", "hypervolume_ratio"} <= set(numbers)
        points = numbers["points"]
        assert np.shape(points["precision"]) == (1, 2)
        # The bound is one: above the truth, but for 1 in 20.
        assert np.all(np.array(points["bound"]) > np.array(points["alpha"]) - 0.02)
    text = planar.table(result)
    assert "ring8" in text
    assert "hypervolume" in text


def test_the_same_again_is_read_and_other_settings_are_not(done, monkeypatch):
    folder, configs, result = done

    def fail(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(planar, "train_bases", fail)
    again = planar.run(configs, ["ring8"], folder, cells=32)
    flat = json.loads(json.dumps(again, default=str))
    assert flat["results"]["ring8"].keys() == result["results"]["ring8"].keys()
    other = {key: cfg.copy_and_resolve_references() for key, cfg in configs.items()}
    other["flow"].generator.lr = 1e-5
    with pytest.raises(AssertionError, match="trained again"):
        planar.run(other, ["ring8"], folder, cells=32)


@pytest.mark.parametrize("kind", ["gan_smoke", "flow_smoke"])
def test_a_run_gives_the_same_numbers_alone_as_among_others(kind):
    cfg = get_config(kind)
    points = grid.unconditional(data.load("ring8", "train", 0, cfg.data.fractions))
    bases = grid.train_bases(cfg, points, 1)
    both = grid.train_grid(cfg, points, bases, 1).states
    cfg.lams = cfg.lams[1:]
    alone = grid.train_grid(cfg, points, bases, 1).states
    pairs = zip(jax.tree.leaves(both.ema), jax.tree.leaves(alone.ema), strict=True)
    assert all(np.array_equal(a[:, 1:], b) for a, b in pairs)
    ends = np.asarray(jax.tree.leaves(both.ema.params)[0])
    assert not np.array_equal(ends[:, 0], ends[:, 1])  # λ does act


def test_spread_keeps_order_where_runs_do_not_come_out_even():
    tree = {"x": np.arange(5.0), "y": np.arange(10.0).reshape(5, 2)}
    found = parallel.spread(lambda one: {"x": 2 * one["x"], "y": one["y"] + 1}, 1)(tree)
    np.testing.assert_array_equal(found["x"], 2 * tree["x"])
    np.testing.assert_array_equal(found["y"], tree["y"] + 1)


def test_the_oracle_knows_the_true_ratio(done):
    cfg = get_config("flow_smoke")
    points = grid.unconditional(data.load("ring8", "train", 0, cfg.data.fractions))
    bases = grid.train_bases(cfg, points, 1)
    oracle = grid.train_grid(cfg, points, bases, 1, oracle=True)
    found = truth.measure(oracle, "ring8", tuple(cfg.lams), points.images[:2000], 256)
    # Asked about samples, it gives the model's true α up to the sampling of 10,000 of them.
    np.testing.assert_allclose(found.estimated, found.alpha, atol=0.02)


def test_spearman_of_what_does_not_vary_is_nan():
    found = truth.spearman((1.0, 2.0, 3.0), np.array([[0.1, 0.2, 0.3], [1.0, 1.0, 1.0]]))
    assert found[0] == 1
    assert np.isnan(found[1])


def test_what_cannot_be_compared_is_refused(tmp_path):
    gan, flow = get_config("gan_smoke"), get_config("flow_smoke")
    for configs, names, says in (
        ({"gan": gan, "flow": gan}, ["ring8"], "a flow starts from likelihood"),
        ({"gan": gan, "vae": gan}, ["ring8"], "vae"),
        ({"gan": gan}, ["digits"], "digits"),
        ({}, ["ring8"], "nothing to do"),
    ):
        with pytest.raises(ConfigError, match=says):
            planar.run(configs, names, tmp_path)
    flow.lams = (1.0, 2.0)
    with pytest.raises(ConfigError, match="differ in lams"):
        planar.run({"gan": gan, "flow": flow}, ["ring8"], tmp_path)
    gan.lams = (1.0,)
    with pytest.raises(ConfigError, match="at least two"):
        planar.run({"gan": gan}, ["ring8"], tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["gan", "flow"])
def test_one_model_is_compared_at_equal_compute(tmp_path, key):
    cfg = get_config(f"{key}_smoke")
    found = one.run(key, cfg, ["ring8"], tmp_path, cells=32)["results"]["ring8"]
    assert set(found) == {"separate", "one"}
    assert "hypervolume_over_separate" in found["one"]
    held = json.loads((tmp_path / "summary.json").read_text())["results"]["ring8"]
    assert np.shape(held["one"]["points"]["precision"]) == (1, 2)
    assert (tmp_path / "ring8/figure.png").exists()
    sides = one._sides(cfg, full=True)
    budget = len(cfg.lams) * cfg.train.steps
    assert [side.train.steps for side in sides.values()] == [cfg.train.steps, budget, budget]
    assert [side.dial for side in sides.values()] == [(), (0.2, 5.0), ()]


def test_one_model_turned_to_two_lams_is_two_models():
    """Its λ reach it: training by the dial leaves the rows apart, which start as one."""
    cfg = get_config("gan_smoke")
    cfg.dial, cfg.train.steps, cfg.generator.lr = (0.2, 5.0), 20, 1e-2
    dataset = grid.points_of(cfg, "train")
    bases = grid.train_bases(cfg, dataset, 1)
    found = grid.train_one(cfg, dataset, bases, 1)
    z, net = jnp.ones((4, 2)), found.states.ema
    low, high = (
        train.apply_frozen(
            found.system.generator, grid.take(grid.take(net, 0), i), z, jnp.zeros(4, jnp.int32)
        )
        for i in (0, 1)
    )
    assert np.abs(low - high).max() > 1e-4
    cfg.lams = (5.0,)
    with pytest.raises(ConfigError, match="at least two"):
        one.run("gan", cfg, ["ring8"], "unused")
