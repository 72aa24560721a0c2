"""Serialization of results for a journal: bytes that outlive the process, exact or not at all.

What is read back equals what was written, in value and in type, at every depth. Three forms, tried in this order: JSON
for what JSON holds exactly; tagged JSON for tuples, sets, bytes, dates, enums, attrs classes and dataclasses and the
like; a pickle where that is allowed. What none of them can hold is refused with the reason, never approximated.

In tagged JSON, an object with one key that begins with "$" is a tag (the table is `_TAGS`); a dict that could be taken
for one, or has other keys than strings, is the list of its items under "$dict".
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import struct
import uuid
import zoneinfo
from typing import TYPE_CHECKING, Any

from scattersphere.abc.journal import ValueForm
from scattersphere.journal.classes import (
    UnkeptError,
    classes_of,
    fields_of,
    is_data_class,
    is_frozen,
    made_of,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scattersphere.journal.classes import ClassNames
    from scattersphere.registry.records import BundleVersion

LARGEST = 64 * 1024 * 1024
"""Bytes of a value that a journal keeps."""
DEPTH = 64
"""Containers inside one another; far below any limit of recursion."""
SMALL_NODES = 64
"""Values inside a value that is looked at and written on the event loop's thread: some 20 microseconds."""
SMALL_CHARACTERS = 4_096
_INT_BITS = 2_000
"""Bits of an integer that is written in decimal: below the least limit that Python may be set to."""

_PLAIN = frozenset({type(None), bool, int, float, str})
_NULL = b"null"


class ValueCodec:
    """Writes the results of runs for the engine, by the classes of the versions that a run has."""

    def __init__(self, *, allow_pickle: bool = False) -> None:
        self._allow_pickle = allow_pickle

    def is_quick(self, value: object) -> bool:
        """Whether `encode` takes microseconds for it, and executes no code of the user's."""
        return is_small_and_exact(value)

    def encode(self, value: object, versions: Iterable[BundleVersion]) -> tuple[ValueForm, bytes]:
        """Return the form of a value, and its bytes. Raises `UnkeptError` with the reason."""
        if (small := encode_small(value)) is not None:
            return ValueForm.JSON, small
        form, data, reason = encode(value, classes_of(versions), allow_pickle=self._allow_pickle)
        if data is None:
            raise UnkeptError(reason)
        return form, data

    def decode(self, form: int, data: bytes, versions: Iterable[BundleVersion]) -> object:
        """Return what `encode` was given; raises as the function `decode` does."""
        return decode(form, data, classes_of(versions))


# ---- writing


def encode_small(value: object) -> bytes | None:
    """Return the JSON of a small value that JSON holds exactly; None for every other. For the event loop's thread."""
    if value is None:
        return _NULL
    return _dumps(value) if is_small_and_exact(value) else None


def is_small_and_exact(value: Any) -> bool:
    """Whether `encode` gives JSON for a value, in microseconds and without executing code of the user's."""
    seen, stack, characters = set[int](), [value], 0
    for _ in range(SMALL_NODES):
        if not stack:
            return True
        item = stack.pop()
        kind = type(item)
        if kind is str:
            characters += len(item)
            if characters > SMALL_CHARACTERS or not _is_text(item):
                return False
        elif kind is dict or kind is list:
            if id(item) in seen or len(item) + len(stack) > SMALL_NODES:
                return False
            seen.add(id(item))
            if kind is dict:
                if any(type(key) is not str for key in item):
                    return False
                stack.extend(item.values())
            stack.extend(item)
        elif not _is_plain(item):
            return False
    return not stack


