"""The step, on toys whose updates are known by hand; then that training trains.

Toy: data in the plane, samples x = z + shift, log-ratio w·x + c. For p = N(μ, I) and q = N(0, I)
the exact log-ratio is μ·x − ½|μ|², so that w = μ and c = −½|μ|² are a perfect critic.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prpr import build, config, data, objectives, pieces, ratio, train
from prpr.models import biggan, small

Array = jax.Array
N = 8
MU = np.array([0.9, -0.4], np.float32)
DIALS = {"lam": 1.5, "tau": 0.5, "epsilon": 0.1, "width": 1.0}
TRAINED = ("critic", "generator", "ema", "critic_opt", "generator_opt")


def adam(rate: float, **settings: float) -> optax.GradientTransformation:
    """Optax's, which raises a Python float to an int32 power and so is not for strict dtypes."""
    tx = optax.adam(rate, **settings)

    def update(*arguments: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(*arguments)

    return optax.GradientTransformation(tx.init, update)  # pyright: ignore


class ToyGenerator(nn.Module):
    """z + shift; `calls` counts the training passes that were kept."""

    @nn.compact
    def __call__(self, z: Array, y: Array, *, train: bool) -> Array:
        del y
        shift = self.param("shift", nn.initializers.zeros, (2,), jnp.float32)
        _count(self, "batch_stats", train)
        return z + shift[None, :]


class ToyCritic(nn.Module):
    """w·x + c + bend·|x|² (bend is for penalties whose gradient depends on x)."""

    @nn.compact
    def __call__(self, x: Array, y: Array, *, train: bool) -> Array:
        del y
        w = self.param("w", lambda _: jnp.asarray(MU))
        c = self.param("c", lambda _: jnp.float32(-0.5 * MU @ MU))
        bend = self.param("bend", lambda _: jnp.float32(0.0))
        _count(self, "spectral", train)
        return x @ w + c + bend * (x * x).sum(-1)


def _count(module: nn.Module, collection: str, train: bool) -> None:
    calls = module.variable(collection, "calls", jnp.zeros, (), jnp.float32)
    if train and not module.is_initializing() and module.is_mutable_collection(collection):
        calls.value = calls.value + 1.0


PLAIN = train.System(
    generator=ToyGenerator(),
    critic=ToyCritic(),
    critic_loss=ratio.get("logistic"),
    objective=objectives.get("envelope"),
    critic_tx=optax.sgd(0.1),
    generator_tx=optax.sgd(0.2),
    dim_z=2,
    num_classes=3,
    ema=0.75,
)


def toy(**changes: Any) -> train.System:
    return PLAIN._replace(**changes)


@functools.cache
def _init(system: train.System) -> Callable[..., train.TrainState]:
    return jax.jit(lambda key, dials: train.init(system, key, jnp.zeros((2, 2)), dials))


def fresh(system: train.System, seed: int = 0, **dials: float) -> train.TrainState:
    numbers = {name: np.float32(v) for name, v in {**DIALS, **dials}.items()}
    return _init(system)(jax.random.key(seed), numbers)


def batch(system: train.System, step: int = 0, n: int = N) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    shape = (system.critic_steps, n)
    image = rng.standard_normal((*shape, 2)).astype(np.float32) + MU
    return {"image": image, "label": rng.integers(0, 3, shape).astype(np.int32)}


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def numpy_of(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def latents(system: train.System, state: train.TrainState, update: int) -> np.ndarray:
    """What an update draws: its key is the run's, with its step and its place in the step."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), update)
    return np.asarray(pieces.latents(system, key, N)[0][0])


TRACES: list[int] = []


def _counted(output: Array, log_r: Array, dials: objectives.Dials) -> Array:
    TRACES.append(1)
    return objectives.get("envelope").ascent(output, log_r, dials)


@pytest.fixture(scope="module")
def step() -> train.Step:
    """Of the plain toy; it counts its traces."""
    objective = objectives.get("envelope")._replace(ascent=_counted)
    return jax.jit(train.make_step(toy(objective=objective)))


@pytest.fixture(scope="module")
def double() -> tuple[train.System, train.Step]:
    """Of a toy with all that a step may have: two critic steps, penalties, Adam."""
    tx = adam(0.05)
    system = toy(critic_steps=2, critic_tx=tx, generator_tx=tx, r1=0.3, r2=0.2, normalise=True)
    return system, jax.jit(train.make_step(system))


# ---------------------------------------------------------------------------- one step


def test_a_step_by_hand(step):
    """Both updates, from the latents that the step draws."""
    system = toy()
    state = fresh(system)
    before = numpy_of((state.critic, state.generator, state.ema))
    items = batch(system)
    after, scalars = step(state, items)
    # The state that came in is as it was, and the same call gives the same numbers: it is pure.
    assert same(before, (state.critic, state.generator, state.ema))
    again, repeated = step(state, items)
    assert same(again.critic, after.critic)
    assert same(again.generator, after.generator)
    assert same(repeated, scalars)
    assert after.step == 1
    assert scalars["finite"] == 1

    z = latents(system, state, 0)
    w, c = MU.astype(np.float64), -0.5 * MU @ MU
    real, fake = items["image"][0] @ w + c, z @ w + c

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    # Critic: descends softplus(−v) on data and softplus(v) on samples.
    slope_real, slope_fake = -sigmoid(-real), sigmoid(fake)
    x = items["image"][0]
    w = w - 0.1 * (slope_real @ x + slope_fake @ z) / N
    bend = -0.1 * (slope_real @ (x * x).sum(1) + slope_fake @ (z * z).sum(1)) / N
    c = c - 0.1 * (slope_real + slope_fake).mean()
    np.testing.assert_allclose(after.critic.params["w"], w, rtol=1e-5)
    np.testing.assert_allclose(after.critic.params["c"], c, rtol=1e-5)
    np.testing.assert_allclose(scalars["log_r_data"], real.mean(), rtol=1e-4)
    np.testing.assert_allclose(scalars["log_r_samples"], fake.mean(), rtol=1e-4)
    value = np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean() - 2 * math.log(2)
    np.testing.assert_allclose(scalars["critic_loss"], value, rtol=1e-4, atol=1e-6)

    # Generator: ascends σ((log r + log λ)/τ) of the moved critic at new samples.
    z = latents(system, state, 1)
    log_r = z @ w + c + bend * (z * z).sum(1)
    soft = sigmoid((log_r + np.log(DIALS["lam"])) / DIALS["tau"])
    slope = (soft * (1 - soft))[:, None] / DIALS["tau"] * (w + 2 * bend * z)
    shift = 0.2 * slope.mean(0)
    np.testing.assert_allclose(after.generator.params["shift"], shift, rtol=1e-4)
    np.testing.assert_allclose(scalars["generator_loss"], -soft.mean(), rtol=1e-5)
    alpha = np.minimum(DIALS["lam"] * np.exp(log_r), 1).mean()
    np.testing.assert_allclose(scalars["alpha"], alpha, rtol=1e-5)
    norm = np.linalg.norm(shift) / 0.2
    np.testing.assert_allclose(scalars["generator_grad_norm"], norm, rtol=1e-4)


def test_collections_move_once_an_update(double):
    """Singular vectors in each critic update, moments in the generator's only; never elsewhere."""
    system, run = double
    after, _ = run(fresh(system), batch(system))
    assert after.critic.extra["spectral"]["calls"] == 2
    assert after.generator.extra["batch_stats"]["calls"] == 1


def test_the_moving_average_is_of_parameters_and_moments(step):
    state, _ = step(fresh(toy()), batch(toy()))
    after, _ = step(state, batch(toy(), 1))
    expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, state.ema, after.generator)
    for got, want in zip(jax.tree.leaves(after.ema), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    # calls: ¾·(¼·1) + ¼·2
    np.testing.assert_allclose(after.ema.extra["batch_stats"]["calls"], 0.6875)


def test_every_critic_step_has_its_own_batch_and_optimiser_step(double):
    system, run = double
    items = batch(system)
    after, _ = run(fresh(system), items)
    assert after.critic_opt[0].count == 2
    assert after.generator_opt[0].count == 1
    for i in range(2):
        changed = {"image": items["image"].copy(), "label": items["label"]}
        changed["image"][i] += 1.0
        assert not same(run(fresh(system), changed)[0].critic.params, after.critic.params)


def test_a_step_is_its_updates_one_by_one(double):
    """As `prpr.run` calls them, to compile each once."""
    system, run = double
    state, items = fresh(system).replace(step=jnp.int32(5)), batch(system)
    whole, scalars = run(state, items)
    update = jax.jit(lambda state, one: train.critic_update(system, state, one))
    for i in range(2):
        one = {name: v[i] for name, v in items.items()}
        state, first = update(state, {**one, "index": np.int32(i), "advance": np.int32(0)})
        assert state.step == 5
    state, second = jax.jit(lambda state: train.generator_update(system, state, N))(state)
    assert state.step == whole.step == 6
    assert set(first) | set(second) == set(scalars)
    for part in TRAINED:
        pairs = zip(
            jax.tree.leaves(getattr(state, part)),
            jax.tree.leaves(getattr(whole, part)),
            strict=True,
        )
        for got, want in pairs:
            np.testing.assert_allclose(got, want, rtol=1e-6)


def test_warm_up_moves_the_critic_only():
    system = toy(generator_tx=adam(0.1))
    state = fresh(system)
    after, scalars = jax.jit(train.make_step(system, move_generator=False))(state, batch(system))
    for part in TRAINED:
        assert same(getattr(state, part), getattr(after, part)) == (
            part in ("generator", "ema", "generator_opt") or part == "critic_opt"
        ), part  # (critic_opt: SGD has no state)
    assert after.step == 1
    assert "generator_loss" not in scalars
    assert {"critic_loss", "finite"} <= set(scalars)


def test_one_trace_serves_all_dials(step):
    step(fresh(toy()), batch(toy()))
    before, shifts = len(TRACES), set()
    for lam in np.geomspace(0.05, 20, 10):
        for tau in np.geomspace(0.1, 2, 5):
            after, _ = step(fresh(toy(), lam=float(lam), tau=float(tau)), batch(toy()))
            shifts.add(float(after.generator.params["shift"][0]))
    assert before == len(TRACES) == 1
    assert len(shifts) == 50  # and every value made its own difference


# ---------------------------------------------------------------------------- the parts of a loss


def test_log_norm_tracks_the_mean_ratio_and_is_subtracted(step):
    state = fresh(toy()).replace(log_norm=jnp.float32(0.3))
    after, scalars = step(state, batch(toy()))
    expected = np.log(0.98 * np.exp(0.3) + 0.02 * scalars["normalisation"])
    np.testing.assert_allclose(after.log_norm, expected, rtol=1e-5)
    x, y = batch(toy())["image"][0], batch(toy())["label"][0]
    normalised = toy(normalise=True)
    difference = train.log_ratio(toy(), state, x, y) - train.log_ratio(normalised, state, x, y)
    np.testing.assert_allclose(difference, 0.3, rtol=1e-4)
    # log_r − log_norm + log λ: as if λ were λ/E[r̂].
    got, _ = jax.jit(train.make_step(normalised))(state, batch(toy()))
    scaled = {**state.dials, "lam": state.dials["lam"] * jnp.exp(-after.log_norm)}
    want, _ = step(state.replace(dials=scaled), batch(toy()))
    np.testing.assert_allclose(
        got.generator.params["shift"], want.generator.params["shift"], rtol=1e-5
    )
    assert not np.allclose(got.generator.params["shift"], after.generator.params["shift"])


def test_the_classes_shares_are_taken_out_of_what_the_generator_sees(step):
    """A critic that holds log 4 more for a class' data, and a prior of 4: the same generator."""
    state = fresh(PLAIN)
    more = jax.tree.map(lambda leaf: leaf, state)
    params = {**state.critic.params, "c": state.critic.params["c"] + jnp.log(4.0)}
    more = state.replace(critic=state.critic.replace(params=params))
    system = PLAIN._replace(log_prior=(math.log(4.0),) * 3)
    one, _ = train.generator_update(PLAIN, state, N)
    other, _ = train.generator_update(system, more, N)
    np.testing.assert_allclose(
        other.generator.params["shift"], one.generator.params["shift"], rtol=1e-5
    )
    wrong, _ = train.generator_update(PLAIN, more, N)
    assert not np.allclose(wrong.generator.params["shift"], one.generator.params["shift"])
    # Each class has its own; held-out checks keep what the critic was trained for.
    x, y = jnp.zeros((3, 2)), jnp.arange(3)
    uneven = PLAIN._replace(log_prior=(0.5, -1.0, 2.0))
    joint = train.joint_log_ratio(uneven, state, x, y)
    np.testing.assert_allclose(
        train.log_ratio(uneven, state, x, y), joint - jnp.array([0.5, -1.0, 2.0]), rtol=1e-6
    )
    found = train.held_out(uneven, state, {**first(batch(PLAIN)), "index": jnp.int32(0)})
    plain = train.held_out(PLAIN, state, {**first(batch(PLAIN)), "index": jnp.int32(0)})
    np.testing.assert_array_equal(found["data"], plain["data"])
    assert set(np.asarray(found["samples_prior"]).tolist()) <= {0.5, -1.0, 2.0}
    assert not np.asarray(plain["data_prior"]).any()


def first(several: dict[str, np.ndarray]) -> dict[str, Array]:
    """The first batch of a step's."""
    return {name: jnp.asarray(value)[0] for name, value in several.items()}


def test_the_bound_weighs_data_of_uneven_classes(diagnose):
    """One class is 90 % of the data; weighted, the bound is that of even ones."""
    del diagnose
    rng = np.random.default_rng(3)
    classes = np.repeat([0, 1], [900, 100])
    prior = np.log(np.array([1.8, 0.2]))[classes].astype(np.float32)
    real = rng.normal(np.array([1.0, -2.0])[classes]).astype(np.float32)
    fake = rng.normal(size=1000).astype(np.float32)
    none = np.zeros(1000, np.float32)
    got = train.diagnose(real + prior, fake, 2.0, prior, none)
    below = (real < -np.log(2.0)).astype(float)
    even = 0.5 * (below[classes == 0].mean() + below[classes == 1].mean())
    wanted = 2.0 * even + (fake >= -np.log(2.0)).mean()
    assert float(got["heldout_alpha"]) == pytest.approx(min(wanted, 1.0), abs=1e-5)


def test_log_norm_stays_finite_at_a_huge_ratio(step):
    state = fresh(toy())
    critic = train.Net({**state.critic.params, "c": jnp.float32(85.0)}, state.critic.extra)
    after, scalars = step(state.replace(critic=critic), batch(toy()))
    assert np.isfinite(after.log_norm)
    assert scalars["finite"] == 1


def test_penalties_are_added_at_data_and_at_samples():
    """Of the log-ratio: the critic's output times the loss's scale."""
    loss = ratio.get("logistic", scale=2.0)
    plain = toy(critic_loss=loss)
    state = fresh(plain)
    state = state.replace(
        critic=train.Net({**state.critic.params, "bend": jnp.float32(0.3)}, state.critic.extra)
    )
    items = batch(plain)
    z = latents(plain, state, 0)

    def penalty(x: np.ndarray) -> float:
        # ½E|∇T|² with T = 2(w·x + c + bend·|x|²)
        return float(0.5 * np.square(2 * (MU + 0.6 * x)).sum(-1).mean())

    value, bend = {}, {}
    for r1, r2 in [(0.0, 0.0), (0.7, 0.4)]:
        system = plain._replace(r1=r1, r2=r2)
        after, scalars = jax.jit(train.make_step(system, move_generator=False))(state, items)
        value[r1, r2] = scalars["critic_loss"]
        expected = value[0.0, 0.0] + r1 * penalty(items["image"][0]) + r2 * penalty(z)
        np.testing.assert_allclose(scalars["critic_loss"], expected, rtol=1e-5)
        # Its gradient too: a penalty pulls the bend down.
        bend[r1, r2] = after.critic.params["bend"]
        assert bend[r1, r2] <= bend[0.0, 0.0] - 0.01 * (r1 + r2)


def test_clipping_bounds_the_movement_and_not_the_report():
    clipped = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0))
    system = toy(critic_tx=clipped, generator_tx=clipped)
    state = fresh(system)
    after, scalars = jax.jit(train.make_step(system))(state, batch(system))
    for net in ("critic", "generator"):
        old, new = getattr(state, net).params, getattr(after, net).params
        moved = optax.tree.norm(jax.tree.map(lambda a, b: a - b, old, new))
        np.testing.assert_allclose(moved, 1e-3, rtol=1e-2)
        assert scalars[f"{net}_grad_norm"] > 2e-3


