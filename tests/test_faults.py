"""Faults put into training for real: it ends healthy or by a clear stop, and nothing is lost."""

import contextlib
import errno
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recovery_tools import SAVES, TOTAL, rows_of, settings

from prpr import (
    checkpoint,
    cli,
    config,
    data,
    fitting,
    health,
    preempt,
    progress,
    record,
    recovery,
    report,
    run,
    train,
)
from prpr import trainer as trainer_module
from prpr.errors import CheckpointError, GivenUp, Preempted, PrprError, WorkdirError
from prpr.jobs import Job
from prpr.sweep import states, tasks, worker

ROOT = Path(cli.__file__).parents[1]
RUN = "lam_2-seed0"


@pytest.fixture(autouse=True)
def _usual_jax():
    """Optax's Adam does not run with strict dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(autouse=True)
def _no_page(monkeypatch):
    """The report's page has tests of its own, and takes as long as a run."""
    monkeypatch.setattr(report, "make", lambda folder: folder / "report.html")


@pytest.fixture
def cfg(small_base):
    cfg = settings(2.0)
    cfg.base.path = str(small_base)
    return cfg


@pytest.fixture(scope="module")
def undisturbed(small_base, tmp_path_factory):
    """The workdir of the same command without a fault."""
    cfg, folder = settings(2.0), tmp_path_factory.mktemp("undisturbed")
    cfg.base.path = str(small_base)
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(report, "make", lambda folder: folder / "report.html")
        run.finetune(cfg, folder)
    return folder


def assert_whole(workdir, name=RUN, total=TOTAL):
    """Each step once and in order, whatever happened meanwhile."""
    rows = rows_of(workdir, name)
    assert [row["step"] for row in rows if "critic_loss" in row] == list(range(1, total + 1))
    checks = [row["step"] for row in rows if "heldout_auc" in row]
    assert checks == sorted({*range(0, total, 2), *range(0, total, SAVES), total})
    return rows


def states_of(cfg, workdir, name=RUN):
    """step -> every checkpoint of a run, restored; all that is kept is finite."""
    folder, found = workdir / "checkpoints" / name, {}
    parts = run.build.check(cfg, 1)
    like = run.Trainer(cfg, parts, workdir, 1, preempt.Preemption()).like()
    for path in sorted(folder.glob("step_*")):
        state, _ = checkpoint.restore(folder, like, int(path.name[5:]))
        for leaf in jax.tree.leaves(state):
            if jnp.issubdtype(leaf.dtype, jnp.floating):
                assert np.isfinite(leaf).all(), path
        found[int(state.step)] = state
    return found


def assert_ended(cfg, workdir):
    """A run that got to its end: record, checkpoints, samples and numbers are finite."""
    rows = assert_whole(workdir)
    assert max(states_of(cfg, workdir)) == TOTAL
    assert np.isfinite(samples(workdir)).all()
    summary = json.loads((workdir / "summary.json").read_text())
    assert [row["name"] for row in summary["rows"]] == ["real", "base", "lam_2"]
    assert not [row for row in rows if row.get("severity") == "fatal"]
    return rows


def samples(workdir, name=RUN):
    return np.load(workdir / "samples" / f"{name}.npz")["points"]


def falls_of(workdir, name=RUN):
    return recovery.read(workdir / "checkpoints" / name)


def assert_same_result(one, two, name=RUN):
    """Bit for bit: samples, scores, and all that was recorded but times."""
    assert (samples(one, name) == samples(two, name)).all()
    results = [json.loads((folder / "summary.json").read_text()) for folder in (one, two)]
    for result in results:
        result.pop("seconds")
    assert results[0] == results[1]
    rows = [
        [{k: v for k, v in row.items() if k != "time"} for row in rows_of(folder, name)]
        for folder in (one, two)
    ]
    assert json.dumps(rows[0]) == json.dumps(rows[1])


def falls_once(patch, at=5):
    """Has the run of `cfg` fall at a step, in its first attempt."""
    plain = train.generator_update

    def update(system, state, data):
        hit = (state.step == at - 1) & jnp.bool(state.rate is None)
        moved, scalars = plain(system, state, data)
        return moved, {**scalars, "finite": jnp.where(hit, 0.0, scalars["finite"])}

    patch.setattr(train, "generator_update", update)


# ---- gradients, networks, rates -------------------------------------------------------