def encode(
    value: object, classes: ClassNames, *, allow_pickle: bool = False
) -> tuple[ValueForm, bytes | None, str | None]:
    """Return the form of a value, its bytes, and for `ValueForm.UNKEPT` the reason instead.

    It executes code of the user's, and takes as long as the value is large: in a thread. Never raises.
    """
    try:
        if _is_json(value):
            return _sized(ValueForm.JSON, _dumps(value))
        return _sized(ValueForm.TAGGED, _dumps(_Tagger(classes).tagged(value, 0)))
    except UnkeptError as error:
        reason = str(error)
    except BaseException as error:  # noqa: BLE001 - it is the user's code: nothing that it does may end a run
        reason = f"{type(error).__name__} while it was looked at: {_words(error)}"
    if not allow_pickle:
        return ValueForm.UNKEPT, None, reason
    try:
        return _sized(ValueForm.PICKLE, classes.dumps(value))
    except UnkeptError as error:
        reason = str(error)
    except BaseException as error:  # noqa: BLE001 - as above
        reason = f"it cannot be pickled: {type(error).__name__}: {_words(error)}"
    return ValueForm.UNKEPT, None, reason


def _sized(form: ValueForm, data: bytes) -> tuple[ValueForm, bytes, None]:
    if len(data) > LARGEST:
        raise UnkeptError(f"it is larger than {LARGEST:,} bytes; write it to a file, and return the path")
    return form, data, None


