"""The routes by which a density learns, on a flow whose gradients are known by hand.

Toy: x = m + e^s z in the plane, p = N(μ, I); so log q, log p and every gradient are closed.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prpr import config, objectives, ratio, train
from prpr.errors import ConfigError
from prpr.models.flows.bijector import Array, Bijector, Mapped
from prpr.models.flows.flow import Flow
from prpr.models.flows.residual import Residual

MU = np.array([0.9, -0.4], np.float32)
DIALS = {"lam": 1.5, "tau": 0.5, "epsilon": 0.1, "width": 1.0}


class Shift(Bijector):
    """z = (x − m) e^−s."""

    def setup(self) -> None:
        self.m = self.param("m", nn.initializers.zeros, (2,), jnp.float32)
        self.s = self.param("s", nn.initializers.zeros, (2,), jnp.float32)

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        del context
        z = (x - self.m[None]) * jnp.exp(-self.s)[None]
        return z, jnp.broadcast_to(-self.s.sum(), (len(x),))

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        del context
        x = self.m[None] + jnp.exp(self.s)[None] * z
        return x, jnp.broadcast_to(self.s.sum(), (len(z),))


class Known(nn.Module):
    """A critic that is told: scale · log p, or with `half` what remains beside the start."""

    scale: float = 1.0
    half: bool = False

    def __call__(self, x: Array, y: Array, *, train: bool) -> Array:
        del y, train
        log_p = -0.5 * jnp.square(x - jnp.asarray(MU)[None]).sum(-1) - math.log(2 * math.pi)
        start = -0.5 * jnp.square(x).sum(-1) - math.log(2 * math.pi)
        return (log_p - start if self.half else log_p) / self.scale


def toy(route: train.Route = "samples", **changes: Any) -> train.System:
    plain = train.System(
        generator=Flow((2,), Shift()),
        critic=Known(),
        critic_loss=ratio.get("logistic"),
        objective=objectives.get("envelope"),
        critic_tx=optax.sgd(1.0),
        generator_tx=optax.sgd(1.0),
        dim_z=2,
        num_classes=1,
        critic_steps=0 if route in ("likelihood", "implicit") else 1,
        ema=0.0,
        route=route,
        exact=route in ("samples", "data", "balanced"),
        reference=route == "implicit",
    )
    return plain._replace(**changes)


def points(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 2)).astype(np.float32) + MU


def batch(x: np.ndarray) -> dict[str, Any]:
    label = np.zeros(len(x), np.int32)
    return {"image": x, "label": label, "index": np.int32(0), "advance": np.int32(0)}


def fresh(system: train.System) -> train.TrainState:
    dials = {name: np.float32(value) for name, value in DIALS.items()}
    return train.init(system, jax.random.key(0), jnp.zeros((2, 2)), dials)


def at(state: train.TrainState, m: Any, s: Any = (0.0, 0.0)) -> train.TrainState:
    params = {"bijector": {"m": jnp.asarray(m, jnp.float32), "s": jnp.asarray(s, jnp.float32)}}
    return state.replace(generator=state.generator.replace(params=params))


def gradient(system: train.System, state: train.TrainState, data: Any) -> np.ndarray:
    """(∂m, ∂s) of the descended loss: SGD at rate 1 moves by minus that."""
    after, _ = train.generator_update(system, state, data)
    before, new = (one.generator.params["bijector"] for one in (state, after))
    return np.concatenate([np.asarray(before[key] - new[key]) for key in ("m", "s")])


def true_ascent(m: np.ndarray, s: np.ndarray) -> np.ndarray:
    """∇ E_q[σ((log r + log λ)/τ)] with r frozen, by quadrature of (∂ log q) a q."""
    line = np.linspace(-9, 9, 721)
    x = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    z = (x - m) / np.exp(s)
    log_q = -0.5 * (z**2).sum(1) - s.sum() - math.log(2 * math.pi)
    log_p = -0.5 * ((x - MU) ** 2).sum(1) - math.log(2 * math.pi)
    a = 1 / (1 + np.exp(-(log_p - log_q + math.log(DIALS["lam"])) / DIALS["tau"]))
    score = np.concatenate([z / np.exp(s), z**2 - 1], axis=1)
    return (score * (a * np.exp(log_q))[:, None]).sum(0) * (line[1] - line[0]) ** 2


@pytest.mark.parametrize("route", ["samples", "data", "balanced"])
def test_all_forms_of_the_envelope_have_its_gradient(route):
    system, m, s = toy(route), np.array([-0.2, 0.5]), np.array([0.3, -0.2])
    state, n = at(fresh(system), m, s), 400_000
    data = n if route == "samples" else batch(points(n))
    scale = 1.0 if route == "samples" else 2.0  # nats an entry
    found = -scale * gradient(system, state, data)
    np.testing.assert_allclose(found, true_ascent(m, s), atol=4e-3)


def test_likelihood_moves_towards_the_mean():
    system = toy("likelihood")
    x = points(64)
    found = gradient(system, fresh(system), batch(x))
    # −∂/∂m of the mean of log q is −mean x at m = s = 0, and ∂/∂s is 1 − mean x²; by the entry.
    np.testing.assert_allclose(found[:2], -x.mean(0) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[2:], (1 - (x**2).mean(0)) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_the_exact_ratio_is_the_critics_half_and_the_models(scale):
    loss = ratio.get("logistic", scale=scale)
    system = toy(critic=Known(scale), critic_loss=loss)
    x, y = points(50, 3), np.zeros(50, np.int32)
    found = train.log_ratio(system, at(fresh(system), (0.3, 0.1)), x, y)
    z = x - np.array([0.3, 0.1], np.float32)
    want = -0.5 * ((x - MU) ** 2).sum(1) + 0.5 * (z**2).sum(1)
    np.testing.assert_allclose(found, want, atol=1e-5)
    # With the start as a reference the critic knows p over the start, and the rest is exact.
    kept = toy(critic=Known(scale, half=True), critic_loss=loss, reference=True)
    found = train.log_ratio(kept, at(fresh(kept), (0.3, 0.1)), x, y)
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_the_critic_learns_the_datas_half_alone():
    class Bend(nn.Module):
        @nn.compact
        def __call__(self, x: Array, y: Array, *, train: bool) -> Array:
            del y, train
            w = self.param("w", nn.initializers.zeros, (2,), jnp.float32)
            c = self.param("c", nn.initializers.zeros, (), jnp.float32)
            return x @ w + c

    system = toy(critic=Bend(), reference=True, critic_tx=optax.sgd(0.5))
    # The model has moved; what the critic has to learn has not: log p − log q_start = μ·x − |μ|²/2.
    state = at(fresh(system), (-0.3, 0.2))
    update = jax.jit(lambda state, one: train.critic_update(system, state, one)[0])
    for i in range(400):
        one = {**batch(points(1024, i)), "advance": np.int32(1)}
        state = update(state, one)
    np.testing.assert_allclose(state.critic.params["w"], MU, atol=0.06)
    np.testing.assert_allclose(state.critic.params["c"], -0.5 * MU @ MU, atol=0.06)


@pytest.mark.parametrize("name", ["gan", "smoothed_pr", "kl"])
def test_a_model_that_is_its_own_critic_finds_the_data(name):
    system = toy("implicit", objective=objectives.get(name), generator_tx=optax.sgd(0.3))
    state = fresh(system)
    update = jax.jit(lambda state, one: train.generator_update(system, state, one)[0])
    for i in range(250):
        state = update(state, batch(points(512, i)))
    np.testing.assert_allclose(state.generator.params["bijector"]["m"], MU, atol=0.1)
    assert state.reference is not None
    np.testing.assert_array_equal(state.reference.params["bijector"]["m"], 0)


def test_a_residual_flows_probes_are_drawn_anew_in_every_step():
    """And by the item's own noise: with the same step and data they are the same."""
    residual = Residual((2,), width=8, depth=1, exact_dim=1)
    system = toy("likelihood", generator=Flow((2,), residual), generator_tx=optax.sgd(0.0))
    state = fresh(system)
    assert [leaf.shape for leaf in jax.tree.leaves(state.generator.extra)] == [()]
    moved = jax.tree.map(lambda leaf: leaf + 0.4, state.generator.params)
    state = state.replace(generator=state.generator.replace(params=moved))
    update = jax.jit(lambda state, one: train.generator_update(system, state, one))
    x, found = batch(points(64)), []
    for _ in range(3):
        state, scalars = update(state, x)
        found.append(float(scalars["log_likelihood"]))
    assert len(set(found)) == 3
    again = update(state.replace(step=state.step - 1), x)[1]["log_likelihood"]
    np.testing.assert_allclose(again, found[-1], rtol=1e-6)
    # What is kept of the collection is the number that it began with.
    assert [leaf.shape for leaf in jax.tree.leaves(state.generator.extra)] == [()]
    # With the matrix itself there is nothing to draw.
    exact = system._replace(generator=Flow((2,), Residual((2,), width=8, depth=1)))
    still = fresh(exact)
    assert not still.generator.extra
    still = still.replace(generator=still.generator.replace(params=moved))
    values = []
    for _ in range(2):
        still, scalars = train.generator_update(exact, still, x)
        values.append(float(scalars["log_likelihood"]))
    assert values[0] == values[1]
    np.testing.assert_allclose(np.mean(found), values[0], atol=0.1)


