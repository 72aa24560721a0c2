"""The contract of what moves a bundle's code from one place to another: a journal, a worker of a cluster."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class BundleContent(Protocol):
    """A version of a bundle that can be carried away; `BundleVersion` is one."""

    @property
    def digest(self) -> str:
        """What identifies the content: equal files have equal digests, on every machine."""
        ...

    def export(self) -> bytes:
        """Return the files as bytes, which `BundleAdopter.adopt` takes. Equal files give equal bytes."""
        ...


@runtime_checkable
class BundleAdopter(Protocol):
    """Takes up bundles that were exported elsewhere; `Server.registry` is one."""

    async def adopt(self, name: str, digest: str, content: bytes) -> BundleContent:
        """Load the version `digest` of the bundle `name` out of what `export` returned.

        It stands beside the current version and does not become it. Raises `BundleRefusedError` where the content
        has another digest or cannot be read, `BundleLoadError` where its code fails.
        """
        ...
