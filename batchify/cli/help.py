"""Print the help of commands: options in headed sections, rare ones in ``--help-all``."""

from __future__ import annotations

import functools
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from batchify.cli.boundary import JsonCommand, error_messages
from batchify.cli.config import load_config
from batchify.cli.option_types import Names
from batchify.cli.output import Context, colored_errors, wanted_color
from batchify.cli.verbosity import keep_level, origin_text, tell_origins
from batchify.common.text import printable

if TYPE_CHECKING:
    from click.types import OptionHelpExtra

GENERAL = "General"
"""The last section of every help: how the command prints, and the help itself."""

_ALL = "batchify.help_all"
_NAME_WIDTH = 26
"""The text of an option with a longer name is below it."""


class Option(click.Option):
    """An option of a section of the help; a rare one is shown by ``--help-all`` only."""

    of_build = False
    """Whether it is one of ``build``, for which other commands read its table, too."""

    def __init__(
        self, *arguments: Any, section: str = "Options", rare: bool = False, **settings: Any
    ) -> None:
        self.section, self.rare = section, rare
        super().__init__(*arguments, **settings)

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        """Return the text after an option's help, without ranges of numbers: errors name them."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


option = functools.partial(click.option, cls=Option)
"""Declare an `Option` of a command."""


class Command(JsonCommand):
    """A command with headed sections in its help; an option with one value may be given once.

    Parameters
    ----------
    general : bool
        Whether it has ``--quiet``, ``--verbose`` and ``--config``.
    tells_origins : bool
        Whether to say where options come from before it runs; else it does so itself.
    """

    context_class = Context

    def __init__(
        self, *arguments: Any, general: bool = True, tells_origins: bool = True, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.tells_origins = tells_origins
        if general:
            self.params += [
                Option(
                    ["-q", "--quiet"], is_flag=True, expose_value=False, callback=keep_level,
                    section=GENERAL, help="Print nothing but errors, and JSON with --json.",
                ),
                Option(
                    ["-v", "--verbose"], is_flag=True, expose_value=False, callback=keep_level,
                    section=GENERAL, help="Print more: versions, origins of options, tracebacks.",
                ),
                Option(
                    ["--config"], type=click.Path(exists=True, dir_okay=False), is_eager=True,
                    expose_value=False, callback=load_config, metavar="FILE", section=GENERAL,
                    envvar=["BATCHIFY_CONFIG", "BATCHIFY_BUILD_CONFIG"],
                    help="File of options.  [default: batchify.toml or pyproject.toml]",
                ),
            ]  # fmt: skip
        if rare := sum(_is_rare(each) for each in self.params):
            self.params.append(
                Option(
                    ["--help-all"], is_flag=True, is_eager=True, expose_value=False,
                    allow_from_autoenv=False, callback=_show_all, section=GENERAL,
                    help=f"Show {rare} more options, which are rarely needed.",
                )
            )  # fmt: skip

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by section, common ones first, in the same two columns."""
        sections: dict[str, list[tuple[str, str]]] = {}
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        for param in sorted(options, key=_is_rare):
            record = param.get_help_record(ctx)
            if record and (ctx.meta.get(_ALL) or not _is_rare(param)):
                sections.setdefault(getattr(param, "section", GENERAL), []).append(record)
        names = [name for rows in sections.values() for name, _ in rows]
        width = max(len(name) for name in names if len(name) <= _NAME_WIDTH)
        sections[GENERAL] = sections.pop(GENERAL)  # last
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; click would silently take the last value."""
        given = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.BadParameter as error:
            if origin := origin_text(ctx, error.param):
                vars(error)["message"] = f"{error.message.rstrip('.')} ({origin})"
            raise
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(given)
            for each, count in Counter(order).items():
                if isinstance(each, click.Option) and count > 1 and _has_one_value(each):
                    how = ""
                    if isinstance(each.type, Names):
                        how = f", with all names: {each.opts[0]} a,b"
                    times = "twice" if count == 2 else f"{count} times"
                    raise click.UsageError(
                        f"{each.opts[0]} is given {times}; give it once{how}", ctx
                    )
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Report where options come from, and run the command."""
        if self.tells_origins:
            tell_origins(ctx)
        return super().invoke(ctx)


class Group(click.Group):
    """The group of commands: in color on a terminal, with summaries that are never cut."""

    context_class = Context

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:  # fmt: skip
        """Parse the command line; choose whether to print in color."""
        with colored_errors(), error_messages():
            return super().make_context(info_name, args, parent, color=wanted_color(), **extra)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for the name of a dataset, say how to build it."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            if not os.path.isdir(args[0]):
                raise
            name = printable(args[0])
            raise click.UsageError(
                f"No such command {name!r}; to build it: batchify build {name} out.h5", ctx
            ) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with colored_errors(), error_messages():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the commands, in the order in which people use them."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with the whole first sentence of its help."""
        names = [name for name in self.list_commands(ctx) if not self.commands[name].hidden]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.commands[name].get_short_help_str(limit=1000)) for name in names]
            )


def _show_all(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        context.meta[_ALL] = True
        click.echo(context.get_help(), color=context.color)
        context.exit()


def _is_rare(param: click.Parameter) -> bool:
    return isinstance(param, Option) and param.rare and not param.hidden


def _has_one_value(option: click.Option) -> bool:
    return not (option.multiple or option.is_flag or option.count)
