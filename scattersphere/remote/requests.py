"""Parsing a line to a request: strict JSON, or words, which are compiled to the same request.

JSON: what Python's parser lets through in silence is an error here: duplicate members, NaN and infinities (also those
that `1e400` becomes), lone surrogates, integers of thousands of digits, nesting beyond a limit.

Words are what a person types. They are split as a POSIX shell splits quotes, and nothing more: no variables, no
globs, no command substitution, no history (the incident class "argument expansion").
"""

from __future__ import annotations

import json.decoder
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import attrs

from scattersphere import _json
from scattersphere._json_strings import pieces_of_string
from scattersphere._json_words import JsonObject
from scattersphere._turns import STEP, give_way
from scattersphere.commands.arguments import ArgumentKind, CommandArgument, Definition, from_word, read
from scattersphere.commands.errors import RequestError
from scattersphere.commands.table import COMMANDS, CommandSpec, find_command, unknown_command

_MEMBERS = frozenset({"cmd", "args", "id"})
_MARGIN = re.compile(r"[ \t]*")
_VERB = re.compile(r"[ \t]*([a-z][a-z0-9_-]{0,31})(?:[ \t]+|$)", re.ASCII)
ALIASES = {"exit": "quit", "bye": "quit", "logout": "quit"}
"""What people type in other programs; `?` is `help`."""
ID_CHARACTERS = 64
ID_INTEGER = 2**53


@attrs.define
class Request:
    """What a client asks: a command of the table, and the `id` by which the reply is known.

    The arguments are read when they are asked for, so that a session can refuse a command before it
    tells a stranger anything about its arguments.
    """

    command: CommandSpec
    id: str | int | None
    _read: Callable[[], JsonObject] = attrs.field(repr=False)
    in_words: bool = False

    def arguments(self) -> JsonObject:
        """Return the keyword arguments of the command's handler. Raises `RequestError`."""
        return read(self.command.arguments, self._read())

    def prepare(self) -> None:
        """Read the arguments now, and keep them, or what is wrong with them, until they are asked for."""
        try:
            args = self._read()
        except RequestError as exc:
            self._read = partial(_raise, exc)
        else:
            self._read = lambda: args


def _raise(error: RequestError) -> NoReturn:
    raise error


class NamedRequestError(RequestError):
    """A wrong request whose `id`, if it had one, could be read."""

    def __init__(self, error: RequestError, id_: str | int | None) -> None:
        super().__init__(error.code, str(error), **error.more)
        self.id = id_


def read_request(text: str, *, depth: int, limit: float = math.inf, partial: bool = False) -> Request:
    """Read a line. Raises `NamedRequestError`; a partial line that is no whole object is `truncated`.

    `limit` bounds the characters of a JSON request without its definition: nothing larger is parsed.
    """
    at = _over(_MARGIN, text, 0)
    first = text[at : at + 1]
    if first == "{":
        return _from_json(text, depth, limit, partial=partial)
    if first == "?":
        return _from_words(f"help {text[at + 1 :]}", depth, limit)
    if "a" <= first <= "z":
        return _from_words(text, depth, limit)
    error = RequestError("bad-request", "a request begins with { or a lower-case letter; type: help")
    raise NamedRequestError(error, None)


def _from_words(text: str, depth: int, limit: float) -> Request:
    verb = _VERB.match(text)
    if verb is None:
        raise NamedRequestError(unknown_command(text.split(maxsplit=1)[0]), None)
    try:
        command = find_command(ALIASES.get(verb[1], verb[1]))
    except RequestError as exc:
        raise NamedRequestError(exc, None) from None
    try:
        check_size(0 if command.whole else len(text), limit)
    except RequestError as exc:
        raise NamedRequestError(exc, None) from None
    rest, column = text[verb.end() :], verb.end() + 1
    return Request(command, None, lambda: arguments_of(command, rest, column, depth), True)


def check_size(characters: int, limit: float) -> None:
    """Raise `RequestError` (`line-too-long`) for what is larger than a request without a definition may be."""
    if characters > limit:
        raise RequestError("line-too-long", f"only a definition may have more than {limit:g} bytes")


