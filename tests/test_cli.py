"""cli: every mistake of a user is one line and an exit code; every bug keeps its traceback."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from prpr import cli, planner
from prpr.errors import CheckpointError, ConfigError

ROOT = Path(cli.__file__).parents[1]

CONFIG = """
from ml_collections import ConfigDict

def get_config(arg=""):
    if arg not in ("", "smoke"):
        from prpr.errors import unknown_name
        raise unknown_name("argument", arg, ["smoke"])
    return ConfigDict({
        "lams": (0.2, 5.0),
        "seeds": (0,),
        "names": ("a", "b"),
        "mixed": (1, "x"),
        "none": None,
        "layers": [1, 2],
        "name": "digits",
        "train": {"steps": 10 if arg else 1000, "rate": 0.5, "ema": True},
    })
"""


def returning(value):
    def main(config, workdir):
        return value

    return main


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """call(*arguments, main=...) -> (exit code, standard output, standard error, config)."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)

    def run(*arguments, main=None):
        values = flags.FlagValues()
        config = cli.define_config("configs/digits.py", flag_values=values)
        workdir = flags.DEFINE_string("workdir", None, "where the run goes", flag_values=values)
        flags.DEFINE_integer("count", 1, "how many", flag_values=values)
        seen = []

        def body():
            seen.append(config.value)
            return (main or returning(None))(config.value, workdir.value)

        before = list(sys.argv)
        with pytest.raises(SystemExit) as caught:
            cli.run(body, ["x.py", *arguments], values)
        assert sys.argv == before
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err, seen[0] if seen else None

    return run


def refused(result):
    """The one line of an error that ends with code 2."""
    code, out, err, config = result
    assert code == 2
    assert out == ""
    assert config is None
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


# ---- what works -----------------------------------------------------------------------


def test_defaults_files_and_arguments(call, tmp_path):
    code, out, err, config = call()
    assert (code, out, err) == (None, "", "")
    assert config.train.steps == 1000
    assert config.is_locked
    assert call("--config=configs/digits.py:smoke")[3].train.steps == 10
    assert call("--config", "configs/digits.py:smoke")[3].train.steps == 10
    assert call(f"--config={tmp_path}/configs/digits.py")[3].train.steps == 1000
    # Wherever the file stands, the override wins.
    for order in ((0, 1), (1, 0)):
        arguments = ["--config=configs/digits.py:smoke", "--config.train.steps=7"]
        assert call(*[arguments[i] for i in order])[3].train.steps == 7


def test_overrides(call):
    config = call(
        "--config.train.rate=2", "--noconfig.train.ema", "--config.name=a,b", "--config.seeds", "3"
    )[3]
    assert (config.train.rate, config.train.ema, config.name) == (2.0, False, "a,b")
    assert isinstance(config.train.rate, float)
    assert config.seeds == (3,)


TUPLES = {
    "--config.lams=0.2,1,5,20": ("lams", (0.2, 1.0, 5.0, 20.0)),
    "--config.lams=5": ("lams", (5.0,)),
    "--config.lams=1e-3": ("lams", (0.001,)),
    "--config.lams=(0.2,1)": ("lams", (0.2, 1.0)),
    "--config.lams=(0.2, 1,)": ("lams", (0.2, 1.0)),
    "--config.lams=[1,2]": ("lams", (1.0, 2.0)),
    "--config.lams= 1 , -2 ": ("lams", (1.0, -2.0)),
    "--config.lams=inf,1": ("lams", (math.inf, 1.0)),
    "--config.lams=": ("lams", ()),
    "--config.lams=()": ("lams", ()),
    "--config.seeds=0,1,2": ("seeds", (0, 1, 2)),
    "--config.seeds=7": ("seeds", (7,)),
    "--config.names=x": ("names", ("x",)),
    "--config.names=x,y z": ("names", ("x", "y z")),
    "--config.names=('x','y')": ("names", ("x", "y")),
    "--config.mixed=2,b,c": ("mixed", (2, "b", "c")),
}


@pytest.mark.parametrize("argument", TUPLES)
def test_tuples(call, argument):
    name, want = TUPLES[argument]
    code, _, err, config = call(argument)
    assert (code, err) == (None, "")
    assert config[name] == want
    assert [type(item) for item in config[name]] == [type(item) for item in want]


def test_tuples_by_repetition_and_nan(call):
    assert call("--config.lams=1", "--config.lams=2,3")[3].lams == (1.0, 2.0, 3.0)
    # Whether NaN makes sense is for the validation of the configuration to say.
    (value,) = call("--config.lams=nan")[3].lams
    assert math.isnan(value)
    assert isinstance(value, float)


# ---- mistakes -------------------------------------------------------------------------

