"""The profile `thorough`: properties try a hundred times as many examples (see `budgets.budget`)."""

from hypothesis import settings

settings.register_profile("thorough", settings.get_profile("default"))
