"""Progress of long work as plain lines: readable on a terminal and in a Slurm log alike."""

import sys
import time


class Progress:
    """Prints done/total, rate and time left, at most once every `every` seconds."""

    def __init__(
        self, label: str, total: int, unit: str, *, done: int = 0, every: float = 10.0
    ) -> None:
        """`done` was done before, by a run that this one resumes: it does not count as speed."""
        self.label, self.total, self.unit, self.every = label, total, unit, every
        self.done = self._before = done
        self._started = self._printed = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count work done; print a line when one is due, and always at the end."""
        self.done += count
        now = time.monotonic()
        if now - self._printed >= self.every or self.done >= self.total:
            self._printed = now
            print(self.line(now - self._started, note), file=sys.stdout, flush=True)

    def line(self, elapsed: float, note: str = "") -> str:
        """One line of progress after `elapsed` seconds."""
        rate = (self.done - self._before) / elapsed if elapsed > 0 else 0.0
        left = duration((self.total - self.done) / rate) if rate else "?"
        text = (
            f"{self.label}: {self.done:,}/{self.total:,} {self.unit}, "
            f"{rate:,.1f} {self.unit}/s, {duration(elapsed)} gone, {left} left"
        )
        return f"{text}; {note}" if note else text


def duration(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
