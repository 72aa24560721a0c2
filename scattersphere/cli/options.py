"""What several commands share: the option `--json`, and how a command ends with an error."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, one value a line.")


def fail(exc: Exception) -> NoReturn:
    """End with the message of an error and the code 3, without a traceback."""
    sys.stderr.write(f"scattersphere: {exc}\n")
    raise SystemExit(3)
