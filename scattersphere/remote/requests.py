"""A line to a request: strict JSON, or words."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import attrs

from scattersphere.commands.arguments import Definition, read
from scattersphere.commands.errors import RequestError
from scattersphere.commands.table import Command, find_command, unknown_command
from scattersphere.remote import words
from scattersphere.remote.jsontext import parse, spans

_MEMBERS = frozenset({"cmd", "args", "id"})
_VERB = re.compile(r"[ \t]*([a-z][a-z0-9_-]{0,31})(?:[ \t]+|$)", re.ASCII)
ALIASES = {"exit": "quit", "bye": "quit", "logout": "quit"}
"""What people type in other programs; `?` is `help`."""
ID_CHARACTERS = 64
ID_INTEGER = 2**53
DEFINITION_DEPTH = 64
"""The depth that a definition may have."""


@attrs.define
class Request:
    """What a client asks: a command of the table, and the `id` by which the reply is known.

    The arguments are read when they are asked for, so that a session can refuse a command before it
    tells a stranger anything about its arguments.
    """

    command: Command
    id: str | int | None
    _read: Callable[[], dict[str, Any]] = attrs.field(repr=False)
    in_words: bool = False

    def arguments(self) -> dict[str, Any]:
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


def read_request(text: str, *, depth: int, partial: bool = False) -> Request:
    """Read a line. Raises `NamedRequestError`; a partial line that is no whole object is `truncated`."""
    start = text.lstrip(" \t")
    if start.startswith("{"):
        return _from_json(text, depth, partial=partial)
    if start.startswith("?"):
        return _from_words(f"help {start[1:]}", depth)
    if "a" <= start[:1] <= "z":
        return _from_words(text, depth)
    error = RequestError("bad-request", "a request begins with { or a lower-case letter; type: help")
    raise NamedRequestError(error, None)


def _from_words(text: str, depth: int) -> Request:
    verb = _VERB.match(text)
    if verb is None:
        raise NamedRequestError(unknown_command(text.split(maxsplit=1)[0]), None)
    try:
        command = find_command(ALIASES.get(verb[1], verb[1]))
    except RequestError as exc:
        raise NamedRequestError(exc, None) from None
    rest, column = text[verb.end() :], verb.end() + 1
    return Request(command, None, lambda: words.arguments_of(command, rest, column, depth), True)


def _from_json(text: str, depth: int, *, partial: bool) -> Request:
    id_: str | int | None = None
    try:
        members = _members(text, depth, partial=partial)
        id_ = _id(members)
        command, args = _checked(members)
    except RequestError as exc:
        raise NamedRequestError(exc, id_) from None
    if isinstance(args.get("definition"), dict) and "definition" in command.arguments:
        return Request(command, id_, lambda: args | {"definition": _definition(text)})
    return Request(command, id_, lambda: args)


def _members(text: str, depth: int, *, partial: bool) -> dict[str, Any]:
    try:
        members: dict[str, Any] = parse(text, depth + DEFINITION_DEPTH if '"definition"' in text else depth)
    except RequestError as exc:
        if partial and exc.code == "bad-request":
            raise RequestError("truncated", "the input ended inside a request") from None
        raise
    return members


def _id(members: dict[str, Any]) -> str | int | None:
    if "id" not in members:
        return None
    id_ = members["id"]
    if isinstance(id_, str) and len(id_) <= ID_CHARACTERS:
        return id_
    if isinstance(id_, int) and not isinstance(id_, bool) and abs(id_) <= ID_INTEGER:
        return id_
    message = f"id must be a string of at most {ID_CHARACTERS} characters or an integer within 2^53"
    raise RequestError("bad-request", message, field="id")


def _checked(members: dict[str, Any]) -> tuple[Command, dict[str, Any]]:
    if not members.keys() <= _MEMBERS:
        name = next(name for name in members if name not in _MEMBERS)
        raise RequestError("bad-request", f"unknown member {name[:64]!r}; a request has cmd, args and id")
    verb = members.get("cmd")
    if not isinstance(verb, str):
        raise RequestError("bad-request", 'cmd must be the name of a command: {"cmd": "help"}', field="cmd")
    args = members.get("args", {})
    if not isinstance(args, dict):
        raise RequestError("bad-request", "args must be an object", field="args")
    return find_command(verb), args


def _definition(text: str) -> Definition:
    """Cut the definition out of the request, so that problems get the columns of this line."""
    first, _ = spans(text)["args"]
    start, end = spans(text, first)["definition"]
    return Definition(text[start:end], start + 1)
