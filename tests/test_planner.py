"""The cost card: arithmetic by hand, exact memory, and what a wrong request is answered."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import pytest
from absl import flags

from prpr import cli, config, planner, record
from prpr.errors import ConfigError
from prpr.planner import card, device_table, estimate, footprint, tradeoff
from prpr.planner.card import Range

ROOT = Path(__file__).parents[1]


def toy(**knobs: Any) -> Any:
    cfg: Any = cli._load(str(ROOT / "configs/toy_2d.py"), "config")
    with cfg.unlocked():
        for name, value in knobs.items():
            *parents, last = name.split("__")
            group: Any = functools.reduce(getattr, parents, cfg)
            group[last] = value
    return cfg


def biggan(**knobs: Any) -> Any:
    small = {
        "data__name": "imagenet2012",
        "data__resolution": 32,
        "model__name": "biggan",
        "model__generator_ch": 8,
        "model__critic_ch": 8,
        "model__dim_z": 16,
        "model__shared_dim": 8,
    }
    return toy(**(small | knobs))


@pytest.fixture(autouse=True, scope="module")
def promotion():
    """Optax raises a Python float to an int32 power, which is not for strict dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


# --- arithmetic -----------------------------------------------------------------------------


def test_break_even_by_hand():
    # Training costs 1000 s, 100 s of them the critic; a sample 1 s, a critic's answer .5 s. At
    # acceptance .3 rejection pays (1 + .5)/.3 = 5 s an image, 4 s more than the fine-tuned model.
    n = tradeoff.break_even(1000, 100, 1.0, 0.5, 0.3)
    assert n == pytest.approx(900 / 4)
    assert 1000 + n * 1.0 == pytest.approx(100 + n * 5.0)
    # A free critic at acceptance 1 is never dearer.
    assert tradeoff.break_even(1000, 100, 1.0, 0.0, 1.0) == float("inf")


def test_a_budget_by_hand():
    def exactly(x: float) -> Range:
        return Range(x, x, x)

    # 60 buys 20 h at 3 an hour; 4 h are gone before the first λ; 16 h are 5 λ at 3 h.
    found = tradeoff.afford(60, 3, exactly(4), exactly(3), exactly(0.02), 2, 100)
    assert found.hours == 20
    assert found.lams == (5, 5, 5)
    # Two λ: 1 h each is not updates (3 − 100 · .02), so 14 h at .04 h a step of both: 350 steps.
    assert found.steps == (350, 350, 350)
    dear = tradeoff.afford(60, 3, Range(4, 4, 40), Range(3, 3, 3), exactly(0.02), 2, 100)
    assert dear.lams == (0, 5, 5)


def test_ranges():
    total = card.total([Range(1, 2, 3), Range(10, 20, 30) * 2])
    assert total == Range(21, 42, 63)
    assert card.between(1, 9) == Range(1, 3, 9)
    assert Range(1, 2, 3).contains(2.5)
    assert not Range(1, 2, 3).contains(3.5)


def test_a_roofline_by_hand(monkeypatch):
    # 100 FLOP/s, 10 B/s: 400 FLOP take 4 s against 1 s for their 10 bytes, 50 bytes alone 5 s.
    device = device_table.DEVICES["l4"]._replace(
        default32=100.0,
        bandwidth=10.0,
        launch=(0.5, 2.0),
        utilisation=(0.5, 1.0),
        bandwidth_share=(0.25, 1.0),
    )
    monkeypatch.setattr(estimate, "DISPATCH", (1.0, 3.0))
    kernels = [footprint.Kernel("float32", 400.0, 10.0), footprint.Kernel("", 0.0, 50.0, 2.0)]
    monkeypatch.setattr(footprint, "kernels", lambda *_, **__: kernels)
    found = estimate.seconds(None, device)  # pyright: ignore[reportArgumentType]
    assert found.low == pytest.approx(4 + 2 * 5 + 3 * 0.5 + 1)
    assert found.high == pytest.approx(8 + 2 * 20 + 3 * 2.0 + 3)
    assert found.middle == pytest.approx((found.low * found.high) ** 0.5)


# --- the card -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> card.Card:
    return planner.plan(toy(), device="h100-sxm", price=2.5, budget=1.0)


def test_memory_is_exact_where_it_can_be(page):
    # z 2 and 8 classes to 16, 16, 2; points 2 and 8 classes to 64, 64, 1; biases everywhere.
    generator = 10 * 16 + 16 + 16 * 16 + 16 + 16 * 2 + 2
    critic = 10 * 64 + 64 + 64 * 64 + 64 + 64 + 1
    assert page.parameters == {"generator": generator, "critic": critic}
    m = page.memory
    assert (m.generator, m.critic, m.average) == (4 * generator, 4 * critic, 4 * generator)
    moments = 2 * 4 * (generator + critic)
    assert moments < m.optimiser <= moments + 64  # and the counters
    assert m.gradients in (4 * generator, 4 * critic)
    assert m.fits == "yes"