def _from_json(text: str, depth: int, limit: float, *, partial: bool) -> Request:
    id_: str | int | None = None
    try:
        definition = _find_definition(text) if len(text) > min(limit, STEP) or _HINTS.search(text) else None
        # A definition is read once, by whoever carries the command out: here it is left out.
        rest = text if definition is None else _without(text, definition)
        if len(rest) > limit:
            id_ = _id_in(text)
            check_size(len(rest), limit)
        try:
            members = _members(rest, depth, partial=partial)
        except RequestError:
            if definition is not None:  # so that it tells the right place
                _members(_without(text, definition, blanks=len(definition.text) - 2), depth, partial=partial)
            raise
        id_ = _id(members)
        command, args = _checked(members)
    except RequestError as exc:
        raise NamedRequestError(exc, id_) from None
    if definition is not None and "definition" in command.arguments:
        return Request(command, id_, lambda: args | {"definition": definition})
    return Request(command, id_, lambda: args)


_HINTS = re.compile(r'"definition"|\\u')
"""What stands in a request that may hold a definition: the name may be written with escapes."""


def _find_definition(text: str) -> Definition | None:
    """Find the definition in a request, in its own characters: problems get the columns of this line."""
    try:
        start = _find_member(text, _find_member(text, 0, "args"), "definition")
        end = _end_of(text, start)
    except ValueError:
        return None  # there is none, or the rest is no JSON, and whoever reads it tells where
    return Definition(text[start:end], start + 1) if text.startswith("{", start) else None


def _without(text: str, definition: Definition, *, blanks: int = 0) -> str:
    """Return a request with an empty definition in the place of its own."""
    start = definition.column - 1
    return f"{text[:start]}{{{' ' * blanks}}}{text[start + len(definition.text) :]}"


def _id_in(text: str) -> str | int | None:
    """Read the id of a request of which nothing else is read."""
    try:
        start = _find_member(text, 0, "id")
        return _id({"id": parse(text[start : _end_of(text, start)][: 8 * ID_CHARACTERS], 1)})
    except (ValueError, RequestError):
        return None


def _members(text: str, depth: int, *, partial: bool) -> JsonObject:
    try:
        members: dict[str, object] = parse(text, depth)
    except RequestError as exc:
        if partial and exc.code == "bad-request":
            raise RequestError("truncated", "the input ended inside a request") from None
        raise
    return members


def _id(members: dict[str, object]) -> str | int | None:
    if "id" not in members:
        return None
    id_ = members["id"]
    if isinstance(id_, str) and len(id_) <= ID_CHARACTERS:
        return id_
    if isinstance(id_, int) and not isinstance(id_, bool) and abs(id_) <= ID_INTEGER:
        return id_
    message = f"id must be a string of at most {ID_CHARACTERS} characters or an integer within 2^53"
    raise RequestError("bad-request", message, field="id")


def _checked(members: dict[str, object]) -> tuple[CommandSpec, JsonObject]:
    if not members.keys() <= _MEMBERS:
        name = next(name for name in members if name not in _MEMBERS)
        raise RequestError("bad-request", f"unknown member {name[:64]!r}; a request has cmd, args and id")
    verb = members.get("cmd")
    if not isinstance(verb, str):
        raise RequestError("bad-request", 'cmd must be the name of a command: {"cmd": "help"}', field="cmd")
    args = members.get("args", {})
    if not isinstance(args, dict):
        raise RequestError("bad-request", "args must be an object", field="args")
    return COMMANDS.get(verb) or find_command(verb), args


# ---- words

_KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,127})(:?=)", re.ASCII)
_OPTION = re.compile(r"([a-z_]+)=(true|false)[ \t]+", re.ASCII)
_BLANKS = " \t"
WORDS_LIMIT = 1_000


@attrs.frozen
class Word:
    """A word of a line; `bare` is the length of its beginning that stood outside quotes."""

    text: str
    bare: int


def split(line: str) -> list[Word]:
    """Cut a line into words. Raises `RequestError` for an open quote or a trailing backslash."""
    words: list[Word] = []
    at, end = 0, len(line)
    while True:
        while at < end and line[at] in _BLANKS:
            at += 1
        if at == end:
            return words
        if len(words) == WORDS_LIMIT:
            raise RequestError("bad-request", f"a command may have {WORDS_LIMIT} words")
        word, at = _word(line, at)
        words.append(word)


