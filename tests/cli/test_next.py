"""`scattersphere next FILE`: what a shell sees."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.needs("cronsim"), pytest.mark.needs("click")]

SCHEDULES = {
    "nightly": {"cron": "30 2 * * *", "zone": "Europe/Berlin"},
    "off": {"every": 3600, "enabled": False},
    "once": {"at": ["2020-01-01T00:00:00Z"]},
}
SINCE = "2026-03-28T00:00:00Z"


def call(tmp_path: Path, *arguments: str, schedules: dict[str, Any] = SCHEDULES) -> Result:
    from scattersphere.cli.commands import cli

    file = tmp_path / "job.json"
    file.write_text(
        json.dumps({"format": 2, "name": "job", "schedules": schedules, "tasks": {"t": {"task": "a.B"}}})
    )
    return CliRunner().invoke(cli, ["next", str(file), *arguments])


def test_times_are_shown_on_the_wall_and_in_utc(tmp_path: Path) -> None:
    result = call(tmp_path, "-n", "2", "--since", SINCE)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "nightly: at 02:30 every day (Europe/Berlin)",
        "  Sat 2026-03-28 02:30:00 +0100  2026-03-28T01:30:00Z  in 1 h 30 min",
        "  Sun 2026-03-29 03:00:00 +0200  2026-03-29T01:00:00Z  in 1 d 1 h",
        "off: every hour; it is not enabled",
        "  Sat 2026-03-28 01:00:00 +0000  2026-03-28T01:00:00Z  in 1 h 00 min",
        "  Sat 2026-03-28 02:00:00 +0000  2026-03-28T02:00:00Z  in 2 h 00 min",
        "once: at 2020-01-01T00:00:00Z",
        "  never again",
    ]


def test_json_is_one_value_a_schedule(tmp_path: Path) -> None:
    result = call(tmp_path, "-n", "1", "--since", SINCE, "--schedule", "nightly", "--json")
    assert json.loads(result.output) == {
        "schedule": "nightly", "words": "at 02:30 every day (Europe/Berlin)", "zone": "Europe/Berlin", "enabled": True,
        "next": [{"utc": "2026-03-28T01:30:00Z", "local": "2026-03-28T02:30:00+01:00"}],
    }  # fmt: skip


def test_what_is_wrong_is_said_without_a_traceback(tmp_path: Path) -> None:
    wrong = call(tmp_path, schedules={"n": {"cron": "30 25 * * *"}})
    assert wrong.exit_code == 3
    assert "hour 25: hours are 0 to 23" in wrong.output
    assert call(tmp_path, "--schedule", "nigthly").exit_code == 2
    assert "there are: nightly, off, once" in call(tmp_path, "--schedule", "nigthly").output
    assert "is no time; write it like" in call(tmp_path, "--since", "tomorrow").output
    assert call(tmp_path, "-n", "0").exit_code == 2
    assert call(tmp_path, schedules={}).output == "job has no schedules\n"
