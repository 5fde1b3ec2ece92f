"""What holds for every test."""

from hypothesis import settings

# The same examples everywhere, and no limit to the time of one: a busy machine is no failure.
settings.register_profile("reid", deadline=None, derandomize=True)
settings.load_profile("reid")
