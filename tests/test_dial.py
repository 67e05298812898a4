"""λ as an input: a graft that changes nothing, λ of each sample's own, a dial that stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prpr import build, config, data, pieces, sampling, train
from prpr.errors import ConfigError
from prpr.models import dial

SPAN = (0.05, 20.0)


@pytest.fixture(autouse=True)
def _usual_jax():
    """Optax's Adam does not run with strict dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def configured(name, **model):
    cfg = config.defaults()
    cfg.lams, cfg.data.name = (0.2, 5.0), "ring8" if name in ("mlp", "realnvp") else "digits"
    cfg.model.name, cfg.model.generator_ch, cfg.model.critic_ch = name, 8, 8
    cfg.model.dim_z, cfg.model.shared_dim, cfg.train.batch = 8, 8, 16
    if name in ("realnvp", "glow"):
        cfg = config.flow_of(cfg)
        cfg.model.layers = 1
    cfg.critic.steps, cfg.model.dial = 1, "input"
    for knob, value in model.items():
        cfg.model[knob] = value
    return cfg


def systems_of(cfg, dataset, span=SPAN):
    """(plain, with a dial) systems of one configuration."""
    turned = cfg.copy_and_resolve_references()
    turned.dial = span
    return build.system(cfg, dataset), build.system(turned, dataset)


def states_of(cfg, plain, with_dial, dataset):
    """A state of each, the second grafted onto the first; parameters moved off their zeros."""
    dials, key = build.dials(cfg, 1.0), jax.random.key(0)
    made = []
    for system in (plain, with_dial):
        example = build.example(system, dataset)
        made.append(jax.jit(lambda key, s=system, x=example: train.init(s, key, x, dials)))
    old, new = made[0](key), made[1](jax.random.key(1))
    rng = np.random.default_rng(0)

    def off(net):
        moved = jax.tree.map(
            lambda x: x + 0.05 * rng.standard_normal(x.shape).astype(x.dtype), net.params
        )
        return train.Net(moved, net.extra)

    nets = [off(net) for net in (old.critic, old.generator)]
    old = train.start(plain, key, *nets, nets[1], dials)
    critic, generator = (
        train.grafted(*pair) for pair in ((new.critic, old.critic), (new.generator, old.generator))
    )
    return old, train.start(with_dial, key, critic, generator, generator, dials)


def loaded(cfg):
    found = data.load(cfg.data.name, "train", 0, (0.8, 0.1, 0.1))
    return found.take(np.arange(64))


@pytest.mark.parametrize("name", ["mlp", "realnvp", "biggan"])
def test_a_graft_changes_nothing_at_any_lam(name):
    cfg = configured(name)
    dataset = loaded(cfg)
    plain, with_dial = systems_of(cfg, dataset)
    old, new = states_of(cfg, plain, with_dial, dataset)
    rng = np.random.default_rng(1)
    z = jnp.asarray(rng.standard_normal((12, plain.dim_z)), jnp.float32)
    y = jnp.asarray(dataset.labels[:12], jnp.int32)
    x = jnp.asarray(dataset.images[:12])
    told = dial.told(y, jnp.log(jnp.geomspace(0.05, 20.0, 12)))
    for module, other, net, graft, given in (
        (plain.generator, with_dial.generator, old.generator, new.generator, z),
        (plain.critic, with_dial.critic, old.critic, new.critic, x),
    ):
        np.testing.assert_allclose(
            train.apply_frozen(other, graft, given, told),
            train.apply_frozen(module, net, given, y),
            atol=1e-6,
        )
    # Whatever moves the dial tells one λ from another.
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 0.3 if "dial" in str(path) else leaf, new.generator.params
    )
    moved = train.apply_frozen(
        with_dial.generator, train.Net(params, new.generator.extra), z[:1].repeat(2, 0), told[::11]
    )
    assert np.abs(np.diff(moved, axis=0)).max() > 1e-4


def test_held_out_likelihood_is_that_of_the_lams_that_are_drawn(monkeypatch):
    cfg = configured("realnvp")
    dataset = loaded(cfg)
    plain, with_dial = systems_of(cfg, dataset)
    _, new = states_of(cfg, plain, with_dial, dataset)
    heard, likelihood = [], train.log_likelihood

    def log_likelihood(system, net, x, y, noise):
        heard.append(dial.heard(y)[1])
        return likelihood(system, net, x, y, noise)

    monkeypatch.setattr(train, "log_likelihood", log_likelihood)
    images = jnp.asarray(dataset.images[:16])
    given = {"image": images, "label": jnp.zeros(16, jnp.int32), "index": jnp.int32(0)}
    train.held_out(with_dial, new, given)
    (log_lam,) = heard
    assert log_lam.shape == (16,)
    assert np.ptp(log_lam) > 1  # over the span, not one for all


