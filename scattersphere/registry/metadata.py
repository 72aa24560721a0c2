"""`importlib.metadata` as the code of a bundle sees it: its own distributions come before the host's."""

from __future__ import annotations

import importlib.metadata
import re
from importlib.metadata import Distribution, EntryPoints, PathDistribution
from types import ModuleType
from typing import TYPE_CHECKING, Any

from scattersphere.registry.layout import normal_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scattersphere.registry.imports import VersionSpace

_METADATA = re.compile(r"([^/]+)\.dist-info/METADATA")


class MetadataFacade(ModuleType):
    """`importlib.metadata`, where `version("mylib")` means the copy of `mylib` that the bundle brings."""

    def __init__(self, space: VersionSpace) -> None:
        super().__init__("importlib.metadata", importlib.metadata.__doc__)
        self._space = space

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.metadata, name)

    def distribution(self, distribution_name: str) -> Distribution:
        """Return the bundle's distribution of this name, else the host's."""
        wanted = normal_name(distribution_name)
        own = next((found for name, found in self._own() if name == wanted), None)
        return own or importlib.metadata.distribution(distribution_name)

    def distributions(self, **kwargs: Any) -> Iterator[Distribution]:
        """Yield the bundle's distributions and those of the host that it does not bring itself."""
        if kwargs:  # a search of one's own: `path=[...]`
            yield from importlib.metadata.distributions(**kwargs)
            return
        own = dict(self._own())
        yield from own.values()
        for found in importlib.metadata.distributions():
            if normal_name(found.metadata["Name"] or "") not in own:
                yield found

    def version(self, distribution_name: str) -> str:
        """Return the version of a distribution."""
        return self.distribution(distribution_name).version

    def metadata(self, distribution_name: str) -> Any:
        """Return the metadata of a distribution."""
        return self.distribution(distribution_name).metadata

    def requires(self, distribution_name: str) -> list[str] | None:
        """Return what a distribution requires."""
        return self.distribution(distribution_name).requires

    def files(self, distribution_name: str) -> Any:
        """Return the files of a distribution."""
        return self.distribution(distribution_name).files

    def entry_points(self, **params: Any) -> EntryPoints:
        """Return the entry points of the bundle's distributions, and those of the host."""
        entries = [entry for found in self.distributions() for entry in found.entry_points]
        return EntryPoints(entries).select(**params)

    def _own(self) -> Iterator[tuple[str, Distribution]]:
        space = self._space
        for file in space.digests:
            match = _METADATA.fullmatch(file)
            if match is not None:
                name = normal_name(match[1].partition("-")[0])
                yield name, PathDistribution(space.folder / f"{match[1]}.dist-info")
