"""xfd-reid: extreme far-distance video person re-identification."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {"TrackletEncoder": "reid.encoder"}
"""Names of this package that load torch: imported when they are asked for."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
