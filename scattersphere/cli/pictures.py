"""Pictures that `run --trace` and `--picture` write when a run has ended."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from scattersphere._text import did_you_mean
from scattersphere.cli.outcome import USAGE, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scattersphere.engine.run import Run

PNG_TIME = 120
"""Seconds that Graphviz may take for a picture."""


def _png(run: Run) -> bytes:
    done = subprocess.run(  # noqa: S603 - the program was looked up by `check_picture`
        [shutil.which("dot") or "dot", "-Tpng"],
        input=run.to_dot().encode(),
        capture_output=True,
        check=False,
        timeout=PNG_TIME,
    )
    if done.returncode:
        raise OSError(f"Graphviz failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


_FORMS: dict[str, Callable[[Run], bytes]] = {
    ".svg": lambda run: run.to_svg().encode(),
    ".png": _png,
    ".mmd": lambda run: run.to_mermaid().encode(),
    ".dot": lambda run: run.to_dot().encode(),
    ".txt": lambda run: run.to_tree().encode(),
}
"""What draws a file, by the ending of its name."""


def check_picture(path: Path | None) -> None:
    """Raise `Refusal` before anything runs, if a picture of that name could not be drawn."""
    if path is None:
        return
    if path.suffix not in _FORMS:
        known = ", ".join(_FORMS)
        hint = did_you_mean(path.suffix, _FORMS)
        raise Refusal(USAGE, f"--picture {path}: a picture's name ends in {known}{hint}")
    if path.suffix == ".png" and shutil.which("dot") is None:
        raise Refusal(
            USAGE, f"--picture {path}: Graphviz draws .png, and there is no program dot; take .svg instead"
        )


def write_pictures(run: Run, trace: Path | None, picture: Path | None) -> list[str]:
    """Write the files that were asked for; return what cannot be written, in words."""
    wanted: list[tuple[Path, Callable[[Run], bytes]]] = []
    if trace is not None:
        wanted.append((trace, lambda run: run.to_trace().encode()))
    if picture is not None:
        wanted.append((picture, _FORMS[picture.suffix]))
    unwritten = []
    for path, draw in wanted:
        try:
            path.write_bytes(draw(run))
        except (OSError, subprocess.TimeoutExpired) as exc:
            unwritten.append(f"{path}: {getattr(exc, 'strerror', None) or exc}")
    return unwritten
