"""What steadies a training, in the step and by its knobs: each acts as it should, and off is off.

Toy: grey images 8 x 8 from small dense networks with smooth activations, so that the order of a sum
flips no unit; SGD, since Adam would hide a factor.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_parallel
from test_config import CONFIGS, load

from prpr import (
    augment,
    build,
    checkpoint,
    config,
    jobs,
    objectives,
    parallel,
    pieces,
    preempt,
    ratio,
    record,
    regularizers,
    run,
    train,
)
from prpr.errors import ConfigError, WorkdirError
from prpr.models import dial
from prpr.trainer import Trainer

N, Z = 16, 4
DIALS = {"lam": 4.0, "tau": 0.5}
POLICY = "translation,noise"


@pytest.fixture(autouse=True, scope="module")
def _quick():
    """Compiling is nearly all of these tests' time, and their programs run a few steps only."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


class Generator(nn.Module):
    """z (N, 4), y (N,) -> (N, 8, 8, 1)."""

    @nn.compact
    def __call__(self, z, y, *, train):
        del train
        z = jnp.concatenate([z, jax.nn.one_hot(y, 3)], axis=-1)
        h = nn.tanh(nn.Dense(8, name="layer0")(z))
        return nn.tanh(nn.Dense(64, name="out")(h)).reshape(-1, 8, 8, 1)


class Critic(nn.Module):
    """(N, 8, 8, 1), y (N,) -> (N,)."""

    @nn.compact
    def __call__(self, x, y, *, train):
        del y, train
        h = nn.tanh(nn.Dense(8, name="layer0")(x.reshape(x.shape[0], -1)))
        h = nn.tanh(nn.Dense(8, name="layer1")(h))
        return nn.Dense(1, name="out")(h)[:, 0]


PLAIN = train.System(
    generator=Generator(),
    critic=Critic(),
    critic_loss=ratio.get("logistic", scale=3.0),
    objective=objectives.get("envelope"),
    critic_tx=optax.sgd(0.05),
    generator_tx=optax.sgd(0.05),
    dim_z=Z,
    num_classes=3,
    ema=0.5,
)
ALL = PLAIN._replace(
    r1=0.3,
    r2=0.2,
    augment=train.Augment(POLICY, p=0.5, adaptive=0.3, kimg=0.5, sigma=0.4, sigma_steps=10),
    lecam=0.2,
    lecam_decay=0.7,
    consistency=0.5,
    consistency_policy="translation,noise",
    mode_seeking=0.1,
    schedule=train.Schedule(lam_from=1.0, tau_from=2.0, steps=6),
    warmup=1,
)


@functools.cache
def _init(system):
    return jax.jit(lambda key, d: train.init(system, key, jnp.zeros((2, 8, 8, 1)), d))


def fresh(system, **dials):
    numbers = {name: np.float32(v) for name, v in {**DIALS, **dials}.items()}
    return _init(system._replace(axis_name=None))(jax.random.key(0), numbers)


@functools.cache
def critic_of(system):
    return jax.jit(lambda state, items: train.critic_update(system, state, items))


@functools.cache
def generator_of(system):
    return jax.jit(lambda state: train.generator_update(system, state, N))


def batch(step=0):
    rng = np.random.default_rng(step)
    image = np.tanh(rng.normal(0.4, 0.5, (N, 8, 8, 1))).astype(np.float32)
    label = rng.integers(0, 3, N).astype(np.int32)
    return {"image": image, "label": label, "index": np.int32(0), "advance": np.int32(0)}


def steps(system, state, count, first=0):
    """Critic and generator updates in turn, and the scalars of the last."""
    scalars: Any = {}
    for i in range(first, first + count):
        state, one = critic_of(system)(state, batch(i))
        state, two = generator_of(system)(state)
        scalars = {**one, **two}
    return state, scalars


def only_critic(system, state, count):
    for i in range(count):
        state, scalars = critic_of(system)(state, batch(i))
        state = state.replace(step=state.step + 1)
    return state, scalars


