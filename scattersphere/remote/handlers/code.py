"""Bundles and the task classes in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scattersphere.remote import views
from scattersphere.remote.errors import RequestError
from scattersphere.remote.places import bundle_file

if TYPE_CHECKING:
    from scattersphere.remote.handlers.scene import Scene


async def bundles(scene: Scene, arguments: Any) -> Any:
    """List bundles."""
    front, principal = scene.front, scene.principal
    sees_run = front.sees_run_number(principal)
    if arguments.name is not None:
        return {"bundles": [views.bundle_view(front.bundle(principal, arguments.name), sees_run)]}
    found = front.server.registry.bundles
    return {
        "bundles": [views.bundle_view(found[name], sees_run) for name in found if principal.sees_bundle(name)]
    }


async def tasks(scene: Scene, arguments: Any) -> Any:
    """List task classes."""
    front, principal = scene.front, scene.principal
    if arguments.bundle is not None:
        front.bundle(principal, arguments.bundle, "bundle")
    rows = [
        views.task_row(path, task)
        for path, task in front.server.registry.tasks.items()
        if principal.sees_bundle(task.bundle) and arguments.bundle in {None, task.bundle}
    ]
    return {"tasks": sorted(rows, key=lambda row: row["task"])}


async def task(scene: Scene, arguments: Any) -> Any:
    """Show a task class."""
    return views.task_view(scene.front.task(scene.principal, arguments.path))


async def register(scene: Scene, arguments: Any) -> Any:
    """Load a bundle from the roots."""
    front = scene.front
    place = bundle_file(arguments.file, front.bundle_roots)
    name = arguments.name or place.name.split(".")[0].split("-")[0].lower()
    if not scene.principal.sees_bundle(name):
        raise RequestError(
            "forbidden", f"your token covers no bundle of the name {name[:64]!r}", field="name"
        )
    bundle = await front.server.register(place, name=name)
    return {"bundle": bundle.name} | views.bundle_view(bundle, front.sees_run_number(scene.principal))


async def deregister(scene: Scene, arguments: Any) -> Any:
    """Withdraw a bundle."""
    front, principal = scene.front, scene.principal
    bundle = front.bundle(principal, arguments.name)
    hidden = [run for run in bundle.runs if not front.sees_run_number(principal)(run)]
    if arguments.force and hidden:
        raise RequestError("forbidden", "runs need the bundle that your token does not cover", field="force")
    await front.server.deregister(arguments.name, force=arguments.force, require_idle=arguments.require_idle)
    return {"bundle": arguments.name}


async def reload(scene: Scene, arguments: Any) -> Any:
    """Take up what changed in a bundle."""
    front = scene.front
    front.bundle(scene.principal, arguments.name)
    bundle = await front.server.reload(arguments.name)
    return {"bundle": bundle.name} | views.bundle_view(bundle, front.sees_run_number(scene.principal))
