"""Word commands: what a person types, compiled to the same request that JSON makes.

Split as a POSIX shell splits quotes, and nothing more: no variables, no globs, no command
substitution, no history (the incident class "argument expansion").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from scattersphere.commands.arguments import Argument, Definition, Kind, from_word
from scattersphere.commands.errors import RequestError
from scattersphere.remote.jsontext import parse

if TYPE_CHECKING:
    from scattersphere.commands.table import Command

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


def arguments_of(command: Command, rest: str, column: int, depth: int) -> dict[str, Any]:
    """Return the arguments in the rest of a line, which begins at `column` of it, as JSON has them."""
    arguments = command.arguments
    if command.whole is not None:
        return _whole(command, rest, column, arguments)
    return _Reader(command, arguments, depth).read(split(rest))


def _whole(command: Command, rest: str, column: int, arguments: dict[str, Argument]) -> dict[str, Any]:
    """Read a command whose last argument is the rest of the line, after options like `replace=true`."""
    values: dict[str, Any] = {}
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

    def __init__(self, command: Command, arguments: dict[str, Argument], depth: int) -> None:
        self._command = command
        self._arguments = arguments
        self._depth = depth
        self._values: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}

    def read(self, words: list[Word]) -> dict[str, Any]:
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
        if flag is not None and flag.kind is Kind.FLAG:
            self._store(text, value=True)
            return
        for name, taken in self._arguments.items():
            if name not in self._values and taken.kind not in {Kind.FLAG, Kind.OBJECT} and name != "key":
                self._store(name, from_word(name, taken, text))
                return
        usage = f"one word too many: {text[:64]!r}; usage: {self._command.example}"
        raise RequestError("bad-args", usage)

    def _store(self, name: str, value: Any) -> None:
        if name in self._values:
            raise RequestError("bad-args", f"{name} stands there twice", field=name[:64])
        self._values[name] = value
