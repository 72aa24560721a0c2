"""Commands about bundles and the task classes in them."""

from __future__ import annotations

from typing import Annotated

from scattersphere.commands import views
from scattersphere.commands.access import Role
from scattersphere.commands.arguments import Arg
from scattersphere.commands.errors import RequestError
from scattersphere.commands.gateway import Context
from scattersphere.commands.paging import LIMIT, Cursor, Limit, page
from scattersphere.commands.paths import bundle_file, bundle_name
from scattersphere.commands.table import Reply, command
from scattersphere.errors import BundleRefusedError
from scattersphere.registry.snapshots.scan import refuse_untrusted

BundleName = Annotated[str, Arg("the name of a bundle")]


@command("bundles", role=Role.VIEWER, example="bundles etl", method="GET", path="/bundles", idempotent=True)
async def bundles(
    context: Context,
    *,
    name: Annotated[str | None, Arg("only this bundle")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Reply:
    """List bundles, their versions and errors."""
    gateway, principal = context.gateway, context.principal
    sees_run = gateway.sees_run_number(principal)
    if name is not None:
        return {"bundles": [views.bundle_view(gateway.bundle(principal, name), sees_run)]}
    found = gateway.server.registry.bundles
    names, more = page(
        (each for each in sorted(found) if (cursor is None or each > cursor) and principal.sees_bundle(each)),
        limit,
    )
    return {"bundles": [views.bundle_view(found[each], sees_run) for each in names], **more}


@command("tasks", role=Role.VIEWER, example="tasks etl", method="GET", path="/tasks", idempotent=True)
async def tasks(
    context: Context,
    *,
    bundle: Annotated[str | None, Arg("only the tasks of this bundle")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Reply:
    """List the tasks that jobs can be made of."""
    gateway, principal = context.gateway, context.principal
    if bundle is not None:
        gateway.bundle(principal, bundle, "bundle")
    found = {
        path: task
        for path, task in gateway.server.registry.tasks.items()
        if principal.sees_bundle(task.bundle) and bundle in {None, task.bundle}
    }
    paths, more = page((path for path in sorted(found) if cursor is None or path > cursor), limit)
    return {"tasks": [views.task_row(path, found[path]) for path in paths], **more}


@command(
    "task",
    role=Role.VIEWER,
    example="task etl.load.LoadDay",
    method="GET",
    path="/tasks/{path}",
    idempotent=True,
)
async def task(
    context: Context, *, path: Annotated[str, Arg("the path of a task, as `tasks` shows it")]
) -> Reply:
    """Show a task and its parameters."""
    return views.task_view(context.gateway.task(context.principal, path))


@command("register", role=Role.ADMIN, example="register etl.py", method="POST", path="/bundles", slow=True)
async def register(
    context: Context,
    *,
    file: Annotated[str, Arg("the name of a file or folder in the bundle roots")],
    name: Annotated[str | None, Arg("the bundle's name; by default the file's")] = None,
) -> Reply:
    """Load a bundle from the bundle roots."""
    gateway = context.gateway
    name = name or bundle_name(file)
    place = bundle_file(file, gateway.bundle_roots)
    gateway.check_load(context.principal, file, name, place)
    try:
        refuse_untrusted(place, gateway.bundle_roots)
        bundle = await gateway.server.register(place, name=name)
    except BundleRefusedError as exc:  # it names the server's folders
        raise RequestError("forbidden", str(exc).replace(f"{place.parent}/", ""), field="file") from None
    return {"bundle": bundle.name} | views.bundle_view(bundle, gateway.sees_run_number(context.principal))


@command(
    "deregister",
    role=Role.ADMIN,
    example="deregister etl require_idle",
    method="DELETE",
    path="/bundles/{name}",
    slow=True,
)
async def deregister(
    context: Context,
    *,
    name: BundleName,
    force: Annotated[bool, Arg("cancel the runs that need it first")] = False,
    require_idle: Annotated[bool, Arg("refuse while runs need it")] = False,
) -> Reply:
    """Withdraw a bundle."""
    gateway, principal = context.gateway, context.principal
    bundle = gateway.bundle(principal, name)
    hidden = [run for run in bundle.runs if not gateway.sees_run_number(principal)(run)]
    if (force or require_idle) and hidden:
        raise RequestError("forbidden", "runs need the bundle that your token does not cover", field="name")
    await gateway.server.deregister(name, force=force, require_idle=require_idle)
    return {"bundle": name}


@command(
    "reload", role=Role.ADMIN, example="reload etl", method="POST", path="/bundles/{name}/reload", slow=True
)
async def reload(context: Context, *, name: BundleName) -> Reply:
    """Load what changed in a bundle."""
    gateway, principal = context.gateway, context.principal
    known = gateway.bundle(principal, name)
    if known.path is not None:
        gateway.check_load(principal, known.path.name, name, known.path)
    bundle = await gateway.server.reload(name)
    return {"bundle": bundle.name} | views.bundle_view(bundle, gateway.sees_run_number(principal))
