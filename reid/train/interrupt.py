"""Stopping in time: signals and the wall clock raise a flag that long work looks at."""

import signal
import time
from collections.abc import Callable
from types import FrameType

from reid.errors import Stopped


class Interrupt:
    """Why work should stop, if it should. SIGTERM, a time limit or any thread may say so."""

    def __init__(
        self, *, time_limit: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`time_limit`: seconds from now until this process will be killed."""
        self.reason: str | None = None
        self.keep = True
        """Whether what was done may be saved: not after another process has taken over."""
        self._clock = clock
        self._started = clock()
        self._limit = time_limit

    def listen(self) -> None:
        """Take SIGTERM as a wish to stop. Another one while stopping changes nothing."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def request(self, reason: str) -> None:
        """Ask for a stop; the first reason stays."""
        self.reason = self.reason or reason

    def abandon(self, reason: str) -> None:
        """Ask for a stop without a trace: the folder belongs to somebody else now."""
        self.keep = False
        self.request(reason)

    def due(self, needed: float = 0.0) -> str | None:
        """The reason to stop now, if any; `needed` seconds are kept for the next unit of work."""
        if self._limit is not None:
            # Slurm counts from before Python started, so a tenth of the time, at most 30 s,
            # is kept back in any case.
            spare = min(30.0, 0.1 * self._limit) + needed
            if self._clock() - self._started > self._limit - spare:
                self.request(f"the time limit of {self._limit:.0f} s is near")
        return self.reason

    def check(self, work: str) -> None:
        """Raise Stopped if a stop is due, where there is nothing to save."""
        if reason := self.due():
            raise Stopped(f"{work} stopped: {reason}. Run the same command again to resume")

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.request(f"received {signal.Signals(number).name}")
