"""The documentation site: ``make docs``. Its source folder is the repository: pages link as they do on a disk."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from rtda_deploy import __version__  # noqa: E402

project = "rtda-deploy"
release = version = __version__
author = "the rtda-deploy authors"
copyright = "the rtda-deploy authors, Apache-2.0"  # Sphinx's own name for it

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "docker/*.md", "training/*.md", "export/*.md", "runtime/*.md"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"rtda-deploy {release}"
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["site.css"]


def _no_type(app: object, what: str, name: str, found: object, options: object, lines: list) -> None:
    """Napoleon takes what stands before a colon in a property's first line for its type."""
    if what in ("property", "attribute") and lines:
        lines[0] = lines[0].replace(": ", " – ", 1)


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _no_type, priority=400)  # type: ignore[attr-defined]
