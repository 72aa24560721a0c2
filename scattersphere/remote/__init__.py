"""The line protocol: sessions over TCP, TLS and unix sockets. Nothing of it is imported unless asked for.

`listen` makes a Server reachable; `TokenFile` says who may come in; `Limits` how much each may take.
"""

from scattersphere.remote.errors import ListenError
from scattersphere.remote.limits import Limits
from scattersphere.remote.listener import Listening
from scattersphere.remote.listening import listen
from scattersphere.remote.roles import Role
from scattersphere.remote.tokens import TokenFile

__all__ = ["Limits", "ListenError", "Listening", "Role", "TokenFile", "listen"]