def test_a_clipped_optimiser_fits_the_state_of_one_that_does_not_clip():
    """So that a fine-tune that clips can start from a base that did not."""
    opt = config.defaults().generator
    bare = build._optimiser(opt, optax.constant_schedule(opt.lr))
    opt.clip = 1.0
    clipped = build._optimiser(opt, optax.constant_schedule(opt.lr))
    chain = optax.chain(optax.clip_by_global_norm(1.0), bare)
    x = jnp.zeros(2, jnp.float32)
    state, expected = bare.init(x), chain.init(x)
    assert jax.tree.structure(state) == jax.tree.structure(clipped.init(x))
    moved = []
    with jax.numpy_dtype_promotion("standard"):
        # The first is clipped, the second is not: Adam's memory of both tells what it was given.
        for grads in (jnp.array([3.0, 4.0]), jnp.array([0.3, 0.4])):
            update, state = clipped.update(grads, state, x)
            wanted, expected = chain.update(grads, expected, x)
            np.testing.assert_array_equal(update, wanted)
            moved.append(float(optax.tree.norm(update)))
    # Without a clip it would be .14: .5 over the root of the mean square of 5 and .5 (b2 = .99).
    assert moved[1] / moved[0] > 0.5


def test_nan_data_is_seen(step):
    items = batch(toy())
    items["image"][0, 3, 1] = np.nan
    assert step(fresh(toy()), items)[1]["finite"] == 0


