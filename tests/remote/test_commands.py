"""The table is complete, and everything that there is to say of a command is made from its signature."""

import inspect
import re
from typing import Annotated

import pytest

import scattersphere.commands.handlers  # noqa: F401 - it fills the table
from scattersphere.commands import help as manual
from scattersphere.commands import table
from scattersphere.commands.arguments import Arg, ArgumentKind
from scattersphere.commands.table import COMMANDS, GROUPS, command


def test_every_row_has_all_that_a_person_and_a_program_need():
    for name, row in COMMANDS.items():
        assert row.name == name
        assert row.help[0].isupper()
        assert not row.help.endswith(".")
        assert len(row.help) <= 60
        assert row.example.split()[0] == name
        assert row.group in GROUPS
        for taken in row.arguments.values():
            assert taken.help


def test_a_handler_takes_what_its_row_says_and_no_argument_is_of_any_type():
    for row in COMMANDS.values():
        first, *others = inspect.signature(row.handler).parameters.values()
        assert first.annotation == ("Conversation" if row.in_session else "Context"), row.name
        assert [other.name for other in others] == list(row.arguments)
        assert all(other.kind is inspect.Parameter.KEYWORD_ONLY for other in others)
        assert inspect.iscoroutinefunction(row.handler) != row.in_session


def test_what_changes_things_is_posted_and_what_looks_is_got_and_each_has_its_own_path():
    """HTTP's routes come from here."""
    seen = {}
    for name, row in COMMANDS.items():
        if row.path is None:
            assert row.method is None
            assert name in {"hello", "auth", "quit", "output", "drop", "unfollow"}
            continue
        assert row.method in {"GET", "POST", "DELETE"}
        assert (row.method, row.path) not in seen, (name, seen)
        seen[row.method, row.path] = name
        assert set(re.findall(r"{(\w+)}", row.path)) <= row.arguments.keys()
        assert row.method != "GET" or row.idempotent
        if row.method == "GET":
            assert row.role in {None, "viewer", "operator"}


def test_the_commands_of_protocol_2_are_there():
    names = """hello auth ping whoami help commands schema quit output drop bundles tasks task register
        deregister reload jobs job define validate undefine save load start run start-task run-task runs status
        result explain pause resume stop cancel kill rerun wait logs follow unfollow
        schedules next pause-schedule resume-schedule backfill stats sessions shutdown"""
    assert set(COMMANDS) >= {*names.split()}
    assert {name for name, row in COMMANDS.items() if row.late} == {"run", "run-task", "wait"}


def test_help_and_schema_are_made_from_the_table():
    for name, row in COMMANDS.items():
        lines = manual.explain_command(row)
        assert lines[0].startswith(name)
        schema = manual.schema_of(row)
        assert schema["properties"]["cmd"] == {"const": name}
        assert set(schema["properties"]["args"]["properties"]) == set(row.arguments)


def test_help_is_text_by_groups():
    lines = manual.overview(list(COMMANDS.values()))
    assert [line for line in lines if line.endswith(":") and not line.startswith(" ")] == [
        "This session:",
        "Bundles and tasks:",
        "Jobs:",
        "Runs:",
        "Schedules:",
        "Events:",
        "The server:",
    ]
    assert sum(line.startswith("  ") for line in lines) == len(COMMANDS)


def test_usage_shows_each_argument_where_a_person_types_it():
    usage = {name: manual.usage(row) for name, row in COMMANDS.items()}
    assert usage["run"] == "run JOB [KEY] [PARAMS AS NAME=VALUE...]"
    assert usage["define"] == "define [replace=true] DEFINITION"
    assert usage["logs"] == "logs [RUN] [TASK] [ATTEMPT] [TAIL] [INDEX] [JOB]"


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setattr(table, "COMMANDS", {})


def test_a_new_command_is_one_typed_function(alone):
    @command("twice", role=None, example="twice 4")
    async def twice(
        context, *, number: Annotated[int, Arg("a number", low=1)], loud: Annotated[bool, Arg("!")] = False
    ):
        """Double a number."""
        return {"twice": number * 2, "loud": loud}

    row = table.COMMANDS["twice"]
    assert row.help == "Double a number"
    assert {name: taken.kind for name, taken in row.arguments.items()} == {
        "number": ArgumentKind.INTEGER,
        "loud": ArgumentKind.FLAG,
    }
    assert manual.usage(row) == "twice NUMBER [LOUD]"
    with pytest.raises(ValueError, match="two commands 'twice'"):
        command("twice", role=None, example="twice 4")(twice)
