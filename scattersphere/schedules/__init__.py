"""Schedules: when a job is started by itself (cron expressions, intervals, single times).

`cron`, `triggers`, `occurrences` and `check` are pure; `scheduler` is the driver, which has the clock; `schedule` and
`backfill` are what a host holds.
"""
