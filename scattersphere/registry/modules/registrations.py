"""Registrations of one version in tables of the whole process (import hooks, typing), taken out with it.

What code enters while it is imported is noted module by module; what lies in the caches of other libraries is found by
its owner. Entries that a task makes while it runs are left alone, and reported as leaks: somebody may count on them.
"""

from __future__ import annotations

import functools
import sys
import threading
import types
import typing
import warnings
from collections.abc import Callable, MutableMapping
from contextlib import contextmanager
from functools import partial
from importlib.machinery import PathFinder
from operator import is_
from typing import TYPE_CHECKING, Any, ForwardRef

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Table = list[object] | MutableMapping[object, object]


# ---- what is the version's own

CANARY = "__scattersphere_canary__"
"""The builtin by which code of a version can be told from all other code."""


class Canary:
    """Lives exactly as long as some function of its version does.

    Every function holds the builtins of its module, and those hold this. So one weak reference tells
    whether code of a released version can still be reached.
    """

    __slots__ = ("__weakref__", "slug")

    def __init__(self, slug: str) -> None:
        self.slug: str = slug


NESTING = 5
"""How many wrappers (methods of partials of methods...) are looked through."""


@attrs.frozen
class Suspect:
    """Tells what belongs to a released version."""

    slug: str
    prefix: str
    logical: Callable[[str], str]

    def owns(self, thing: object, nesting: int = NESTING) -> bool:
        """Whether `thing` is code of the version, an instance of its classes, or wraps one of them."""
        if thing is None or nesting == 0:
            return False
        if isinstance(thing, type):
            return self.named(getattr(thing, "__module__", None))
        if isinstance(thing, types.ModuleType):
            return self.named(vars(thing).get("__name__"))
        if isinstance(thing, types.FunctionType):
            built_in: dict[str, object] = getattr(thing, "__builtins__", {})  # typeshed does not know it
            return self.marked(built_in.get(CANARY))
        if isinstance(thing, tuple):  # a key of several parts
            return any(self.owns(part, nesting - 1) for part in thing)
        if isinstance(thing, types.MethodType):
            return self.owns(thing.__func__, nesting - 1) or self.owns(thing.__self__, nesting - 1)
        if isinstance(thing, partial):
            return any(self.owns(part, nesting - 1) for part in (thing.func, *thing.args))
        if isinstance(thing, functools._lru_cache_wrapper):  # noqa: SLF001 - its type has no other name
            return self.owns(thing.__wrapped__, nesting - 1)
        if isinstance(thing, types.BuiltinMethodType):  # `cached.cache_clear`, `table.append`
            return self.owns(thing.__self__, nesting - 1)
        return self.named(type(thing).__module__)

    def marked(self, canary: object) -> bool:
        """Whether that is the canary of this version."""
        return getattr(canary, "slug", None) == self.slug

    def named(self, module: object) -> bool:
        """Whether `module` is the name of one of the version's modules."""
        return isinstance(module, str) and module.startswith(self.prefix)

    def runs(self, frame: types.FrameType) -> bool:
        """Whether the frame executes code of the version."""
        return self.named(frame.f_globals.get("__name__"))

    def name(self, thing: object) -> str:
        """Return the logical name of a class or function, or that of the class of anything else."""
        if isinstance(thing, types.MethodType):
            thing = thing.__func__
        if isinstance(thing, partial):
            return f"partial of {self.name(thing.func)}"
        named = thing if isinstance(thing, type | types.FunctionType) else type(thing)
        return self.logical(f"{named.__module__}.{named.__qualname__}")

    def line(self, frame: types.FrameType) -> str:
        """Say where the frame stands: `etl.load.pull, line 12`."""
        module = frame.f_globals.get("__name__", "?")
        return self.logical(f"{module}.{frame.f_code.co_name}, line {frame.f_lineno}")


# ---- what libraries enter

AT_IMPORT = (
    ("sys", "meta_path"),
    ("sys", "path_hooks"),
    ("warnings", "filters"),
    ("copyreg", "dispatch_table"),
)
"""Tables in which libraries enter themselves when they are imported: six, bottle, sympy."""

FIND_DISTRIBUTIONS = "find_distributions"
"""What the backport `importlib_metadata` takes from the standard library's finder, to do it itself. Its own finder goes
with its version, and the program would find no distribution any more."""

CACHES = (
    (
        "typing",
        "_cleanups",
    ),  # a function that typing decorates anew, as typing_extensions does, stays in these two
    ("typing", "_caches"),
    ("pydantic._internal._generics", "_GENERIC_TYPES_CACHE"),  # its keys hold the arguments of Box[Item]
    ("ctypes", "_pointer_type_cache"),
    ("ctypes", "_c_functype_cache"),
)
"""Caches that hold what they were once given."""

TEXT_CACHES = (
    ("re", "_cache"),
    ("re", "_cache2"),
    ("_strptime", "_regex_cache"),
    ("xml.etree.ElementPath", "_cache"),
)
CACHED_BY_TEXT = (
    *(("re", "_compile_repl"), ("re", "_compile_template")),  # before 3.12, and from then on
    *(("fnmatch", "_compile_pattern"), ("glob", "_compile_pattern"), ("tokenize", "_compile")),
    *(("urllib.parse", "urlsplit"), ("urllib.parse", "_byte_quoter_factory")),
)
"""Caches by strings, and functions with such: a member of a StrEnum that was a pattern or a URL stays in them."""


