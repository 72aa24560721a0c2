"""The ASGI application. Run it: `uvicorn django_site.asgi:application`.

Django does not answer the lifespan of ASGI, so this wrapper does: it enters the Server when the application starts, and
leaves it when it ends.
"""

import os
from typing import Any

from django.core.asgi import get_asgi_application

from django_site.jobs_server import server

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_site.settings")
django = get_asgi_application()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer the lifespan ourselves, give the rest to Django."""
    if scope["type"] != "lifespan":
        await django(scope, receive, send)
        return
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await server.__aenter__()
            await send({"type": "lifespan.startup.complete"})
        else:
            await server.aclose()
            await send({"type": "lifespan.shutdown.complete"})
            return
