"""The caches of `typing`, which tie versions together.

They keep the last few versions alive. Worse, `Optional["Item"]` of two modules is one cached object, in which
the first evaluation stays: `get_type_hints` of version 2 would be given the class of version 1.
"""

from __future__ import annotations

import typing


def clear_typing_caches() -> None:
    """Empty them, as `test.libregrtest` does between tests; there is no public way."""
    for clear in getattr(typing, "_cleanups", ()):
        clear()
