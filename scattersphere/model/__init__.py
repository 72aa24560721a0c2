"""The data model: definitions, states, events, log lines. Frozen classes and tables, no clock, no loop."""
