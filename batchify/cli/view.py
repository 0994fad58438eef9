"""The command `batchify view`: a page about a file, served on this machine."""

from __future__ import annotations

import signal
import sys

import click

from batchify.cli.boundary import boundary
from batchify.cli.help import Command, option
from batchify.cli.next_steps import is_terminal
from batchify.cli.output import echo
from batchify.common.text import printable

_STOPPED = 128 + signal.SIGINT
_OTHER_PORT = " (its usual port is taken: marks of other times are not shown)"


@click.command(cls=Command)
@click.argument("file", metavar="OUT", type=click.Path())
@option(
    "--port", type=click.IntRange(0, 65535), metavar="N",
    help="Port of 127.0.0.1; 0 for any.  [default: one that depends on the file]",
)  # fmt: skip
@option(
    "--browser/--no-browser", default=None,
    help="Open the page in a browser.  [default: in a terminal]",
)  # fmt: skip
@option(
    "--trusted", is_flag=True,
    help="Show stored image files beyond the default limits too, for files that you built.",
)  # fmt: skip
@click.pass_context
def view(
    context: click.Context, /, file: str, port: int | None, browser: bool | None, trusted: bool
) -> None:
    """Browse the rows of a file in a local page.

    OUT is a file, or a folder of shards, that `batchify build` made, or a URL. You browse rows by
    split, class and finding, search their paths, see each image at full size with all that is
    known about it, and mark rows to exclude from the next build. The page is served to this
    machine only, and nothing is written. Press Ctrl-C to stop.

    \b
    Examples:
        batchify view out.h5
        batchify view shards/ --no-browser
        batchify view out.h5 --port 8000
    """
    try:
        with boundary():
            _serve(file, port, browser, trusted=trusted)
    except click.ClickException as error:
        if error.exit_code != _STOPPED:
            raise
        context.exit(_STOPPED)  # the usual end of this command, and no error to tell


def _serve(file: str, port: int | None, browser: bool | None, *, trusted: bool) -> None:
    from batchify.viewing.server import view as open_view

    with open_view(file, port=port, trusted=trusted) as found:
        note = "" if found.is_usual or port is not None else _OTHER_PORT
        echo(f"{printable(found.name)}: {found.url}{note}", always=True)
        sys.stdout.flush()
        if browser or (browser is None and is_terminal()):
            import webbrowser

            webbrowser.open(found.url_once)
        found.serve()