@pytest.mark.parametrize("name", ["mlp", "realnvp"])
def test_at_one_lam_an_update_is_that_of_a_model_without_a_dial(name):
    """A span of one λ: the same losses and the same change of every shared parameter."""
    cfg = configured(name)
    dataset = loaded(cfg)
    plain, with_dial = systems_of(cfg, dataset, (3.0, 3.0 + 1e-9))
    old, new = states_of(cfg, plain, with_dial, dataset)
    old = old.replace(dials={**old.dials, "lam": jnp.float32(3.0)})
    batch = {
        "image": jnp.asarray(dataset.images[:16]),
        "label": jnp.zeros(16, jnp.int32),
        "index": jnp.int32(0),
        "advance": jnp.int32(0),
    }
    data_or_n = batch if plain.reads_data else 16
    for net, update, given in (
        ("critic", train.critic_update, batch),
        ("generator", train.generator_update, data_or_n),
    ):
        (one, first), (two, second) = (
            jax.jit(
                lambda state, system=system, update=update, given=given: update(
                    system, state, given
                )
            )(state)
            for system, state in ((plain, old), (with_dial, new))
        )
        for key in set(first) - {"critic_grad_norm", "generator_grad_norm"}:
            assert float(first[key]) == pytest.approx(float(second[key]), rel=1e-4, abs=1e-6), key
        before, after = (getattr(state, net) for state in (old, one))
        assert any(
            np.abs(x - y).max() > 1e-5
            for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        )
        paths = dict(jax.tree_util.tree_leaves_with_path(getattr(two, net).params))
        for path, leaf in jax.tree_util.tree_leaves_with_path(after.params):
            np.testing.assert_allclose(paths[path], leaf, rtol=2e-3, atol=2e-4)


def test_lams_are_even_over_the_span_with_more_at_its_ends():
    cfg = configured("mlp")
    span = (-1.0, 3.0)
    system = systems_of(cfg, loaded(cfg))[1]._replace(dial=span)
    drawn = np.asarray(pieces.log_lams(system, jax.random.key(0), 60_000))
    assert drawn.min() == span[0]
    assert drawn.max() == span[1]
    for end in span:
        assert np.mean(drawn == end) == pytest.approx(1 / 12, abs=0.005)
    inner = drawn[(drawn > span[0]) & (drawn < span[1])]
    assert np.histogram(inner, 4)[0] / len(drawn) == pytest.approx([5 / 24] * 4, abs=0.01)


def test_data_have_the_lams_of_the_samples_beside_them():
    cfg = configured("mlp")
    _, with_dial = systems_of(cfg, loaded(cfg))
    _, y = pieces.latents(with_dial, jax.random.key(0), 16)
    labels = pieces.told_as(with_dial, jnp.arange(16)[None], y)
    np.testing.assert_array_equal(labels[..., 1], y[..., 1])
    np.testing.assert_array_equal(labels[0, :, 0], np.arange(16))


def test_a_dial_that_stands_is_a_model_without_one(monkeypatch):
    cfg = configured("mlp")
    dataset = loaded(cfg)
    plain, with_dial = systems_of(cfg, dataset)
    _, new = states_of(cfg, plain, with_dial, dataset)
    params = jax.tree.map(lambda leaf: leaf + 0.1, new.ema.params)
    new = new.replace(ema=train.Net(params, new.ema.extra))
    labels = dataset.labels[:20]
    traces, drawn = sampling.draw._cache_size(), []
    for lam in (0.2, 1.0, 5.0):
        system, state = train.turned(with_dial, new, lam)
        assert system.dial is None
        assert float(state.dials["lam"]) == pytest.approx(lam)
        found = sampling.sample(system, state.ema, labels, jax.random.key(3))
        z = sampling.latents(jax.random.key(3), 20, 8)
        told = dial.told(jnp.asarray(labels, jnp.int32), jnp.log(jnp.float32(lam)))
        expected = train.apply_frozen(with_dial.generator, new.ema, z, told)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        drawn.append(found)
    assert sampling.draw._cache_size() == traces + 1  # one compilation for every λ
    assert np.abs(drawn[0] - drawn[2]).max() > 1e-3


def test_items_that_share_a_lam_are_in_a_row_and_spread_over_the_span():
    cfg = configured("mlp", dial="weights", dial_items=8)
    system = systems_of(cfg, loaded(cfg))[1]._replace(dial=(-1.0, 3.0))
    drawn = []
    for seed in range(300):
        found = np.asarray(pieces.log_lams(system, jax.random.key(seed), 36)).tolist()
        groups = [found[at : at + 8] for at in range(0, 36, 8)]
        assert all(len(set(group)) == 1 for group in groups)
        drawn.append([group[0] for group in groups])
    # One from each fifth of the span, in an order of its own.
    parts = np.clip((np.array(drawn) + 1.4) / 4.8 * 5, 0, 4.999).astype(int)
    assert (np.sort(parts, axis=1) == np.arange(5)).all()
    assert np.ptp(parts.mean(axis=0)) < 0.5


