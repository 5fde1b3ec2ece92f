"""What holds for every test."""

import signal

from hypothesis import settings

# The same examples everywhere, and no limit to the time of one: a busy machine is no failure.
settings.register_profile("reid", deadline=None, derandomize=True)
settings.load_profile("reid")

# A shell ignores Ctrl-C for what it starts in the background, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
