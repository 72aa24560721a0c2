"""No two classes of the library have one name: who reads `Command` need not ask which."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import scattersphere

PACKAGE = Path(scattersphere.__file__).parent


def test_no_two_classes_have_one_name() -> None:
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for file in PACKAGE.rglob("*.py"):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(str(file.relative_to(PACKAGE)))
    assert {name: sorted(files) for name, files in homes.items() if len(files) > 1} == {}
