"""What is fuzzed. A target takes bytes and returns; whatever else it does is a finding.

Only errors of our tree may leave what reads strangers' bytes, and no input may be read in two ways.
"""

from __future__ import annotations

import contextlib
import tempfile
import types
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from scattersphere.commands.limits import Limits
from scattersphere.commands.tokens import TokenFile
from scattersphere.errors import ScattersphereError
from scattersphere.model.definition import JobDefinition
from scattersphere.registry.snapshots.archives import unpack
from scattersphere.registry.snapshots.scan import SourceLimits
from scattersphere.registry.snapshots.store import SourcePool
from scattersphere.remote.client import Events, RemoteClient, read_message
from scattersphere.remote.framing import Fault, Framer
from scattersphere.remote.render import RENDERERS
from scattersphere.remote.requests import read_request
from scattersphere.remote.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = contextlib.suppress(ScattersphereError)
_GATE = types.SimpleNamespace(blocked=lambda: 0.0, authenticate=lambda _: None, current=lambda _: True)
_FOLDER = Path(tempfile.mkdtemp(prefix="scattersphere-fuzz-"))


def _frames(pieces: list[bytes]) -> list[object]:
    """Return the frames of a line that is cut into pieces, up to one after which nothing may be read."""
    framer, found = Framer(), list[object]()
    for piece in [*pieces, None]:
        if piece is None:
            framer.end()
        else:
            framer.feed(piece)
        while (frame := framer.next(64)) is not None:
            found.append(frame)
            if isinstance(frame, Fault) and frame.fatal:
                return found
    return found


def framing(data: bytes) -> None:
    """The same frames come however the bytes are cut."""
    whole = _frames([data])
    cut = data[0] % (len(data) + 1) if data else 0
    if _frames([data[:cut], data[cut:]]) != whole:
        raise AssertionError(f"cut at {cut} it reads as something else")


def session(data: bytes) -> None:
    """A session answers whatever comes, in whole lines of ASCII but for telnet's answer."""
    talk = Session(name="s", instance="i", gate=_GATE, limits=Limits(), now=0.0, principal=None)  # type: ignore[arg-type]
    talk.receive(data, 0.0)
    talk.end_input()
    while talk.next_call(0.0) is not None:
        raise AssertionError("a call was made without authentication")
    said = talk.take().replace(b"\xff\xfc\x06", b"")
    if not said.isascii() or not said.endswith(b"\n"):
        raise AssertionError(said)


def words(data: bytes) -> None:
    """A line is a request with arguments that its command takes, or an error in words."""
    with REFUSED:
        read_request(data.decode("utf-8", "replace"), depth=32).arguments()


def definitions(data: bytes) -> None:
    """A definition that can be read can be written, and reads again as the same."""
    with REFUSED:
        job = JobDefinition.loads(data)
        if JobDefinition.loads(job.dumps()).dumps() != job.dumps():
            raise AssertionError("it reads again as something else")


def tokens(data: bytes) -> None:
    """Whatever is in a token file, nobody comes in, or the file is refused."""
    place = _FOLDER / "tokens.json"
    place.write_bytes(data)
    place.chmod(0o600)
    with REFUSED:
        file = TokenFile(place)
        file.refresh()
        if file.find("ss1_guess") is not None:
            raise AssertionError("a guess came in")


def archives(data: bytes) -> None:
    """An archive is taken whole, inside its folder, or refused."""
    for suffix in (".zip", ".whl"):
        place = _FOLDER / f"bundle{suffix}"
        place.write_bytes(data)
        place.chmod(0o600)
        with tempfile.TemporaryDirectory(dir=_FOLDER) as folder, REFUSED:
            unpack(place, Path(folder), SourceLimits(unpacked=1 << 20, entries=100), SourcePool())
        if [each.name for each in _FOLDER.iterdir() if not each.name.startswith(("bundle", "tokens", "tmp"))]:
            raise AssertionError("something was written outside")


def replies(data: bytes) -> None:
    """Whatever a server says is a message, or nonsense in words; and whatever it is can be shown."""
    client = RemoteClient(None)  # type: ignore[arg-type]
    with REFUSED:
        client._events[1] = Events(client, {"subscription": 1, "next": 1})  # noqa: SLF001 - no server is needed
        for line in data.split(b"\n"):
            message = read_message(line)
            client._dispatch(message)  # noqa: SLF001 - the same


def tables(data: bytes) -> None:
    """Whatever JSON a reply holds, nothing that leaves steers a terminal."""
    with REFUSED:
        result = read_message(b'{"n":1,"result":' + data.replace(b"\n", b" ") + b"}")
        for render in RENDERERS.values():
            text = render(result).decode("utf-8")
            if set(text) & set("\x1b\x07\x00\x7f\x9b\u202e\u2028"):
                raise AssertionError(text)


def zipped(files: dict[str, bytes]) -> bytes:
    """Return an archive, for the corpus."""
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        file.seek(0)
        return file.read()


_DEFINITION = (
    b'{"format":1,"name":"a","params":{"p":1},"tasks":{"x":{"task":"m.A","args":{"k":{"$param":"p"}}}}}'
)
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "framing": (framing, [b"ping\n{}\n\xff\xf4\xff\xfd\x06\n", b"\xef\xbb\xbf# a\r\nx"]),
    "session": (session, [b'auth x\n{"cmd":"ping","id":1}\nhello 2\n?\n', b"GET / HTTP/1.1\r\n"]),
    "words": (words, [b"run a 'b c' d:=[1] key=k", b"define " + _DEFINITION, b"cancel 7 grace=1.5"]),
    "definitions": (definitions, [_DEFINITION]),
    "tokens": (tokens, [b'{"format":1,"tokens":[{"name":"a","role":"admin","sha256":"00","patterns":[]}]}']),
    "archives": (archives, [zipped({"a.py": b"", "b/__init__.py": b"x"}), zipped({"../x.py": b""})]),
    "replies": (
        replies,
        [b'{"n":1,"result":{}}', b'{"event":"log","sub":1,"seq":2}\n{"bye":{"code":"idle"}}'],
    ),
    "tables": (tables, [b'{"runs":[{"a":1,"b":"\\u001b"}],"lines":[{"message":"x"}],"text":"a\\nb"}']),
}
RUNS: dict[str, int] = {
    "framing": 50_000,
    "session": 40_000,
    "words": 50_000,
    "definitions": 50_000,
    "tokens": 5_000,
    "archives": 2_000,
    "replies": 50_000,
    "tables": 50_000,
}
"""How many inputs come of the corpus by chance, the same each time: some five seconds of processor for each target."""