# ---------------------------------------------------------------------------- runs


def test_the_same_seed_gives_the_same_run_and_another_does_not(step):
    assert same(fresh(toy()).generator, fresh(toy()).generator)
    runs = [step(fresh(toy(), seed), batch(toy()))[0] for seed in (0, 0, 1)]
    assert same(runs[0].generator, runs[1].generator)
    assert not same(runs[0].generator, runs[2].generator)
    # Every step draws its own latents.
    state = fresh(toy())
    later = step(state.replace(step=jnp.int32(1)), batch(toy()))[0]
    assert not same(runs[0].generator, later.generator)


def test_a_run_resumed_from_numbers_equals_one_that_never_stopped(double):
    """By way of NumPy, as a checkpoint goes; with moments of Adam and all collections."""
    system, run = double
    state = fresh(system)
    for i in range(6):
        state, scalars = run(state, batch(system, i))
        if i == 2:
            kept = numpy_of(state.replace(key=jax.random.key_data(state.key)))
    back = jax.tree.map(jnp.asarray, kept)
    back = back.replace(key=jax.random.wrap_key_data(back.key))
    for i in range(3, 6):
        back, repeated = run(back, batch(system, i))
    assert same(
        back.replace(key=jax.random.key_data(back.key)),
        state.replace(key=jax.random.key_data(state.key)),
    )
    assert same(repeated, scalars)