def same(a, b):
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def flat(state):
    state = state.replace(key=jax.random.key_data(state.key))
    return np.concatenate([np.ravel(leaf).astype(np.float32) for leaf in jax.tree.leaves(state)])


def key_of(state, update=0):
    return jax.random.fold_in(jax.random.fold_in(state.key, state.step), update)


def samples_of(system, state, update=0):
    """(z, y, items) that an update draws."""
    z, y = (one[0] for one in pieces.latents(system, key_of(state, update), N))
    return z, y, train.apply_frozen(system.generator, state.generator, z, y)


def log_r(system, state, x, y):
    return np.asarray(train.log_ratio(system, state, jnp.asarray(x), jnp.asarray(y)))


# ---------------------------------------------------------------------------- off is off


def test_what_is_off_leaves_no_trace_in_the_state_or_the_scalars():
    """As before there was any of it: old checkpoints restore, and logs have no new names."""
    state, scalars = steps(PLAIN, fresh(PLAIN), 1)
    # The fields that a checkpoint of the version before has leaves of.
    old = {"step", "key", "dials", "critic", "generator", "ema"}
    old |= {"critic_opt", "generator_opt", "log_norm"}
    assert {path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(state)} <= old
    assert set(scalars) == {
        *("critic_loss", "log_r_data", "log_r_samples", "normalisation", "critic_grad_norm"),
        *("generator_loss", "generator_grad_norm", "alpha", "finite"),
    }
    # Noise that has fallen to 0 leaves the updates as they are, whatever is drawn for it.
    silent = PLAIN._replace(augment=train.Augment("noise", sigma=0.3, sigma_steps=1))
    later = fresh(PLAIN).replace(step=jnp.int32(1))
    for found, expected in zip(steps(silent, later, 1), steps(PLAIN, later, 1), strict=True):
        for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            if not jnp.issubdtype(got.dtype, jax.dtypes.prng_key):
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_a_checkpoint_of_the_version_before_restores(tmp_path):
    state = fresh(PLAIN)
    fields = ("step", "key", "dials", "critic", "generator", "ema", "critic_opt", "generator_opt")
    checkpoint.save(tmp_path, 0, {name: getattr(state, name) for name in (*fields, "log_norm")}, {})
    found, _ = checkpoint.restore(tmp_path, fresh(PLAIN._replace(ema=0.7)))
    assert same(jax.random.key_data(found.key), jax.random.key_data(state.key))
    assert same((found.critic, found.ema), (state.critic, state.ema))
    assert found.anchors is None
    assert found.augment_p is None


# ---------------------------------------------------------------------------- what each does


