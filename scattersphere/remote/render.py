"""Replies and events as bytes: one line of ASCII JSON, or, when a person asked for it, something to read.

No control character but newline leaves in any format, and no mark that reorders text, whatever a name, a log line or
an error holds: no escape sequence can reach a terminal (CVE-2021-25743 was of that kind). JSON is ASCII besides; in
what is made for people letters stay as they are. A text of several lines is indented: no line of it can pass for one
of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from scattersphere.commands.errors import RequestError
from scattersphere.model.logs import make_printable

CELL = 60
"""Characters of a table's cell."""
GAP = "  "
"""Between two columns."""
NARROWEST = 6
"""Characters below which no column is made narrower for a terminal."""
USEFUL = 10
"""Letters of a column below which others are left out instead."""
CELLS = 20_000
"""Cells of a table; rows that need more columns than that are shown as JSON, one a line."""
PRETTY, TABLE = 64 << 10, 192 << 10
"""Bytes of JSON that a reply may have to be made readable: some tens of milliseconds of work."""
INDENT = "    "
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_shown = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode
_pretty = json.JSONEncoder(indent=2, allow_nan=False, ensure_ascii=False).encode


def as_json(message: Mapping[str, object]) -> bytes:
    """Return the message as one line of JSON."""
    text = _encode(message)
    if "\x7f" in text:  # the only control character that JSON leaves as it is
        text = text.replace("\x7f", "\\u007f")
    return text.encode("ascii") + b"\n"


def as_pretty(message: Mapping[str, object]) -> bytes:
    """Return the message as indented JSON, with an empty line after it. Raises `RequestError` (`too-large`)."""
    _check_size(message, PRETTY)
    # Inside strings JSON escapes newlines itself; what is left of them lays the text out.
    return _utf8(make_printable(_pretty(message)) + "\n\n")


def as_table(message: Mapping[str, object]) -> bytes:
    """Return the message as a head line, then tables and `name: value` lines, and an empty line.

    Raises `RequestError` (`too-large`).
    """
    _check_size(message, TABLE)
    return _utf8(to_table(message))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _check_size(message: Mapping[str, object], limit: int) -> None:
    """Judge a reply by its JSON, which is made quickly: what is made for people takes ten times as long."""
    text = _encode(message)
    if (
        len(text) > limit or text.count("[") + text.count("{") > limit // 8
    ):  # each may be indented by 60 spaces
        why = f"the reply has {len(text)} bytes as JSON, too many to be made readable"
        raise RequestError("too-large", f"{why}; type `output json`, or ask for less")


def to_table(message: Mapping[str, Any], width: int | None = None) -> str:
    """Return what `as_table` does, as text; tables in it are at most `width` columns of a terminal wide."""
    if "event" in message:
        return one_line(_event(message)) + "\n"
    if "bye" in message:
        return one_line(f"-- bye: {message['bye'].get('message') or message['bye']['code']}") + "\n"
    head = f"-- {message.get('n', '')}" + (f" {message['id']}" if "id" in message else "")
    if "error" in message:
        error = message["error"]
        first, *others = f"{head} {error['code']}: {error['message']}".split("\n")
        lines = [first, *(INDENT + line for line in others)]
        lines += problem_lines(error)
    else:
        lines = [head, *_block(message["result"], "", width)]
    return "".join(one_line(line) + "\n" for line in lines) + "\n"


RENDERERS = {"json": as_json, "pretty": as_pretty, "table": as_table}


def one_line(text: str) -> str:
    """Return a text so that it is one line, or one cell, and steers nothing."""
    if text.isprintable():
        return text
    return make_printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _event(event: Mapping[str, object]) -> str:
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


def _task(row: Mapping[str, object]) -> str:
    """Return a task, or an instance of a mapped one, and the attempt where it is not the first."""
    instance = f"[{row['index']}]" if "index" in row else ""
    attempt = row.get("attempt")
    later = isinstance(attempt, int) and attempt > 1
    return f"{row.get('task', '-')}{instance}" + (f" #{attempt}" if later else "")


