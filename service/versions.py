"""Which version of a package is installed."""

from __future__ import annotations

import importlib.metadata


def find_version(package: str) -> str:
    """Version of an installed package, or "unknown": a source tree runs without being installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
