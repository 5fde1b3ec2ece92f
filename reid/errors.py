"""Exceptions that end a command with one line for people and an exit code for schedulers."""

import errno

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space there"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions or use another place"
    ),
}


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


class Unresumable(UserError):
    """An unfinished training cannot be resumed; only an explicit command discards it.

    `reid.cli` appends that command to the message.
    """


def of_system(error: OSError, near: str = "results/") -> UserError:
    """An error of the operating system as one line: the path, the reason, and what to do.

    Some write errors name no path: the file is then most likely below `near`.
    """
    path = f"perhaps below {near}" if error.filename is None else error.filename
    reason = error.strerror or (str(error).strip() or type(error).__name__).splitlines()[-1]
    remedy = _REMEDIES.get(error.errno or 0, "correct this")
    return UserError(f"{path}: {reason}: {remedy}, then run this again")
