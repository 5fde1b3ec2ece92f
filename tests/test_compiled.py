"""Compiled kernels: cached where a folder can be written to, and right without a cache."""

from importlib import import_module
from pkgutil import walk_packages

import pytest
from numba.core import caching
from numba.core.dispatcher import Dispatcher

import reid
from reid.compiled import njit


def double(value):
    return 2 * value


@pytest.mark.parametrize("writable", [True, False])
def test_functions_compile_with_or_without_a_folder_for_the_cache(monkeypatch, tmp_path, writable):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    if not writable:
        monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert njit(nogil=True)(double)(21) == 42
    assert any(tmp_path.rglob("*.nbi")) == writable


def test_kernels_call_only_kernels_of_their_own_file():
    """A cached kernel is compiled anew when its file changes, not when a callee's file does."""
    kernels = 0
    for module in walk_packages(reid.__path__, "reid."):
        if module.name == "reid.__main__":
            continue
        for kernel in vars(import_module(module.name)).values():
            if not isinstance(kernel, Dispatcher):
                continue
            kernels += 1
            function = kernel.py_func
            for name in function.__code__.co_names:
                called = function.__globals__.get(name)
                if isinstance(called, Dispatcher):
                    assert called.py_func.__module__ == function.__module__, (function, name)
    assert kernels > 5
