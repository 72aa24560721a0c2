"""Names and paths for people, in texts that are known to no version in particular: failures, log lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from scattersphere.registry.imports import FINDER

if TYPE_CHECKING:
    from scattersphere.registry.imports import VersionSpace

_SLUG = re.compile(r"\bscattersphere\.bundles\.([A-Za-z0-9_]+)|[/\\]([a-z][a-z0-9_]*_g[0-9]+)[/\\]root[0-9]")
"""A version's name as it stands in module names, and in the paths of its snapshot."""

_PREFIX = re.compile(r"\bscattersphere\.bundles\.[A-Za-z0-9_]+\.")


def logical(text: str) -> str:
    """Put the module names and snapshot paths in `text` back into those that the author knows.

    The path becomes that of the origin, whatever stands there by now. Of versions that were released, only
    the prefix of module names is taken out.
    """
    if "_g" not in text:  # most log lines; no version has a name without it
        return text
    spaces: dict[str, VersionSpace] = {}
    for match in _SLUG.finditer(text):
        slug = match[1] or match[2]
        if slug not in spaces and (space := FINDER.space(slug)) is not None:
            spaces[slug] = space
    for space in spaces.values():
        text = space.logical(text)
    return _PREFIX.sub("", text)
