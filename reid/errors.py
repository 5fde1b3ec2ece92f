"""Exceptions that end a command with one line for people and an exit code for schedulers."""


class UserError(Exception):
    """Bad input from outside: names the file or key, what was expected, and what to do.

    Raised anywhere in the package; `reid.cli` prints it as `error: ...` and exits with its code.
    Programming errors are never UserErrors: they keep their traceback.
    """

    exit_code = 1


class Stopped(UserError):
    """Work was asked to stop (a signal, the time limit) and can be resumed by the same command.

    75 is EX_TEMPFAIL of sysexits.h: try again later.
    """

    exit_code = 75


class LeaseHeld(UserError):
    """Another process is at work in the same run folder."""

    exit_code = 76
