"""Run tasks on a Dask cluster: a backend over `distributed`, on one machine or on many.

Needs the extra `dask`, here, in the scheduler and in the workers; it is imported when a backend is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scattersphere.ext.dask.backend import DaskBackend

__all__ = ["DaskBackend"]


def __getattr__(name: str) -> object:
    if name != "DaskBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scattersphere._version import installing  # noqa: PLC0415 - nothing is imported unasked
    from scattersphere.errors import MissingExtraError  # noqa: PLC0415 - nothing is imported unasked

    try:
        from scattersphere.ext.dask.backend import DaskBackend  # noqa: PLC0415 - the extra, the same
    except ImportError as error:
        raise MissingExtraError(f"{error}; DaskBackend needs: {installing('dask')}") from error
    return DaskBackend
