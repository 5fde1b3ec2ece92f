"""xfd-reid: extreme far-distance video person re-identification."""

__version__ = "0.1.0"