def test_held_out_checks_are_those_of_the_route():
    x = batch(points(16))
    keys = {
        route: set(train.held_out(toy(route), fresh(toy(route)), x))
        for route in ("likelihood", "implicit", "data", "balanced", "samples")
    }
    assert keys["likelihood"] == keys["implicit"] == {"log_likelihood"}
    health = {"data_seen", "samples_seen", "generator_norm", "critic_norm"}
    health |= {"data_prior", "samples_prior"}
    ratio_too = {"log_likelihood", "data", "samples"} | health
    assert keys["data"] == keys["balanced"] == keys["samples"] == ratio_too


def test_classes_of_other_shares_do_not_weigh_in_the_implicit_route(monkeypatch):
    """Three of the first class to one of the second, weighted, are one of each."""
    a, b, old = (np.float32(x) for x in (0.3, -1.2, 0.4))
    dials = {"lam": jnp.float32(2.0)}
    prior = jnp.log(jnp.array([1.5, 1.5, 1.5, 0.5]))
    weighed, alike = (
        objectives.implicit_loss("gan", jnp.array(data), old[None], dials, prior)
        for data, prior in (([a, a, a, b], prior), ([a, b], 0.0))
    )
    np.testing.assert_allclose(weighed, alike, rtol=1e-6)
    seen, plain = [], objectives.implicit_loss
    monkeypatch.setattr(
        objectives, "implicit_loss", lambda *args: seen.append(args[-1]) or plain(*args)
    )
    system = toy("implicit", objective=objectives.get("smoothed_pr"), log_prior=(0.5, -1.0))
    given = {**batch(points(4)), "label": np.array([0, 1, 1, 0], np.int32)}
    train.generator_update(system, fresh(system), given)
    np.testing.assert_allclose(np.asarray(seen[0]), [0.5, -1.0, -1.0, 0.5])


