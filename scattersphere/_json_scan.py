"""The second reading of a JSON text, where something is wrong: slow, not recursive, with exact positions of errors.

It is only done when something is wrong. Problems that allow it (a duplicate key, a number out of
range) do not end the reading, so that they are all reported at once; broken syntax does.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import TYPE_CHECKING

import attrs

from scattersphere._json_strings import read_string
from scattersphere._json_words import (
    DEPTH,
    INTEGER_DIGITS,
    MOST_PROBLEMS,
    STRING_CHARACTERS,
    LineIndex,
    Path,
    RawProblem,
    quote,
)
from scattersphere._turns import give_way, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"-?[A-Za-z_][A-Za-z0-9_]*")
_LONE = re.compile("[\ud800-\udfff]")
_NO_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
_MEANT = {"True": "true", "False": "false", "None": "null", "undefined": "null", "nil": "null"}
_STRING_PROBLEMS = {
    "Unterminated string": "this string does not end",
    "Invalid control character": "a line break, tab or other control character must be escaped in a string",
    "Invalid \\uXXXX escape": "\\u must be followed by four hexadecimal digits",
    "Invalid \\escape": 'there is no such escape; write "\\\\" for a backslash',
}


@attrs.define
class TextScan:
    """What a reading found: problems in order, and the offsets of the paths that were asked for.

    `complete` says that the text was read to its end.
    """

    problems: list[RawProblem] = attrs.field(factory=list)
    places: dict[Path, int] = attrs.field(factory=dict)
    complete: bool = False


class _SyntaxEndError(Exception):
    """The text cannot be read further."""


def scan(text: str, wanted: Collection[Path] = (), *, depth: int = DEPTH) -> TextScan:
    """Read `text`; note where each wanted path stands: a member at its key, an element at itself."""
    scanner = _Scanner(text, frozenset(wanted), depth)
    with contextlib.suppress(_SyntaxEndError):
        scanner.read()
    return scanner.scan


class _Scanner:
    """One reading. `_keys` has a dict of keys to offsets for each open object, None for a list."""

    def __init__(self, text: str, wanted: frozenset[Path], depth: int) -> None:
        self.scan = TextScan()
        self._text = text
        self._wanted = wanted
        self._depth = depth
        self._at = 0
        self._path: list[str | int] = []
        self._keys: list[dict[str, int] | None] = []
        self._lines: LineIndex | None = None

    def read(self) -> None:
        """Read the whole text: a value, then nothing."""
        step: Callable[[], bool] = self._value
        self._space()
        self._note(self._at)
        while True:
            give_way()
            # Each step reads one value or opens a container; then containers end as they may.
            if step():
                step = self._first
                continue
            following = self._next()
            if following is None:
                break
            step = following
        if self._at < len(self._text):
            self._stop("the text goes on after its value")
        self.scan.complete = True

    def _space(self) -> str:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _note(self, offset: int) -> None:
        if self._wanted and (path := tuple(self._path)) in self._wanted:
            self.scan.places[path] = offset

    def _note_problem(self, message: str, offset: int) -> None:
        self.scan.problems.append(RawProblem(tuple(self._path), message, offset=offset))
        if len(self.scan.problems) >= MOST_PROBLEMS:
            raise _SyntaxEndError

    def _stop(self, message: str) -> _SyntaxEndError:
        """Report broken syntax at the present place, and end the reading."""
        self._note_problem(message, min(self._at, max(len(self._text) - 1, 0)))
        raise _SyntaxEndError

    # The steps: each reads on and returns whether it opened a container.

    def _value(self) -> bool:
        char = self._space()
        if char in {"{", "["} and char:
            self._open(char)
            return True
        if char == '"':
            self._string()
        elif match := _NUMBER.match(self._text, self._at):
            self._number(match)
        else:
            self._word(char)
        return False

    def _open(self, char: str) -> None:
        if len(self._keys) >= self._depth:
            self._stop(f"more than {self._depth} lists and objects inside one another")
        self._at += 1
        self._keys.append({} if char == "{" else None)
        self._path.append("" if char == "{" else -1)

    def _first(self) -> bool:
        """Read what stands first in the container that was just opened."""
        closing = "]" if self._keys[-1] is None else "}"
        if self._space() == closing:
            return False  # `_next` closes it
        return self._element() if closing == "]" else self._member()

    def _element(self) -> bool:
        index = self._path[-1]
        self._path[-1] = index + 1 if isinstance(index, int) else 0
        if self._space() == "]":
            self._stop('no comma may stand before "]"')
        self._note(self._at)
        return self._value()

    def _member(self) -> bool:
        char = self._space()
        if char != '"':
            self._path.pop()  # the problem belongs to the object: there is no key yet
            self._stop(self._no_key(char))
        start = self._at
        key = self._string()
        self._path[-1] = key
        self._note(start)
        keys = self._keys[-1]
        if keys is not None:
            if key in keys:
                self._lines = self._lines or LineIndex(self._text)
                line, column = self._lines.place(keys[key])
                self._note_problem(f"the key {quote(key)} stands here twice, first at {line}:{column}", start)
            keys.setdefault(key, start)
        if self._space() != ":":
            self._stop(f'":" must follow the key {quote(key)}')
        self._at += 1
        return self._value()

    def _next(self) -> Callable[[], bool] | None:
        """Close what ends here; return the step that reads what follows a comma."""
        while self._keys:
            inside_list = self._keys[-1] is None
            closing = "]" if inside_list else "}"
            char = self._space()
            if char == ",":
                self._at += 1
                return self._element if inside_list else self._member
            if char != closing:
                self._stop(self._unfinished(char, closing))
            self._at += 1
            self._keys.pop()
            self._path.pop()
        self._space()
        return None

    # Scalars

    def _string(self) -> str:
        start = self._at
        try:
            value, self._at = read_string(self._text, start + 1)
        except json.JSONDecodeError as error:
            self._at = error.pos
            for beginning, words in _STRING_PROBLEMS.items():
                if error.msg.startswith(beginning):
                    self._stop(words)
            self._stop("this string cannot be read")
            raise
        if not value.isascii() and any(_LONE.search(value, *piece) for piece in pieces(len(value))):
            self._note_problem("half of a surrogate pair is no character", start)
        if len(value) > STRING_CHARACTERS:
            self._note_problem(f"a string is longer than {STRING_CHARACTERS:,} characters", start)
        return value

    def _number(self, match: re.Match[str]) -> None:
        digits = match.group()
        if match.group(1) is None and match.group(2) is None:
            if len(digits.removeprefix("-")) > INTEGER_DIGITS:
                self._note_problem(f"an integer has more than {INTEGER_DIGITS} digits", self._at)
        elif math.isinf(float(digits)):
            self._note_problem(f"the number {digits[:40]} is too large", self._at)
        self._at = match.end()
        if (follows := self._text[self._at : self._at + 1]) and follows in "0123456789.eE+-":
            self._stop("this number is not written as JSON wants it")

    def _word(self, char: str) -> None:
        match = _WORD.match(self._text, self._at)
        word = match.group() if match else ""
        if word in _NO_NUMBERS:
            self._note_problem(f"{word} is no JSON number", self._at)
        elif word not in {"true", "false", "null"}:
            self._stop(self._no_value(char, word))
        self._at += len(word)

    # Words for what was found instead

    def _no_value(self, char: str, word: str) -> str:
        if not char:
            return "the text ends where a value should stand"
        if word in _MEANT:
            return f"{word} is no JSON; write {_MEANT[word]}"
        if word:
            return f"a value should stand here; strings are written in double quotes: {quote(word)}"
        return self._habit(char) or f"a value should stand here, not {quote(char)}"

    def _no_key(self, char: str) -> str:
        if not char:
            return "the text ends inside an object"
        if char == "}":
            return 'no comma may stand before "}"'
        return self._habit(char) or f"a key in double quotes should stand here, not {quote(char)}"

    def _unfinished(self, char: str, closing: str) -> str:
        if not char:
            return f'the text ends before a "{closing}"'
        return self._habit(char) or f'"," or "{closing}" should stand here, not {quote(char)}'

    @staticmethod
    def _habit(char: str) -> str | None:
        """Name what people write from habit in other languages."""
        if char == "'":
            return "strings are written in double quotes"
        if char in {"/", "#"}:
            return 'JSON has no comments; write a key "//"'
        if char in {"\u201c", "\u201d"}:
            return 'strings are written in straight double quotes: "'
        return None
