"""Samplers against exact answers: distributions, acceptance, cost, and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

from prpr import objectives, ratio, samplers, train
from prpr.errors import ConfigError, DataError
from prpr.samplers import Cost, chains, drawing, parse, proposals, rejection, settings

KEY = jax.random.key(11)
N = 6000

# Two classes over five items: q and p, which differ between the classes.
Q = np.array([[0.3, 0.3, 0.2, 0.1, 0.1], [0.05, 0.15, 0.2, 0.2, 0.4]])
P = np.array([[0.1, 0.2, 0.2, 0.2, 0.3], [0.3, 0.3, 0.2, 0.15, 0.05]])
R = P / Q


class Discrete(nn.Module):
    """z (N, 1) -> one of the items as a number, of law Q of its class."""

    @nn.compact
    def __call__(self, z: jax.Array, y: jax.Array, *, train: bool) -> jax.Array:
        del train
        edges = jnp.asarray(np.cumsum(Q, axis=1)[:, :-1], jnp.float32)[y]
        below = jax.scipy.stats.norm.cdf(z) > edges
        return below.sum(axis=1, keepdims=True).astype(jnp.float32)


class Table(nn.Module):
    """log r of Discrete's items, plus a constant."""

    shift: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array, *, train: bool) -> jax.Array:
        del train
        table = jnp.asarray(np.log(R), jnp.float32)
        return table[y, x[:, 0].astype(jnp.int32)] + self.shift


class Shifted(nn.Module):
    """z + the class."""

    @nn.compact
    def __call__(self, z: jax.Array, y: jax.Array, *, train: bool) -> jax.Array:
        del train
        return z + y[:, None].astype(z.dtype)


class Gaussian(nn.Module):
    """log p/q of p = N(y + mean, sd²) and q = N(y, 1), a coordinate each."""

    mean: float = 0.5
    sd: float = 0.7

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array, *, train: bool) -> jax.Array:
        del train
        at = x - y[:, None].astype(x.dtype)
        log_p = -0.5 * ((at - self.mean) / self.sd) ** 2 - jnp.log(self.sd)
        return (log_p + 0.5 * at**2).sum(axis=1)


class Scaled(nn.Module):
    """z e^s, which knows its density up to a constant."""

    def setup(self):
        self.log_scale = self.param("log_scale", nn.initializers.zeros, (), jnp.float32)

    def __call__(self, z: jax.Array, y: jax.Array, *, train: bool) -> jax.Array:
        del y, train
        return z * jnp.exp(self.log_scale)

    def log_prob(self, x: jax.Array, y: jax.Array) -> jax.Array:
        del y
        return (-0.5 * (x / jnp.exp(self.log_scale)) ** 2 - self.log_scale).sum(axis=1)

    def log_likelihood(self, x: jax.Array, y: jax.Array, noise: jax.Array) -> jax.Array:
        del noise
        return self.log_prob(x, y)


class Normal(nn.Module):
    """log p of a standard normal, up to the constant that Scaled's density leaves out, too."""

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array, *, train: bool) -> jax.Array:
        del y, train
        return (-0.5 * x**2).sum(axis=1)


class Against(nn.Module):
    """A critic that takes all of class 1 for made."""

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array, *, train: bool) -> jax.Array:
        del x, train
        return jnp.where(y == 1, -200.0, 0.0)


def made(generator=None, critic=None, *, dim_z=1, loss="logistic", **more):
    """(system, state) of networks without parameters."""
    tx = optax.sgd(0.1)
    system = train.System(
        generator or Discrete(),
        critic or Table(),
        ratio.get(loss),
        objectives.get("envelope"),
        tx,
        tx,
        dim_z=dim_z,
        num_classes=2,
        **more,
    )
    none = train.Net({}, {})
    return system, train.start(system, jax.random.key(0), none, none, none, {"lam": 1.0})


ONES = np.ones(N, np.int32)
LABELS = (np.arange(N) % 3 == 0).astype(np.int32)  # a third is of class 1


def counts(items, labels):
    return np.array([np.bincount(items[labels == c, 0].astype(int), minlength=5) for c in (0, 1)])


def fits(found, law):
    """χ² of counts (C, K) against a law (C, K) that is to be normalised: p-value."""
    expected = law / law.sum(axis=1, keepdims=True) * found.sum(axis=1, keepdims=True)
    return stats.chisquare(found.ravel(), expected.ravel(), ddof=len(law) - 1).pvalue


