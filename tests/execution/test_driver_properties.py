"""All promises of the design, section 6, on whole Servers: any job, any requests in any order, code that changes."""

from driver_world import cases, play
from hypothesis import HealthCheck, given, settings


def budget(examples):
    """The settings of a property: `--hypothesis-profile thorough` tries a hundred times as many."""
    factor = 100 if settings.get_current_profile_name() == "thorough" else 1
    return settings(max_examples=examples * factor, deadline=None, suppress_health_check=list(HealthCheck))


@budget(150)
@given(cases())
def test_every_promise_holds_whatever_is_asked_in_whatever_order(case):
    play(case)