@jax.custom_vjp
def _spoilt(x, factor):
    """x, whose gradient is multiplied by `factor`: NaN comes in backwards only."""
    del factor
    return x


_spoilt.defvjp(lambda x, factor: (x, factor), lambda factor, slope: (slope * factor, None))


def test_a_nan_gradient_of_the_generator(cfg, tmp_path, monkeypatch):
    plain = train._LOSSES["samples"]

    def spoiled(system, state):
        hit = (state.step == 4) & jnp.bool(state.rate is None)
        inner = plain(system, state)

        def loss(params, *piece):
            value, kept = inner(params, *piece)
            return _spoilt(value, jnp.where(hit, jnp.nan, 1.0)), kept

        return loss

    monkeypatch.setitem(train._LOSSES, "samples", spoiled)
    run.finetune(cfg, tmp_path)
    rows = assert_ended(cfg, tmp_path)
    (fall,) = falls_of(tmp_path)
    assert (fall.cause.check, fall.cause.step, fall.to) == ("not_finite", 5, 3)
    assert math.isnan(fall.cause.values["generator_grad_norm"])
    assert [row["at"] for row in rows if "rollback" in row] == [5]


def test_a_fall_to_the_start_records_the_start_once(cfg, tmp_path, monkeypatch):
    falls_once(monkeypatch, at=2)
    run.finetune(cfg, tmp_path)
    rows = assert_ended(cfg, tmp_path)
    assert [(row["step"], row["at"]) for row in rows if "rollback" in row] == [(0, 2)]


def test_a_critic_that_does_not_see_x(cfg, tmp_path, monkeypatch):
    """It never will, whatever the rates: the run is given up, and never saved."""
    monkeypatch.setattr(train, "_with_density", lambda *args: jnp.full_like(args[2], 0.1))
    with pytest.raises(GivenUp, match=RUN):
        run.finetune(cfg, tmp_path)
    falls = falls_of(tmp_path)
    assert [fall.cause.check for fall in falls] == ["critic_died"] * (cfg.recovery.attempts + 1)
    assert not states_of(cfg, tmp_path)
    # Where that is what is wanted: the falls count no more, and the alarm is a warning.
    cfg.recovery.ignore = ("critic_died",)
    run.finetune(cfg, tmp_path)
    assert max(states_of(cfg, tmp_path)) == TOTAL
    assert not [row for row in rows_of(tmp_path, RUN) if "rollback" in row]


def test_a_critic_whose_units_die_comes_back(cfg, tmp_path, monkeypatch):
    """None reaches the output after step 3, as after a step that was far too large."""

    def dead(_, state, out, *__):
        return jnp.where((state.step > 3) & jnp.bool(state.rate is None), 0.1, out)

    monkeypatch.setattr(train, "_with_density", dead)
    cfg.train.steps += 3
    run.finetune(cfg, tmp_path)
    (fall,) = falls_of(tmp_path)
    assert (fall.cause.check, fall.cause.step, fall.to) == ("critic_died", 8, 3)
    assert fall.cause.values["critic_spread"] == 0
    assert max(states_of(cfg, tmp_path)) == TOTAL + 3


@pytest.mark.parametrize("factor", [1e3, 1e30], ids=["thousandfold", "absurd"])
def test_rates_that_are_far_too_high(cfg, tmp_path, capsys, factor):
    cfg.generator.lr *= factor
    cfg.critic.lr *= factor
    given_up = None
    try:
        run.finetune(cfg, tmp_path)
    except GivenUp as error:
        given_up = error
    kept = states_of(cfg, tmp_path)  # all finite
    if given_up is None:
        assert_ended(cfg, tmp_path)
    else:
        assert given_up.exit_code == 3
        assert f"{RUN} was given up" in capsys.readouterr().out
        assert len(falls_of(tmp_path)) == cfg.recovery.attempts + 1
        with pytest.raises(GivenUp):
            run.finetune(cfg, tmp_path)
        assert states_of(cfg, tmp_path).keys() == kept.keys()
    rows_of(tmp_path, RUN)
    assert falls_of(tmp_path) or factor == 1e3


# ---- data -----------------------------------------------------------------------------


@pytest.fixture
def spoil_batches(monkeypatch):
    """Has `change(batch)` in the place of what some updates of the first stream read."""
    plain = data.Batches.batch

    def arrange(steps, change):
        def batch(self, step):
            found = plain(self, step)
            return change(found) if self.seed == 0 and step in steps else found

        monkeypatch.setattr(data.Batches, "batch", batch)

    return arrange


