"""The profile `thorough`: properties try a hundred times as many examples (see `machine_world.budget`)."""

from hypothesis import settings

settings.register_profile("thorough", settings.get_profile("default"))