def test_the_card_adds_up(page):
    plain = json.loads(json.dumps(page.to_json()))
    assert plain["total_hours"]["middle"] == pytest.approx(
        sum(part["middle"] for part in plain["hours"].values())
    )
    assert plain["money"]["high"] == pytest.approx(2.5 * plain["total_hours"]["high"])
    assert set(plain["hours"]) == {
        *("base x 1", "control x 1", "λ x 3", "held-out checks", "checkpoints", "scoring x 6")
    }
    for part in (*plain["seconds"].values(), *plain["hours"].values()):
        assert part["low"] <= part["middle"] <= part["high"]
    assert plain["flops"]["step"] == pytest.approx(
        5 * plain["flops"]["critic update"] + plain["flops"]["generator update"]
    )
    assert [row["acceptance"] for row in plain["rejection"]] == list(tradeoff.ACCEPTANCES)
    assert not plain["warnings"]
    text = str(page)
    for words in ("largest batch", "in all", "1 buys", "acceptance 0.2", "assumed:", "datasheet"):
        assert words in text


def test_hours_follow_runs_and_devices():
    one = planner.plan(toy(), device="h100-sxm")
    many = planner.plan(toy(seeds=(0, 1)), device="h100-sxm")
    spread = planner.plan(toy(seeds=(0, 1)), device="h100-sxm", devices=6)
    assert many.hours["λ x 6"].middle == pytest.approx(2 * one.hours["λ x 3"].middle)
    assert spread.hours["λ x 6"].middle == pytest.approx(one.hours["λ x 3"].middle / 3)
    assert spread.money is not None
    assert spread.money.middle == pytest.approx(spread.total_hours.middle * 4.0 * 6)


def test_idle_devices_are_named():
    page = planner.plan(toy(control=False, base__path="."), device="h100-sxm", devices=8)
    assert "5 of 8 devices have no run" in page.warnings[0]


def test_a_base_that_is_there_costs_nothing(tmp_path):
    page = planner.plan(toy(base__path=str(tmp_path)), device="l4")
    assert "base x 1" not in page.hours
    assert "scoring x 5" in page.hours
    gone = planner.plan(toy(base__path=str(tmp_path / "gone")), device="l4")
    assert "is not here" in gone.warnings[0]


def test_a_shared_batch_is_cut_and_pays_for_its_sums():
    cfg = toy(train__layout="data", train__accumulate=2)
    page = planner.plan(cfg, device="h100-sxm", devices=8)
    assert (page.micro, page.accumulate) == (8, 2)
    assert page.largest.batch == 8 * page.largest.micro
    assert page.memory.snapshot > 0  # checkpoints are copied on the device
    slow = device_table.DEVICES["h100-sxm"]._replace(link=1e3)
    tracer = estimate.Tracer(estimate.shape_of(cfg))
    todo = estimate.phases(cfg, "finetune")
    traced = {phase.name: tracer(phase, 16) for phase in todo}
    assert traced["base"] is traced["control"]
    times = estimate.timing(cfg, todo, tracer.shape, slow, 8, traced)
    # 2 · 7/8 · bytes / link, fully in the open at worst.
    extra = 2 * 7 / 8 * 4 * page.parameters["critic"] / 1e3
    bare = estimate.seconds(traced["λ"].critic, slow)
    assert times.updates["λ"][0].high == pytest.approx(bare.high + extra)
    assert times.updates["λ"][0].low == pytest.approx(bare.low)
    with pytest.raises(ConfigError, match="multiple of"):
        planner.plan(cfg, device="h100-sxm", devices=7)


def test_what_does_not_fit_is_said_with_the_largest_that_does(monkeypatch):
    small = device_table.DEVICES["l4"]._replace(name="small", memory=6e7)
    monkeypatch.setitem(device_table.DEVICES, "small", small)
    cfg = biggan(train__batch=256)
    page = planner.plan(cfg, command="train", device="small")
    assert page.memory.fits == "no"
    fits = page.largest.micro
    assert 1 <= fits < 256
    assert f"the largest that does is {fits}" in page.warnings[0]
    assert page.largest.accumulate == 256 // fits
    shape = estimate.shape_of(cfg)

    def at(items: int) -> str:
        return estimate.memory(estimate.trace(cfg, shape, items), small, snapshot=False).fits

    assert at(fits) == "yes"
    assert at(2 * fits) != "yes"
    assert "DOES NOT FIT" in str(page)


