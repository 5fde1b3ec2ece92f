"""What numba does not check of compiled code that it keeps."""

from importlib import import_module
from pkgutil import iter_modules

from numba.core.dispatcher import Dispatcher

import reid.retrieval

SETTLED = {"round_half"}
"""Called from other files: give a changed one another name."""


def test_kernels_call_only_kernels_of_their_own_file():
    """A kept kernel is compiled anew when its file changes, not when the file of a callee does."""
    kernels = 0
    for module in iter_modules(reid.retrieval.__path__, "reid.retrieval."):
        for kernel in vars(import_module(module.name)).values():
            if not isinstance(kernel, Dispatcher):
                continue
            kernels += 1
            function = kernel.py_func
            for name in function.__code__.co_names:
                called = function.__globals__.get(name)
                if isinstance(called, Dispatcher) and name not in SETTLED:
                    assert called.py_func.__module__ == function.__module__, (function, name)
    assert kernels > 15
