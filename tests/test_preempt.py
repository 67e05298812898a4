"""preempt: one SIGTERM sets a flag, a second ends the process; several processes agree."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from prpr.errors import Preempted, PrprError
from prpr.preempt import Preemption


def test_a_sigterm_asks_for_a_stop_and_the_old_handler_comes_back():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with Preemption() as preemption:
            assert not preemption.requested
            assert not preemption.should_stop()
            os.kill(os.getpid(), signal.SIGTERM)
            assert preemption.requested
            assert preemption.should_stop()
            assert preemption.should_stop()
        assert seen == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
        with pytest.raises(KeyError), Preemption():
            raise KeyError
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(seen) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_happens():
    before = signal.getsignal(signal.SIGTERM)
    answers = []

    def work():
        with Preemption() as preemption:
            answers.append((signal.getsignal(signal.SIGTERM), preemption.should_stop()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [(before, False)]
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_error_has_its_own_exit_code():
    error = Preempted("saved at step 7 in runs/x")
    assert isinstance(error, PrprError)
    assert error.exit_code == 75 == os.EX_TEMPFAIL
    assert str(error) == (
        "stopped by SIGTERM; saved at step 7 in runs/x: the same command resumes there"
    )


SECOND = """
import os, signal
from prpr.preempt import Preemption
with Preemption() as preemption:
    os.kill(os.getpid(), signal.SIGTERM)
    print(preemption.requested, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", flush=True)
"""


def test_a_second_sigterm_ends_the_process():
    done = subprocess.run(
        [sys.executable, "-c", SECOND], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "True\n", done.stderr
    assert done.returncode == -signal.SIGTERM


# Rank 1 alone gets the signal, at a step that rank 0 is not at; then a second one, too.
AGREE = """
import os, signal, sys, time
import jax
from prpr.errors import ConfigError
from prpr.preempt import Preemption
address, rank = sys.argv[1], int(sys.argv[2])
jax.distributed.initialize(address, 2, rank)
jax.config.update("jax_enable_preemption_service", False)
try:
    Preemption().__enter__()
except ConfigError as error:
    print("refused" if "jax_enable_preemption_service" in str(error) else error)
jax.config.update("jax_enable_preemption_service", True)
with Preemption() as preemption:
    for step in range(400):
        time.sleep(0.02 + 0.02 * rank)
        if step == 5 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if preemption.should_stop():
            break
    print(step, preemption.requested, flush=True)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
        print("still here", flush=True)
time.sleep(1)  # rank 0 holds the service that rank 1 would die of
os._exit(0)
"""


def test_two_processes_stop_after_the_same_step(free_port):
    address = f"127.0.0.1:{free_port()}"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", AGREE, address, str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        outs = [child.communicate(timeout=60) for child in children]
    finally:
        for child in children:
            child.kill()
    assert outs[0][0] == outs[1][0] != "", outs
    refused, stopped = outs[0][0].splitlines()
    assert refused == "refused"
    step, requested = stopped.split()
    assert 5 < int(step) < 399
    assert requested == "True"
    assert children[0].returncode == 0
    assert children[1].returncode == -signal.SIGTERM
