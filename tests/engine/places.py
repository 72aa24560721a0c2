"""Every place at which the engine serves a run: each function of each of its classes, read from the code itself.

So a new function, class or module is one more place, and what may break there is tested without anybody's having to
think of it; what cannot be a place of that kind stands in `NO_PLACES`, with the reason.
"""

import importlib
import inspect
import pkgutil

from scattersphere import engine

READ = "it is read by who asks, and told to him"
SHARED = "pure, and of all runs: it breaks for all of them, or for none"
BEFORE = "before there is a run"
NO_PLACES = {
    "engine.backends": "a backend is plugged in: its contract says what becomes of its faults",
    "engine.defects": "it is what ends the run",
    "engine.events.pages": READ,
    "engine.events.streams": READ,
    "engine.invocation": "it runs users' code in a thread: what is raised there is the attempt's failure",
    "engine.loops": "the loop itself: where that is broken the engine ends",
    "engine.machine.codes": SHARED,
    "engine.machine.dispatcher": SHARED,
    "engine.machine.facts": "a run is taken up again, or refused, by jobs/",
    "engine.machine.graph": BEFORE,
    "engine.observer": "it is made with the Server",
    "engine.plan": "it fills in users' values: what is raised there is the attempt's failure",
    "engine.planning": BEFORE,
    "engine.processhooks": "of the process, and no run's",
    "engine.recorder": "one transaction for all runs: where it is broken for one, it is for all",
    "engine.run": READ,
    "engine.status": READ,
    "engine.timers": SHARED,
    "engine.suspension": "while the Server is closed: see `test_a_defect_while_a_run_is_suspended`",
    "engine.views": READ,
    "engine.watchdog": "a thread of its own: it looks at the loop, and serves nobody",
}
DOORS = {
    "Attempt": "what a body calls: what is raised in the door itself is told to the body; what is behind it are places",
    "BodyCallbacks": "held",
    "Execution": "descends_from result time_of",
    "Holds": "check _hold_thread",
    "JobExecutor": """_check_start guard guard_call defect crash crash_run soon submit""",
    "AttemptRunner": "_serve _crash_with",
    "RunRequests": "ask request inherit",
}
"""Where a defect is caught, or told to who asks: a class with a reason, or its functions."""
OF_ALL = {
    "Admission": "check enter give_back next waits_for _job_full _take_out",
    "AttemptRunner": "open",
    "CommandQueue": "work",
    "Holds": "_look _look_in _looking _timed",
    "JobExecutor": """_attempt_expired _context_of_caller _crash_first _go_on _on_alarm _pump _resize _start_ready
        _tell_news admit call_at check_loop limit_changed make note_where now on_loop pump_now turn_now wake""",
    "Moves": "_asdict _replace",
    "Reports": "tell_blocked",
    "StartDecision": "_generate_next_value_",
}
"""What serves no run alone."""
EARLIER_LIFE = {
    "AttemptRunner": "_ended_with_taken_result",
    "EventNumbers": "replay",
    "Execution": "note_event renew show take_up",
    "Propagation": "admit_again count_ended is_admitted",
    "Recording": "take_concluded",
    "RunMachine": "reuse",
    "RunRequests": "ask_late",
    "RunRows": "_dropped_rows",
}
"""Of runs that go on, or are run again: jobs/ carries that out, and says what becomes of them where it fails."""
RARE = {
    "Attempt": "is_of",
    "AttemptRunner": "_died _hold_starts _lost _start_late _unstuck",
    "Canceller": "abandon kill_refusers shorten suspend",
    "CommandQueue": "_work_on",
    "EventNumbers": "time_of",
    "Execution": "discard_log has_result keep_secret upstream_results",
    "JobExecutor": "_compacting _crash_starting",
    "Propagation": "_cut _fail_fast _withhold",
    "ReadyTasks": "amount_of free_shared full_limit make_fast_queue push_roots put_back reclaim drop",
    "Recording": "_encoded _tell_unkept give_up give_up_row has_ended holds_start",
    "Reports": "_tell_blocked",
    "RunMachine": """_cancel_all_pending _refusal call_off compact crash end_of_stuck finally_timeout interrupted kill lose
        stop suspend timeout work""",
    "RunRecord": "count_reader",
    "RunRequests": "_ask_child _reclaim _run_timed_out arm_run_timeout give_places",
    "RunRows": "_success_row small_text",
}
"""What none of the scenarios here comes to for sure."""
ONCE = {
    "Admission": "leave",
    "AttemptRunner": "_forget _forget_timers",
    "Canceller": "interrupt _interrupt",
    "Execution": "wake_waiters",
    "Holds": "release",
    "ReadyTasks": "free take_back",
    "Recording": "_submitted",
}
"""What ends, wakes, kills and gives back: where that is broken for good, nothing can do it."""
LOGGING = {"make_log", "take_log"}
"""Without these a run has no log to write in: the engine's own logger has the traceback."""


def stands_in(table, owner, name):
    """Whether a place stands in one of these tables."""
    named = table.get(owner.__name__, "")
    return name in named.split() or (table is DOORS and owner.__name__ == "Attempt")


def _is_place(module):
    name = module.__name__.removeprefix("scattersphere.")
    return not any(name == each or name.startswith(f"{each}.") for each in NO_PLACES)


def modules():
    """Return the modules of the engine."""
    found = pkgutil.walk_packages(engine.__path__, f"{engine.__name__}.")
    return [importlib.import_module(each.name) for each in found]


def wrong_names():
    """Return what stands in the tables and is no place any more."""
    known = {owner.__name__: owner for owner in classes()}
    return [
        f"{owner}.{name}"
        for table in (DOORS, OF_ALL, EARLIER_LIFE, RARE, ONCE)
        for owner, names in table.items()
        if not (table is DOORS and owner == "Attempt")
        for name in names.split()
        if owner not in known or name not in vars(known[owner])
    ]


def classes():
    """Return the classes of the engine that serve runs."""
    return [
        thing
        for module in modules()
        if _is_place(module)
        for thing in vars(module).values()
        if inspect.isclass(thing)
        and thing.__module__ == module.__name__
        and not getattr(thing, "_is_protocol", False)
    ]


def places():
    """Return each function of each of these classes that a call leads to: (class, name)."""
    return [
        (owner, name)
        for owner in classes()
        for name, function in vars(owner).items()
        if inspect.isfunction(function)
        and not inspect.iscoroutinefunction(function)
        and not (name.startswith("__") and name.endswith("__"))
        and not any(stands_in(table, owner, name) for table in (DOORS, OF_ALL, EARLIER_LIFE, RARE))
    ]