def reads(cfg):
    """Updates that read a batch, in a step."""
    return cfg.critic.steps


def test_a_batch_of_nan_images(cfg, tmp_path, spoil_batches):
    at = 4 * reads(cfg)
    spoil_batches({at}, lambda batch: {**batch, "image": np.full_like(batch["image"], np.nan)})
    run.finetune(cfg, tmp_path)
    assert_ended(cfg, tmp_path)
    (fall,) = falls_of(tmp_path)
    assert (fall.cause.check, fall.cause.step, fall.to) == ("not_finite", 5, 3)


def test_a_batch_of_one_class(cfg, tmp_path, spoil_batches):
    """All updates of two steps see one mode of the ring only."""

    def one_class(batch):
        rows = np.resize(np.flatnonzero(batch["label"] == batch["label"][0]), len(batch["label"]))
        return {name: value[rows] for name, value in batch.items()}

    spoil_batches(set(range(3 * reads(cfg), 5 * reads(cfg))), one_class)
    run.finetune(cfg, tmp_path)
    assert_ended(cfg, tmp_path)
    assert not falls_of(tmp_path)


# ---- clocks ---------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-3600.0, 86400.0], ids=["back_an_hour", "on_a_day"])
@pytest.mark.parametrize("at", ["training", "scoring"])
def test_a_clock_that_jumps(cfg, tmp_path, monkeypatch, undisturbed, jump, at):
    """Both clocks, wherever prpr reads them; time.time for everyone else too."""
    moved = [0.0]

    def jumped():
        return time.monotonic() + moved[0]

    fake = SimpleNamespace(**{**vars(time), "monotonic": jumped})
    plain = time.time
    monkeypatch.setattr(time, "time", lambda: plain() + moved[0])
    for module in (record, progress, trainer_module, run, fitting):
        monkeypatch.setattr(module, "time", fake)
    if at == "training":
        step = run.Trainer._step

        def steps(self, stream, placed, now):
            moved[0] = jump if now >= 5 else 0.0
            return step(self, stream, placed, now)

        monkeypatch.setattr(run.Trainer, "_step", steps)
    else:
        add = run.score.Scorer.add

        def adds(self, *args):
            moved[0] = jump
            add(self, *args)

        monkeypatch.setattr(run.score.Scorer, "add", adds)
    run.finetune(cfg, tmp_path)
    rows = assert_ended(cfg, tmp_path)
    assert_same_result(tmp_path, undisturbed)
    times = [row["time"] for row in rows] + [
        json.loads((tmp_path / "summary.json").read_text())["seconds"],
        (checkpoint.read_meta(tmp_path / "checkpoints" / RUN) or {})["seconds"],
    ]
    assert all(math.isfinite(seconds) and seconds >= 0 for seconds in times)