def test_a_biggan_step_keeps_the_shape_of_its_state():
    """Collections and all: a state that changed would compile anew, or not restore."""
    system = toy(
        generator=biggan.Generator(8, 3, image_channels=1, ch=2, dim_z=4, shared_dim=3),
        critic=biggan.Critic(8, 3, ch=2),
        critic_loss=ratio.get("hinge"),
        objective=objectives.get("hinge"),
        dim_z=4,
        r1=1.0,
    )
    items = {"image": np.zeros((1, N, 8, 8, 1), np.float32), "label": np.zeros((1, N), np.int32)}

    def both(key: Array) -> tuple[train.TrainState, train.TrainState]:
        state = train.init(system, key, items["image"][0], DIALS)
        return state, train.make_step(system)(state, items)[0]

    before, after = jax.eval_shape(both, jax.random.key(0))
    assert set(before.critic.extra) == {"spectral"}
    assert set(before.generator.extra) == {"spectral", "batch_stats"}
    assert before == after


def sliced_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over 16 directions of the 1-Wasserstein distance of equally many points."""
    angle = np.pi * np.arange(16) / 16
    directions = np.stack([np.cos(angle), np.sin(angle)])
    return float(np.abs(np.sort(a @ directions, 0) - np.sort(b @ directions, 0)).mean())


@pytest.mark.parametrize(
    ("critic", "objective"),
    [("hinge", "hinge"), ("logistic", "logistic"), ("logistic", "envelope")],
)
def test_training_improves(critic, objective):
    points = data.load("ring8", "train", seed=0)
    system = toy(
        generator=small.Generator(2, dim_z=2, width=32),
        critic=small.Critic(width=32),
        critic_loss=ratio.get(critic),
        objective=objectives.get(objective),
        critic_tx=adam(3e-3, b1=0.0, b2=0.99),
        generator_tx=adam(1e-3, b1=0.0, b2=0.99),
        num_classes=1,
        ema=0.97,
    )
    run = jax.jit(train.make_step(system))
    state = fresh(system, tau=1.0)
    z = np.random.default_rng(0).standard_normal((1024, 2)).astype(np.float32)
    draw: Callable[[train.Net], Array] = jax.jit(
        lambda net: train.apply_frozen(system.generator, net, z, jnp.zeros((1024,), jnp.int32))
    )
    before = sliced_distance(draw(state.ema), points.images[:1024])
    batches = data.Batches(points, 128)
    for i in range(300):
        items = batches.batch(i)
        state, scalars = run(state, {name: v[None] for name, v in items.items()})
    after = sliced_distance(draw(state.ema), points.images[:1024])
    print(critic, objective, before, after)
    assert scalars["finite"] == 1
    assert after < 0.4 * before


# ---------------------------------------------------------------------------- held-out checks


@pytest.fixture(scope="module")
def diagnose() -> Callable[..., dict[str, np.ndarray]]:
    n = 6000
    rng = np.random.default_rng(0)
    image = rng.standard_normal((n, 2)).astype(np.float32) + MU
    held_out = {"image": image, "label": np.zeros(n, np.int32), "index": np.int32(0)}

    @jax.jit
    def check(state: train.TrainState) -> train.Scalars:
        log_r = train.held_out(toy(), state, held_out)
        return train.diagnose(log_r["data"], log_r["samples"], 1.0)

    def scaled(width: float) -> dict[str, np.ndarray]:
        state = fresh(toy())
        params = jax.tree.map(lambda v: width * v, state.critic.params)
        return numpy_of(check(state.replace(critic=train.Net(params, state.critic.extra))))

    return scaled


def test_diagnose_finds_an_exact_critic_right(diagnose):
    got = diagnose(1.0)
    assert all(np.isfinite(v).all() for v in got.values())
    assert got["heldout_calibration_error"] < 0.02
    np.testing.assert_allclose(got["heldout_calibration_slope"], 1, atol=0.06)
    np.testing.assert_allclose(got["heldout_normalisation"], 1, atol=0.08)
    np.testing.assert_allclose(got["heldout_inverse_normalisation"], 1, atol=0.08)
    # Projected on μ the two are normal, |μ| apart: AUC = Φ(|μ|/√2) = ½(1 + erf(|μ|/2)).
    auc = 0.5 * (1 + math.erf(float(np.linalg.norm(MU)) / 2))
    np.testing.assert_allclose(got["heldout_auc"], auc, atol=0.015)
    # An exact critic's bound is α(1) = 1 − TV = 2 Φ(−|μ|/2) itself.
    alpha = 1 - math.erf(float(np.linalg.norm(MU)) / 2 / math.sqrt(2))
    np.testing.assert_allclose(got["heldout_alpha"], alpha, atol=0.02)
    for name in ("predicted", "observed", "mass"):
        assert got[f"reliability_{name}"].shape == (10,)


def test_diagnose_catches_a_critic_that_is_too_wide(diagnose):
    got, exact = diagnose(3.0), diagnose(1.0)
    assert got["heldout_calibration_error"] > 5 * exact["heldout_calibration_error"]
    np.testing.assert_allclose(got["heldout_calibration_slope"], 1 / 3, atol=0.03)
    np.testing.assert_allclose(got["heldout_auc"], exact["heldout_auc"], rtol=1e-4)