@attrs.define(eq=False)
class _Look:
    """What stood in the tables before modules were executed."""

    finds: object = attrs.field(factory=lambda: vars(PathFinder).get(FIND_DISTRIBUTIONS))
    before: list[tuple[Table, list[object]]] = attrs.field(
        factory=lambda: [(table, list(table)) for table in _tables(AT_IMPORT)]
    )

    def entered(self) -> Iterator[tuple[Table, object]]:
        """Yield what has come into the tables since; give the standard library's finder back what was taken from it."""
        if self.finds is not None and FIND_DISTRIBUTIONS not in vars(PathFinder):
            setattr(PathFinder, FIND_DISTRIBUTIONS, self.finds)
        for table, known in self.before:
            entries = list(table)  # by one C call: other threads may enter something meanwhile
            if len(entries) != len(known) or not all(map(is_, entries, known)):
                ids = set(map(id, known))
                yield from ((table, entry) for entry in entries if id(entry) not in ids)


class Registrations:
    """What the modules of one version have entered into the tables of AT_IMPORT."""

    def __init__(self) -> None:
        self._entered: list[tuple[Table, object]] = []
        self._looks: list[_Look] = []
        """Those that have not ended: modules are being executed, or that was cut short."""

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what comes into the tables while modules are executed inside; nor does `typing` tie them to others.

        An interruption (of a load that is given up, a Ctrl-C) may come at any place, here too: `take_out` notes then.
        """
        clear_typing_caches()
        look = _Look()
        self._looks.append(look)
        try:
            yield
        finally:
            clear_typing_caches()
            self._entered += list(look.entered())
            self._looks.remove(look)

    def take_out(self, suspect: Suspect, *, texts: bool) -> None:
        """Take out what is the version's own: of its tables what was noted, of the caches everything.

        `texts`: also of those that are keyed by strings, for the version has classes of strings.
        """
        for look in list(self._looks):
            self._entered += look.entered()
        entered, self._entered = self._entered, []
        for table, entry in entered:
            value = table.get(entry) if isinstance(table, MutableMapping) else None
            if suspect.owns(entry) or suspect.owns(value):
                _remove(table, entry)
        for table in _tables(CACHES + TEXT_CACHES if texts else CACHES):
            items = (
                list(table.items())
                if isinstance(table, MutableMapping)
                else [(entry, None) for entry in table]
            )
            for entry, value in items:
                if suspect.owns(entry) or suspect.owns(value):
                    _remove(table, entry)
        for module, name in CACHED_BY_TEXT if texts else ():  # nobody can take out single entries
            clear = getattr(getattr(sys.modules.get(module), name, None), "cache_clear", None)
            if clear is not None:
                clear()


def _tables(names: Iterable[tuple[str, str]]) -> list[Table]:
    found = (getattr(sys.modules.get(module), name, None) for module, name in names)
    return [table for table in found if isinstance(table, list | MutableMapping)]


def _remove(table: Table, entry: object) -> None:
    """Take one entry out. Other threads may do the same meanwhile; what is equal and not the same is left."""
    if isinstance(table, MutableMapping):
        table.pop(entry, None)
        return
    at = next((index for index, other in enumerate(table) if other is entry), None)
    if at is not None:
        del table[at]
    if table is warnings.filters and (mutated := getattr(warnings, "_filters_mutated", None)):
        mutated()


# ---- the memory of `typing`

_MEMORY = ("__forward_evaluated__", "__forward_value__")


class _Evaluation(threading.local):
    """What a thread has just evaluated: `_evaluate` stores the value, and reads it once to return it."""

    last: tuple[object, object] | None = None


_here = _Evaluation()


def _never(_: object) -> bool:
    return False


def _ignore(_: object, __: bool) -> None:  # noqa: FBT001 - a setter
    pass


def _store(reference: object, value: object) -> None:
    _here.last = None if value is None else (reference, value)


def _take(reference: object) -> object:
    last, _here.last = _here.last, None
    return last[1] if last is not None and last[0] is reference else None


class Forgetfulness:
    """Whether the forward references of `typing` remember. While versions are loaded they do not.

    `Optional["Item"]` is one cached object for the whole process, and in it the reference to "Item" keeps the class
    that it was evaluated to first. `get_type_hints` of a function then gives version 1 the class of version 2, and
    bundle a that of bundle b. The memory is a shortcut and no promise: for classes `typing` does without it.
    """

    def __init__(self) -> None:
        self._slots: dict[str, object] = {}

    def begin(self) -> None:
        """Let references forget from now on; no error if they do already, or if this Python has no such memory."""
        if self._slots or not all(name in vars(ForwardRef) for name in _MEMORY):
            return
        self._slots = {name: vars(ForwardRef)[name] for name in _MEMORY}
        reference: Any = ForwardRef
        # The value first: another thread that evaluates meanwhile then stores and reads it in one place.
        reference.__forward_value__ = property(_take, _store)
        reference.__forward_evaluated__ = property(_never, _ignore)

    def end(self) -> None:
        """Let references remember again what they are evaluated to from now on."""
        slots, self._slots = self._slots, {}
        for name, slot in slots.items():
            setattr(ForwardRef, name, slot)


def clear_typing_caches() -> None:
    """Empty the caches of `typing`, which tie versions together, as `test.libregrtest` does between tests.

    They keep the last few versions alive. Worse, `Optional["Item"]` of two modules is one cached object, in which
    the first evaluation stays: `get_type_hints` of version 2 would be given the class of version 1.
    """
    for clear in getattr(typing, "_cleanups", ()):
        clear()
