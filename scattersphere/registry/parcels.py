"""Loaded versions sent to another machine: their files, and what a worker process there needs to import them.

A version keeps its private name, so that a pickle that names one of its classes means the same here and there. The
files are checked against the digest where they arrive.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from scattersphere.registry.modules.namespace import DESCRIPTION, FINDER, PARENT
from scattersphere.registry.snapshots.scan import SourceLimits
from scattersphere.registry.snapshots.snapshot import adopt_snapshot, export_files
from scattersphere.registry.snapshots.store import digest_of_all

if TYPE_CHECKING:
    from scattersphere.registry.snapshots.store import SnapshotStore

_NAMED = re.compile(rf"{re.escape(PARENT)}\.(\w+)".encode())


class Parcel(NamedTuple):
    """A version, packed."""

    slug: str
    """The name of its package below `scattersphere.bundles`."""
    digest: str
    description: dict[str, Any]
    content: bytes
    """What `BundleVersion.export` gives."""


def versions_named(pickled: bytes) -> set[str]:
    """Return the private names of the versions whose classes or functions a pickle may name."""
    return {name.decode() for name in _NAMED.findall(pickled)}


def digest_of(slug: str) -> str | None:
    """Return the digest of the loaded version of that private name; None if there is none any more."""
    namespace = FINDER.namespace(slug)
    return None if namespace is None else digest_of_all(namespace.digests)


def pack(slug: str) -> Parcel:
    """Pack a loaded version; reads all its files, so call it in a thread.

    Raises LookupError if it is not loaded any more, BundleRefusedError if code that ran has changed one of its files.
    """
    namespace = FINDER.namespace(slug)
    if namespace is None:
        raise LookupError(f"the bundle version {slug} is not loaded any more")
    return Parcel(
        slug,
        digest_of_all(namespace.digests),
        namespace.description(),
        export_files(namespace.folder, namespace.digests),
    )


def unpack(parcel: Parcel, store: SnapshotStore, limits: SourceLimits | None = None) -> None:
    """Put a version into `store`, whose worker processes can import it from then on; nothing is imported here.

    Raises BundleRefusedError for content that has another digest.
    """
    folder = store.folder / parcel.slug
    try:
        adopted = adopt_snapshot(
            parcel.content, parcel.digest, folder,
            name=parcel.description["bundle"], limits=limits or SourceLimits(), pool=store.pool,
        )  # fmt: skip
        description = {**parcel.description, "folder": str(adopted.folder)}
        (folder / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")
    except BaseException:
        store.discard(parcel.slug)
        raise
