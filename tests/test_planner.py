"""The cost card: arithmetic by hand, exact memory, and what a wrong request is answered."""

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from absl import flags

from prpr import checkpoint, cli, config, jobs, parallel, planner, record, train
from prpr.errors import ConfigError
from prpr.planner import (
    card,
    device_table,
    estimate,
    flops,
    footprint,
    phases,
    programs,
    shapes,
    tradeoff,
)
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
        "model__fourier": 0.0,
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
    # z 2 and 8 classes to 64, 64, 64, 2; points 2, sines and cosines of 32 angles, and 8 classes to
    # 64, 64, 64, 1; biases everywhere but at the frequencies.
    generator = 10 * 64 + 64 + 2 * (64 * 64 + 64) + 64 * 2 + 2
    critic = 2 * 32 + 74 * 64 + 64 + 2 * (64 * 64 + 64) + 64 + 1
    assert page.parameters == {"generator": generator, "critic": critic}
    m = page.memory
    assert (m.generator, m.critic, m.average) == (4 * generator, 4 * critic, 4 * generator)
    moments = 2 * 4 * (generator + critic)
    assert moments < m.optimiser <= moments + 64  # and the counters
    assert m.gradients in (4 * generator, 4 * critic)
    assert m.fits == "yes"


def test_runs_that_share_a_device_need_as_much_memory_more(page):
    several = planner.plan(toy(train__together=3), device="h100-sxm")
    assert several.memory.total.middle == pytest.approx(3 * page.memory.total.middle)
    assert several.memory.usable == page.memory.usable
    # On paper they take turns.
    assert several.hours == pytest.approx(page.hours)


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


def test_events_are_the_steps_at_which_any_interval_ends():
    """Of 900 steps: the hundreds are nine, and of the 250s 500 is one of them."""
    cfg = toy(train__warmup=150, train__steps=750, train__diagnose_every=100)
    cfg.train.checkpoint_every = 250
    one = phases.phases(cfg, "finetune")[-1]
    assert one.events("diagnose_every") == 9
    assert one.events("checkpoint_every") == 4  # 250, 500, 750, and the end
    assert one.events("diagnose_every", "checkpoint_every") == one.checks == 11


def test_hours_follow_runs_and_devices():
    one = planner.plan(toy(), device="h100-sxm")
    many = planner.plan(toy(seeds=(0, 1)), device="h100-sxm")
    spread = planner.plan(toy(seeds=(0, 1)), device="h100-sxm", devices=6)
    assert many.hours["λ x 6"].middle == pytest.approx(2 * one.hours["λ x 3"].middle)
    assert spread.hours["λ x 6"].middle == pytest.approx(one.hours["λ x 3"].middle / 3)
    assert spread.money is not None
    assert spread.money.middle == pytest.approx(spread.total_hours.middle * 4.0 * 6)


def test_one_model_for_every_lam_is_one_run(tmp_path):
    page = planner.plan(toy(dial=(0.1, 10.0)), device="h100-sxm", price=2.0, budget=10.0)
    one = planner.plan(toy(), device="h100-sxm").hours["λ x 3"].middle / 3
    assert one < page.hours["λ x 1"].middle < 2 * one  # the dial's own layers
    assert page.budget is not None
    assert page.budget.lams is None  # money buys it steps, no further λ
    # A finished one in the workdir is told from the control, which has no λ either.
    cfg = toy(dial=(0.1, 10.0))
    for name, steps in (("dial", 3300), ("control", 1)):
        meta = {"lam": None, "seed": 0, "settings": jobs.settings(cfg)}
        checkpoint.save(tmp_path / "checkpoints" / f"{name}-seed0", steps, {"x": np.ones(2)}, meta)
    found = phases.work(cfg, "finetune", str(tmp_path))
    assert [(phase.name, phase.done) for phase in found.todo][-1] == ("λ", 1)


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
    tracer = programs.Tracer(shapes.shape_of(cfg))
    todo = phases.phases(cfg, "finetune")
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
    shape = shapes.shape_of(cfg)

    def at(items: int) -> str:
        return estimate.memory(programs.trace(cfg, shape, items), small, snapshot=False).fits

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
    cfg = biggan(model__dtype="bfloat16")
    traced = programs.trace(cfg, shapes.shape_of(cfg), 16)
    work = flops.cost(traced.critic).contractions
    assert work["bfloat16"] > 0.9 * sum(work.values())
    # Where arithmetic is all that takes time, each type of product pays its own rate.
    device = device_table.DEVICES["l4"]._replace(
        float32=1e3, default32=4e3, bfloat16=1e4, bandwidth=1e30, launch=(0.0, 0.0)
    )
    peaks = {"bfloat16": 1e4, "float32": 4e3, flops.HIGHEST: 1e3}
    by_hand = sum(done / peaks[dtype] for dtype, done in work.items())
    assert estimate.seconds(traced.critic, device).low == pytest.approx(by_hand / 0.45)
    half = estimate.seconds(traced.critic, device._replace(bfloat16=5e3)).low
    assert half == pytest.approx((by_hand + work["bfloat16"] / 1e4) / 0.45)


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
    # Both updates, and the held-out check.
    assert any(text.startswith("compilation of 3 programs") for text in page.assumptions)


