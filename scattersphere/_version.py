"""The version of this package and what its extras need, from the metadata of the installed distribution.

A program may carry the package without installing it (a folder on `sys.path`, a zip, a frozen program).
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

UNKNOWN = "unknown"


@cache
def own_version() -> str:
    """Return the version; "unknown" where the package is imported without being installed."""
    try:
        return version("scattersphere")
    except PackageNotFoundError:
        return UNKNOWN


def installing(extra: str) -> str:
    """Return the command that installs what an extra needs: the packages by name, for an index may not have ours."""
    try:
        wanted = requires("scattersphere") or []
    except PackageNotFoundError:
        wanted = []
    ours = [each for each in wanted if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", each)]
    names = sorted({re.split(r"[^\w.-]", each, maxsplit=1)[0] for each in ours})
    return (
        f"pip install {' '.join(names)} (the extra {extra})"
        if names
        else f"the extra {extra} of scattersphere"
    )
