"""All promises of the design, section 6, on whole Servers: any job, any requests in any order, code that changes."""

import tempfile
from pathlib import Path

from budgets import budget
from driver_world import FileWorld, cases, play
from hypothesis import given


@budget(150)
@given(cases())
def test_every_promise_holds_whatever_is_asked_in_whatever_order(case):
    play(case)


@budget(20)
@given(cases(max_steps=8))
def test_every_promise_holds_while_the_code_is_edited_on_disk(case):
    """As above, with a bundle that is written and reloaded: loading takes real time, and a thread."""
    with tempfile.TemporaryDirectory() as folder:
        play(case, lambda case: FileWorld(case, Path(folder)))