def _word(line: str, at: int) -> tuple[Word, int]:
    text: list[str] = []
    bare: int | None = None
    while at < len(line) and line[at] not in _BLANKS:
        letter = line[at]
        if letter not in "'\"\\":
            text.append(letter)
            at += 1
            continue
        bare = sum(map(len, text)) if bare is None else bare
        piece, at = _escaped(line, at) if letter == "\\" else _quoted(line, at)
        text.append(piece)
    whole = "".join(text)
    return Word(whole, len(whole) if bare is None else bare), at


def _escaped(line: str, at: int) -> tuple[str, int]:
    if at + 1 == len(line):
        raise RequestError("bad-request", "the line ends with a backslash; write it twice to mean one")
    return line[at + 1], at + 2


def _quoted(line: str, at: int) -> tuple[str, int]:
    quote, start, text = line[at], at + 1, list[str]()
    at = start
    while at < len(line):
        letter = line[at]
        if letter == quote:
            return "".join(text), at + 1
        if letter == "\\" and quote == '"' and line[at + 1 : at + 2] in {'"', "\\"}:
            at += 1
            letter = line[at]
        text.append(letter)
        at += 1
    raise RequestError("bad-request", f"the quote {quote} at character {start} is not closed")


def arguments_of(command: CommandSpec, rest: str, column: int, depth: int) -> dict[str, object]:
    """Return the arguments in the rest of a line, which begins at `column` of it, as JSON has them."""
    arguments = command.arguments
    if command.whole is not None:
        return _whole(command, rest, column, arguments)
    return _Reader(command, arguments, depth).read(split(rest))


def _whole(
    command: CommandSpec, rest: str, column: int, arguments: dict[str, CommandArgument]
) -> dict[str, object]:
    """Read a command whose last argument is the rest of the line, after options like `replace=true`."""
    values: dict[str, object] = {}
    while (option := _OPTION.match(rest)) and option[1] in arguments:
        values[option[1]] = option[2] == "true"
        rest = rest[option.end() :]
        column += option.end()
    text = rest.rstrip(_BLANKS)
    if not text.startswith("{"):
        raise RequestError("bad-args", f"write it on one line: {command.example}", field=command.whole)
    return values | {str(command.whole): Definition(text, column)}


class _Reader:
    """Gives words to arguments: positionals in order, `key=text`, `key:=json`."""

    def __init__(self, command: CommandSpec, arguments: dict[str, CommandArgument], depth: int) -> None:
        self._command = command
        self._arguments = arguments
        self._depth = depth
        self._values: dict[str, object] = {}
        self._extra: dict[str, object] = {}

    def read(self, words: list[Word]) -> dict[str, object]:
        for word in words:
            key = _KEY.match(word.text)
            if key is not None and key.end() <= word.bare:
                self._pair(key[1], word.text[key.end() :], as_json=key[2] == ":=")
            else:
                self._positional(word.text)
        if self._extra:
            self._store(str(self._command.extra), self._extra)
        return self._values

    def _pair(self, name: str, text: str, *, as_json: bool) -> None:
        taken = self._arguments.get(name)
        if taken is None and self._command.extra is not None:
            if name in self._extra:
                raise RequestError("bad-args", f"{name} stands there twice", field=name)
            self._extra[name] = parse(text, self._depth) if as_json else text
        elif as_json or taken is None:  # an unknown name is reported where JSON's unknown names are
            self._store(name, parse(text, self._depth) if as_json else text)
        else:
            self._store(name, from_word(name, taken, text))

    def _positional(self, text: str) -> None:
        flag = self._arguments.get(text)
        if flag is not None and flag.kind is ArgumentKind.FLAG:
            self._store(text, value=True)
            return
        for name, taken in self._arguments.items():
            if (
                name not in self._values
                and taken.kind not in {ArgumentKind.FLAG, ArgumentKind.OBJECT}
                and name != "key"
            ):
                self._store(name, from_word(name, taken, text))
                return
        usage = f"one word too many: {text[:64]!r}; usage: {self._command.example}"
        raise RequestError("bad-args", usage)

    def _store(self, name: str, value: object) -> None:
        if name in self._values:
            raise RequestError("bad-args", f"{name} stands there twice", field=name[:64])
        self._values[name] = value


# ---- JSON

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"?')
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\r\n]*")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise RequestError("bad-request", f"the member {name[:64]!r} stands there twice")
            seen.add(name)
    return members


