"""Sphinx builds the site of the documentation from the pages of the package and these."""

from batchify import __version__

project = "batchify"
author = "the batchify developers"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
smartquotes = False
html_theme = "furo"
html_title = f"batchify {__version__}"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_google_docstring = False
napoleon_use_rtype = False


def escape(_app, _context, lines):
    """Escape what a text of the command line has for reStructuredText by chance."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith(("..", ":")):
            start = "| " if line.startswith("| ") else ""
            text = line.removeprefix("| ").replace("`", "``")
            lines[i] = start + "".join("\\" + c if c in "*_|\\" else c for c in text)


def setup(app):
    """Connect the command reference with `escape`."""
    for part in ("description", "options", "epilog"):
        app.connect(f"sphinx-click-process-{part}", escape)