MISTAKES = {
    # flags
    "--wrkdir=x": "Unknown command line flag 'wrkdir'. Did you mean: workdir ?",
    "--count=x": "--count=x: ",
    "--workdir": "Missing value for flag --workdir",
    "digits": "unexpected argument 'digits'; settings are written --name=value",
    "--confg.lams=1": "Unknown command line flag 'confg.lams'",
    # knobs
    "--config.trian.steps=1": "'trian.steps'. Did you mean 'train.steps'?",
    "--config.train.stpes=1": "'train.stpes'. Did you mean 'train.steps'? Known: train.ema, ",
    "--config.steps=1": "'steps'. Did you mean 'train.steps'?",
    "--config.lam=1": "'lam'. Did you mean 'lams'?",
    "--config.name.x=1": "'name.x'",
    "--config.=1": "''",
    "--config.lams[0]=1": "'lams[0]'. Did you mean 'lams'?",
    "--config.train=1": "a group of knobs; set one of: train.ema, train.rate, train.steps",
    "--config.none=1": "--config.none is a NoneType and can only be changed in a config file",
    "--config.layers=1": "--config.layers is a list",
    # values
    "--config.train.steps=1.5": "--config.train.steps=1.5: the knob takes a whole number, such",
    "--config.train.steps=": "--config.train.steps=: the knob takes a whole number",
    "--config.train.rate=fast": "--config.train.rate=fast: the knob takes a number, such as 0.5",
    "--config.train.ema=maybe": "--config.train.ema=maybe: the knob takes true or false",
    "--config.lams=abc": "--config.lams: 'abc' is not a number; write it as --config.lams=0.2,5.0",
    "--config.lams=1,abc": "--config.lams: 'abc' is not a number",
    "--config.lams=1;2": "--config.lams: '1;2' is not a number",
    "--config.lams=True": "--config.lams: True is not a number",
    "--config.lams=((1,2),)": "--config.lams: (1, 2) is not a number",
    "--config.lams=(1,2": "--config.lams: '(1' is not a number",
    "--config.lams={1:2}": "--config.lams: {1: 2} is not a number",
    "--config.seeds=0,1.5": "--config.seeds: 1.5 is not a whole number",
    "--config.names=1": "--config.names: 1 is not text",
    # files
    "--config=configs/digit.py": "no file 'configs/digit.py' below ",
    "--config=configs/": "there is no file 'configs/'",
    "--config=": "--config=: there is no file ''",
    "--config=configs/digits.py:smok": "unknown argument 'smok'. Did you mean 'smoke'?",
}


@pytest.mark.parametrize("argument", MISTAKES)
def test_every_mistake_is_one_line(call, argument):
    assert MISTAKES[argument] in refused(call(argument))


def test_the_hint_for_a_file(call):
    assert "Did you mean configs/digits.py?" in refused(call("--config=configs/digit.py"))
    assert "given twice" in refused(call("--config=a.py", "--config=b.py"))


FILES = {
    "x = 1\n1 / 0\n": "bad.py fails in line 2: ZeroDivisionError: division by zero",
    "def get_config(:\n": "bad.py fails in line 1: SyntaxError",
    "import nothing_like_this\n": "line 1: ModuleNotFoundError: No module named 'nothing_like",
    "def get_config():\n    open('/nowhere')\n": "fails in line 2: FileNotFoundError",
    "def get_config():\n    raise ValueError('a\\nb')\n": "fails in line 2: ValueError: a b",
    "x = 1\n": "it has no function get_config",
    "def get_config():\n    return {}\n": "get_config returns a dict, not a ConfigDict",
    "def get_config():\n    pass\n": "get_config returns a NoneType, not a ConfigDict",
    "def get_config(arg):\n    pass\n": "TypeError: get_config() missing 1 required positional",
}


@pytest.mark.parametrize("text", FILES)
def test_config_files_that_fail(call, tmp_path, text):
    (tmp_path / "bad.py").write_text(text)
    assert FILES[text] in refused(call("--config=bad.py", "--config.train.steps=3"))


def test_a_file_that_is_not_python(call, tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    assert "NAME.py[:ARGUMENT]" in refused(call("--config=bad.json"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plan_device=l4"], "--plan_device goes with --plan."),
        (["--plan_device=this"], "--plan_device goes with --plan."),
        (["--price=3"], "--price goes with --plan."),
        (["--budget=500"], "--budget goes with --plan."),
        (["--plan_json=x"], "--plan_json goes with --plan."),
        (["--probe"], "--probe goes with --plan."),
        (["--noplan", "--price=3"], "--price goes with --plan."),
        (["--plan", "--distributed"], "--distributed with --plan: a plan is made in one process"),
        (["--plan", "--coordinator=h:1"], "--coordinator with --plan"),
        (["--plan", "--processes=2"], "--processes with --plan"),
        ([], None),
        (["--noprobe"], None),
        (["--distributed"], None),
        (["--plan", "--probe", "--price=3", "--budget=5", "--nodistributed"], None),
    ],
)
def test_flags_of_a_plan_go_with_it(monkeypatch, tmp_path, capsys, arguments, words):
    values = flags.FlagValues()
    (tmp_path / "c.py").write_text(CONFIG)
    cli.define_config(f"{tmp_path}/c.py", flag_values=values)
    cli.define_cluster(values)
    planner.define_flags(values)
    started = []
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: started.append(1), ["x.py", *arguments], values)
    err = capsys.readouterr().err
    if words is None:
        assert (caught.value.code, err, started) == (None, "", [1])
    else:
        assert (caught.value.code, started) == (2, [])
        assert err.startswith(f"error: {words}")


