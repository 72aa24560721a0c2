"""Sphinx: `make docs`."""

import sys
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Scattersphere"
author = "The Scattersphere developers"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "lifecycle",
    "commands",
    "fields",
    "options",
    "annotations",
    "dst",
    "rooms",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "Scattersphere"
html_static_path = ["_static"]
html_css_files = ["pictures.css"]
html_show_copyright = False
smartquotes = False  # "--at" of a help text is no dash
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"


def setup(app: Any) -> None:
    """Show transcripts of sessions as they are; the tests find them by this name and replay them."""
    app.add_lexer("netcat", TextLexer)
