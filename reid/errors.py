"""The one exception that is shown to users as a single line instead of a traceback."""


class UserError(Exception):
    """Bad input from outside: names the file or key, what was expected, and what to do.

    Raised anywhere in the package; `reid.cli` prints it as `error: ...` and exits with 1.
    Programming errors are never UserErrors: they keep their traceback.
    """