# ---- what main raises -----------------------------------------------------------------


def raising(error):
    def main(config, workdir):
        raise error

    return main


def test_errors_of_main(call):
    code, _, err, _ = call(main=raising(ConfigError("lams must be positive\n  not -1")))
    assert (code, err) == (2, "error: lams must be positive not -1\n")
    code, _, err, _ = call(main=raising(CheckpointError("no checkpoint in /x")))
    assert (code, err) == (1, "error: no checkpoint in /x\n")
    code, _, err, _ = call("--debug", main=raising(CheckpointError("no checkpoint in /x")))
    assert code == 1
    assert "Traceback" in err
    assert err.endswith("error: no checkpoint in /x\n")
    code, _, err, _ = call(main=raising(KeyboardInterrupt()))
    assert (code, err) == (130, "interrupted; the same command resumes\n")
    assert call(main=returning(3))[0] == 3


def test_notes_of_errors_are_told_too(call):
    lost = "step 20 is not saved:\n  the disk is full"
    for error, line in (
        (CheckpointError("not finite"), "error: not finite\n"),
        (KeyboardInterrupt(), "interrupted; the same command resumes\n"),
    ):
        error.add_note(lost)
        error.add_note("and more")
        _, _, err, _ = call(main=raising(error))
        assert err == f"{line}step 20 is not saved: the disk is full\nand more\n"


def test_bugs_keep_their_traceback(call):
    with pytest.raises(ZeroDivisionError):
        call(main=raising(ZeroDivisionError()))
    with pytest.raises(ValueError, match="bug"):
        call(main=raising(ValueError("bug")))


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_short_and_comes_first(call, flag):
    code, out, err, config = call(flag, "--config=nowhere.py", "--unknown")
    assert (code, err, config) == (0, "", None)
    assert out.startswith("cli: every mistake")  # the docstring of main's module
    lines = out.splitlines()
    assert len(lines) < 15
    assert any("--workdir" in line and "where the run goes" in line for line in lines)
    assert "default configs/digits.py" in out
    assert "--config.lams=0.2,1,5" in out
    assert lines[-1].split()[0] == "--debug"


# ---- a real process -------------------------------------------------------------------

SCRIPT = '''"""An experiment."""

import sys
from absl import flags
from prpr import cli

CONFIG = cli.define_config("configs/digits.py")
WORKDIR = flags.DEFINE_string("workdir", None, "where the run goes")


def main():
    print(CONFIG.value.train.steps, CONFIG.value.lams, WORKDIR.value)


if __name__ == "__main__":
    cli.run(main)
'''


def test_as_a_process(tmp_path):
    for folder in ("configs", "experiments"):
        (tmp_path / folder).mkdir()
    (tmp_path / "configs" / "digits.py").write_text(CONFIG)
    (tmp_path / "experiments" / "x.py").write_text(SCRIPT)

    def process(*arguments):
        return subprocess.run(
            [sys.executable, "experiments/x.py", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    done = process("--config=configs/digits.py:smoke", "--config.lams=0.2,1", "--workdir=w")
    assert (done.returncode, done.stdout, done.stderr) == (0, "10 (0.2, 1.0) w\n", "")
    done = process("--config.trian.steps=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown knob")
    assert done.stderr.count("\n") == 1
    done = process("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("An experiment.")
    assert "--workdir" in done.stdout
    assert len(done.stdout.splitlines()) < 12


KINDS = """
from ml_collections import ConfigDict

def get_config(arg=""):
    return ConfigDict({"argument": arg})
"""


@pytest.mark.parametrize(
    ("given", "first", "second"),
    [
        ((), "gan", "flow"),
        (("--config=configs/kinds.py",), "gan", "flow"),
        (("--config=configs/kinds.py:smoke",), "gan_smoke", "flow_smoke"),
        (("--config=configs/kinds.py:gan_smoke",), "gan_smoke", "flow_gan_smoke"),
        (("--other=configs/kinds.py:flow",), "gan", "flow"),
        (("--config", "configs/kinds.py:a", "--other=configs/kinds.py:b"), "gan_a", "flow_b"),
    ],
)
def test_a_file_with_several_kinds(tmp_path, monkeypatch, given, first, second):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "kinds.py").write_text(KINDS)
    monkeypatch.chdir(tmp_path)
    values = flags.FlagValues()
    one = cli.define_config("configs/kinds.py", flag_values=values, kind="gan")
    two = cli.define_config(
        "configs/kinds.py", "other", flag_values=values, kind="flow", follows="config"
    )
    cli._parse(["x", *given], values)
    assert (one.value.argument, two.value.argument) == (first, second)
