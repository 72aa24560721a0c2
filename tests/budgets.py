"""How many cases a property tries that has a budget of its own, because each case is dear."""

from hypothesis import HealthCheck, settings

SHARES = {"default": 1 / 8, "steady": 1 / 8, "ci": 1, "thorough": 100}
"""Of the number that stands at the property, by `HYPOTHESIS_PROFILE`."""


def budget(examples):
    """Return the settings of a property: so many examples in CI, an eighth of them in `make test`."""
    share = SHARES[settings.get_current_profile_name()]
    return settings(
        max_examples=max(1, round(examples * share)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