def near(found, expected, sd, n):
    """Within four standard errors."""
    assert abs(found - expected) < 4 * sd / np.sqrt(n), (found, expected)


# ---- rejection ----------------------------------------------------------------------------------


def draws_for(c):
    """Expected draws a label of LABELS, each class drawing until it has its samples."""
    share = np.bincount(LABELS) / N
    return float((share / (Q * np.minimum(c * R, 1)).sum(axis=1)).sum())


@pytest.mark.parametrize("batch", [256, 7000])
def test_a_budget_is_the_cost_and_the_law_is_q_times_min_cr_1(batch):
    system, state = made()
    found = drawing.sample(system, state, LABELS, KEY, parse("reject:budget=2"), batch=batch)
    assert (found.labels == LABELS).all()
    c = float(found.notes[0].split("c = ")[1].split(":")[0])
    near(draws_for(c), 2.0, 1.5, 2048)  # c is from 2048 draws
    near(found.cost.per_item["generator"], draws_for(c), 1.5, N)
    assert fits(counts(found.items, LABELS), Q * np.minimum(c * R, 1)) > 1e-3
    assert fits(counts(found.items, LABELS), Q) < 1e-9
    assert found.cost.once == found.cost.once_critic == 2048
    assert found.cost.generator == found.cost.critic
    assert found.cost.gradient == 0


def test_at_lambda_the_acceptance_is_alpha():
    system, state = made()
    labels = np.zeros(N, np.int32)
    for lam in (0.3, 1.0, 2.0):
        found = drawing.sample(system, state, labels, KEY, parse(f"reject:lam={lam}"))
        alpha = float((Q[0] * np.minimum(lam * R[0], 1)).sum())
        near(N / found.cost.generator, alpha, np.sqrt(alpha * (1 - alpha)), N / alpha)
        assert fits(counts(found.items, labels)[:1], (Q * np.minimum(lam * R, 1))[:1]) > 1e-3
        assert found.cost.once == 0


def test_a_threshold_by_hand():
    log_r = np.log(np.array([[0.5, 1.0, 2.0, 4.0]]))
    # c = 1/2: acceptances 1/4, 1/2, 1, 1: 11/16 of all.
    log_c = rejection.threshold(log_r, np.ones(1), 16 / 11)
    assert np.exp(log_c) == pytest.approx(0.5)
    assert rejection.threshold(log_r, np.ones(1), 1) == np.inf
    # Classes weigh by their share: at c = 1/4, acceptances 1/4 and 1/2, 2 (1/4) + ... draws.
    two = np.log(np.array([[1.0, 1.0], [2.0, 2.0]]))
    log_c = rejection.threshold(two, np.array([0.75, 0.25]), 0.75 * 4 + 0.25 * 2)
    assert np.exp(log_c) == pytest.approx(0.25)


