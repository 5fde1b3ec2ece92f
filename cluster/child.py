"""A command that runs inside a job of submitit: it is told to stop in its own way, and in time."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

NOTICE = signal.SIGUSR2
"""The signal by which submitit learns that the time limit is near."""


class Child:
    """A running command, with the signal that only submitit's own process understands ignored.

    Slurm sends it to every process of the job step; most would die of it.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            list(command), env=dict(environment), preexec_fn=_ignore_notice
        )

    def wait(self) -> int:
        """Wait for the end; returns the exit code, negative for a signal.

        Wakes up now and then: a signal handler must find no lock of `subprocess` held for long.
        """
        while (code := self._process.poll()) is None:
            time.sleep(0.2)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the command has ended."""
        if not self._ended():
            self._process.send_signal(number)

    def stop(self, *, grace: float) -> None:
        """Ask the command to end (SIGTERM); kill it if it has not after `grace` seconds.

        Safe in a signal handler that interrupts `wait`.
        """
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while not self._ended() and time.monotonic() < deadline:
            time.sleep(0.1)
        if not self._ended():
            self._process.kill()
        while not self._ended():
            time.sleep(0.1)

    def _ended(self) -> bool:
        """Whether it has ended, without reaping it: that is left to `wait`."""
        try:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._process.pid, options) is not None
        except ChildProcessError:
            return True


def _ignore_notice() -> None:
    signal.signal(NOTICE, signal.SIG_IGN)