def test_data_that_are_not_here_are_planned_from_what_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    page = planner.plan(biggan(), command="train", device="tpu-v5e")
    assert "the data are not here" in page.assumptions[0]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=r"data\.resolution"):
        planner.plan(biggan(data__resolution=0), device="tpu-v5e")


def test_bfloat16_runs_at_another_peak():
    traced = estimate.trace(biggan(model__dtype="bfloat16"), estimate.shape_of(biggan()), 16)
    dtypes = {op.dtype for op in traced.critic.ops if op.kind == "contract"}
    assert "bfloat16" in dtypes


# --- requests -------------------------------------------------------------------------------


def test_an_unknown_device_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'h100-sxm'"):
        planner.plan(toy(), device="h100sxm")
    assert planner.parse_devices("8*H100-SXM, l4") == [("h100-sxm", 8), ("l4", 1)]
    assert len(planner.parse_devices("all")) == len(device_table.DEVICES)
    for wrong in ("0*l4", "l4*2", "", "8*"):
        with pytest.raises(ConfigError):
            planner.parse_devices(wrong)


@pytest.mark.parametrize("wrong", [{"price": 0.0}, {"price": -1.0}, {"budget": float("nan")}])
def test_money_is_a_number_above_nothing(wrong):
    with pytest.raises(ConfigError, match="above 0"):
        planner.plan(toy(), device="l4", **wrong)


def test_a_budget_needs_a_price(monkeypatch):
    free = device_table.DEVICES["l4"]._replace(price=0.0)
    monkeypatch.setitem(device_table.DEVICES, "l4", free)
    with pytest.raises(ConfigError, match="--price"):
        planner.plan(toy(), device="l4", budget=10.0)
    assert "no price" in str(planner.plan(toy(), device="l4"))


def test_every_row_of_the_table_is_sane():
    for name, row in device_table.DEVICES.items():
        assert row.name == name
        assert row.float32 <= row.default32 <= row.bfloat16 or row.name == "v100"
        assert 1e11 < row.bandwidth < 1e13
        assert 1e10 < row.memory < 1e12
        assert row.source


def test_acceptances_come_from_the_record(tmp_path):
    rows = [
        {"step": 1, "run": "lam_5-seed0", "critic_loss": 1.0},
        {"step": 25, "run": "lam_5-seed0", "alpha": 0.25},
        {"step": 50, "run": "lam_5-seed0", "alpha": 0.9},
        {"step": 25, "run": "control-seed0", "alpha": 0.7},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = toy()
    assert tradeoff.acceptances(str(tmp_path)) == {"lam_5-seed0": 0.25}
    page = planner.plan(cfg, device="l4", workdir=str(tmp_path))
    recorded = page.rejection[-1]
    assert recorded.source == "recorded for lam_5-seed0"
    g, c = page.sampling["generator"].middle, page.sampling["critic"].middle
    assert recorded.times == pytest.approx((g + c) / (0.25 * g))


def test_the_command_prints_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    values = flags.FlagValues()
    holder = planner.define_flags(values)
    values(["program", "--plan", "--plan_device=l4", "--plan_json=out.json"])
    assert holder.wanted
    planner.main(toy(), "finetune", "work", holder)
    assert "in all" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert record.read_json("out.json")[0]["device"] == "l4"
    values(["program", "--plan_device=l4,a100-80,h200"])
    planner.main(toy(), "train", "work", holder)
    out = capsys.readouterr().out
    assert out.count("\n") > 4
    assert "a100-80" in out
    values(["program", "--plan", "--probe", "--plan_device=l4"])
    with pytest.raises(ConfigError, match="at hand"):
        planner.main(toy(), "train", "work", holder)


def test_a_probe_measures(monkeypatch, tmp_path):
    from prpr.planner import probe

    bursts = probe.bursts
    monkeypatch.setattr(probe, "bursts", lambda call, *_: bursts(call, 2, 1e-3))
    monkeypatch.setattr(device_table, "here", lambda: device_table.DEVICES["l4"])
    cfg = toy(control=False, base__path=str(tmp_path), lams=(1.0,), train__devices=1)
    page = planner.plan(cfg, command="finetune", probe=True)
    assert page.how == "measured here"
    assert 0 < page.seconds["critic update"].low <= page.seconds["critic update"].high < 10
    assert page.total_hours.low > 0
    assert any("bursts" in text for text in page.assumptions)


def test_spread_widens_what_was_measured():
    from prpr.planner import probe

    assert probe.spread([1.0, 2.0, 4.0]) == Range(0.85, 2.0, 4.0 * 1.15)


def test_configs_of_the_repository_can_be_planned():
    cfg = config.base_of(toy())
    assert "train x 1" in planner.plan(cfg, command="train", device="l4").hours
