"""An object with a loop, threads and processes stays with the process that entered it.

A child made by `fork` holds a copy of the object, but none of its threads, and shares its pipes and sockets with the
parent: whatever the copy did would hang, or harm the parent. So it does nothing but say so.
"""

from __future__ import annotations

import functools
import inspect
import os
from typing import Any, ClassVar

from scattersphere.errors import ForkedError


class StaysHome:
    """Derive from it, and every public method and property of the subclass raises `ForkedError` in a forked child.

    They are wrapped when the class is made, since a line in each would be forgotten in the next. `home` is
    the process; None as long as the object is bound to none.
    """

    home: int | None = None
    _not_guarded: ClassVar[frozenset[str]] = frozenset({"home"})

    def _settle(self) -> None:
        """Be at home in this process from now on."""
        self.home = os.getpid()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, member in list(vars(cls).items()):
            if name.startswith("_") or name in cls._not_guarded:
                continue
            if inspect.isfunction(member):
                setattr(cls, name, _guarded(member))
            elif isinstance(member, property) and member.fget is not None:
                setattr(cls, name, property(_guarded(member.fget), doc=member.__doc__))


def check_home(home: int | None) -> None:
    """Raise `ForkedError` if `home` is another process than this one."""
    if home is not None and home != os.getpid():
        raise ForkedError(
            f"this process was forked from process {home}, which entered the Server; the Server and its runs stay "
            "there. Make a Server of its own here, or start the other process by `spawn`"
        )


def _guarded(function: Any) -> Any:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def guarded_async(self: StaysHome, *args: Any, **kwargs: Any) -> Any:
            check_home(self.home)
            return await function(self, *args, **kwargs)

        return guarded_async

    @functools.wraps(function)
    def guarded(self: StaysHome, *args: Any, **kwargs: Any) -> Any:
        check_home(self.home)
        return function(self, *args, **kwargs)

    return guarded
