"""The launchers: what they would run, and what they refuse. Needs neither SLURM nor gcloud."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import prpr

ROOT = Path(prpr.__file__).parents[1]
SLURM, TPU = "launch_slurm.sh", "launch_tpu.sh"
COMMAND = ["python", "experiments/finetune_biggan.py", "--config.name=two words"]
SLICE = ["--name", "n", "--zone=z"]


def call(script, *arguments, path=None, cwd=None):
    environment = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run(
        [str(ROOT / "scripts" / script), *arguments],
        env=environment,
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
    )


def shown(script, *arguments):
    result = call(script, "--dry-run", *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def program(folder, name, body):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def run_batch(tmp_path, script, code, *arguments):
    """Runs a batch script with stand-ins for srun and scontrol; its output and its exit code."""
    program(tmp_path, "srun", f'printf "srun:"; printf " [%s]" "$@"; echo; exit {code}')
    program(tmp_path, "scontrol", 'echo "scontrol: $*"')
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "17",
    }
    result = subprocess.run(
        ["bash"], input=script, env=environment, capture_output=True, text=True, check=False
    )
    return result.stdout.splitlines(), result.returncode


# ---- SLURM ------------------------------------------------------------------------------------


def test_one_process_a_gpu_joined():
    lines = shown(SLURM, "--nodes=2", "--gpus", "4", "--partition=big", "--", *COMMAND).splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    for line in (
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gres=gpu:4",
        "--signal=TERM@120",
        "--requeue",
        "--open-mode=append",
        "--partition=big",
    ):
        assert f"#SBATCH {line}" in lines
    (srun,) = [line for line in lines if line.startswith("srun")]
    words = shlex.split(srun.split("||")[0])
    assert words[-4:] == [*COMMAND, "--distributed"]
    assert "--cpus-per-task=8" in words[1:-4]
    # Options must stand before the first command, or sbatch does not read them.
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert directives == list(range(1, len(directives) + 1))


def test_srun_is_told_of_the_cores():
    """From SLURM 22.05 on it does not have them from sbatch."""
    lines = shown(SLURM, "--cpus=6", "--", *COMMAND).splitlines()
    assert "#SBATCH --cpus-per-task=6" in lines
    (srun,) = [line for line in lines if line.startswith("srun")]
    assert "--cpus-per-task=6" in shlex.split(srun)[1:4]


def test_one_process_a_node_sees_all_gpus():
    text = shown(SLURM, "--nodes=2", "--gpus=4", "--process-per=node", "--", *COMMAND)
    assert "#SBATCH --ntasks-per-node=1\n" in text
    assert "export JAX_LOCAL_DEVICE_IDS=0,1,2,3\n" in text
    assert "JAX_LOCAL_DEVICE_IDS" not in shown(SLURM, "--nodes=2", "--gpus=4", "--", *COMMAND)


def test_one_process_alone_is_not_joined():
    assert "--distributed" not in shown(SLURM, "--gpus=1", "--", *COMMAND)
    text = shown(SLURM, "--gpus=0", "--", *COMMAND)
    assert "--distributed" not in text
    assert "gres" not in text


@pytest.mark.parametrize(("code", "again"), [(0, False), (75, True), (1, False), (130, False)])
def test_only_a_stopped_command_is_queued_again(tmp_path, code, again):
    script = shown(SLURM, "--nodes=2", "--", *COMMAND)
    lines, found = run_batch(tmp_path, script, code)
    assert found == code
    assert lines[0].endswith("[--config.name=two words] [--distributed]")
    assert ("scontrol: requeue 17" in lines) is again


def test_the_shell_outlives_the_signal(tmp_path):
    script = shown(SLURM, "--gpus=1", "--", "sh", "-c", "kill -TERM $PPID; sleep .1; exit 75")
    program(tmp_path, "srun", 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"')
    program(tmp_path, "scontrol", 'echo "scontrol: $*"')
    path = f"{tmp_path}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash"],
        input=script,
        env={**os.environ, "PATH": path, "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "17"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 75, result.stderr
    assert "scontrol: requeue 17" in result.stdout


def test_it_submits_what_it_shows(tmp_path):
    program(tmp_path, "sbatch", "cat > submitted; echo Submitted batch job 3")
    arguments = ["--logs", "logs", "--sbatch=--mem=64G", "--", *COMMAND]
    path = f"{tmp_path}:{os.environ['PATH']}"
    result = call(SLURM, *arguments, path=path, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "Submitted batch job 3\n")
    assert (tmp_path / "submitted").read_text() == shown(SLURM, *arguments)
    assert "#SBATCH --mem=64G\n" in shown(SLURM, *arguments)
    assert (tmp_path / "logs").is_dir()


# ---- TPU --------------------------------------------------------------------------------------


def test_every_host_runs_the_command():
    (line,) = shown(TPU, "run", *SLICE, "--", *COMMAND).splitlines()
    words = shlex.split(line)
    assert words[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "n"]
    assert {"--worker=all", "--zone=z"} <= set(words)
    (script,) = [word.removeprefix("--command=") for word in words if word.startswith("--command=")]
    assert shlex.join([*COMMAND, "--distributed"]).replace("'", "") in script.replace("\\", "")


def test_what_hosts_are_told_works(tmp_path):
    """run, a second run, stop: the very scripts, on this machine in place of a host."""
    (tmp_path / "prpr/.venv/bin").mkdir(parents=True)
    (tmp_path / "prpr/.venv/bin/activate").write_text("")
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(75)))\n"
        "print(sys.argv[1:], flush=True); time.sleep(60)"
    )

    def on_host(action, *command):
        line = shown(TPU, action, *SLICE, *command)
        (script,) = [w for w in shlex.split(line) if w.startswith("--command=")]
        return subprocess.run(
            ["bash", "-c", script.removeprefix("--command=")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    run = ("run", "--", sys.executable, "-S", "-c", code, "two words")
    assert on_host("stop").returncode == 0  # nothing runs yet
    assert on_host(*run).returncode == 0
    log = tmp_path / "prpr/run.log"
    try:
        while "two words" not in (log.read_text() if log.exists() else ""):
            pass
        again = on_host(*run)
        assert again.returncode == 1
        assert "a command is running here; stop it first" in again.stderr
    finally:
        assert on_host("stop").returncode == 0
    assert log.read_text() == "['two words', '--distributed']\nsaved\n"
    assert on_host(*run).returncode == 0  # and it can be started anew
    assert on_host("stop").returncode == 0


def test_a_slice_is_made_set_up_and_deleted():
    made = shown(TPU, "create", *SLICE, "--type=v5litepod-16", "--spot", "--project=p")
    assert {"--accelerator-type=v5litepod-16", "--spot", "--project=p"} <= set(made.split())
    setup = shown(TPU, "setup", *SLICE, "--prepare", "mount 'a b'").splitlines()
    assert setup[1].startswith("gcloud compute tpus tpu-vm scp ")
    (script,) = [word for word in shlex.split(setup[2]) if word.startswith("--command=")]
    assert "set -e; mount 'a b'; mkdir -p prpr; tar -xzf" in script
    assert "'jax[tpu]'" in script
    assert shown(TPU, "delete", *SLICE) == (
        "gcloud compute tpus tpu-vm delete n --quiet --zone=z\n"
    )
    assert "--worker=3" in shown(TPU, "logs", *SLICE, "--worker=3")


PYTHON = """\
case "$1 $2" in
  "-c "*) exit {old} ;;
  "-m venv")
    echo "{name} venv" >> ../log; {venv}
    mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  "-m pip") echo "$(basename "$0") pip: $*" >> ../log; {pip} ;;
  "-m uv") echo "uv: $*" >> ../log; mkdir -p .venv/bin; cp {good} .venv/bin/python ;;
