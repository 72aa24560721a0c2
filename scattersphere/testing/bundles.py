"""Contract tests for a bundle's content on its way, `BundleContent` and `BundleAdopter`.

In a test suite of one's own::

    import pytest
    from scattersphere.testing.bundles import CHECKS

    @pytest.mark.anyio
    @pytest.mark.parametrize("check", CHECKS)
    async def test_contract(check):
        async with Server() as one, Server() as other:
            bundle = await one.register("etl")
            await check("etl", bundle.current, other.registry)

Each check is given the name of a bundle, a version of it, and what adopts it: in another place, which has not seen it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scattersphere.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from scattersphere.abc.ports import BundleAdopter, BundleContent


def _expect(condition: object, words: str) -> None:
    if not condition:
        raise AssertionError(words)


async def check_equal_files_give_equal_bytes(
    name: str, version: BundleContent, adopter: BundleAdopter
) -> None:
    """A version is exported to the same bytes again, and by who has adopted it."""
    content = version.export()
    _expect(isinstance(content, bytes), f"export gave {type(content).__name__}, not bytes")
    _expect(content == version.export(), "two exports of one version differ")
    adopted = await adopter.adopt(name, version.digest, content)
    _expect(adopted.export() == content, "what was adopted is exported to other bytes")


async def check_a_version_keeps_its_digest(name: str, version: BundleContent, adopter: BundleAdopter) -> None:
    """What is adopted has the digest that it was exported under, and adopting it again changes nothing."""
    content = version.export()
    for _ in range(2):
        adopted = await adopter.adopt(name, version.digest, content)
        _expect(adopted.digest == version.digest, f"{version.digest} became {adopted.digest}")


async def check_other_bytes_are_refused(name: str, version: BundleContent, adopter: BundleAdopter) -> None:
    """Bytes that have another digest, that were cut, or that are none of a bundle, raise `BundleError`."""
    content, digest = version.export(), version.digest
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    for what, wrong in (
        ("under another digest", (name, other, content)),
        ("that was cut", (name, digest, content[: len(content) // 2])),
        ("that is nothing", (name, digest, b"")),
        ("that is junk", (name, digest, b"\xff" * 64)),
    ):
        try:
            await adopter.adopt(*wrong)
        except BundleError:
            continue
        raise AssertionError(f"content {what} was adopted")


CHECKS: tuple[Callable[[str, BundleContent, BundleAdopter], Awaitable[None]], ...] = (
    check_equal_files_give_equal_bytes,
    check_a_version_keeps_its_digest,
    check_other_bytes_are_refused,
)
"""All checks."""