def log_lines(row: Mapping[str, object]) -> list[str]:
    """Return a line of a log, or an event of the kind `log`, as people read logs."""
    time = str(row.get("time") or row.get("ts") or "")[11:23]
    first, *others = str(row.get("message", "")).split("\n")
    # In the server's log of its runs a line is of a run, and says so.
    whose = f"#{row['run']}" if "run" in row and "event" not in row else _task(row)
    return [f"{time} {row.get('level', '-')!s:<7} {whose}: {first}", *(INDENT + line for line in others)]


def to_log(message: Mapping[str, object]) -> str:
    """Return an event of the kind `log` as `logs` shows it; other messages as tables do."""
    if message.get("event") != "log":
        return to_table(message)
    return "".join(one_line(line) + "\n" for line in log_lines(message))


def problem_lines(error: Mapping[str, Any]) -> list[str]:
    """Return what an error tells beside its message: the problems of a definition, the end of a traceback."""
    lines = [_problem(problem) for problem in error.get("problems", ())]
    return lines + [INDENT + line for line in str(error.get("details", "")).rstrip().splitlines()]


def _problem(problem: Mapping[str, object]) -> str:
    where = f"{problem['line']}:{problem['column']}  " if "line" in problem else ""
    hint = f'; did you mean "{problem["suggestion"]}"?' if "suggestion" in problem else ""
    kind = "warning: " if problem.get("warning") else ""
    return f"  {where}{problem.get('path', '')}  {kind}{problem['message']}{hint}"


def _block(value: object, name: str, width: int | None) -> list[str]:
    """Return the lines of a value, with its name where it has one."""
    if isinstance(value, Mapping):
        lines = []
        for key, inner in value.items():
            lines += _block(inner, f"{name}.{key}" if name else str(key), width)
        return lines
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        if all(isinstance(row, Mapping) for row in value):
            return (
                [line for row in value for line in log_lines(row)] if name == "lines" else _rows(value, width)
            )
        if name == "help" and all(isinstance(line, str) for line in value):
            return list(value)
    if isinstance(value, str) and "\n" in value:
        head = [] if name == "text" else [f"{name}:"]
        return [*head, *(INDENT + line if line else "" for line in value.split("\n"))]
    return [f"{name}: {_short(value)}" if name else _short(value)]


def _short(value: object) -> str:
    """Return a value for one line: words as they are, lists of words with commas."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        if all(isinstance(each, str) for each in value):
            return ", ".join(value) or "-"
        if all(isinstance(each, Mapping) and each for each in value):  # what each is called comes first
            return ", ".join(_short(next(iter(each.values()))) for each in value)
    return _shown(value)


def _rows(rows: Sequence[Mapping[str, object]], width: int | None) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if (
        len(rows) * len(columns) > CELLS
    ):  # a cell for each pair could be a thousand times what there is to show
        return [_shown(row) for row in rows]
    cells = [[_cell(row.get(column), last=column is columns[-1]) for column in columns] for row in rows]
    heads = [one_line(str(column))[:CELL] for column in columns]
    widths = [max(len(line[at]) for line in [heads, *cells]) for at in range(len(columns))]
    if width is None:
        return [_aligned(line, widths) for line in [heads, *cells]]
    more = heads[_room(widths, width) :]
    del widths[len(heads) - len(more) :]
    _narrow(widths, width - len(GAP) * (len(widths) - 1))
    lines = [
        _aligned([_cut(cell, most) for cell, most in zip(line, widths, strict=False)], widths)
        for line in [heads, *cells]
    ]
    return [*lines, *(_cut(f"no room for: {', '.join(more)}", width) for _ in more[:1])]


def _room(widths: Sequence[int], most: int) -> int:
    """Return for how many columns there is room, cut to what still tells something; one is always shown."""
    left = most + len(GAP)
    for count, width in enumerate(widths):
        left -= min(width, USEFUL) + len(GAP)
        if left < 0:
            return max(count, 1)
    return len(widths)


def _narrow(widths: list[int], most: int) -> None:
    """Take from the widest columns until there is room for all."""
    while sum(widths) > most and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _cell(value: object, *, last: bool) -> str:
    """Return a cell; only the last one of a row may be long."""
    if value is None:
        return "-"
    text = one_line(_short(value))
    return text if last else _cut(text, CELL)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
