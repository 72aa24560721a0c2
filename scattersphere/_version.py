"""The version of this package: what the installed distribution says, where there is one.

A program may carry the package without installing it (a folder on `sys.path`, a zip, a frozen program).
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

UNKNOWN = "unknown"


@cache
def own_version() -> str:
    """Return the version; "unknown" where the package is imported without being installed."""
    try:
        return version("scattersphere")
    except PackageNotFoundError:
        return UNKNOWN
