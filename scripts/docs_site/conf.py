"""Sphinx builds the site of the documentation from the pages of the package and these."""

import re
from itertools import groupby

import click
from docutils import nodes

from batchify import __version__

project = "batchify"
author = "the batchify maintainers"
project_copyright = f"2026, {author}"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
smartquotes = False
html_theme = "furo"
html_theme_options = {"top_of_page_buttons": []}
html_title = f"batchify {__version__}"
html_static_path = ["static"]
html_css_files = ["batchify.css"]
html_copy_source = False
myst_heading_anchors = 3
default_role = "py:obj"
python_maximum_signature_line_length = 80
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_google_docstring = False
napoleon_use_rtype = False


def write_description(_app, _context, lines):
    """Write what click must not wrap as code: whole paragraphs, or what is indented in them."""
    written = []
    for is_kept, group in groupby(lines, key=lambda line: line.startswith("| ")):
        texts = [line.removeprefix("| ") for line in group]
        if is_kept:
            start = next((i for i, text in enumerate(texts) if text.startswith(" ")), 0)
            code = [".. code-block:: text", "", *(f"   {text}" for text in texts[start:]), ""]
            written += [*map(escaped, texts[:start]), "", *code]
        else:
            written += map(escaped, texts)
    lines[:] = written


def write_options(_app, context, lines):
    """Write the options under the headings of the help, each with its default in its text."""
    lines.clear()
    context.auto_envvar_prefix = None  # or a list of environment variables would follow
    sections = {}
    for option in context.command.get_params(context):
        option.envvar = None
        record = isinstance(option, click.Option) and option.get_help_record(context)
        if record:
            names = record[0].replace(" / ", ", ")
            entry = [f".. option:: {names}", "", f"   {escaped(record[1])}", ""]
            sections.setdefault(getattr(option, "section", "General"), []).extend(entry)
    if "General" in sections:
        sections["General"] = sections.pop("General")  # last
    for heading, entries in sections.items():
        lines += [f".. rubric:: {heading}", "", *entries]


def omit_arguments(_app, _context, lines):
    """Omit the list of arguments: the text tells of them."""
    lines.clear()


def escaped(text):
    """Return a text of the command line as reStructuredText, in which options are code."""
    parts = re.split(r"(`[^`]*`|(?<![\w-])--[a-z][a-z-]+)", text)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"``{part.strip('`')}``"
        else:
            part = re.sub(r"[\\*_|]", r"\\\g<0>", part)
            parts[i] = re.sub(r"(?<!http)(?<!https)://", r"\\://", part)  # no link to tcp://host
    return "".join(parts)


def fold_options(_app, function, _is_bound):
    """Show the options of a build as ``**keywords`` in a signature; `build` lists them once."""
    attributes = getattr(getattr(function, "__func__", function), "__dict__", {})
    if "keywords" in getattr(function, "__annotations__", {}):
        attributes.pop("__signature__", None)


def mark_text(_app, document):
    """Mark options and sentences in tables for the style sheet; set a dash after parameters."""
    for text in document.findall(nodes.Text):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))
    for literal in document.findall(nodes.literal):
        if literal.astext().startswith("-"):
            literal["classes"].append("option")
    for table in document.findall(nodes.table):
        for row in table.findall(nodes.row):
            long = [cell for cell in row if len(cell.astext()) > 40]
            for cell in long:
                cell["classes"].append("sentence")
            if row[-1] in long and "stacked" not in table["classes"]:
                table["classes"].append("stacked")


def setup(app):
    """Connect the functions above."""
    app.connect("sphinx-click-process-description", write_description)
    app.connect("sphinx-click-process-epilog", write_description)
    app.connect("sphinx-click-process-options", write_options)
    app.connect("sphinx-click-process-arguments", omit_arguments)
    app.connect("autodoc-before-process-signature", fold_options)
    app.connect("doctree-read", mark_text)
