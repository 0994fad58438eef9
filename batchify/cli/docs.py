"""The command ``batchify docs``: the pages of the documentation, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batchify.cli.help import Command

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from click.shell_completion import CompletionItem


def _pages() -> dict[str, Traversable]:
    """Return the pages by their names, sorted."""
    from importlib.resources import files  # slow to import

    found = {page.name.removesuffix(".md"): page for page in (files("batchify") / "docs").iterdir()}
    return dict(sorted(found.items()))


def _title(page: Traversable) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _complete(
    _context: click.Context, _parameter: click.Parameter, begun: str
) -> list[str | CompletionItem]:
    return [name for name in _pages() if name.startswith(begun)]


@click.command(cls=Command, general=False)
@click.argument("page", required=False, shell_complete=_complete)
def docs(page: str | None) -> None:
    """List the pages of the documentation, or show PAGE.

    \b
    Examples:
        batchify docs
        batchify docs recipes
    """
    pages = _pages()
    if page is None:
        width = max(map(len, pages))
        lines = [f"{name.ljust(width)}  {_title(each)}" for name, each in pages.items()]
        click.echo("\n".join(lines))
        return
    if page not in pages:
        import difflib  # for this error alone

        close = difflib.get_close_matches(page, pages, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f", only {', '.join(pages)}"
        raise click.UsageError(f"there is no page {page!r}{hint}")
    click.echo_via_pager(pages[page].read_text(encoding="utf-8"))
