"""`python -m benchmarks` lists them; `python -m benchmarks NAME [OPTIONS]` runs one."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path


def benchmarks() -> dict[str, str]:
    """Return the first line of each benchmark's docstring, by name. A benchmark is what can be run."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        source = path.read_text(encoding="utf-8")
        if 'if __name__ == "__main__"' in source:
            found[path.stem] = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return found


def main() -> None:
    known = benchmarks()
    if len(sys.argv) < 2:
        print("python -m benchmarks NAME, where NAME is one of")
        for name, summary in known.items():
            print(f"  {name:12} {summary}")
        return
    name = sys.argv[1]
    if name not in known:
        sys.exit(f"no benchmark {name!r}; there are: {', '.join(known)}")
    sys.argv = sys.argv[1:]
    runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
