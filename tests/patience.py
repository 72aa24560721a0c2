"""How long a test waits for what must come: one number for the whole suite."""

import os

PATIENCE = float(os.environ.get("TEST_PATIENCE", "120"))
"""Seconds before a test gives up. It is reached only if something is wrong, so it costs nothing, and no machine
is so slow that it may be short. `TEST_PATIENCE=10 make test` makes a test that hangs fail soon."""