def test_spread_widens_what_was_measured():
    from prpr.planner import probe

    assert probe.spread([1.0, 2.0, 4.0]) == Range(0.85, 2.0, 4.0 * 1.15)


def test_bursts_time_a_call_without_waiting_in_between(monkeypatch):
    from prpr.planner import probe

    now, calls, waits = [0.0], [], []

    def call() -> int:
        calls.append(now[0])
        now[0] += 0.1
        return len(calls)

    def wait(_: int) -> None:
        waits.append(len(calls))
        now[0] += 0.2

    monkeypatch.setattr(probe.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(probe.jax, "block_until_ready", wait)
    found = probe.bursts(call, count=3, length=1.2)
    # A call and its wait take .3 s, so a burst of 1.2 s has 4 calls: .4 s, and one wait.
    assert waits == [1, 2, 6, 10, 14]
    each = (0.4 + 0.2) / 4
    assert found.middle == pytest.approx(each)
    assert (found.low, found.high) == (pytest.approx(0.85 * each), pytest.approx(1.15 * each))


def test_a_probe_reads_ahead_as_a_run_does(monkeypatch, tmp_path):
    from prpr import build
    from prpr.planner import probe

    ahead, loader = [], probe.data.Loader

    def noted(*arguments: Any, prefetch: int = 2, **rest: Any) -> Any:
        ahead.append(prefetch)
        return loader(*arguments, prefetch=prefetch, **rest)

    monkeypatch.setattr(probe, "BURSTS", 1)
    monkeypatch.setattr(probe, "bursts", lambda call, *_: Range(*[float(call() is not None)] * 3))
    monkeypatch.setattr(probe.data, "Loader", noted)
    cfg = toy(control=False, base__path=str(tmp_path), lams=(1.0,), data__prefetch=3)
    probe.timing(cfg, phases.phases(cfg, "finetune"), 1)
    assert ahead == [0]  # points are in memory
    cfg = biggan(data__name="mnist", data__miniature=True, data__prefetch=3, train__batch=8)
    with probe._Runs(cfg, build.splits(cfg), 1).stream() as stream:
        _, batch = next(stream)
    assert ahead == [0, 3]
    assert batch["image"].shape[-4:] == (8, 32, 32, 1)


# --- parts of the sum -----------------------------------------------------------------------


def test_a_phase_is_its_updates_by_hand(page):
    """3 λ of 5 critic updates a step, the warm-up's among them, one after the other."""
    cfg, s = toy(), page.seconds
    t = cfg.train
    critic = s["critic update"].middle * (t.warmup + t.steps) * cfg.critic.steps
    one = critic + s["generator update"].middle * t.steps
    assert page.hours["λ x 3"].middle == pytest.approx(3 * one / 3600)
    saves = 0
    for steps in (cfg.base.steps, t.steps, *[t.warmup + t.steps] * 3):
        saves += -(-steps // t.checkpoint_every)
    assert page.hours["checkpoints"].middle == pytest.approx(saves * s["checkpoint"].middle / 3600)
    assert s["step"].middle == pytest.approx(
        5 * s["critic update"].middle + s["generator update"].middle
    )


def test_memory_is_the_sum_of_its_parts():
    exactly = Range(1000, 2000, 3000)
    m = card.Memory(1, 20, 300, 4000, 50_000, 600_000, exactly, 1e6, 656_321)
    assert m.total == Range(655_321, 656_321, 657_321)
    assert m.fits == "tight"


def test_activations_are_what_the_peak_has_beyond_the_state():
    cfg = biggan()
    shape, l4 = shapes.shape_of(cfg), device_table.DEVICES["l4"]
    small, large = (programs.trace(cfg, shape, items) for items in (16, 64))
    m = estimate.memory(large, l4, snapshot=False)
    assert m.total.low == max(large.peaks)
    donated = range(len(jax.tree.leaves(large.state)))
    for program, peak in zip((large.critic, large.generator), large.peaks, strict=True):
        assert peak >= footprint.peak(program, fused=False, donated=donated)
    assert m.activations.high == pytest.approx(1.8 * m.activations.low)
    # Four times the images take nearly four times the room.
    ratio = m.activations.low / estimate.memory(small, l4, snapshot=False).activations.low
    assert 3.2 < ratio < 4.1
    copied = estimate.memory(large, l4, snapshot=True)
    assert copied.snapshot == m.generator + m.critic + m.average + m.optimiser
    assert copied.total.low - m.total.low == copied.snapshot


def test_arithmetic_of_an_update_by_hand(page):
    """Dense layers only: forward, weights' and inputs' gradients are a product each."""
    batch = toy().train.batch
    generator = [10 * 64, 64 * 64, 64 * 64, 64 * 2]
    critic = [2 * 32, 74 * 64, 64 * 64, 64 * 64, 64]  # the first are the frequencies
    # The critic's update: samples; then real and fake forward, and back to the first weights.
    both = sum(critic) * 2 + sum(critic[1:])
    assert page.flops["critic update"] == 2 * batch * (sum(generator) + 2 * both)
    # The generator's: forward through both, back through the critic to its input, and down.
    back = sum(critic) + sum(generator) + sum(generator[1:])
    assert page.flops["generator update"] == 2 * batch * (sum(generator) + sum(critic) + back)


def test_rejection_counts_the_seconds_of_all_devices():
    cfg = toy(train__layout="data")
    one = planner.plan(cfg, device="h100-sxm", devices=1)
    many = planner.plan(cfg, device="h100-sxm", devices=8)
    for alone, shared in zip(one.rejection, many.rejection, strict=True):
        assert alone.images is not None
        assert shared.images is not None
        # A batch cut in eight is never cheaper in device time.
        assert shared.images.low >= alone.images.low
        assert shared.images.middle >= alone.images.middle
        assert shared.images.high >= alone.images.high
    apart = planner.plan(toy(), device="h100-sxm", devices=3)
    assert apart.rejection == planner.plan(toy(), device="h100-sxm").rejection


def test_no_λ_is_bought_where_there_is_none():
    page = planner.plan(toy(lams=()), device="h100-sxm", budget=1.0)
    assert page.budget is not None
    assert page.budget.lams is None
    assert page.budget.steps[1] > 0
    assert "values of λ" not in str(page)
    assert "the control at" in str(page)
    base = planner.plan(config.base_of(toy()), command="train", device="l4", budget=1.0)
    assert "values of λ" not in str(base)
    assert "the configured runs at" in str(base)
    assert "train x 1" in base.hours


def test_devices_of_a_cpu_are_one_machine(monkeypatch):
    row = device_table.DEVICES["l4"]._replace(name="this (cpu)", launch=(0.0, 0.0), price=0.0)
    monkeypatch.setattr(device_table, "here", lambda: row)
    monkeypatch.setattr(parallel, "setup", lambda devices, _: devices)
    monkeypatch.setattr(estimate, "DISPATCH", (0.0, 0.0))
    one, two, more = (planner.plan(toy(), devices=devices) for devices in (1, 2, 8))
    for name in ("critic update", "generator update"):
        assert two.seconds[name].middle == pytest.approx(2 * one.seconds[name].middle)
        assert more.seconds[name].middle == pytest.approx(3 * one.seconds[name].middle)  # 3 runs
    assert two.memory.capacity == one.memory.capacity / 2
    assert two.seconds["scoring of a run"].high == pytest.approx(
        one.seconds["scoring of a run"].high
    )
    monkeypatch.setattr(device_table, "here", lambda: row._replace(name="this (gpu)"))
    apart = planner.plan(toy(), devices=2)
    assert apart.seconds["critic update"] == one.seconds["critic update"]
    assert apart.memory.capacity == one.memory.capacity


def test_phases_of_two_batches(monkeypatch):
    """A base, and a control by its recipe, with a batch of their own."""
    cfg = toy(base__batch=16, train__batch=64)
    taken = []
    trace = programs.trace
    monkeypatch.setattr(
        programs,
        "trace",
        lambda c, s, items: taken.append((c.objective, items)) or trace(c, s, items),
    )
    page = planner.plan(cfg, device="l4")
    assert (page.batch, page.micro) == (64, 64)
    assert ("logistic", 16) in taken
    assert ("logistic", 64) not in taken
    assert page.seconds["critic update"].middle > 0


# --- many devices ---------------------------------------------------------------------------


def asked(capsys, cfg: Any, *arguments: str) -> str:
    values = flags.FlagValues()
    holder = planner.define_flags(values)
    values(["program", "--plan", *arguments])
    planner.main(cfg, "finetune", "nowhere", holder)
    return capsys.readouterr().out


def test_a_table_answers_all_that_is_asked(capsys, monkeypatch):
    tiny = device_table.DEVICES["l4"]._replace(name="tiny", memory=4e5)
    monkeypatch.setitem(device_table.DEVICES, "tiny", tiny)
    lines = asked(capsys, toy(), "--plan_device=8*tiny,l4,h200", "--budget=2").splitlines()
    head, *rows = [re.split(r"  +", line) for line in lines[:4]]
    assert head == [*["device", "memory", "fits", "micro", "step", "hours", "money"], "budget buys"]
    assert [row[0] for row in rows] == ["8 x tiny", "1 x l4", "1 x h200"]
    assert len({len(line) for line in lines[:4]}) == 1
    pages = [planner.plan(toy(), device=name, budget=2.0) for name in ("l4", "h200")]
    for row, page in zip(rows[1:], pages, strict=True):
        assert len(row) == len(head)
        assert page.budget is not None
        assert page.budget.lams is not None
        assert row[-1].startswith(f"{page.budget.lams[1]} λ (")
    told = [line for line in lines if line.startswith("warning: ")]
    assert sum("may not fit" in line or "does not fit" in line for line in told) == 1
    assert any("5 of 8 devices have no run" in line and "(8 x tiny)" in line for line in told)
    (where,) = [line.split(": ")[1] for line in lines if line.startswith("peaks")]
    assert (ROOT / where).exists()
    out = asked(capsys, toy(), "--plan_device=all")
    assert "budget" not in out
    assert out.count(" x ") >= len(device_table.DEVICES)


def test_small_numbers_keep_apart():
    page = planner.plan(toy(), device="l4")
    few = {name: value * 1e-7 for name, value in page.hours.items()}
    row = card.table([dataclasses.replace(page, hours=few)]).splitlines()[1]
    assert len(re.split(r"  +", row)) == 7


# --- densities ------------------------------------------------------------------------------


def flow(**knobs: Any) -> Any:
    cfg: Any = cli._load(str(ROOT / "configs/toy_2d.py:flow"), "config")
    sizes = {"depth": 1, "layers": 1, "generator_ch": 8, "critic_ch": 8}
    with cfg.unlocked():
        cfg.model.update(sizes)
        for name, value in knobs.items():
            *parents, last = name.split("__")
            functools.reduce(getattr, parents, cfg)[last] = value
    return cfg


def test_a_likelihood_has_no_critic_to_pay_for():
    cfg = flow(base__steps=400)
    page = planner.plan(cfg, device="h100-sxm")
    phase = {p.name: p for p in phases.phases(cfg, "finetune")}
    assert (phase["base"].critic_updates, phase["base"].batches) == (0, 400)
    shape = shapes.shape_of(cfg)
    traced = programs.trace(phase["base"].cfg, shape, cfg.train.batch)
    update = estimate.seconds(traced.generator, device_table.DEVICES["h100-sxm"])
    assert page.hours["base x 1"].middle == pytest.approx(400 * update.middle / 3600)
    alone = planner.plan(config.base_of(cfg), command="train", device="h100-sxm")
    assert "critic update" not in {**alone.seconds, **alone.flops}
    assert alone.flops["step"] == alone.flops["generator update"]
    assert alone.images_per_second == pytest.approx(
        cfg.train.batch / alone.seconds["generator update"].middle
    )
    # The critic's update, which is not made, takes no room.
    l4 = device_table.DEVICES["l4"]
    alone, both = (
        estimate.memory(traced, l4, snapshot=False, critic=critic) for critic in (False, True)
    )
    assert (alone.total.low, both.total.low) == (traced.peaks[1], max(traced.peaks))


def test_a_generator_that_learns_from_data_reads_a_batch_more():
    cfg = flow(route="data", train__warmup=7, train__steps=20, critic__steps=3)
    (last,) = (p for p in phases.phases(cfg, "finetune") if p.name == "λ")
    assert last.critic_updates == 7 * 4 + 20 * 3
    assert last.batches == (7 + 20) * 4
    page = planner.plan(cfg, device="h100-sxm")
    s = page.seconds
    assert s["step"].middle == pytest.approx(
        3 * s["critic update"].middle + s["generator update"].middle
    )
    assert page.images_per_second == pytest.approx(4 * cfg.train.batch / s["step"].middle)
    assert page.rejection


def test_the_implicit_route_keeps_its_start_and_fits_no_critic():
    cfg = flow(route="implicit", objective="smoothed_pr", train__warmup=0)
    page = planner.plan(cfg, device="h100-sxm")
    assert page.flops["step"] == page.flops["generator update"]
    assert page.rejection == []  # nothing tells which samples to keep
    assert page.memory.start == page.memory.average > 0
    assert "frozen start" in str(page)
    assert planner.plan(flow(), device="h100-sxm").memory.start == page.memory.average
    plain = planner.plan(flow(log_ratio="critic"), device="h100-sxm").memory
    assert plain.start == 0


@pytest.mark.parametrize(("log_ratio", "densities"), [("critic", 2), ("density", 6)])
def test_held_out_checks_are_those_of_each_route(log_ratio, densities):
    """A base by likelihood checks a density alone; a λ also its ratio, at data and at samples.

    The ratio is the critic's, or with it the density of the flow and of its start.
    """
    cfg = flow(log_ratio=log_ratio)
    todo, shape = phases.phases(cfg, "finetune"), shapes.shape_of(cfg)
    tracer = programs.Tracer(shape)
    traced = {p.name: tracer(p, cfg.train.batch) for p in todo}
    found = estimate.timing(cfg, todo, shape, device_table.DEVICES["l4"], 1, traced).diagnosis
    assert found["base"] == found["control"]
    assert found["λ"].low > found["base"].low
    counts = {}
    for name in ("base", "λ"):
        check, arguments = programs.held_out_call(traced[name], shape, 16)
        counts[name] = flops.count(check, *arguments).flops
    system, state = traced["λ"].system, traced["λ"].state
    x, y = jax.ShapeDtypeStruct((16, 2), "float32"), jax.ShapeDtypeStruct((16,), "int32")
    density = flops.count(lambda s, *a: train.log_density(system, s, *a), state.generator, x, y)
    critic = flops.count(lambda s, *a: train.apply_frozen(system.critic, s, *a), state.critic, x, y)
    # An affine coupling's inverse costs what its forward pass costs.
    assert counts["base"] == density.flops
    assert counts["λ"] == densities * density.flops + 2 * critic.flops


def test_loops_that_end_when_they_have_converged_widen_the_range():
    cfg, other = (flow(model__name=n, log_ratio="critic") for n in ("residual", "realnvp"))
    page = planner.plan(cfg, device="l4")
    assert any("one trip at the low end" in text and "174" in text for text in page.assumptions)
    update, steady = (planner.plan(c, device="l4").seconds["critic update"] for c in (cfg, other))
    assert update.high / update.low > 5 * steady.high / steady.low
    # Likelihood needs no samples, which are what is solved for; and has no critic that does.
    alone = planner.plan(config.base_of(cfg), command="train", device="l4")
    assert not any("one trip at the low end" in text for text in alone.assumptions)
    assert alone.compile_seconds == card.between(*estimate.COMPILE) * 4
    assert page.compile_seconds == card.between(*estimate.COMPILE) * (2 + 2 + 2 + 3)
    assert not [text for text in page.warnings if "not counted" in text]