def _words(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except BaseException:  # noqa: BLE001 - the user's code again
        return "(no words)"


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _is_text(value: Any) -> bool:
    """Whether a string has a UTF-8 form: no half of a surrogate pair, which two halves would join to one character."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_plain(value: Any) -> bool:
    """Whether JSON holds a scalar exactly."""
    kind = type(value)
    if kind is str:
        return _is_text(value)
    if kind is int:
        return bool(value.bit_length() <= _INT_BITS)
    if kind is float:
        return math.isfinite(value)
    return value is None or kind is bool


def _is_json(value: Any) -> bool:
    """Whether JSON holds a value exactly. A list that stands twice in it would be two lists."""
    seen, level = set[int](), [value]
    for _ in range(DEPTH + 1):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is list or kind is dict:
                if id(item) in seen:
                    return False
                seen.add(id(item))
                if kind is dict:
                    if not all(type(key) is str and _is_text(key) for key in item):
                        return False
                    below.extend(item.values())
                else:
                    below.extend(item)
            elif not _is_plain(item):
                return False
        if not below:
            return True
        level = below
    return False


class _Tagger:
    """Turns one value into JSON data with tags. Raises `UnkeptError`."""

    def __init__(self, classes: ClassNames) -> None:
        self._classes = classes
        self._seen: dict[int, object] = {}
        """What can be changed, by identity; held, so that no other object gets the same number."""

    def tagged(self, value: object, depth: int) -> object:
        if _is_plain(value):
            return value
        if depth > DEPTH:
            raise UnkeptError(f"more than {DEPTH} containers inside one another")
        kind = type(value)
        write = _WRITE.get(kind)
        if write is not None:
            if kind in _MUTABLE:
                self._see(value)
            return write(self, value, depth + 1)
        if isinstance(kind, enum.EnumMeta):
            return _write_enum(self, value)
        if is_data_class(kind):
            return self._write_object(value, depth + 1)
        raise UnkeptError(f"{kind.__module__}.{kind.__qualname__} has no exact form")

    def several(self, values: Any, depth: int) -> list[object]:
        return [self.tagged(value, depth) for value in values]

    def name_of(self, cls: type) -> str:
        name = self._classes.name_of(cls)
        if name is None:
            raise UnkeptError(f"the class {cls.__module__}.{cls.__qualname__} cannot be found by its name")
        return name

    def _see(self, value: object) -> None:
        if id(value) in self._seen:
            raise UnkeptError(f"the same {type(value).__qualname__} stands in it twice, or in itself")
        self._seen[id(value)] = value

    def _write_object(self, value: object, depth: int) -> object:
        cls = type(value)
        if not is_frozen(cls):
            self._see(value)
        state = state_of(value)
        unset = [name for name in fields_of(cls) if name not in state]
        content = {name: self.tagged(inner, depth) for name, inner in state.items()}
        return {"$object": [self.name_of(cls), _escaped(content), *([unset] if unset else [])]}


def _write_dict(tagger: _Tagger, value: dict[Any, Any], depth: int) -> object:
    if all(type(key) is str and _is_text(key) for key in value):
        return _escaped({key: tagger.tagged(inner, depth) for key, inner in value.items()})
    return {
        "$dict": [[tagger.tagged(key, depth), tagger.tagged(inner, depth)] for key, inner in value.items()]
    }


def _escaped(content: dict[str, object]) -> dict[str, object]:
    """Return a dict that is not taken for a tag."""
    if len(content) == 1 and next(iter(content)).startswith("$"):
        return {"$dict": [list(item) for item in content.items()]}
    return content


def _write_set(tagger: _Tagger, value: object, depth: int) -> list[object]:
    # Sorted, so that the same set gives the same bytes in every process.
    return sorted(tagger.several(value, depth), key=_dumps)


def _write_datetime(tagger: _Tagger, value: dt.datetime, depth: int) -> object:
    del tagger, depth
    plain = value.replace(tzinfo=None, fold=0).isoformat()
    return {"$datetime": [plain, value.fold, _zone(value.tzinfo)]}


def _zone(zone: dt.tzinfo | None) -> object:
    if zone is None:
        return None
    if type(zone) is dt.timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [_seconds(offset), *name]
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None and zoneinfo.ZoneInfo(zone.key) is zone:
        return zone.key
    raise UnkeptError(f"a time zone of the class {type(zone).__qualname__} has no exact form")


def _seconds(value: dt.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _write_uuid(tagger: _Tagger, value: uuid.UUID, depth: int) -> object:
    del tagger, depth
    known = value.is_safe
    return {"$uuid": [value.hex, *([] if known is uuid.SafeUUID.unknown else [known.name])]}


def _write_enum(tagger: _Tagger, value: Any) -> object:
    cls, name = type(value), value._name_
    if name is None or cls.__members__.get(name) is not value:  # several flags at once
        if not isinstance(value, enum.Flag) or type(value._value_) is not int:
            raise UnkeptError(f"{cls.__qualname__} has no member that this value is")
        return {"$flag": [tagger.name_of(cls), value._value_]}
    return {"$enum": [tagger.name_of(cls), name]}


def _simple(tag: str, write: Callable[[Any], Any]) -> Callable[[_Tagger, object, int], object]:
    return lambda _, value, __: {tag: write(value)}


def _float_bits(value: float) -> str:
    return struct.pack(">d", value).hex()


_MUTABLE = frozenset({list, dict, set})
_PATHS: dict[str, type] = {
    cls.__name__: cls
    for cls in (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
}
_WRITE: dict[type, Callable[[_Tagger, Any, int], Any]] = {
    list: lambda tagger, value, depth: tagger.several(value, depth),
    dict: _write_dict,
    tuple: lambda tagger, value, depth: {"$tuple": tagger.several(value, depth)},
    set: lambda tagger, value, depth: {"$set": _write_set(tagger, value, depth)},
    frozenset: lambda tagger, value, depth: {"$frozenset": _write_set(tagger, value, depth)},
    bytes: _simple("$bytes", lambda value: base64.b64encode(value).decode("ascii")),
    str: _simple("$str", lambda value: value.encode("utf-8", "surrogatepass").hex()),
    int: _simple("$int", hex),
    float: _simple("$float", _float_bits),  # what is not finite: bit by bit
    dt.date: _simple("$date", dt.date.isoformat),
    dt.datetime: _write_datetime,
    dt.timedelta: _simple("$timedelta", _seconds),
    uuid.UUID: _write_uuid,
    decimal.Decimal: _simple("$decimal", str),
    **{
        cls: lambda tagger, value, depth: {"$path": [type(value).__name__, tagger.tagged(str(value), depth)]}
        for cls in _PATHS.values()
    },
}
"""What the tagged form holds besides JSON, enums and classes: exact types, no subclasses."""
KEPT = frozenset(_WRITE) | _PLAIN
"""Types of which every value has an exact form, unless one in it has none."""


# ---- reading


def decode(form: int, data: bytes | None, classes: ClassNames) -> object:
    """Return what `encode` was given; `form` and `data` are those of `Journal.read_value`.

    Raises `LookupError` where a class, a zone or the value itself is not there, and `ValueError` where the bytes are
    damaged; and whatever code of the user's raises that a pickle executes.
    """
    if data is None or form not in {ValueForm.JSON, ValueForm.TAGGED, ValueForm.PICKLE}:
        raise LookupError("the value was not kept")
    if form == ValueForm.PICKLE:
        return classes.loads(data)
    value = json.loads(data)
    if form == ValueForm.JSON:
        return value
    try:
        return _TagReader(classes).read(value)
    except (TypeError, AttributeError, OverflowError, decimal.DecimalException, RecursionError) as error:
        raise ValueError(f"this is no tagged value: {error}") from error


class _TagReader:
    def __init__(self, classes: ClassNames) -> None:
        self._classes = classes

    def read(self, value: object) -> Any:
        if type(value) is list:
            return [self.read(inner) for inner in value]
        if type(value) is not dict:
            return value
        if len(value) == 1:
            ((tag, content),) = value.items()
            if tag.startswith("$"):
                if tag not in _TAGS:
                    raise ValueError(f"there is no tag {tag!r}")
                return _TAGS[tag](self, content)
        return {key: self.read(inner) for key, inner in value.items()}

    def class_of(self, name: str) -> Any:
        return self._classes.class_of(name)


def _read_object(reader: _TagReader, content: Any) -> object:
    name, fields, *unset = content
    cls = reader.class_of(name)
    if not is_data_class(cls):
        raise LookupError(f"{name} is no attrs class or dataclass any more")
    state = dict(reader.read(fields))
    known = set(state).union(*unset)
    if not known.issuperset(fields_of(cls)):
        missing = sorted(set(fields_of(cls)) - known)
        raise LookupError(f"{name} has fields now that the value lacks: {', '.join(missing)}")
    return made_of(cls, name, state)


def _read_flag(reader: _TagReader, content: Any) -> Any:
    cls, value = reader.class_of(content[0]), content[1]
    return cls(value)


def _read_enum(reader: _TagReader, content: Any) -> object:
    cls, name = reader.class_of(content[0]), content[1]
    try:
        return cls[name]
    except KeyError:
        raise LookupError(f"{content[0]} has no member {name}") from None


def _read_datetime(reader: _TagReader, content: Any) -> dt.datetime:
    del reader
    text, fold, zone = content
    return dt.datetime.fromisoformat(text).replace(tzinfo=_read_zone(zone), fold=fold)


def _read_zone(zone: Any) -> dt.tzinfo | None:
    if isinstance(zone, str):
        return zoneinfo.ZoneInfo(zone)  # ZoneInfoNotFoundError is a KeyError
    if zone is None:
        return None
    offset, *name = zone
    return dt.timezone(dt.timedelta(*offset), *name)


def _read_uuid(reader: _TagReader, content: Any) -> uuid.UUID:
    del reader
    digits, *known = content
    return uuid.UUID(hex=digits, is_safe=uuid.SafeUUID[known[0]] if known else uuid.SafeUUID.unknown)


def _read_path(reader: _TagReader, content: Any) -> object:
    try:
        return _PATHS[content[0]](reader.read(content[1]))
    except NotImplementedError:
        raise LookupError(f"a {content[0]} cannot be made on this system") from None


_TAGS: dict[str, Callable[[_TagReader, Any], Any]] = {
    "$dict": lambda reader, items: {reader.read(key): reader.read(value) for key, value in items},
    "$tuple": lambda reader, items: tuple(map(reader.read, items)),
    "$set": lambda reader, items: set(map(reader.read, items)),
    "$frozenset": lambda reader, items: frozenset(map(reader.read, items)),
    "$bytes": lambda _, text: base64.b64decode(text, validate=True),
    "$str": lambda _, digits: bytes.fromhex(digits).decode("utf-8", "surrogatepass"),
    "$int": lambda _, digits: int(digits, 16),
    "$float": lambda _, digits: struct.unpack(">d", bytes.fromhex(digits))[0],
    "$date": lambda _, text: dt.date.fromisoformat(text),
    "$datetime": _read_datetime,
    "$timedelta": lambda _, parts: dt.timedelta(*parts),
    "$uuid": _read_uuid,
    "$decimal": lambda _, text: decimal.Decimal(text),
    "$path": _read_path,
    "$enum": _read_enum,
    "$flag": _read_flag,
    "$object": _read_object,
}
"""What each tag stands for."""