def test_the_critic_sees_augmented_items_and_its_penalties_are_there():
    a = train.Augment(POLICY, p=0.7, sigma=0.4, sigma_steps=10)
    system = PLAIN._replace(augment=a, r1=0.5, r2=0.25, warmup=2)
    state, items = fresh(system).replace(step=jnp.int32(7)), batch()
    _, y, fake = samples_of(system, state)
    sides = {}
    for at, (side, x) in enumerate((("data", jnp.asarray(items["image"])), ("samples", fake))):
        key = jax.random.fold_in(key_of(state), pieces._AUGMENT + at)
        # σ: half of ten steps after a warm-up of two.
        sides[side] = augment.augment(key, x, POLICY, 0.7, 0.2)
        assert not np.allclose(sides[side], x)
    real, fake = sides["data"], sides["samples"]
    at_real, at_fake = log_r(system, state, real, items["label"]), log_r(system, state, fake, y)
    _, scalars = critic_of(system)(state, items)
    np.testing.assert_allclose(scalars["log_r_data"], at_real.mean(), rtol=1e-5)
    np.testing.assert_allclose(scalars["log_r_samples"], at_fake.mean(), rtol=1e-5)
    penalty = [
        regularizers.gradient_penalty(lambda x: train.log_ratio(system, state, x, y), x)
        for x in (real, fake)
    ]
    value = system.critic_loss.loss(jnp.asarray(at_real) / 3, jnp.asarray(at_fake) / 3)
    expected = value + 0.5 * penalty[0] + 0.25 * penalty[1]
    np.testing.assert_allclose(scalars["critic_loss"], expected, rtol=1e-5)

    # The generator learns through the same: its own samples, augmented.
    z, y, fake = samples_of(system, state, system.critic_steps)
    key = jax.random.fold_in(key_of(state, system.critic_steps), pieces._AUGMENT + 1)

    def loss(params):
        net = train.Net(params, {})
        fake = train.apply_frozen(system.generator, net, z, y)
        fake = augment.augment(key, fake, POLICY, 0.7, 0.2)
        at_fake = train.log_ratio(system, state, fake, y)
        return objectives.sampler_loss(system.objective, at_fake / 3, at_fake, state.dials)

    after, scalars = generator_of(system)(state)
    value, slope = jax.value_and_grad(loss)(state.generator.params)
    np.testing.assert_allclose(scalars["generator_loss"], value, rtol=1e-5)
    expected = jax.tree.map(lambda w, g: w - 0.05 * g, state.generator.params, slope)
    for got, want in zip(
        jax.tree.leaves(after.generator.params), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_held_out_checks_are_of_what_the_critic_sees():
    system = PLAIN._replace(augment=train.Augment("cutout", p=1.0))
    state = fresh(system)
    held = {name: batch()[name] for name in ("image", "label", "index")}
    found, plain = (train.held_out(one, state, held) for one in (system, PLAIN))
    key = key_of(state, train._DIAGNOSE)
    seen = augment.augment(
        jax.random.fold_in(key, pieces._AUGMENT), jnp.asarray(held["image"]), "cutout"
    )
    np.testing.assert_allclose(found["data"], log_r(system, state, seen, held["label"]), rtol=1e-5)
    assert not np.allclose(found["samples"], plain["samples"])
    # The items themselves are what duplicates are looked for in.
    for name in ("data_seen", "samples_seen"):
        np.testing.assert_array_equal(found[name], plain[name])


@pytest.mark.parametrize(("bias", "way"), [(50.0, 1), (-50.0, -1)])
def test_p_rises_where_the_critic_knows_the_data_by_heart(bias, way):
    a = train.Augment("cutout", p=0.5, adaptive=0.6, kimg=0.2)
    system = PLAIN._replace(augment=a)
    state = fresh(system)
    assert state.augment_p == 0.5
    params = {
        **state.critic.params,
        "out": {**state.critic.params["out"], "bias": jnp.full(1, bias)},
    }
    state = state.replace(critic=train.Net(params, {}))
    after, scalars = critic_of(system)(state, batch())
    np.testing.assert_allclose(after.augment_p, 0.5 + way * N / 200, rtol=1e-6)
    assert scalars["augment_p"] == after.augment_p
    # It is p, and not where it started, that the next update augments with.
    none = critic_of(system)(state.replace(augment_p=jnp.float32(0.0)), batch())[1]
    plain = critic_of(PLAIN)(state.replace(augment_p=None), batch())[1]
    np.testing.assert_allclose(none["log_r_data"], plain["log_r_data"], rtol=1e-6)
    assert not np.allclose(scalars["log_r_data"], plain["log_r_data"], rtol=1e-6)


def test_lecam_shrinks_the_log_ratio():
    system = PLAIN._replace(lecam=0.5, lecam_decay=0.8)
    anchors = {"data": jnp.float32(0.7), "samples": jnp.float32(-0.4)}
    state = fresh(system).replace(anchors=anchors)
    _, plain = critic_of(PLAIN)(state.replace(anchors=None), batch())
    after, scalars = critic_of(system)(state, batch())
    _, y, fake = samples_of(system, state)
    at_real = log_r(system, state, batch()["image"], batch()["label"])
    at_fake = log_r(system, state, fake, y)
    penalty = np.square(at_real + 0.4).mean() + np.square(at_fake - 0.7).mean()
    np.testing.assert_allclose(
        scalars["critic_loss"] - plain["critic_loss"], 0.5 * penalty, rtol=1e-4
    )
    np.testing.assert_allclose(after.anchors["data"], 0.56 + 0.2 * at_real.mean(), rtol=1e-5)
    np.testing.assert_allclose(after.anchors["samples"], -0.32 + 0.2 * at_fake.mean(), rtol=1e-5)
    ends = {}
    for one in (PLAIN, system):
        _, scalars = only_critic(one, fresh(one), 60)
        ends[one.lecam] = scalars["log_r_data"] - scalars["log_r_samples"]
    assert 0 < ends[0.5] < 0.6 * ends[0.0]


def test_consistency_draws_log_ratios_together():
    system = PLAIN._replace(consistency=0.2, consistency_policy="translation,cutout")
    x, y = jnp.asarray(batch(99)["image"]), batch(99)["label"]
    changed = augment.augment(jax.random.key(5), x, "translation,cutout")
    apart, width = {}, {}
    for one in (PLAIN, system):
        state, _ = only_critic(one, fresh(one), 60)
        plain = log_r(one, state, x, y)
        apart[one.consistency] = np.square(plain - log_r(one, state, changed, y)).mean()
        width[one.consistency] = plain.mean()
    assert apart[0.2] < 0.5 * apart[0.0]
    assert width[0.2] > 0.5  # and not because it knew nothing
    # Of data and of samples, each with the whole weight.
    state, items = fresh(system), batch()
    _, classes, fake = samples_of(system, state)
    total = 0.0
    for at, (x, y) in enumerate(((jnp.asarray(items["image"]), items["label"]), (fake, classes))):
        key = jax.random.fold_in(key_of(state), pieces._AUGMENT + 2 + at)
        other = augment.augment(key, x, "translation,cutout")
        total += np.square(log_r(system, state, x, y) - log_r(system, state, other, y)).mean()
    gain = critic_of(system)(state, items)[1]["critic_loss"]
    gain = gain - critic_of(PLAIN)(state, items)[1]["critic_loss"]
    np.testing.assert_allclose(gain, 0.2 * total, rtol=1e-3)


def test_mode_seeking_spreads_samples_and_is_of_the_whole_batch():
    system = PLAIN._replace(mode_seeking=0.3)
    state = fresh(system)
    z, y, _ = samples_of(system, state, 1)
    other, _ = pieces.latents(system, jax.random.fold_in(key_of(state, 1), train._SECOND), N)

    def penalty(params):
        x1, x2 = (
            system.generator.apply({"params": params}, v, y, train=True) for v in (z, other[0])
        )
        return regularizers.mode_seeking(x1, x2, z, other[0])

    after, scalars = generator_of(system)(state)
    plain, before = generator_of(PLAIN)(state)
    value, slope = jax.value_and_grad(penalty)(state.generator.params)
    gain = scalars["generator_loss"] - before["generator_loss"]
    np.testing.assert_allclose(gain, 0.3 * value, rtol=1e-4)
    expected = jax.tree.map(lambda w, g: w - 0.05 * 0.3 * g, plain.generator.params, slope)
    for got, want in zip(
        jax.tree.leaves(after.generator.params), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    spread = {}
    for one in (PLAIN, system):
        state = fresh(one)
        for _ in range(80):
            state, _ = generator_of(one)(state)
        spread[one.mode_seeking] = np.abs(np.diff(samples_of(one, state)[2], axis=0)).mean()
    assert spread[0.3] > 1.1 * spread[0.0]


@pytest.mark.parametrize(
    ("step", "lam", "tau"),
    [(0, 1.0, 2.0), (3, 1.0, 2.0), (6, 2.0, 1.0), (9, 4.0, 0.5), (30, 4.0, 0.5)],
)
def test_a_schedule_starts_there_and_ends_at_the_runs_own(step, lam, tau):
    """Six steps after a warm-up of three: geometric, so half way are the square roots."""
    system = PLAIN._replace(warmup=3, schedule=train.Schedule(1.0, 2.0, 6))
    state = fresh(system).replace(step=jnp.int32(step))
    after, scalars = generator_of(system)(state)
    fixed = state.replace(dials={"lam": jnp.float32(lam), "tau": jnp.float32(tau)})
    expected, _ = generator_of(PLAIN)(fixed)
    for got, want in zip(
        jax.tree.leaves(after.generator), jax.tree.leaves(expected.generator), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(scalars["scheduled_lam"], lam, rtol=1e-6)
    np.testing.assert_allclose(scalars["scheduled_tau"], tau, rtol=1e-6)
    assert same(after.dials, state.dials)  # the run's own λ, by which it is checked and scored
    # λ of each sample's own.
    lams = np.array([0.25, 1.0, 16.0], np.float32)
    y = dial.told(jnp.zeros(3, jnp.int32), jnp.log(lams))
    share = np.clip((step - 3) / 6, 0, 1)
    np.testing.assert_allclose(train._dials(system, state, y)["lam"], lams**share, rtol=1e-5)


def test_one_compilation_serves_all_lambdas_of_a_schedule():
    traces, ends = [], set()
    system = ALL._replace(warmup=0)

    @jax.jit
    def update(state):
        traces.append(None)
        return train.generator_update(system, state, N)

    for lam in (0.1, 1.0, 5.0, 20.0):
        for step in (0, 3):
            after, _ = update(fresh(system, lam=lam).replace(step=jnp.int32(step)))
        ends.add(float(jax.tree.leaves(after.generator.params)[0][0]))
    assert len(traces) == 1
    assert len(ends) == 4


# ---------------------------------------------------------------------------- pieces, devices


def _close(a, b):
    scale = np.maximum(np.abs(a), 1e-2)
    assert (np.abs(a - b) / scale).max() < 1e-4, (np.abs(a - b) / scale).max()


def team_run(devices, accumulate):
    """All numbers of three steps on a team of devices, and of held-out checks."""
    team = parallel.Team(devices)
    system = ALL._replace(axis_name=team.axis_name, accumulate=accumulate)
    critic = team.map(lambda s, b: train.critic_update(system, s, b))
    generator = team.map(lambda s: train.generator_update(system, s, N // devices))
    held_out = team.map(lambda s, b: train.held_out(system, s, b))
    placed, scalars = team.place([jax.device_get(fresh(system))]), []
    for step in range(3):
        placed, one = critic(placed, team.batch([batch(step)]))
        placed, two = generator(placed)
        scalars += [float(v) for v in jax.tree.leaves(team.fetch((one, two), 1))]
    found = team.fetch(held_out(placed, team.batch([batch(9)])), 1)[0]
    assert team.equal(placed)
    return np.concatenate(
        [flat(team.fetch(placed, 1)[0]), scalars, found["data"], np.sort(found["samples"])]
    )


def team_child(path):
    jax.config.update("jax_num_cpu_devices", 2)
    np.savez(path, **{f"{d}x{k}": team_run(d, k) for d, k in ((1, 1), (2, 2))})


def test_devices_and_pieces_change_nothing(tmp_path):
    path = str(tmp_path / "found.npz")
    code = f"import test_regularized; test_regularized.team_child({path!r})"
    ((code, err),) = test_parallel.finish(test_parallel.start(code, test_parallel.QUICK))
    assert code == 0, err
    found = np.load(path)
    _close(found["2x2"], found["1x1"])


# ---------------------------------------------------------------------------- resuming


def test_a_run_that_is_resumed_from_a_checkpoint_goes_on_as_if_it_had_not_stopped(tmp_path):
    state, _ = steps(ALL, fresh(ALL), 2)
    checkpoint.save(tmp_path, 2, state, {})
    back, _ = checkpoint.restore(tmp_path, jax.eval_shape(lambda: fresh(ALL)))
    assert back.augment_p == state.augment_p != 0.5
    whole, scalars = steps(ALL, state, 2, first=2)
    again, repeated = steps(ALL, jax.tree.map(jnp.asarray, back), 2, first=2)
    np.testing.assert_array_equal(flat(whole), flat(again))
    assert same(scalars, repeated)
    assert set(whole.anchors) == {"data", "samples"}


# ---------------------------------------------------------------------------- knobs

EVERY = {
    "augment.policy": "noise",
    "augment.p": 0.5,
    "augment.adaptive": 0.6,
    "augment.kimg": 0.1,
    "augment.sigma": 0.3,
    "augment.sigma_steps": 3,
    "critic.lecam": 0.01,
    "critic.consistency": 1.0,
    "critic.consistency_policy": "noise",
    "critic.freeze": 1,
    "generator.mode_seeking": 0.1,
    "schedule.lam_from": 1.0,
    "schedule.tau_from": 1.0,
    "schedule.steps": 4,
}


@pytest.fixture
def usual_jax():
    """Optax's Adam does not run with strict dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def put(cfg, knobs):
    for knob, value in knobs.items():
        *groups, last = knob.split(".")
        functools.reduce(lambda tree, name: tree[name], groups, cfg)[last] = value
    return cfg


def points(**knobs):
    """Points in the plane, seconds to train."""
    cfg = config.defaults()
    cfg.lams, cfg.data.name, cfg.model.name = (5.0,), "ring8", "mlp"
    cfg.model.generator_ch = cfg.model.critic_ch = 4
    cfg.model.dim_z, cfg.train.devices = 2, 1
    cfg.train.batch, cfg.train.steps, cfg.train.warmup, cfg.base.steps = 16, 4, 1, 2
    cfg.train.log_every = cfg.train.diagnose_every = cfg.train.checkpoint_every = 2
    cfg.train.diagnose_size, cfg.score.encoder = 32, "pixels"
    cfg.score.n_real = cfg.score.n_fake = 32
    return put(cfg, knobs)


def flow(**knobs):
    cfg = config.flow_of(config.defaults())
    cfg.model.name = "glow"
    return put(cfg, knobs)


@pytest.mark.parametrize(
    ("cfg", "knobs", "message"),
    [
        (points, {"augment.policy": "colour"}, r"augment\.policy.*'color'"),
        (points, {"augment.policy": "noise,noise", "augment.sigma": 0.1}, "twice"),
        (points, {"augment.adaptive": 0.6}, r"adaptive = 0\.6.*set config\.augment\.policy"),
        (points, {"augment.policy": "cutout", "augment.p": 0.0}, r"augment\.p = 0\.0.*never"),
        (points, {"augment.policy": "noise"}, r"sigma = 0\.0.*set sigma"),
        (points, {"augment.sigma": 0.1}, r"sigma = 0\.1: no policy.*'noise'"),
        (points, {"augment.sigma_steps": 5}, r"sigma_steps = 5.*set config\.augment\.sigma"),
        (points, {"critic.consistency": 1.0}, r"consistency = 1\.0.*consistency_policy"),
        (points, {"critic.consistency_policy": "cutout"}, r"set config\.critic\.consistency"),
        (points, {"schedule.lam_from": 1.0}, r"steps = 0.*lam_from = 1\.0.*at most .*= 4"),
        (points, {"schedule.lam_from": 1.0, "schedule.steps": 5}, r"steps = 5.*at most that"),
        (points, {"schedule.steps": 3}, r"steps = 3: nothing moves"),
        (points, {"schedule.lam_from": -1.0}, r"schedule\.lam_from.*positive"),
        (
            points,
            {"schedule.tau_from": 1.0, "schedule.steps": 2, "objective": "plug_in"},
            r"tau_from = 1\.0.*'plug_in' does not read tau",
        ),
        (flow, {"augment.policy": "cutout"}, r"policy = 'cutout' with config\.log_ratio"),
        (
            flow,
            {"augment.policy": "cutout", "log_ratio": "critic"},
            r"policy = 'cutout' with config\.route = 'balanced'.*route = 'samples'",
        ),
        (flow, {"generator.mode_seeking": 1.0}, r"mode_seeking = 1\.0 .*'balanced'"),
        (flow, {"critic.freeze": 1}, r"freeze = 1 .*base\.loss = 'likelihood'"),
        (
            flow,
            {"route": "implicit", "objective": "smoothed_pr", "critic.lecam": 1.0},
            r"lecam = 1\.0 with config\.route = 'implicit': no critic",
        ),
        (
            flow,
            {"objective": "likelihood", "augment.policy": "cutout", "log_ratio": "critic"},
            r"policy = 'cutout' with config\.objective = 'likelihood'",
        ),
    ],
)
def test_what_could_not_act_is_refused(cfg, knobs, message):
    cfg = cfg()
    config.validate(cfg)
    with pytest.raises(ConfigError, match=message) as error:
        config.validate(put(cfg, knobs))
    assert str(error.value).startswith("config.")


def test_what_the_data_and_the_critic_cannot_take_is_refused(tmp_path):
    for knob in ("augment.policy", "critic.consistency_policy"):
        cfg = points(**{knob: "cutout"})
        cfg.critic.consistency = float("consistency" in knob)
        with pytest.raises(ConfigError, match=rf"config\.{knob}.*points take 'noise'"):
            build.check(cfg)
    with pytest.raises(ConfigError, match=r"config\.critic\.freeze = 3.*has 2 .*0 to 2"):
        build.check(points(**{"critic.freeze": 3}))
    build.check(points(**{"critic.freeze": 2}))
    with pytest.raises(ConfigError, match=r"config\.critic\.freeze = 1.*starts from nothing"):
        run.train_base(points(**{"critic.freeze": 1}), tmp_path)


def test_frozen_layers_stay_and_the_clip_is_of_the_others(usual_jax):
    cfg = points(**{"critic.freeze": 1, "critic.clip": 1e-3})
    cfg.model.fourier, cfg.model.critic_spectral_norm, cfg.dial = 1.0, False, (0.1, 10.0)
    cfg.model.dial, cfg.critic.freeze = "input", 2
    parts = build.check(cfg)
    system = build.system(cfg, parts.train)
    dials = build.dials(cfg, None)
    example = build.example(system, parts.train)
    state = jax.jit(lambda key: train.init(system, key, example, dials))(jax.random.key(0))
    images, labels, *_ = parts.train.images[:16], parts.train.labels[:16]
    items = {"image": images, "label": labels, "index": np.int32(0), "advance": np.int32(0)}
    update = jax.jit(lambda state: train.critic_update(system, state, items))
    after, scalars = update(update(state)[0])
    before, after = state.critic.params, after.critic.params
    moved = {name for name in before if not same(before[name], after[name])}
    # A dial hears λ, and is no layer.
    assert set(before) - moved == {"frequencies", "layer0"}
    assert moved == {"layer1", "out", "dial0", "dial1"}
    assert scalars["critic_grad_norm"] > 1e-3
    # With SGD in Adam's place the movement is the clip's: nothing of it is spent on what is frozen.
    inner = build._held(optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0)), 2)
    gradient = jax.tree.map(jnp.ones_like, before)
    updates, _ = inner.update(gradient, inner.init(before), before)
    np.testing.assert_allclose(optax.tree.norm(updates), 1e-3, rtol=1e-5)


def test_whose_they_are():
    """The base has none, the control only with the fine-tune's recipe, a fit what it can use."""
    cfg, off = put(points(), EVERY), config.flatten(config.defaults())
    config.validate(cfg)

    def on(derived):
        config.validate(derived)
        flat = config.flatten(derived)
        return {knob for knob in EVERY if flat[knob] != off[knob]}

    assert on(cfg) == set(EVERY)
    assert on(config.base_of(cfg)) == on(config.control_of(cfg)) == on(config.plain(cfg)) == set()
    cfg.control_recipe = "finetune"
    schedule = {knob for knob in EVERY if knob.startswith("schedule.")}
    assert on(config.control_of(cfg)) == set(EVERY) - schedule
    cfg.train.decay = "linear"
    fit = config.fit_of(cfg)
    assert on(fit) == {
        knob for knob in EVERY if knob.startswith("augment.") or "consistency" in knob
    } - {"augment.sigma_steps"}
    assert fit.train.decay == "constant"
    assert on(config.shrink(cfg)) == set(EVERY)
    cfg.critic.freeze, cfg.base.loss, cfg.model.name = 0, "likelihood", "realnvp"
    assert on(config.control_of(cfg)) == set()
    assert on(cfg) == set(EVERY) - {"critic.freeze"}  # the original is not touched


def test_a_run_of_a_version_without_a_knob_is_one_at_its_default(tmp_path):
    cfg = points()
    now = jobs.settings(cfg)
    old = {knob: value for knob, value in now.items() if knob not in EVERY}
    assert len(now) - len(old) == len(EVERY)
    jobs.check_same(old, now, tmp_path)
    jobs.check_same({**old, "critic.lecam": None}, now, tmp_path)
    # A knob at its default is not one that differs from it, whichever side lacks it or not.
    with pytest.raises(WorkdirError, match=r"critic\.lecam: None there, 0\.01 now"):
        jobs.check_same(old, {**now, "critic.lecam": 0.01}, tmp_path)
    with pytest.raises(WorkdirError, match=r"critic\.lecam: 0\.01 there, 0\.0 now"):
        jobs.check_same({**old, "critic.lecam": 0.01}, now, tmp_path)
    with pytest.raises(WorkdirError, match=r"critic\.steps"):
        jobs.check_same({**old, "critic.steps": 3}, now, tmp_path)
    with pytest.raises(WorkdirError, match="base: None there, 5 now"):
        jobs.check_same({**old, "base": None}, {**now, "base": 5}, tmp_path)
    assert jobs.different({}, {"of another kind": 1}) == ["of another kind"]


# ---------------------------------------------------------------------------- whole runs


def test_a_base_that_was_steadied_is_read_by_whoever_is_not(tmp_path):
    """Its moments and averages have other leaves; its networks are what is gone on from."""
    own = config.base_of(points())
    put(own, {"critic.lecam": 0.1, "augment.policy": "noise", "augment.sigma": 0.1})
    put(own, {"augment.adaptive": 0.5, "critic.clip": 1.0})
    job, parts = jobs.Job("base", None, 0), build.check(own)
    with preempt.Preemption() as stop:
        trainer = Trainer(own, parts, tmp_path, 1, stop)
        state = trainer.fresh(job).replace(step=jnp.int32(2))
        assert state.anchors is not None
        checkpoint.save(trainer.folder(job), 2, state, trainer.meta(job, 0.0))
        plain = Trainer(config.base_of(points()), parts, tmp_path, 1, stop)
        found = plain.load(job)
        assert same(found.state.critic, state.critic)
        # It is no run of this configuration, though: it is not gone on with.
        with pytest.raises(WorkdirError, match=r"augment\.adaptive: 0\.5 there"):
            plain.check([job])


@pytest.mark.slow
def test_a_fine_tune_with_all_of_it(usual_jax, tmp_path):
    """At the smoke size of configs/digits.py, whose critic has spectral norm."""
    cfg = load(CONFIGS[0].with_name("digits.py"), "smoke")[1]
    put(cfg, {**EVERY, "lams": (5.0,), "augment.policy": POLICY, "control": False})
    put(cfg, {"critic.consistency_policy": "cutout", "model.generator_ch": 2, "model.critic_ch": 2})
    put(cfg, {"critic.steps": 1, "score.n_real": 32, "score.n_fake": 32, "train.devices": 1})
    rows = run.finetune(cfg, tmp_path)["rows"]
    assert [row["name"] for row in rows] == ["real", "base", "lam_5"]
    logged: dict[str, dict[int, Any]] = {}
    for line in record.read_metrics(tmp_path):
        logged.setdefault(line["run"], {}).setdefault(line["step"], {}).update(line)
    log = logged["lam_5-seed0"]
    last = log[max(log)]
    assert last["finite"] == 1
    assert 0 <= last["augment_p"] <= 1
    assert last["augment_p"] != 0.5
    # Half way, after a warm-up of two steps of four: the update of step 4 is the third of them.
    assert log[4]["scheduled_lam"] == pytest.approx(5 ** (1 / 4), rel=1e-5)

    def of(folder, name):
        trainer = tmp_path / folder / "checkpoints" / name
        return checkpoint.read_meta(trainer)["settings"]

    assert of("", "lam_5-seed0")["critic.freeze"] == 1
    assert of("base", "base-seed0")["critic.freeze"] == 0
