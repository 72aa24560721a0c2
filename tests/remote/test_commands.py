"""The table is complete: a command without a handler, a help line or an example does not exist."""

from scattersphere.remote import manual
from scattersphere.remote.answers import ANSWERS
from scattersphere.remote.arguments import declared
from scattersphere.remote.commands import COMMANDS, IN_SESSION
from scattersphere.remote.handlers import HANDLERS


def test_every_row_has_all_that_a_person_and_a_program_need():
    for name, command in COMMANDS.items():
        assert command.name == name
        assert command.help[0].isupper()
        assert not command.help.endswith(".")
        assert len(command.help) <= 60
        assert command.example.split()[0] == name
        assert command.arguments.__doc__
        for taken, _ in declared(command.arguments).values():
            assert taken.help


def test_every_command_has_one_handler_and_every_handler_a_command():
    assert set(ANSWERS) == IN_SESSION
    assert set(HANDLERS) == {command.handler for command in COMMANDS.values()} - IN_SESSION


def test_the_commands_of_protocol_1_are_there():
    names = """hello auth ping whoami help commands schema quit output drop bundles tasks task register
        deregister reload jobs job define validate undefine save load run run-task runs status result explain
        pause resume stop cancel kill rerun wait logs follow unfollow stats sessions shutdown"""
    assert set(COMMANDS) == {*names.split()}


def test_help_and_schema_are_made_from_the_table():
    for name, command in COMMANDS.items():
        lines = manual.explain_command(command)
        assert lines[0].startswith(name)
        schema = manual.schema_of(command)
        assert schema["properties"]["cmd"] == {"const": name}
        assert set(schema["properties"]["args"]["properties"]) == set(declared(command.arguments))
    assert len(manual.overview(list(COMMANDS.values()))) == len(COMMANDS) + 3


def test_usage_shows_each_argument_where_a_person_types_it():
    usage = {name: manual.usage(command) for name, command in COMMANDS.items()}
    assert usage["run"] == "run JOB [KEY] [PARAMS AS NAME=VALUE...]"
    assert usage["define"] == "define [replace=true] DEFINITION"
    assert usage["logs"] == "logs [RUN] [TASK] [ATTEMPT] [TAIL] [INDEX] [JOB]"
