"""Keys of `start`: the same request with the same key gives the same run while that is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.errors import ConflictError

if TYPE_CHECKING:
    from scattersphere.engine.run import Run


@attrs.frozen
class StartRequest:
    """What was asked for: a job with parameters; the arguments of a single task are part of its definition."""

    job: str
    params: Mapping[str, Any]


class StartKeys:
    """Remembers which run each key stands for."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Callable[[], StartRequest], Run]] = {}

    def find(
        self,
        key: str | None,
        request: StartRequest,
        earlier: Run | None = None,
        request_of: Callable[[Run], StartRequest] | None = None,
    ) -> Run | None:
        """Return the run that the key stands for, or else `earlier`, of which `request_of` knows what it was.

        Raises `ConflictError` if that was another request.
        """
        if key is not None and key in self._known:
            known, run = self._known[key]
            asked = known()
        elif earlier is not None and request_of is not None:
            run, asked = earlier, request_of(earlier)
        else:
            return None
        if asked != request:
            raise ConflictError(f"key {key!r} stands for run {run.id}: another job or other parameters")
        return run

    def add(self, key: str | None, request: StartRequest, run: Run) -> None:
        """Let the key stand for the run, as long as it is kept."""
        self.add_earlier(key, lambda: request, run)

    def add_earlier(self, key: str | None, request: Callable[[], StartRequest], run: Run) -> None:
        """Do so for a run of an earlier life; which job it is of is known when the jobs are defined again."""
        if key is not None:
            self._known[key] = request, run

    def forget(self, run: Run) -> None:
        """The run is no longer kept."""
        if run.key is not None:
            self._known.pop(run.key, None)