def _constant(name: str) -> object:
    raise RequestError("bad-request", f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RequestError("bad-request", f"{text[:32]} is too large for a number")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite)


def parse(text: str, depth: int) -> Any:
    """Return the value that `text` holds. Raises `RequestError`: `bad-request` or `too-deep`."""
    if len(text) > STEP:
        return _parse_in_steps(text, depth)
    if text.count("{") + text.count("[") > depth:
        _check_depth(text, depth)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as exc:
        raise RequestError(
            "bad-request", f"no JSON: {exc.msg.removesuffix(' at')} at character {exc.pos + 1}"
        ) from None
    except RecursionError:
        raise RequestError("too-deep", "the JSON is nested too deeply") from None
    except ValueError:  # a number with more digits than Python converts
        raise RequestError("bad-request", "the JSON holds a number with too many digits") from None
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _parse_in_steps(text: str, depth: int) -> object:
    """Do as `parse`, where an operator allows such lines, so that others have their turns."""
    try:
        return _json.loads(text, depth=depth)
    except _json.JsonTextError as exc:
        problem = exc.problems[0]
        where = "" if problem.offset is None else f" at character {problem.offset + 1}"
        raise RequestError("bad-request", f"no JSON: {problem.message}{where}") from None


def _check_depth(text: str, depth: int) -> None:
    level = 0
    for mark in re.findall(r"[\[{\]}]", _STRINGS.sub("", text)):
        level += 1 if mark in "[{" else -1
        if level > depth:
            raise RequestError("too-deep", f"the JSON is nested more than {depth} deep")


def _check_surrogates(value: object) -> None:
    """Half of a surrogate pair is no text: it would fail wherever it is encoded."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if _SURROGATE.search(item):
                raise RequestError("bad-request", "a string holds half of a surrogate pair")
        elif isinstance(item, dict):
            pending += item
            pending += item.values()
        elif isinstance(item, list):
            pending += item


_MARK = re.compile(r'["{}\[\]]')
_SCALAR = re.compile(r"[^\s,}\]]*")
_ESCAPE = 6
"""Characters of the longest escape."""
_scan_string: Callable[[str, int], tuple[str, int]] = vars(json.decoder)["scanstring"]

# One call of these over megabytes would hold up every loop of the process: they look at a text piece by piece.


def _find_member(text: str, start: int, name: str) -> int:
    """Return where the value of a member of the object at `start` begins, without reading the values.

    What is valid JSON is judged by whoever reads them. Raises `ValueError` where there is no such member.
    """
    at = _over(_SPACE, text, start)
    at = _over(_SPACE, text, at + 1) if text[at : at + 1] == "{" else len(text)
    while text[at : at + 1] == '"':
        begin, at = at + 1, _end_of_string(text, at + 1)
        found = at - begin <= _ESCAPE * len(name) + 1 and _scan_string(text, begin)[0] == name
        at = _over(_SPACE, text, _over(_SPACE, text, at) + 1)
        if found:
            return at
        at = _over(_SPACE, text, _end_of(text, at))
        if text[at : at + 1] == ",":
            at = _over(_SPACE, text, at + 1)
    raise ValueError(f"there is no {name}")


def _end_of(text: str, at: int) -> int:
    """Return where the value that begins at `at` ends. Raises `ValueError` where it does not."""
    if text[at : at + 1] not in {"{", "[", '"'}:
        return _over(_SCALAR, text, at)
    level = 0
    while at < len(text):
        give_way()
        mark = _MARK.search(text, at, at + STEP)
        if mark is None:
            at += STEP
            continue
        at = mark.end()
        if (letter := mark[0]) == '"':
            at = _end_of_string(text, at)
        else:
            level += 1 if letter in "{[" else -1
        if level <= 0:
            return at
    raise ValueError("it does not end")


def _end_of_string(text: str, at: int) -> int:
    """Return where the string ends whose quote stands before `at`. Raises `ValueError` where the stdlib does."""
    end = at
    for _, end in pieces_of_string(text, at):  # noqa: B007 - the last end is asked for
        pass
    return end + 1


def _over(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return where a run of characters ends that begins at `at`."""
    while (run := pattern.match(text, at, at + STEP)) is not None and run.end() == at + STEP:
        at += STEP
        give_way()
    return at if run is None else run.end()
