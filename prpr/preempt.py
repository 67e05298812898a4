"""SIGTERM, the notice that a machine is about to be taken away.

With one process, a handler sets a flag. With several (`jax.distributed`), all must stop after
the same step, or those that go on hang in their next collective. JAX's preemption service does
that: `jax.distributed.initialize` puts its own handler in place, one process's SIGTERM is told
to all within about a second, and they agree on the first step that none has reached yet. A
handler set from Python would silence that one, so here none is set then.
"""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import jax

from prpr.errors import ConfigError


class Preemption:
    """A context in which SIGTERM asks for a stop instead of ending the process.

    The first SIGTERM sets a flag; a second ends the process as without this context. The old
    handler is back after the context. Outside the main thread, where Python allows no handlers,
    nothing is set up and nothing is ever requested. Enter it after `jax.distributed.initialize`,
    once for the whole command: between two contexts a signal would end the process or, with
    several processes, be lost.

        with Preemption() as preemption:
            for step in range(start, total):
                state = update(state)
                if preemption.should_stop():
                    save(state)
                    raise Preempted(...)

    Raises:
      ConfigError: on entering, with several processes and without JAX's preemption service.
    """

    def __init__(self) -> None:
        self._requested = False
        self._calls = 0
        self._shared = False
        self._old: Any = None
        self._held = False

    def __enter__(self) -> Self:
        self._shared = jax.distributed.is_initialized()
        service = jax.config.jax_enable_preemption_service  # pyright: ignore[reportAttributeAccessIssue]
        if self._shared and not service:
            raise ConfigError(
                "jax_enable_preemption_service = False: several processes need it to stop at one "
                "step on SIGTERM; take it out of the environment, or set it to true."
            )
        if not self._shared:
            self._hold(self._notice)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._held and not self._shared:
            signal.signal(signal.SIGTERM, self._old)

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for; with several processes, once they agreed on a call."""
        return self._requested

    def should_stop(self) -> bool:
        """Whether to save and stop now; all processes get the same answer at the same call.

        With several processes all must call it equally often: after every step of every run.
        """
        self._calls += 1
        if self._shared and not self._requested:
            from jax.experimental import multihost_utils

            self._requested = bool(multihost_utils.reached_preemption_sync_point(self._calls))
            if self._requested:
                self._hold(signal.SIG_DFL)  # JAX's handler would swallow a second SIGTERM
        return self._requested

    def _hold(self, handler: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(signal.SIGTERM, handler)
            self._held = True

    def _notice(self, number: int, _: FrameType | None) -> None:
        if self._requested:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._requested = True
