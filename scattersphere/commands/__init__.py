"""The commands that a Server can be given from outside: one table, with rights, limits and audit, and no transport.

`table.command` enters a typed handler; what `help` says, JSON Schema, the wire's words and JSON, rights, and later
HTTP's routes are made from its row. The packages that carry bytes (`scattersphere.remote`) stand on it.
"""
