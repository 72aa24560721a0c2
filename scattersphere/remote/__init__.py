"""The line protocol: sessions over TCP, TLS and unix sockets. Nothing of it is imported unless asked for.

`listen` makes a Server reachable; `TokenFile` says who may come in; `Limits` how much each may take.
`connect` is the client's side, `following` gives events over connections that break.
"""

from scattersphere.commands.access import Role
from scattersphere.commands.errors import ListenError
from scattersphere.commands.limits import Limits
from scattersphere.commands.tokens import TokenFile
from scattersphere.remote.client import DisconnectedError, RemoteClient, RemoteError, connect, find_token
from scattersphere.remote.following import following
from scattersphere.remote.listener import Listening
from scattersphere.remote.listening import ListenKeywords, listen

__all__ = [
    "DisconnectedError",
    "Limits",
    "ListenError",
    "ListenKeywords",
    "Listening",
    "RemoteClient",
    "RemoteError",
    "Role",
    "TokenFile",
    "connect",
    "find_token",
    "following",
    "listen",
]