# ---- full disks -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "half", "cut"),
    [(2, False, False), (5, True, False), (5, True, True)],
    ids=["no_byte", "half_a_line_taken_back", "half_a_line_left"],
)
def test_a_disk_that_is_full_while_recording(
    cfg, tmp_path, monkeypatch, undisturbed, at, half, cut
):
    """Before and after the first checkpoint; of half a line nothing stays, if not at once."""
    plain = os.write

    def write(descriptor, line):
        if b'"step": %d, "run"' % at not in line:
            return plain(descriptor, line)
        if half:
            return plain(descriptor, line[: len(line) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def truncate(descriptor, size):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        if cut:
            patch.setattr(os, "ftruncate", truncate)
        with pytest.raises(WorkdirError, match=r"metrics\.jsonl: No space left.*free space") as one:
            run.finetune(cfg, tmp_path)
    assert one.value.exit_code == 1
    left = (tmp_path / "metrics.jsonl").read_bytes()
    assert left.endswith(b"\n") == (not (half and cut))
    assert [row["step"] for row in record.read_metrics(tmp_path)][-1] == at - 1
    assert checkpoint.latest(tmp_path / "checkpoints" / RUN) == (None if at < SAVES else SAVES)
    run.finetune(cfg, tmp_path)
    assert_ended(cfg, tmp_path)
    assert_same_result(tmp_path, undisturbed)


def fill(folder):
    """Fills a disk to its last byte; FOLDER/filler is to be deleted again."""
    path = folder / "filler"
    with open(path, "wb", buffering=0) as file:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    assert shutil.disk_usage(folder).free == 0


def test_a_disk_that_is_full_while_saving(cfg, tmp_path, small_disk, monkeypatch, undisturbed):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "checkpoints").symlink_to(small_disk)
    plain = checkpoint.Saver.save

    def save(self, now, *rest):
        if now == 2 * SAVES:
            self.wait()
            fill(small_disk)
        plain(self, now, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Saver, "save", save)
        with pytest.raises(CheckpointError, match=r"save step 6 .*No space.*step 3 is whole"):
            run.finetune(cfg, workdir)
    (small_disk / "filler").unlink()
    assert checkpoint.latest(small_disk / RUN) == SAVES
    run.finetune(cfg, workdir)
    assert_ended(cfg, workdir)
    assert_same_result(workdir, undisturbed)


def test_a_disk_that_is_full_when_a_run_falls(cfg, tmp_path, small_disk, monkeypatch):
    """The fall is not remembered, and the same command comes to it again."""
    falls_once(monkeypatch)
    run.finetune(cfg, tmp_path / "whole")
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "checkpoints").symlink_to(small_disk)
    plain = recovery.write

    def write(folder, *rest):
        fill(small_disk)
        plain(folder, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "write", write)
        with pytest.raises(WorkdirError, match=r"recovery\.json: No space left.*free space"):
            run.finetune(cfg, workdir)
    (small_disk / "filler").unlink()
    assert checkpoint.latest(small_disk / RUN) == SAVES
    assert not falls_of(workdir)
    run.finetune(cfg, workdir)
    assert_ended(cfg, workdir)
    assert len(falls_of(workdir)) == 1
    assert_same_result(workdir, tmp_path / "whole")


def test_where_no_fall_can_be_remembered_there_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    fall = recovery.Fall(
        (health.Alarm("not_finite", "fatal", 5, {"finite": 0.0}, "f", "m", "a"),), 0, 0.5
    )
    with pytest.raises(WorkdirError, match=r"cannot write .*recovery\.json.*free space"):
        recovery.write(tmp_path / "file" / RUN, (fall,), {})


# ---- stops ----------------------------------------------------------------------------


def test_a_stop_between_two_records_saves_nothing_that_is_not_finite(cfg, tmp_path, monkeypatch):
    """NaN since step 5, recorded at step 7: a SIGTERM after step 5 must not make it the newest."""
    cfg.train.log_every, cfg.train.diagnose_every = 7, 8
    plain = train.critic_update

    def update(system, state, batch):
        moved, scalars = plain(system, state, batch)
        hit = (state.step == 4) & jnp.bool(state.rate is None)
        critic = jax.tree.map(lambda leaf: leaf + jnp.where(hit, jnp.nan, 0.0), moved.critic)
        finite = health.finite(critic.params)
        return moved.replace(critic=critic), {**scalars, "finite": finite}

    monkeypatch.setattr(train, "critic_update", update)
    calls = iter(range(1, 10**6))

    def stop(self):
        self._requested |= next(calls) == 5
        return self._requested

    with monkeypatch.context() as patch:
        patch.setattr(preempt.Preemption, "should_stop", stop)
        with pytest.raises(Preempted):
            run.finetune(cfg, tmp_path)
    assert list(states_of(cfg, tmp_path)) == [SAVES]  # all finite
    run.finetune(cfg, tmp_path)
    assert max(states_of(cfg, tmp_path)) == TOTAL
    (fall,) = falls_of(tmp_path)
    assert (fall.cause.check, fall.to) == ("not_finite", 3)


def test_a_held_out_point_that_a_flow_gives_no_density_is_no_score(tmp_path, monkeypatch):
    """log q = −∞ there, in float32; the checkpoint is kept all the same, without a score."""
    cfg = config.base_of(config.flow_of(settings(2.0)))
    cfg.lams, cfg.model.name, cfg.train.steps = (), "realnvp", TOTAL
    cfg.train.keep_best = 1
    plain = run.build.check

    def check(cfg, devices):
        parts = plain(cfg, devices)
        assert isinstance(parts.valid, data.Dataset)
        images = parts.valid.images.copy()
        images[0] = 1e25
        return parts._replace(valid=parts.valid._replace(images=images))

    monkeypatch.setattr(run.build, "check", check)
    run.train_base(cfg, tmp_path)
    folder = tmp_path / "checkpoints" / "base-seed0"
    checked = [row for row in rows_of(tmp_path, "base-seed0") if "heldout_log_likelihood" in row]
    assert {row["heldout_log_likelihood"] for row in checked} == {-math.inf}
    assert checkpoint.latest(folder) == TOTAL
    assert checkpoint.best(folder) is None


