"""numba's `njit` with a cache on disk where one can be written. Only this module imports numba.

numba caches a compiled function under the version of its own file. A cached function must
therefore call only compiled functions of its own file.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def njit(**options: Any) -> Callable[[Function], Function]:
    """As `numba.njit` with `cache=True`.

    Where numba finds no folder to write to (read-only package and home, no NUMBA_CACHE_DIR), the
    function is compiled in each process instead.
    """

    def decorate(function: Function) -> Function:
        try:
            compiled: Function = numba.njit(**{**options, "cache": True})(function)
        except RuntimeError:  # "cannot cache function: no locator available"
            compiled = numba.njit(**{**options, "cache": False})(function)
        return compiled

    return decorate