esac"""
# name -> whether it is too old, and what its venv and its pip do.
HOSTS = {
    "python3 is new enough": ({"python3": (0, "", "")}, ["python3 venv"]),
    "another one is": (
        {"python3": (1, "", ""), "python3.11": (0, "", "")},
        ["python3.11 venv"],
    ),
    "none is": ({"python3": (1, "", "")}, ["python3 pip", "uv"]),
    "it has no venv": ({"python3": (0, "exit 1", "")}, ["python3 venv", "python3 pip", "uv"]),
    "there is no uv": ({"python3": (1, "", "exit 1")}, None),
}


@pytest.mark.parametrize("host", HOSTS)
def test_setup_finds_a_python_that_can_be_used(tmp_path, host):
    pythons, wanted = HOSTS[host]
    bin_, good = tmp_path / "bin", tmp_path / "good"
    bin_.mkdir()
    for name in ("bash", "mkdir", "tar", "gzip", "rm", "cp", "basename", "sh"):
        (bin_ / name).symlink_to(next(p for p in _which(name)))
    program(tmp_path, "good", PYTHON.format(old=0, name="good", venv="", pip="", good=good))
    for name, (old, venv, pip) in pythons.items():
        body = PYTHON.format(old=old, name=name, venv=venv, pip=pip, good=good)
        program(bin_, name, body)
    subprocess.run(["tar", "-czf", "prpr-code.tar.gz", "bin"], cwd=tmp_path, check=True)
    line = shown(TPU, "setup", *SLICE).splitlines()[2]
    (script,) = [word for word in shlex.split(line) if word.startswith("--command=")]

    def setup():
        return subprocess.run(
            ["bash", "-c", script.removeprefix("--command=")],
            cwd=tmp_path,
            env={"PATH": str(bin_)},
            capture_output=True,
            text=True,
        )

    done = setup()
    log = (tmp_path / "log").read_text().splitlines()
    if wanted is None:
        assert done.returncode == 1
        assert "error: no Python 3.11 to 3.13 with venv on this host" in done.stderr
        assert "--prepare" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in log[:-1]] == wanted
    assert log[-1] == (
        "python pip: -m pip install --quiet --constraint constraints.txt --editable . jax[tpu]"
    )
    if "uv" in wanted:
        assert "uv: -m uv venv --quiet --seed --python 3.12 .venv" in log
    # The environment that is there is kept.
    assert setup().returncode == 0
    assert (tmp_path / "log").read_text().splitlines() == [*log, log[-1]]


def test_setup_copies_what_git_lists(tmp_path):
    log = tmp_path / "log"
    program(tmp_path, "gcloud", f'case $4 in scp) tar -tzf "$5";; *) echo "$4";; esac >> {log}')
    path = f"{tmp_path}:{os.environ['PATH']}"
    result = call(TPU, "setup", *SLICE, path=path)
    assert result.returncode == 0, result.stderr
    names = log.read_text().splitlines()
    assert {"setup.cfg", "constraints.txt", "prpr/__init__.py", "ssh"} <= set(names)
    assert not any(name.startswith((".git/", ".venv/")) for name in names)


# ---- both -------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [SLURM, TPU])
def test_help_lists_every_option(script):
    result = call(script, "--help")
    assert result.returncode == 0
    source = (ROOT / "scripts" / script).read_text()
    for option in ("--name", "--dry-run", "--help"):
        assert f"  {option}" in result.stdout
        assert option in source


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((SLURM,), "there is no command; write it after --"),
        ((SLURM, "--nodes=0", "--", "x"), "--nodes 0: must be a whole number, at least 1"),
        ((SLURM, "--nodes=08", "--", "x"), "--nodes 08: must be a whole number"),
        ((SLURM, "--gpus", "many", "--", "x"), "--gpus many: must be a whole number, at least 0"),
        ((SLURM, "--process-per=core", "--", "x"), "--process-per core: must be gpu or node"),
        ((SLURM, "--gpus=0", "--process-per=gpu", "--", "x"), "goes with --gpus 1 or more"),
        ((SLURM, "--time=soon", "--", "x"), "--time soon: must be MINUTES, HH:MM:SS"),
        ((SLURM, "--sbatch=mem", "--", "x"), "--sbatch mem: must be an option of sbatch"),
        ((SLURM, "--nodes"), "--nodes needs a value"),
        ((SLURM, "--name=a\nb", "--", "x"), "--name needs a value of one line"),
        ((SLURM, "--name=a b", "--", "x"), "--name a b: must not contain blanks"),
        ((SLURM, "--logs", "my logs", "--", "x"), "--logs my logs: must not contain blanks"),
        ((SLURM, "--partition=a\tb", "--", "x"), "--partition a\tb: must not contain blanks"),
        ((SLURM, "--account=a b", "--", "x"), "--account a b: must not contain blanks"),
        ((SLURM, "python", "x.py"), "unknown option python; write -- before the command"),
        ((SLURM, "--node=3", "--", "x"), "unknown option --node"),
        ((SLURM, "--", "x", "--coordinator=h:1"), "--coordinator=h:1: leave it out"),
        ((SLURM, "--", "x"), "there is no sbatch here"),
        ((TPU,), "name an action: create, setup, run, logs, stop or delete"),
        ((TPU, "run", "--zone=z", "--", "x"), "name the slice with --name"),
        ((TPU, "run", "--name=n", "--", "x"), "name its zone with --zone"),
        ((TPU, "run", *SLICE), "there is no command; write it after --"),
        ((TPU, "run", "stop", *SLICE), "two actions: run and stop"),
        ((TPU, "stop", *SLICE, "--", "x"), "a command goes with run, not with stop"),
        ((TPU, "run", *SLICE, "--", "x", "--distributed"), "--distributed: leave it out"),
        ((TPU, "go", *SLICE), "unknown action or option go"),
        ((TPU, "logs", *SLICE, "--worker=all"), "--worker all: must be a host's number"),
        ((TPU, "run", *SLICE, "--folder=a b", "--", "x"), "--folder a b: must be a path below"),
        ((TPU, "stop", *SLICE), "there is no gcloud here"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, words):
    for name in ("bash", "dirname", "env", "seq"):  # a machine that has no more than that
        (tmp_path / name).symlink_to(next(p for p in _which(name)))
    result = call(*arguments, path=str(tmp_path))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def _which(name):
    return (
        Path(folder) / name
        for folder in os.environ["PATH"].split(os.pathsep)
        if (Path(folder) / name).exists()
    )
