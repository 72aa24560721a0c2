"""What the table of commands says to people and to programs: help, lists, JSON Schema."""

from __future__ import annotations

from scattersphere.commands.arguments import ArgumentKind, CommandArgument
from scattersphere.commands.table import GROUPS, CommandSpec

_INTRODUCTION = (
    'Type a command with its arguments, or a JSON object: {"cmd": "run", "args": {"job": "hi"}}.',
    "Arguments: in the order shown, or as key=text or key:=json. Quotes work as in a shell.",
    "`help COMMAND` tells more. `output table` makes replies easier to read.",
)


TITLES = {
    "session": "This session",
    "code": "Bundles and tasks",
    "jobs": "Jobs",
    "runs": "Runs",
    "schedules": "Schedules",
    "events": "Events",
    "host": "The server",
}


def overview(allowed: list[CommandSpec]) -> list[str]:
    """Return the lines of `help`: what this session may use, by what it is about."""
    width = max(len(command.name) for command in allowed)
    lines: list[str] = list(_INTRODUCTION)
    for group in GROUPS:
        rows = [command for command in allowed if command.group == group]
        if rows:
            lines += ["", f"{TITLES[group]}:"]
            lines += [f"  {command.name:<{width}}  {command.help}" for command in rows]
    return lines


def usage(command: CommandSpec) -> str:
    """Return a command with its arguments, those in brackets optional."""
    words, last = [command.name], [f"[{command.extra.upper()} AS NAME=VALUE...]"] if command.extra else []
    for name, taken in command.arguments.items():
        if name == command.whole:
            last = [name.upper()]
        elif name != command.extra:
            shown = f"{name}=true" if taken.kind is ArgumentKind.FLAG and command.whole else name.upper()
            words.append(shown if taken.required else f"[{shown}]")
    return " ".join(words + last)


def explain_command(command: CommandSpec) -> list[str]:
    """Return the lines of `help COMMAND`."""
    lines = [usage(command), f"  {command.help}."]
    for name, taken in command.arguments.items():
        lines.append(f"  {name}: {_kind(taken)}{'' if taken.required else ', optional'}; {taken.help}")
    if command.role is not None:
        lines.append(f"  Needs the role {command.role}.")
    return [*lines, f"  Example: {command.example}"]


def _kind(taken: CommandArgument) -> str:
    return {
        ArgumentKind.WORDS: "words",
        ArgumentKind.FLAG: "true or false",
        ArgumentKind.PLACE: "number or LIFE.NUMBER",
    }.get(taken.kind, str(taken.kind))


def listing(allowed: list[CommandSpec]) -> list[dict[str, object]]:
    """Return the rows of `commands`."""
    return [
        {"name": command.name, "role": command.role, "help": command.help, "usage": usage(command)}
        for command in allowed
    ]


def schema_of(command: CommandSpec) -> dict[str, object]:
    """Return the JSON Schema of a request."""
    arguments = command.arguments
    args = {
        "type": "object",
        "properties": {name: _property(taken) for name, taken in arguments.items()},
        "required": [name for name, taken in arguments.items() if taken.required],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": command.name,
        "description": command.help,
        "type": "object",
        "properties": {
            "cmd": {"const": command.name},
            "args": args,
            "id": {"type": ["string", "integer"]},
        },
        "required": ["cmd", "args"] if args["required"] else ["cmd"],
        "additionalProperties": False,
        "examples": [command.example],
    }


def _property(taken: CommandArgument) -> dict[str, object]:
    kind = "object" if taken.kind is ArgumentKind.DEFINITION else str(taken.kind)
    found: dict[str, object] = {"type": kind, "description": taken.help}
    if taken.kind is ArgumentKind.PLACE:
        found["type"] = ["integer", "string"]
    elif taken.kind is ArgumentKind.WORDS:
        found["items"] = {"type": "string"} | ({"enum": list(taken.choices)} if taken.choices else {})
    elif taken.choices:
        found["enum"] = list(taken.choices)
    if taken.low is not None:
        found["minimum"] = taken.low
    if taken.high is not None:
        found["maximum"] = taken.high
    return found


def schemas(allowed: list[CommandSpec]) -> dict[str, object]:
    """Return the schemas of commands, by name."""
    return {command.name: schema_of(command) for command in allowed}