def test_every_label_is_drawn_until_its_own_first_acceptance(monkeypatch):
    """Kept latents and counts against a loop over labels, one draw after the other."""
    system, state = made()
    labels, batch = LABELS[:50], 16
    calls = []

    def record(*args):
        out = propose(*args)
        calls.append((np.asarray(args[3]), *map(np.asarray, out)))
        return out

    propose = proposals.propose
    monkeypatch.setattr(proposals, "propose", record)
    found = drawing.latents(system, state, labels, KEY, parse("reject:lam=0.5"), batch=batch)
    pending, total, z, at = list(range(50)), 0, {}, 0
    while pending:
        left = []
        for i in range(0, len(pending), batch):
            some = pending[i : i + batch]
            y, made_z, log_r, u = calls[at]
            at += 1
            assert (y == labels[np.resize(some, batch)]).all()
            for slot, label in enumerate(some):
                for row in range(slot, batch // len(some) * len(some), len(some)):
                    total += 1
                    if u[row] < min(0.5 * np.exp(np.float64(log_r[row])), 1):
                        z[label] = made_z[row]
                        break
                else:
                    left.append(label)
        pending = left
    assert at == len(calls)
    assert (found.cost.generator, found.cost.items) == (total, 50)
    np.testing.assert_array_equal(found.z, [z[i] for i in range(50)])


def test_drs_is_the_papers_formula():
    def literal(log_r, largest, gamma):
        """F̂ of Azadi et al., as it is written."""
        return log_r - largest - np.log(1 - np.exp(log_r - largest - 1e-6)) - gamma

    log_r = np.linspace(-4, 0.9, 30)
    expected = literal(log_r, 1.0, 0.3)
    np.testing.assert_allclose(rejection.logit_of(log_r, 1.0, 0.3), expected, rtol=1e-9)
    assert rejection.logit_of(np.ones(1), 1.0, 0.0)[0] == pytest.approx(-np.log(1e-6), rel=1e-3)
    system, state = made()
    sampler = parse("drs:gamma=.5,burn_in=4000")
    found = drawing.sample(system, state, LABELS, KEY, sampler)
    largest, log_r = np.log(R).max(), np.log(R)
    gamma = float(found.notes[0].split("γ = ")[1].split(",")[0])
    # γ is the median of F̂ at γ = 0 over draws of LABELS' classes.
    values = literal(log_r, largest, 0.0).ravel()
    weight = (Q * np.array([[2 / 3], [1 / 3]])).ravel()
    order = np.argsort(values)
    median = values[order][np.searchsorted(np.cumsum(weight[order]), 0.5)]
    assert gamma == pytest.approx(median, rel=1e-3)
    accept = special.expit(literal(log_r, largest, gamma))
    assert fits(counts(found.items, LABELS), Q * accept) > 1e-3
    expected = (np.bincount(LABELS) / N / (Q * accept).sum(axis=1)).sum()
    near(found.cost.per_item["generator"], expected, 2.0, N)
    assert found.cost.once == 4000
    # A larger ratio than those of the burn-in is taken from then on.
    seen = proposals.log_ratios(system, state, ONES[:5], jax.random.fold_in(KEY, 2**30), 256)
    assert seen.max() < np.log(3)
    found = drawing.latents(system, state, ONES[:500], KEY, parse("drs:gamma=.5,burn_in=5"))
    assert f"log r̂_M = {largest:.4g}" in found.notes[0]


# ---- chains and walks ---------------------------------------------------------------------------


def held(rng, n=500):
    labels = np.arange(n, dtype=np.int32) % 2
    items = np.array([rng.choice(5, p=P[c]) for c in labels], np.float32)
    return drawing.Held(items[:, None], labels)


def test_chains_of_many_proposals_are_of_p():
    system, state = made()
    few, many = (
        drawing.sample(
            system, state, LABELS, KEY, parse(f"mh:steps={k}"), held=held(np.random.default_rng(0))
        )
        for k in (1, 40)
    )
    assert fits(counts(many.items, LABELS), P) > 1e-3
    assert fits(counts(few.items, LABELS), P) < 1e-6
    # Every chain that stayed at its real item was run again, from one more draw.
    stuck = int(few.notes[0].split()[0])
    assert stuck > 100
    assert few.cost.generator == few.cost.critic == N + stuck * 2
    assert few.cost.once_critic == 500
    assert many.cost.per_item["generator"] == pytest.approx(40, abs=0.5)


def test_a_chain_by_hand(monkeypatch):
    """Accepted with min(1, r'/r), from the real item's r; constants in log r cancel."""
    labels, u0 = LABELS[:40], held(np.random.default_rng(1))
    ends, propose = [], proposals.propose
    for shift in (0.0, 3.0):
        system, state = made(critic=Table(shift))
        calls = []

        def record(*args, calls=calls):
            out = propose(*args)
            calls.append(tuple(map(np.asarray, out)))
            return out

        with monkeypatch.context() as patch:
            patch.setattr(chains, "_advance", chains._advance.__wrapped__)
            patch.setattr(proposals, "propose", record)
            run = drawing.latents(system, state, labels, KEY, parse("mh:steps=2"), held=u0)
        begin = np.asarray(u0.images)[
            chains.of_same_class(
                u0.labels,
                labels,
                np.asarray(jax.random.uniform(jax.random.fold_in(KEY, chains._START), (40,))),
            ),
            0,
        ]
        log_r = np.log(R)[labels, begin.astype(int)] + shift
        z = np.full(40, np.nan)
        for proposed, at, u in calls[:2]:
            take = np.log(u) < at - log_r
            z, log_r = np.where(take, proposed[:, 0], z), np.where(take, at, log_r)
        went = np.isfinite(z)
        assert 10 < went.sum() < 40
        assert run.cost.generator == 40 * 2 + (~went).sum() * 3
        np.testing.assert_array_equal(run.z[went, 0], z[went].astype(np.float32))
        ends.append(run.z)
    np.testing.assert_allclose(ends[0], ends[1])


def test_starts_are_of_the_class():
    known = np.array([2, 0, 2, 1, 2])
    rows = chains.of_same_class(known, np.array([0, 1, 2, 2, 2, 7]), np.array([0.9] * 5 + [0.5]))
    assert rows[:2].tolist() == [1, 3]
    assert (known[rows[2:5]] == 2).all()
    assert 0 <= rows[5] < 5
    assert chains.of_same_class(known, np.array([2]), np.array([0.0]))[0] == 0


def test_langevin_steps_lead_to_p():
    system, state = made(Shifted(), Gaussian(), dim_z=2)
    found = drawing.sample(system, state, LABELS, KEY, parse("ddls:steps=60,size=.1"), batch=4096)
    assert found.cost == Cost(N, 61 * N, 60 * N, 60 * N)
    at = found.items - LABELS[:, None]
    # E is quadratic: z' = z − ε/2 (z − m)/s² + √ε n, whose variance ends at s²/(1 − ε/4s²).
    variance = 0.49 / (1 - 0.1 / (4 * 0.49))
    assert np.abs(at.mean(axis=0) - 0.5).max() < 4 * np.sqrt(variance / N)
    assert np.abs(at.var(axis=0) - variance).max() < 4 * variance * np.sqrt(2 / N)
    one = drawing.sample(system, state, LABELS[:8], KEY, parse("ddls:steps=1,size=.1"), batch=8)
    k = jax.random.fold_in(KEY, 0)
    z = jax.random.normal(jax.random.fold_in(k, 1), (8, 2))
    n = jax.random.normal(jax.random.fold_in(k, 0), (8, 2))
    expected = z - 0.05 * (z - 0.5) / 0.49 + jnp.sqrt(0.1) * n + LABELS[:8, None].astype(np.float32)
    np.testing.assert_allclose(one.items, expected, rtol=1e-5, atol=1e-5)


def test_truncation_is_that_of_sampling():
    from prpr import sampling

    system, state = made(Shifted(), Gaussian(), dim_z=2, loss="hinge")
    found = drawing.sample(system, state, LABELS[:30], KEY, parse("truncation:at=.5"), batch=8)
    assert found.cost == Cost(30, 30)
    expected = sampling.sample(system, state.generator, LABELS[:30], KEY, truncation=0.5, batch=8)
    np.testing.assert_array_equal(found.items, expected)


def test_what_is_drawn_is_the_states_generator_and_its_own_density():
    """A flow's half of the ratio is that of the generator that is drawn, not of another."""
    system, state = made(Scaled(), Normal(), exact=True)
    wide = train.Net({"log_scale": jnp.float32(np.log(2.0))}, {})
    state = state.replace(generator=wide, ema=train.Net({"log_scale": jnp.float32(0.0)}, {}))
    found = drawing.sample(system, state, LABELS, KEY, parse("reject:lam=1"))
    # Of q = N(0, 4) and p = N(0, 1): accepted with min(r, 1), r = 2 exp(−3x²/8).
    x = np.linspace(-12, 12, 200_001)
    a = stats.norm.pdf(x, scale=2) * np.minimum(2 * np.exp(-0.375 * x**2), 1)
    alpha = np.trapezoid(a, x)
    near(N / found.cost.generator, alpha, np.sqrt(alpha * (1 - alpha)), N / alpha)
    variance = np.trapezoid(a * x**2, x) / alpha
    assert found.items.var() == pytest.approx(variance, rel=0.1)


def test_the_same_key_gives_the_same_and_another_key_others():
    system, state = made(Shifted(), Gaussian(), dim_z=2)
    for sampler in map(parse, ("reject:budget=2", "mh:steps=3", "ddls:steps=2", "drs:burn_in=99")):
        items = [
            drawing.latents(
                system,
                state,
                LABELS[:20],
                key,
                sampler,
                held=drawing.Held(np.zeros((2, 2), np.float32), np.arange(2)),
                batch=16,
            ).z
            for key in (KEY, KEY, jax.random.key(3))
        ]
        assert (items[0] == items[1]).all()
        assert not (items[0] == items[2]).any()


def test_the_normalisation_is_noted():
    for normalise, log_norm, expected in ((False, 0.0, 2.0), (True, np.log(2.0), 1.0)):
        system, state = made(critic=Table(float(np.log(2.0))), normalise=normalise)
        state = state.replace(log_norm=jnp.float32(log_norm))
        found = drawing.latents(system, state, LABELS, KEY, parse("reject:lam=.5"))
        (note,) = (line for line in found.notes if line.startswith("E_q[r̂]"))
        assert float(note.split()[2]) == pytest.approx(expected, rel=0.05)
        assert ("divided out" in note) == normalise


# ---- settings and what is refused ---------------------------------------------------------------


def test_names_and_settings():
    assert parse("reject:budget=4") == samplers.Reject(budget=4.0)
    assert parse("mh") == samplers.Mh(100)
    for given in (
        "reject:lam=0.1,limit=50",
        "ddls:steps=7,size=0.01",
        "truncation:at=0.7",
        "drs:gamma=0.8",
        "drs:gamma=0.123456789,burn_in=9",
        "mh:steps=1000000",
    ):
        assert settings.text(parse(given)) == given
    assert settings.text(parse("mh")) == "mh:steps=100"
    assert settings.settings(parse("reject:lam=2")) == {"lam": 2.0, "limit": 10_000}
    assert samplers.several("reject, mh:steps=3,ddls:steps=5,size=.1,drs,gamma=.5") == [
        "reject",
        "mh:steps=3",
        "ddls:steps=5,size=.1",
        "drs:gamma=.5",
    ]
    assert Cost(4, 10, 10, 2, 7, 7).per_item == {"generator": 2.5, "critic": 2.5, "gradient": 0.5}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("rejct:budget=4", "unknown sampler in --sampler=rejct.* Did you mean 'reject'"),
        ("reject", "name one of budget and lam"),
        ("reject:budget=4,lam=1", "name one of budget and lam"),
        ("reject:budget=.5", r"budget=0.5 must be a number >= 1"),
        ("reject:budget=nan", "budget=nan"),
        ("reject:lam=0", "lam=0 must be a finite number above 0"),
        ("reject:lam=-1", "lam=-1"),
        ("reject:budgt=2", "unknown setting of reject.*Did you mean 'budget'"),
        ("reject:budget=much", "budget='much' is not a number"),
        ("reject:budget=2,budget=3", "budget is given twice"),
        ("reject:budget=2,limit=0", "limit=0 must be a whole"),
        ("mh:steps=2.5", "steps='2.5' is not a whole number"),
        ("mh:steps=0", "steps=0 must be a whole number >= 1"),
        ("ddls:size=inf", "size=inf"),
        ("drs:gamma=1", r"gamma=1 must be in \[0, 1\)"),
        ("truncation", "truncation needs at="),
        ("truncation:at=0", "at=0"),
    ],
)
def test_settings_that_cannot_be_used(given, says):
    with pytest.raises(ConfigError, match=says):
        parse(given)


