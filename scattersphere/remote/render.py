"""Replies and events as bytes: one line of ASCII JSON, or, when a person asked for it, something to read.

Everything that leaves is ASCII without control characters (but newline), whatever a name, a log line
or an error holds: no escape sequence can reach a terminal (CVE-2021-25743 was of that kind).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

CELL = 60
"""Characters of a table's cell."""
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_pretty = json.JSONEncoder(indent=2, allow_nan=False).encode
_STEERING = re.compile(r"[^\x20-\x7e]")


def as_json(message: Mapping[str, Any]) -> bytes:
    """Return the message as one line of JSON."""
    text = _encode(message)
    if "\x7f" in text:  # the only control character that JSON leaves as it is
        text = text.replace("\x7f", "\\u007f")
    return text.encode("ascii") + b"\n"


def as_pretty(message: Mapping[str, Any]) -> bytes:
    """Return the message as indented JSON, with an empty line after it."""
    return _pretty(message).replace("\x7f", "\\u007f").encode("ascii") + b"\n\n"


def as_table(message: Mapping[str, Any]) -> bytes:
    """Return the message as a head line, then tables and `name: value` lines, and an empty line."""
    return to_table(message, _ascii).encode("ascii")


def to_table(message: Mapping[str, Any], escape: Callable[[str], str]) -> str:
    """Do as `as_table`; `escape` replaces what may not be shown."""
    if "event" in message:
        return escape(_event(message)) + "\n"
    if "bye" in message:
        return escape(f"-- bye: {message['bye'].get('message') or message['bye']['code']}") + "\n"
    head = f"-- {message.get('n', '')}" + (f" {message['id']}" if "id" in message else "")
    if "error" in message:
        error = message["error"]
        lines = f"{head} {error['code']}: {error['message']}".split("\n")
        lines += [_problem(problem) for problem in error.get("problems", ())]
    else:
        lines = [head, *_block(message["result"], "", escape)]
    return "".join(escape(line) + "\n" for line in lines) + "\n"


RENDERERS = {"json": as_json, "pretty": as_pretty, "table": as_table}


def _ascii(text: str) -> str:
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _event(event: Mapping[str, Any]) -> str:
    parts = [f"* {event['sub']}"]
    parts += [str(event["seq"])] if "seq" in event else []
    parts += [str(event["ts"])[11:19]] if "ts" in event else []
    parts.append(str(event["event"]))
    if "run" in event:
        parts.append(f"{event.get('job', 'run')}#{event['run']}")
    if "task" in event:
        parts.append(_task(event))
    if "done" in event:
        parts.append(f"{event['done']}/{event.get('total', '?')}")
    parts += [str(event[name]) for name in ("bundle", "state", "dropped") if name in event]
    first, _, more = str(event.get("message", "")).partition("\n")
    return " ".join(parts + [first] * bool(first) + ["..."] * bool(more.strip()))


def _task(row: Mapping[str, Any]) -> str:
    """Return a task, or an instance of a mapped one, and the attempt where it is not the first."""
    instance = f"[{row['index']}]" if "index" in row else ""
    return f"{row.get('task', '-')}{instance}" + (f" #{row['attempt']}" if row.get("attempt", 1) > 1 else "")


def log_lines(row: Mapping[str, Any]) -> list[str]:
    """Return a line of a log, or an event of the kind `log`, as people read logs."""
    time = str(row.get("time") or row.get("ts") or "")[11:23]
    first, *others = str(row.get("message", "")).split("\n")
    # In the server's log of its runs a line is of a run, and says so.
    whose = f"#{row['run']}" if "run" in row and "event" not in row else _task(row)
    return [f"{time} {row.get('level', '-'):<7} {whose}: {first}", *(f"    {line}" for line in others)]


def to_log(message: Mapping[str, Any], escape: Callable[[str], str]) -> str:
    """Return an event of the kind `log` as `logs` shows it; other messages as tables do."""
    if message.get("event") != "log":
        return to_table(message, escape)
    return "".join(escape(line) + "\n" for line in log_lines(message))


def _problem(problem: Mapping[str, Any]) -> str:
    where = f"{problem['line']}:{problem['column']}  " if "line" in problem else ""
    hint = f'; did you mean "{problem["suggestion"]}"?' if "suggestion" in problem else ""
    return f"  {where}{problem.get('path', '')}  {problem['message']}{hint}"


def _block(value: Any, name: str, escape: Callable[[str], str]) -> list[str]:
    """Return the lines of a value, with its name where it has one."""
    if isinstance(value, Mapping):
        lines = []
        for key, inner in value.items():
            lines += _block(inner, f"{name}.{key}" if name else str(key), escape)
        return lines
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        if all(isinstance(row, Mapping) for row in value):
            return (
                [line for row in value for line in log_lines(row)]
                if name == "lines"
                else _rows(value, escape)
            )
        if name == "help":
            return list(value)
    if isinstance(value, str) and "\n" in value:
        return value.split("\n")
    return [f"{name}: {_short(value)}" if name else _short(value)]


def _short(value: Any) -> str:
    """Return a value for one line: words as they are, lists of words with commas."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        if all(isinstance(each, str) for each in value):
            return ", ".join(value) or "-"
        if all(isinstance(each, Mapping) and each for each in value):  # what each is called comes first
            return ", ".join(_short(next(iter(each.values()))) for each in value)
    return _encode(value)


def _rows(rows: Sequence[Mapping[str, Any]], escape: Callable[[str], str]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [
        [_cell(row.get(column), escape, last=column is columns[-1]) for column in columns] for row in rows
    ]
    widths = [max(len(line[at]) for line in [columns, *cells]) for at in range(len(columns))]
    return [_aligned(columns, widths), *(_aligned(line, widths) for line in cells)]


def _cell(value: Any, escape: Callable[[str], str], *, last: bool) -> str:
    """Return a cell; only the last one of a row may be long."""
    if value is None:
        return "-"
    text = escape(_short(value))
    return text if last or len(text) <= CELL else text[: CELL - 3] + "..."


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