def test_whole_steps_read_a_batch_for_the_generator_too():
    system = toy("data", critic_steps=2)
    assert system.reads == 3
    x = points(30).reshape(3, 10, 2)
    batches = {"image": x, "label": np.zeros((3, 10), np.int32)}
    state, scalars = jax.jit(train.make_step(system))(fresh(system), batches)
    assert int(state.step) == 1
    assert {"critic_loss", "generator_loss", "alpha", "log_likelihood"} <= set(scalars)
    # In a warm-up the critic takes all three.
    still, scalars = jax.jit(train.make_step(system, move_generator=False))(fresh(system), batches)
    assert int(still.step) == 1
    assert "generator_loss" not in scalars
    np.testing.assert_array_equal(still.generator.params["bijector"]["m"], 0)


def test_images_get_noise_between_their_values():
    class Seen(nn.Module):
        """How far the items are from the grid of 17 values, as a log-ratio."""

        @nn.compact
        def __call__(self, x: Array, y: Array, *, train: bool) -> Array:
            del y, train
            steps = (x + 1) * 8
            return jnp.abs(steps - jnp.round(steps)).max(axis=-1) * self.param(
                "w", nn.initializers.ones, (), jnp.float32
            )

    system = toy("samples", exact=False, critic=Seen(), levels=17)
    grid = np.tile(np.linspace(-1, 1, 17, dtype=np.float32)[:, None], (8, 2))
    _, scalars = train.critic_update(system, fresh(system), batch(grid))
    assert float(scalars["log_r_data"]) > 0.2
    _, scalars = train.critic_update(system._replace(levels=0), fresh(system), batch(grid))
    assert float(scalars["log_r_data"]) < 1e-4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"route": "data"}, "config.route = 'data' needs a model with a density"),
        ({"log_ratio": "density"}, "config.log_ratio = 'density' needs a model with a density"),
        ({"objective": "likelihood", "lams": ()}, "config.objective = 'likelihood' needs"),
        ({"base.loss": "likelihood"}, "config.base.loss = 'likelihood' needs"),
        ({"model.name": "glow", "route": "implicit"}, "'envelope' has no implicit form"),
        ({"model.name": "glow", "model.dtype": "bfloat16"}, "float32 only"),
        ({"model.name": "glow", "route": "data", "objective": "hinge"}, "reweights"),
        ({"model.name": "glow", "route": "balanced", "objective": "hinge"}, "reweights"),
        (
            {"model.name": "glow", "log_ratio": "density", "critic.parametrisation": "dual"},
            "critic.parametrisation = 'log'",
        ),
    ],
)
def test_what_needs_a_density_is_refused_without_one(changes, says):
    cfg = config.defaults()
    cfg.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        config.validate(cfg)