def test_models_and_ratios_that_cannot_be_used():
    budget = parse("reject:budget=2")
    for system, state, says in (
        (*made(loss="hinge"), "critic's loss is hinge, which determines none"),
        (*made(route="likelihood"), "it has no critic"),
    ):
        with pytest.raises(ConfigError, match=says):
            drawing.latents(system, state, LABELS, KEY, budget)
    system, state = made()
    with pytest.raises(ConfigError, match="no labels"):
        drawing.latents(system, state, LABELS[:0], KEY, budget)
    with pytest.raises(ConfigError, match=r"budget=0\.5"):
        drawing.latents(system, state, LABELS, KEY, samplers.Reject(budget=0.5))
    with pytest.raises(DataError, match="mh starts its chains at held-out"):
        drawing.latents(system, state, LABELS, KEY, parse("mh"))
    broken = made(critic=Table(float("nan")))
    real = drawing.Held(np.zeros((3, 1), np.float32), np.zeros(3, np.int32))
    for given in ("reject:budget=2", "reject:lam=1", "drs", "mh:steps=2", "ddls:steps=2"):
        with pytest.raises(DataError, match="NaN or infinite at"):
            drawing.latents(*broken, LABELS[:20], KEY, parse(given), held=real, batch=16)


def test_labels_that_are_never_accepted_are_named():
    system, state = made(critic=Against())
    sampler = parse("reject:lam=1,limit=40")
    with pytest.raises(DataError, match=r"10 of 30 labels .* limit=40 draws .*classes 1; .*raise"):
        drawing.latents(system, state, LABELS[:30], KEY, sampler, batch=16)
