"""Exceptions that end a command with one line for people and an exit code for schedulers."""

import errno
import os
from pathlib import Path

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space there"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions or use another place"
    ),
}

_NO_MEMORY = ("can't allocate memory", "can't start new thread", "failed to map segment")
"""What torch, Python's threads and the loader of libraries say when memory has run out."""


class UserError(Exception):
    """Bad input from outside: names the file or key, what was expected, and what to do.

    Raised anywhere in the package; `reid.cli` prints it as `error: ...` and exits with its code.
    Programming errors are never UserErrors: they keep their traceback.
    """

    exit_code = 1

    def __str__(self) -> str:
        """One line, whatever is in a name that the message quotes."""
        return "\\n".join(super().__str__().splitlines())


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


def of_memory(error: Exception) -> UserError | None:
    """One line for an exception that says that memory ran out; None for another one."""
    if not isinstance(error, MemoryError) and not any(word in str(error) for word in _NO_MEMORY):
        return None
    reason = (str(error).strip() or "no room for a Python object").splitlines()[0]
    return UserError(
        f"memory ran out ({reason}): ask for more (`ulimit -v`, Slurm's --mem), or make "
        "batches, clips or runtime.workers smaller"
    )


def of_system(error: OSError, near: str = "results/") -> UserError:
    """An error of the operating system as one line: the path, the reason, and what to do.

    Some write errors name no path: the file is then most likely below `near`.
    """
    path = f"perhaps below {near}" if error.filename is None else error.filename
    if obstacle := _obstacle(Path(os.fsdecode(error.filename or ""))):
        return UserError(f"{obstacle}: remove it or name another place, then run this again")
    reason = error.strerror or (str(error).strip() or type(error).__name__).splitlines()[-1]
    remedy = _REMEDIES.get(error.errno or 0, "correct this")
    return UserError(f"{path}: {reason}: {remedy}, then run this again")


def _obstacle(path: Path) -> str | None:
    """What stands in the place of a folder on the way to `path`, or of itself, if anything does."""
    for part in (*reversed(path.parents), path):
        if part.is_symlink() and not os.path.exists(part):  # noqa: PTH110 - False for a loop
            return f"{part} is a link that leads nowhere (to {os.readlink(part)})"  # noqa: PTH115
        if part != path and os.path.isfile(part):  # noqa: PTH113
            return f"{part} is a file, where a folder is expected"
    return None
