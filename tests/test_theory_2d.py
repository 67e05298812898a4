"""The theory's checks in the plane: known cases of what they compute, and all of them in small."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import planar_tools
import pytest

from prpr import build, config, divergences, objectives, train
from prpr.errors import ConfigError, WorkdirError
from prpr.numerics import float64
from prpr.planar import checks
from prpr.planar.checks import bound, grids, implied, plug_in, runs, tau
from prpr.planar.checks.centres import centre, pr_divergence
from prpr.planar.grid import oracle_of

CELLS = 32
KINDS = dict(bound.KINDS)
# One program less; the kinds that stay are of both parametrisations.
FEW = {key: kind for key, kind in KINDS.items() if key != "pearson, log"}


def get_config(argument: str) -> config.Config:
    cfg = planar_tools.get_config(argument)
    cfg.model.depth, cfg.model.layers, cfg.train.warmup = 1, 1, 0
    return cfg


@pytest.fixture(scope="module", autouse=True)
def standard():
    # Nearly all of the time is XLA's, on programs that then run for milliseconds.
    jax.config.update("jax_disable_most_optimizations", True)
    # Optax raises a Python float to an int32 power, which is not for strict dtypes.
    with jax.numpy_dtype_promotion("standard"):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def configs():
    return {"flow": get_config("flow_smoke"), "gan": get_config("gan_smoke")}


@pytest.fixture(scope="module")
def setting(configs):
    made = runs.Setting("ring8", configs["flow"], configs["gan"], CELLS, 1)
    vars(made)["flow_bases"] = made.fresh_flows  # any flow will do
    return made


@pytest.fixture(scope="module")
def done(configs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("theory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bound, "KINDS", FEW)
        return folder, checks.run(configs, tuple(checks.CHECKS), "ring8", folder, CELLS)


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    p, q = rng.gamma(0.7, size=(2, 400)) + 1e-4
    return p / p.sum(), q / q.sum()


# ---- centres ----------------------------------------------------------------------------


def test_the_pr_divergence_of_masses_is_its_definition(pair):
    p, q = pair
    lam = np.geomspace(1e-3, 1e3, 31)
    alpha = np.minimum(lam[:, None] * p, q).sum(axis=1)
    np.testing.assert_allclose(pr_divergence(p, q, lam), np.minimum(1, lam) - alpha, atol=1e-12)


@pytest.mark.parametrize("name", [*implied.NAMES, "neyman"])
def test_a_divergence_is_the_mixture_that_its_centre_is_read_off(pair, name):
    found = centre(name, *pair)
    assert found.mixture == pytest.approx(found.divergence, rel=1e-3)
    assert found.low < found.centre < found.high


def test_centres_stand_in_the_order_of_their_weights(pair):
    order = ("pearson", "kl", "jensen_shannon", "reverse_kl", "neyman")
    at = [centre(name, *pair).centre for name in order]
    assert at == sorted(at)
    assert at[0] < 0.7 * at[2] < 0.7**2 * at[4]


@pytest.mark.parametrize(
    ("name", "other"),
    [("kl", "reverse_kl"), ("pearson", "neyman"), ("le_cam", "le_cam"), ("jeffreys", "jeffreys")],
)
def test_exchanging_p_and_q_inverts_a_centre(pair, name, other):
    p, q = pair
    # D_λ(P‖Q) = λ D_{1/λ}(Q‖P)
    product = centre(name, p, q).centre * centre(other, q, p).centre
    assert product == pytest.approx(1, rel=1e-2)


# ---- the bound --------------------------------------------------------------------------

LAMS = (0.05, 0.5, 1.0, 3.0, 20.0)


@pytest.mark.parametrize("name", ["pearson", "gan"])
def test_the_bound_holds_for_any_critic(pair, name):
    p, q = pair
    rng = np.random.default_rng(1)
    g = divergences.get(name)
    right = np.asarray(g.f_prime(p / q, None), np.float64)
    for size in (0.0, 1e-3, 0.1, 1.0, 5.0):
        t = right + size * rng.standard_normal(len(p))
        if name == "gan":
            t = np.minimum(t, -1e-3)  # its domain ends at 0
        found = bound.errors(name, t, p, q, LAMS)
        assert np.all(found.error <= found.bound + bound.ROUNDING)
        assert size == 0 or found.epsilon > 0
    exact = bound.errors(name, right, p, q, LAMS)
    assert exact.epsilon < 1e-6
    assert exact.error.max() < 1e-5


def test_the_bound_of_chi_square_is_reached(pair):
    p, q = pair
    r, shift = p / q, 0.3
    # Where every λr > 1, f_λ is linear; a constant error in r leaves nothing to either inequality.
    lam = 2 / r.min()
    found = bound.errors("pearson", 2 * (r + shift - 1), p, q, (lam,))
    assert found.epsilon == pytest.approx(shift**2, rel=1e-6)
    assert found.error[0] == pytest.approx(lam * shift, rel=1e-6)
    assert found.error[0] == pytest.approx(found.bound[0], rel=1e-6)


def test_the_bound_of_the_gan_is_reached_by_small_errors():
    p = np.full(4, 0.25)
    ratios = []
    for delta in (1e-1, 1e-2, 1e-3):
        t = np.asarray(divergences.get("gan").f_prime(np.full(4, 1 + delta), None), np.float64)
        found = bound.errors("gan", t, p, p, (2.0,))
        assert found.error[0] == pytest.approx(2 * delta, rel=1e-3)
        ratios.append(found.error[0] / found.bound[0])
    np.testing.assert_allclose(ratios, 1, atol=0.1)
    assert ratios[0] < ratios[1] < ratios[2] < 1
    assert ratios[2] == pytest.approx(1, abs=2e-3)


def test_a_small_error_of_one_cell_is_not_rounded_away():
    rng = np.random.default_rng(5)
    for _ in range(20):
        p, q = rng.dirichlet(np.full(400, 2.0), size=2)
        t = 2 * (p / q - 1)
        t[3] += 1e-6
        assert bound.errors("pearson", t, p, q, (1.0,)).epsilon > 0.5 * q[3] * 0.25e-12


def test_only_divergences_of_known_convexity_have_a_bound(pair):
    with pytest.raises(ConfigError, match="kl"):
        bound.errors("kl", pair[0], *pair, (1.0,))


@pytest.mark.parametrize("kind", KINDS)
def test_the_dual_variable_is_the_one_that_the_critic_is_trained_on(setting, kind):
    rng = np.random.default_rng(3)
    name = KINDS[kind][2]
    _, system = bound._system(setting, kind)
    found = []
    for size in (0.1, 1.0, 2.0):
        real, fake = size * rng.standard_normal((2, 64))
        with float64():
            loss = float(system.critic_loss.loss(jnp.asarray(real), jnp.asarray(fake)))
            t, on_fake = (bound.dual_of(kind, v) for v in (real, fake))
            dual = t.mean() - np.asarray(divergences.get(name).conjugate(on_fake, None)).mean()
        found.append(loss + dual)
    np.testing.assert_allclose(found, found[0], atol=1e-5)


def test_a_critic_of_the_bound_has_the_loss_of_its_divergence_alone(setting):
    flow = setting.flow.copy_and_resolve_references()
    flow.critic.scale, flow.critic.r1, flow.critic.r2, flow.critic.ortho = 3.0, 1.0, 1.0, 1.0
    other = runs.Setting("ring8", flow, setting.gan, CELLS, 1)
    for kind in KINDS:
        _, system = bound._system(other, kind)
        assert system.critic_loss.scale == 1
        assert (system.r1, system.r2, system.critic_ortho) == (0, 0, 0)


def test_critics_are_looked_at_from_the_first_to_the_last_update():
    assert bound.counts_of(6) == (0, 1, 2, 3, 4, 5, 6)
    counts = bound.counts_of(3000)
    assert (counts[0], counts[-1]) == (0, 3000)
    assert len(counts) == bound.SHOTS + 1


# ---- gradients --------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [grids.TILE, 300])  # 300 leaves a part of a tile
def test_the_step_ascends_alpha_itself(setting, monkeypatch, tile):
    monkeypatch.setattr(grids, "TILE", tile)
    system, nets = setting.flow_system, setting.flow_bases.ema
    log_p, log_q = setting.densities
    x, area = (jnp.asarray(one) for one in grids.midpoints(CELLS))
    lams, net = np.array([0.3, 3.0]), runs.take(nets, 0)
    steps = (log_p - log_q[0] + np.log(lams)[:, None] > 0).astype(np.float64)
    found = grids.gradients(system, nets, steps[None], CELLS)[0]

    @jax.jit
    def wanted(lam):
        def alpha(params):
            y = jnp.zeros(len(x), jnp.int32)
            q = jnp.exp(train.log_density(system, train.Net(params, net.extra), x, y))
            return area * jnp.minimum(lam * jnp.exp(jnp.asarray(log_p, jnp.float32)), q).sum()

        return grids.flat(jax.grad(alpha)(net.params))

    for lam, one in zip(lams, found, strict=True):
        right = np.asarray(wanted(np.float32(lam)))
        assert np.abs(right).max() > 1e-3
        np.testing.assert_allclose(one, right, atol=1e-5 * np.abs(right).max())


def test_cosines(setting):
    a = np.array([[1.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(grids.cosine(a, np.array([1.0, 0.0])), [1, 0, 0.6])
    found = tau.cosines(setting)
    exact, batch = np.array(found["exact"]), np.array(found["batch"])
    # A mean over batches' cosines has the noise too.
    assert np.all(batch < exact)
    assert np.all(exact[:, 0] > 0.97)  # the smallest τ
    assert np.all(np.abs(batch) <= 1)


# ---- which objective a run has ----------------------------------------------------------


def dials_of(**more):
    return {key: jnp.float32(value) for key, value in {"lam": 3.0, "tau": 0.4, **more}.items()}


def test_a_run_of_implied_ascends_the_divergence_that_it_is_named_by(setting):
    system = implied._system(setting, implied.NAMES)
    log_r = jnp.linspace(-4.0, 4.0, 9)
    assert system.route == "balanced"
    for which, name in enumerate(("envelope", *implied.NAMES)):
        right = objectives.get(name).ascent(log_r, log_r, dials_of())
        found = system.objective.ascent(log_r, log_r, dials_of(which=which))
        np.testing.assert_allclose(found, right, rtol=1e-6)


def test_a_run_of_plug_in_ascends_the_objective_that_it_is_named_by(setting):
    either = plug_in._either(setting.flow_system).objective
    log_r = jnp.linspace(-4.0, 4.0, 9)
    for i, name in enumerate(plug_in.OBJECTIVES):
        right = objectives.get(name).ascent(log_r, log_r, dials_of())
        np.testing.assert_allclose(either.ascent(log_r, log_r, dials_of(plug_in=i)), right)


@pytest.mark.parametrize("loss", [("logistic", "log"), ("pearson", "dual")])
def test_the_true_ratio_is_that_whatever_the_critic_is_configured_as(setting, loss):
    cfg = setting.flow.copy_and_resolve_references()
    cfg.log_ratio, cfg.critic.scale = "critic", 3.0
    cfg.critic.loss, cfg.critic.parametrisation = loss
    system = oracle_of(build.system(cfg, setting.points()), "ring8")
    state = runs.take(setting.flow_bases, 0).replace(critic=train.Net({}, {}), reference=None)
    x = jnp.asarray(setting.points().images[:16])
    y = jnp.zeros(16, jnp.int32)
    right = setting.law.log_density(x) - train.log_density(system, state.generator, x, y)
    np.testing.assert_allclose(train.log_ratio(system, state, x, y), right, rtol=1e-5, atol=1e-5)


def test_lams_are_sorted_and_the_coarse_ones_have_both_ends(configs):
    flow = configs["flow"].copy_and_resolve_references()
    for lams, coarse in (
        ((5.0, 0.2), (0.2, 5.0)),
        ((5.0, 0.2, 20.0, 1.0), (0.2, 5.0, 20.0)),
        ((3.0, 1.0, 2.0, 5.0, 4.0), (1.0, 3.0, 5.0)),
    ):
        flow.lams = lams
        made = runs.Setting("ring8", flow, configs["gan"], CELLS, 1)
        assert made.lams == tuple(sorted(lams))
        assert made.coarse_lams == coarse


def test_a_seed_without_an_order_counts_as_none():
    found = runs.ranks((1.0, 2.0, 3.0), np.array([[0.1, 0.2, 0.3], [1.0, 1.0, 1.0]]))
    np.testing.assert_array_equal(found, [1, 0])


# ---- all of them, in small ----------------------------------------------------------------


def test_every_check_leaves_its_figure_and_its_numbers(done):
    folder, found = done
    held = json.loads((folder / "summary.json").read_text())["checks"]
    for name in checks.CHECKS:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert held[name]["numbers"] == found[name]
    text = checks.table(found)
    assert all(f"[{name}]" in text for name in checks.CHECKS)
    for kind in found["bound"]["kinds"].values():
        assert kind["below"] == 1
    rows = zip(found["lipschitz"]["limits"], found["lipschitz"]["grids"], strict=True)
    steep = {limit: np.max(grid["slope"]) for limit, grid in rows}
    # The power iteration may be a little behind.
    assert all(steep[limit] <= 1.1 * limit for limit in (1.0, 3.0, 10.0, 30.0))
    assert steep[1.0] < steep[10.0]


def test_the_same_again_is_read_and_other_settings_are_not(done, configs, monkeypatch):
    folder, found = done

    def fail(*_):
        raise AssertionError("made again")

    for module in checks.CHECKS.values():
        monkeypatch.setattr(module, "compute", fail)
    monkeypatch.setattr(bound, "KINDS", FEW)
    (folder / "tau.png").unlink()
    again = checks.run(configs, ["bound", "tau"], "ring8", folder, CELLS)
    assert again == {name: found[name] for name in ("bound", "tau")}
    assert (folder / "tau.png").exists()

    def changed(knob, value, of=("flow", "gan")):
        other = {key: cfg.copy_and_resolve_references() for key, cfg in configs.items()}
        for key in of:
            other[key].update_from_flattened_dict({knob: value})
        return other

    for given, cells in (
        (changed("generator.lr", 1e-5, ["flow"]), CELLS),
        (changed("base.generator_lr", 1e-5, ["gan"]), CELLS),
        (changed("seeds", (1,)), CELLS),
        (configs, CELLS + 2),
    ):
        with pytest.raises(AssertionError, match="made again"):
            checks.run(given, ["bound"], "ring8", folder, cells)
    monkeypatch.setattr(tau, "BATCHES", tau.BATCHES + 1)
    assert checks.run(configs, ["bound"], "ring8", folder, CELLS)
    with pytest.raises(AssertionError, match="made again"):
        checks.run(configs, ["tau"], "ring8", folder, CELLS)


def test_numbers_are_kept_where_their_figure_fails(configs, tmp_path, monkeypatch):
    def fail(_, numbers):
        assert np.isnan(numbers["x"][0])
        raise ZeroDivisionError

    monkeypatch.setattr(tau, "compute", lambda _: {"x": [float("nan"), 1.0]})
    monkeypatch.setattr(tau, "draw", fail)
    with pytest.raises(ZeroDivisionError):
        checks.run(configs, ["tau"], "ring8", tmp_path / "new/folder", CELLS)
    held = json.loads((tmp_path / "new/folder/summary.json").read_text())
    assert held["checks"]["tau"]["numbers"] == {"x": ["nan", 1.0]}


@pytest.mark.parametrize("text", ['{"results": {}}', "[]", '{"checks": [1]}', "{"])
def test_the_summary_of_something_else_is_not_replaced(configs, tmp_path, text):
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(WorkdirError, match="another --workdir"):
        checks.run(configs, ["tau"], "ring8", tmp_path, CELLS)
    assert path.read_text() == text


def test_what_cannot_be_checked_is_refused(configs, tmp_path):
    for given, names, law, cells, says in (
        (configs, ["bond"], "ring8", CELLS, "bound"),
        (configs, [], "ring8", CELLS, "no check"),
        (configs, ["tau"], "digits", CELLS, "digits"),
        (configs, ["tau"], "ring8", 31, "even"),
        ({**configs, "gan": configs["flow"]}, ["tau"], "ring8", CELLS, "starts from likelihood"),
    ):
        with pytest.raises(ConfigError, match=says):
            checks.run(given, names, law, tmp_path, cells)
    for key, knob, value, says in (
        ("gan", "lams", (1.0, 2.0), "differ in lams"),
        ("flow", "data.split_seed", 3, "differ in data.split_seed"),
        ("gan", "objective", "hinge", "'envelope'"),
        ("flow", "objective", "likelihood", "'envelope'"),
        ("flow", "route", "samples", "'balanced'"),
        ("gan", "model.dim_z", 8, "2 latents"),
        ("gan", "model.critic_spectral_norm", True, "fourier"),
        ("gan", "train.accumulate", 3, "multiple"),
    ):
        cfg = configs[key].copy_and_resolve_references()
        cfg.update_from_flattened_dict({knob: value})
        with pytest.raises(ConfigError, match=says):
            checks.run({**configs, key: cfg}, ["tau"], "ring8", tmp_path, CELLS)
    assert not any(tmp_path.iterdir())
