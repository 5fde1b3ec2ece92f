"""Progress of long work: a bar on a terminal, occasional plain lines in a log."""

import shutil
import sys
import time

_BAR = 20


class Progress:
    """Prints done/total, rate and time left: a line every `every` seconds, or a bar in place."""

    def __init__(
        self, label: str, total: int, unit: str, *, done: int = 0, every: float = 10.0
    ) -> None:
        """`done` was done before, by a run that this one resumes: it does not count as speed."""
        self.label, self.total, self.unit = label, total, unit
        self._in_place = sys.stdout.isatty()
        self.every = 0.2 if self._in_place else every
        self.done = self._before = done
        self._started = self._printed = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count work done; print when it is time to, and always at the end."""
        self.done += count
        now = time.monotonic()
        ended = self.done >= self.total
        if now - self._printed < self.every and not ended:
            return
        self._printed = now
        text = self.line(now - self._started, note)
        if self._in_place:
            full = _BAR * self.done // max(1, self.total)
            text = f"{'#' * full:.<{_BAR}} {text}"[: shutil.get_terminal_size().columns - 1]
            # Back to the start of the line, which is wiped: whatever else is printed stays whole.
            print(f"\r\033[K{text}", end="\n" if ended else "\r", flush=True)
        else:
            print(text, flush=True)

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
