"""Graceful shutdown: a signal, the time limit or a lost lease asks the training loop to stop."""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from reid.errors import Stopped


class Interrupt:
    """Whether work should stop, and why. The training loop asks after every step."""

    def __init__(self, *, time_limit: float | None = None) -> None:
        """`time_limit`: seconds from now until this process will be killed."""
        self.reason: str | None = None
        self.may_save = True
        """False once another process may be writing to the run folder."""
        self.check_lease: Callable[[], None] = lambda: None
        """Called before every answer of `due`; may call `request` or `abandon`."""
        self._started, self._limit = time.monotonic(), time_limit

    def listen(self) -> None:
        """Treat SIGTERM and Ctrl-C as requests to stop; a second Ctrl-C stops at once."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def request(self, reason: str) -> None:
        """Ask for a stop; the first reason is kept."""
        self.reason = self.reason or reason

    def abandon(self, reason: str) -> None:
        """Ask for a stop without saving: the run folder may belong to another process now."""
        self.may_save = False
        self.request(reason)

    def due(self, needed: float = 0.0) -> str | None:
        """The reason to stop now, if any; `needed` seconds are reserved for the next step."""
        self.check_lease()
        if self._limit is not None:
            # Slurm counts from before Python started, so a tenth of the time, at most 30 s,
            # is reserved in any case.
            reserve = min(30.0, 0.1 * self._limit) + needed
            if time.monotonic() - self._started > self._limit - reserve:
                self.request(f"the time limit of {self._limit:.0f} s is near")
        return self.reason

    def check(self, work: str) -> None:
        """Raise Stopped if a stop is due, where there is nothing to save."""
        if reason := self.due():
            raise Stopped(f"{work} stopped: {reason}. Run the same command again to resume")

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.request(f"received {signal.Signals(number).name}")
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.write(2, b"stopping after this step; press Ctrl-C again to stop without saving\n")
