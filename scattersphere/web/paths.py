"""Path convertors for Starlette routes, stricter than its own: numbers that Python converts, any characters."""

from __future__ import annotations

from starlette.convertors import IntegerConvertor, PathConvertor, register_url_convertor


class _Number(IntegerConvertor):
    """As Starlette's `int`, which hands Python more digits than it converts: a path of 5,000 was an error of ours."""

    regex = "[0-9]{1,18}"


class _Rest(PathConvertor):
    """As Starlette's `path`, which ends at a line feed: what lies behind one was answered as if it were a page."""

    regex = r"[\s\S]*"


NUMBER = "scattersphere_number"
REST = "scattersphere_rest"
"""What stands behind the colon of a number, or of all that is left, in a path."""
register_url_convertor(NUMBER, _Number())
register_url_convertor(REST, _Rest())