@pytest.mark.parametrize("name", ["mlp", "biggan"])
def test_woven_weights_are_a_network_at_each_lam(name):
    """Grafted: the base's at every λ. Moved: group by group the plain network at θ + s u θ'."""
    cfg = configured(name, dial="weights", dial_items=4, dial_scale=0.5)
    dataset = loaded(cfg)
    plain, woven = systems_of(cfg, dataset)
    assert woven.dial_items == 4
    old, new = states_of(cfg, plain, woven, dataset)
    rng = np.random.default_rng(1)
    z = jnp.asarray(rng.standard_normal((10, plain.dim_z)), jnp.float32)
    y = jnp.asarray(dataset.labels[:10], jnp.int32)
    lams = np.repeat([0.05, 1.0, 7.0], 4)[:10].astype(np.float32)
    told = dial.told(y, jnp.log(lams))
    np.testing.assert_array_equal(
        train.apply_frozen(woven.generator, new.generator, z, told),
        jnp.concatenate(
            [
                train.apply_frozen(plain.generator, old.generator, z[s], y[s])
                for s in (slice(0, 4), slice(4, 8), slice(8, 10))
            ]
        ),
    )
    slope = jax.tree.map(
        lambda leaf: jnp.asarray(0.2 * rng.standard_normal(leaf.shape), leaf.dtype),
        new.generator.params["slope"],
    )
    params = {**new.generator.params, "slope": slope}
    net = train.Net(params, new.generator.extra)
    out, extra = train.apply_training(woven.generator, params, net.extra, z, told)
    moved = []
    for s, lam in ((slice(0, 4), 0.05), (slice(4, 8), 1.0), (slice(8, 10), 7.0)):
        u = 2 * np.log(lam / 0.05) / np.log(20 / 0.05) - 1
        own = jax.tree.map(lambda a, b, u=u: a + 0.5 * u * b, params["middle"], slope)
        one, changed = train.apply_training(plain.generator, own, net.extra, z[s], y[s])
        np.testing.assert_allclose(out[s], one, atol=2e-5)
        moved.append(changed)
        # The dial that stands is that network.
        system, state = train.turned(woven, new.replace(generator=net, ema=net), lam)
        assert system.generator is woven.generator.module
        np.testing.assert_allclose(
            train.apply_frozen(system.generator, state.ema, z[s], y[s]),
            train.apply_frozen(plain.generator, train.Net(own, net.extra), z[s], y[s]),
            atol=2e-5,
        )
    mean = jax.tree.map(lambda *each: np.mean(each, axis=0), *moved)
    assert bool(jax.tree.leaves(extra)) == (name == "biggan")  # batch norm's moments
    for one, two in zip(jax.tree.leaves(extra), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    # Both halves learn.
    after, _ = jax.jit(lambda state: train.generator_update(woven, state, 16))(new)
    for half in ("middle", "slope"):
        before, now = (jax.tree.leaves(s.generator.params[half]) for s in (new, after))
        assert any(np.abs(a - b).max() > 1e-5 for a, b in zip(before, now, strict=True))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"dial_items": 3}, r"dial_items = 3: .*2 to 16 such groups.*0 makes four"),
        ({"dial_items": 16}, "2 to 16 such groups"),
        ({"name": "realnvp"}, "realnvp is a flow, which takes λ as an input"),
        ({"name": "biggan"}, r"score\.standing = 0"),
        ({"dial": "wheel"}, "wheel"),
        ({"dial_scale": 0.0}, "dial_scale"),
    ],
)
def test_woven_weights_that_cannot_be_are_refused(knobs, message):
    cfg = configured("mlp", dial="weights", dial_items=4)
    cfg.dial, cfg.lams = SPAN, (0.2, 5.0)
    config.validate(cfg)
    for knob, value in knobs.items():
        cfg.model[knob] = value
    with pytest.raises(ConfigError, match=message):
        config.validate(cfg)


def test_woven_weights_share_no_batch_over_devices_and_no_ortho():
    cfg = configured("mlp", dial="weights", dial_items=4)
    cfg.dial, cfg.train.layout = SPAN, "data"
    with pytest.raises(ConfigError, match="set the layout to 'runs'"):
        config.validate(cfg)
    cfg.train.layout, cfg.generator.ortho = "runs", 1e-4
    with pytest.raises(ConfigError, match="ortho"):
        config.validate(cfg)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"dial": (5.0,)}, "config.dial = .*two λ"),
        ({"dial": (5.0, 0.2)}, "the smaller first"),
        ({"dial": (-1.0, 2.0)}, "config.dial"),
        ({"dial": (1.0, 2.0)}, r"config.lams = \(0.2, 5.0\) with config.dial"),
        ({"dial": SPAN, "lams": ()}, "name at least one"),
        ({"dial": SPAN, "objective": "hinge"}, "reads no λ"),
    ],
)
def test_a_dial_that_cannot_be_is_refused(knobs, message):
    cfg = configured("mlp")
    for knob, value in knobs.items():
        cfg[knob] = value
    with pytest.raises(ConfigError, match=message):
        config.validate(cfg)


def test_tables_by_class_take_no_dial():
    cfg = configured("biggan", shared_embedding=False, hierarchical=False)
    cfg.dial = SPAN
    with pytest.raises(ConfigError, match="tables by class cannot take λ"):
        build.system(cfg, loaded(cfg))


def test_base_and_control_have_no_dial():
    cfg = configured("mlp")
    cfg.dial = SPAN
    assert config.base_of(cfg).dial == ()
    assert config.control_of(cfg).dial == ()