def test_a_critic_that_is_fitted_is_saved_only_while_it_is_finite(cfg, tmp_path, monkeypatch):
    """NaN since update 5, and no check is due before the checkpoint of update 6."""
    cfg.base.fit_steps = cfg.base.fit_every = 20
    step, calls = run.Trainer.critic_step, iter(range(1, 10**6))

    def poisoned(self, stream, placed):
        placed, scalars = step(self, stream, placed)
        if next(calls) == 5:
            placed = placed.replace(critic=jax.tree.map(lambda x: x * jnp.nan, placed.critic))
        return placed, scalars

    monkeypatch.setattr(run.Trainer, "critic_step", poisoned)
    of = config.fit_of(cfg)
    trainer = run.Trainer(of, run.build.check(of, 1), tmp_path, 1, preempt.Preemption())
    with (
        record.Record(tmp_path) as rec,
        pytest.raises(PrprError, match=r"no longer finite at update 6\..*config\.critic\.lr"),
    ):
        fitting.fit_critic(trainer, Job("base", None, 0), trainer.fresh, 1, rec)
    assert list(states_of(of, tmp_path, "base-seed0")) == [SAVES]


# ---- exit codes -----------------------------------------------------------------------


@pytest.fixture
def hopeless(cfg):
    """A configuration whose first steps leave float32's range."""
    cfg.generator.lr = cfg.critic.lr = 1e30
    cfg.recovery.attempts = 1
    return cfg


