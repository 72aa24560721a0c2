"""The options: one class for all fronts, each with its default, its unit and what it means."""

from __future__ import annotations

import inspect
import os

import attrs
import pytest
from test_reference import extension, page

from scattersphere import (
    ArgumentError,
    Server,
    ServerKeywords,
    ServerOptions,
    SourceLimits,
    SyncServer,
    WatchDelays,
)
from scattersphere._options import option_rows
from scattersphere.remote import Limits, ListenKeywords, listen
from scattersphere.remote.serve import ServeOptions, serve

__all__ = ["extension"]
CLASSES = [ServerOptions, WatchDelays, SourceLimits, Limits]


def test_type_checkers_know_every_option_by_its_name() -> None:
    assert set(ServerKeywords.__annotations__) == {field.name for field in attrs.fields(ServerOptions)}
    for cls in (Server, SyncServer):
        hint = inspect.signature(cls).parameters["options"]
        assert (hint.kind, hint.annotation) == (hint.VAR_KEYWORD, "Unpack[ServerKeywords]")


def test_type_checkers_know_what_listen_takes_by_its_names() -> None:
    names = [name for name in inspect.signature(listen).parameters if name != "server"]
    assert list(ListenKeywords.__annotations__) == names


@pytest.mark.parametrize("cls", CLASSES)
def test_every_option_says_what_it_means_and_the_page_has_it(cls, extension) -> None:
    table = extension("options")["rows"](cls)
    assert [name for name, *_ in table] == [field.name for field in attrs.fields(cls)]
    assert all(all(row) for row in table)
    home = "scattersphere.remote" if cls is Limits else "scattersphere"
    assert f"```{{options}} {home}.{cls.__name__}\n" in page("reference/options.md")
    timed = [row for row in option_rows(cls) if isinstance(row.default, float)]
    assert all(row.unit in {"seconds", "lines a second"} for row in timed)


def test_a_server_has_its_options_as_they_were_given_and_the_defaults_of_the_rest(tmp_path) -> None:
    server = Server(bundle_roots=[str(tmp_path)], pools={"db": 4}, history=[5, 60])  # type: ignore[typeddict-item]
    assert server.options == ServerOptions(bundle_roots=(tmp_path,), pools={"db": 4}, history=(5, 60))
    assert Server(**server.options.as_dict()).options == server.options
    assert SyncServer().options == ServerOptions()


def test_an_unknown_option_is_told_with_the_nearest_one() -> None:
    with pytest.raises(TypeError, match=r"a Server has no option 'thread'; did you mean \"threads\"\?"):
        Server(thread=4)  # type: ignore[call-arg]


def test_results_are_kept_exactly_or_as_pickles() -> None:
    assert Server(results="pickle").options.results == "pickle"
    with pytest.raises(ArgumentError, match='results is "exact" or "pickle"'):
        Server(results="json")  # type: ignore[typeddict-item]


def test_a_flag_is_a_flag_and_a_folder_a_folder() -> None:
    for name in ("adopt", "watch_jobs", "fire_schedules", "capture_print"):
        with pytest.raises(TypeError, match=f"{name} is True or False, not int"):
            Server(**{name: 1})
    for name in ("job_folder", "log_folder", "snapshot_folder"):
        with pytest.raises(TypeError, match=f"{name} is the path of a folder or None"):
            Server(**{name: 5})


def test_a_table_of_a_file_says_all_that_a_file_can_and_all_that_is_wrong_at_once() -> None:
    found, wrong = ServerOptions.from_table(
        {
            "threads": 3,
            "watch": {"settle": 1.5},
            "pools": {"db": 2},
            "backends": {},
            "grace": "x",
            "hsitory": 1,
        }
    )
    assert found == {"threads": 3, "watch": WatchDelays(settle=1.5), "pools": {"db": 2}}
    assert len(wrong) == 3
    assert 'did you mean "history"' in wrong[-1]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_serve_makes_its_server_with_the_options_of_its_file(tmp_path, anyio_backend) -> None:
    seen: list[ServerOptions] = []

    async def attend(server: Server) -> None:
        seen.append(server.options)
        os.kill(os.getpid(), 15)

    options = ServeOptions(unix=tmp_path / "run" / "socket", server={"threads": 3, "history": (5, 60)})
    await serve(options, say=lambda _: None, complain=lambda _: None, attend=attend)
    assert (seen[0].threads, seen[0].history) == (3, (5, 60))
