"""Numbers in the paths of requests."""

from __future__ import annotations

from starlette.convertors import IntegerConvertor, register_url_convertor


class _Number(IntegerConvertor):
    """As Starlette's `int`, which hands Python more digits than it converts: a path of 5,000 was an error of ours."""

    regex = "[0-9]{1,18}"


NUMBER = "scattersphere_number"
"""What stands behind the colon of a number in a path. Starlette has one table of them for the whole program."""
register_url_convertor(NUMBER, _Number())