def test_the_command_of_a_run_that_is_given_up_ends_with_3(hopeless, tmp_path):
    (tmp_path / "cfg.json").write_text(json.dumps(record.to_plain(hopeless)))
    (tmp_path / "cfg.py").write_text(
        "import json, pathlib\n"
        "from prpr.sweep import tasks\n"
        "def get_config(argument=''):\n"
        "    text = pathlib.Path(__file__).with_suffix('.json').read_text()\n"
        "    return tasks.from_plain(json.loads(text))\n"
    )
    command = [
        *(sys.executable, str(ROOT / "experiments/finetune_biggan.py")),
        *(f"--config={tmp_path / 'cfg.py'}", f"--workdir={tmp_path / 'run'}"),
    ]
    found = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 3, found.stderr
    (line,) = (line for line in found.stderr.splitlines() if "error" in line.lower())
    assert line.startswith(f"error: given up after {RUN} (not_finite at step ")
    assert "recovery.json" in line
    assert "config.recovery.attempts" in line
    assert "Traceback" not in found.stderr
    assert "What to try: lower config.generator.lr" in found.stdout
    rows = json.loads((tmp_path / "run" / "summary.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["real", "base"]


def test_a_sweep_keeps_the_error_of_a_run_that_is_given_up(hopeless, tmp_path, capsys):
    """What a scheduler starts exits with 1, each time; the run is not taken for done."""
    (task,) = tasks.expand(hopeless, [{"lams": (2.0,), "seeds": (0,)}], tmp_path)
    folder = tasks.write_task(tmp_path, task)
    for _ in range(2):
        assert worker.work(folder) == 1
        assert f"failed: given up after {RUN}" in capsys.readouterr().err
        assert f"given up after {RUN}" in (folder / "error.txt").read_text()
        assert states.state(tmp_path, task) == "failed"
    assert len(falls_of(folder)) == 2


# ---- kills ----------------------------------------------------------------------------

KILLS = 50
LONG = 15  # steps of a run that is killed
NAMES = ("lam_0.5-seed0", "lam_2-seed0")

# One process imports everything once, then forks a child for each line on its standard input,
# which is a JSON list: a workdir, a mark, how many of it, seconds. The child runs the fine-tune
# there, and is killed that long after it has set so many of those marks ("t" begins a step, "s"
# the score of a row), unless it has ended by itself. The answer is its status and its marks.
# JAX itself starts in the children only, so the fork is safe.
NURSERY = """
import gc, json, os, signal, sys, time
import jax
from prpr import parallel, report, run, score
from prpr.sweep import tasks

cfg = tasks.from_plain(json.loads(sys.argv[1]))
report.make = lambda folder: folder / "report.html"
gc.disable()  # a child does not live long enough to need it, and pages stay shared
setup, step, row = parallel.setup, run.Trainer._step, score.Scorer._row

def with_all_programs_cached(*args):
    devices = setup(*args)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return devices

def child(workdir, marks):
    def marked(mark, function):
        def call(*args):
            os.write(marks, mark)
            return function(*args)
        return call
    parallel.setup = with_all_programs_cached
    run.Trainer._step, score.Scorer._row = marked(b"t", step), marked(b"s", row)
    run.finetune(cfg, workdir)

for line in sys.stdin:
    workdir, mark, count, seconds = json.loads(line)
    out, marks = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(out)
            os.dup2(2, 1)
            child(workdir, marks)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    os.close(marks)
    seen, more = b"", b"x"
    while more and seen.count(mark.encode()) < count:
        more = os.read(out, 1)
        seen += more
    if more:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(out, "rb") as rest:
        seen += rest.read()
    print(json.dumps([os.waitstatus_to_exitcode(status), seen.decode()]), flush=True)
"""


def whole_but_the_last(workdir):
    """Run -> the steps that it recorded, in order; only what follows the last break is cut."""
    *lines, last = (workdir / "metrics.jsonl").read_bytes().split(b"\n")
    rows = [json.loads(line) for line in lines]
    assert not last.endswith(b"}")
    return {
        name: [row["step"] for row in rows if row["run"] == name and "critic_loss" in row]
        for name in NAMES
    }


@pytest.mark.slow
def test_killed_at_random_moments_of_training_and_scoring(cfg, tmp_path):
    """SIGKILL, 50 times in several workdirs, each time going on by the same call."""
    cfg.lams, cfg.train.steps = (0.5, 2.0), LONG - 8
    cfg.score.n_real = cfg.score.n_fake = 400
    cfg.train.warmup = cfg.train.diagnose_every = 8  # children that die soon need fewer programs
    rng, caught, steps, saving = random.Random(0), Counter(), Counter(), 0
    like = run.Trainer(cfg, run.build.check(cfg, 1), tmp_path, 1, preempt.Preemption()).like()
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    log = tmp_path / "log"
    with (
        open(log, "wb") as errors,
        subprocess.Popen(
            [sys.executable, "-c", NURSERY, json.dumps(record.to_plain(cfg))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
        ) as nursery,
    ):
        orders, answers = nursery.stdin, nursery.stdout
        assert orders is not None
        assert answers is not None

        def go_on(workdir, mark="t", count=10**6, seconds=0.0):
            print(json.dumps([str(workdir), mark, count, seconds]), file=orders, flush=True)
            code, marks = json.loads(answers.readline())
            assert code in (0, -signal.SIGKILL), log.read_text()[-2000:]
            return code == 0, marks

        assert go_on(tmp_path / "undisturbed")[0]
        number = 0
        while caught.total() < KILLS:
            workdir, done, at = tmp_path / str(number), False, dict.fromkeys(NAMES, 0)
            number += 1
            while not done and caught.total() < KILLS:
                # Some steps on from where training has come; near its end, at one of the four
                # scores, or never.
                mark, count, longest = "t", rng.randint(1, 24), 0.05
                if count >= sum(LONG - step for step in at.values()):
                    mark, count, longest = "s", rng.randint(1, 6), 0.01
                done, marks = go_on(workdir, mark, count, rng.uniform(0.0, longest))
                caught.update({} if done else marks[-1:])
                seen = whole_but_the_last(workdir)
                for name in NAMES:
                    folder = workdir / "checkpoints" / name
                    latest = checkpoint.latest(folder) or 0
                    assert latest >= at[name]
                    at[name] = latest
                    assert seen[name] == list(range(1, len(seen[name]) + 1))
                    assert len(seen[name]) >= latest
                    saving += any(path.name.startswith("tmp.") for path in folder.glob("*"))
                    if latest:
                        state, _ = checkpoint.restore(folder, like)
                        assert int(state.step) == latest
                steps.update(at.values())
            if not done:
                assert go_on(workdir)[0]
            for name in NAMES:
                assert_same_result(workdir, tmp_path / "undisturbed", name)
        orders.close()
    assert caught["t"] >= KILLS // 3
    assert caught["s"] >= KILLS // 8
    assert saving >= KILLS // 10  # in the midst of a save
    assert number >= 3
    assert len(steps) > LONG // SAVES // 2  # different checkpoints that runs went on from
