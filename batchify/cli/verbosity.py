"""Decide how much a command prints: ``--quiet`` and ``--verbose``."""

from __future__ import annotations

import os

import click
from click.core import ParameterSource

from batchify._version import __version__
from batchify.cli.config import config_path, own_variable

_LEVEL = "batchify.verbosity."


def keep_level(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Remember the value of ``--quiet`` or ``--verbose`` for everything the command prints."""
    context.meta[_LEVEL + str(parameter.name)] = value
    if is_quiet() and is_verbose():
        raise click.UsageError("--quiet and --verbose cannot be combined")


def is_quiet() -> bool:
    """Return whether the running command prints only errors and requested data."""
    return _is("quiet")


def is_verbose() -> bool:
    """Return whether the running command prints more than usual."""
    return _is("verbose")


def _is(name: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_LEVEL + name))


def versions_text() -> str:
    """Return the versions of batchify and of the libraries that decode and store."""
    from batchify.decoding import pillow_settings, turbo
    from batchify.format import structure

    decoders = pillow_settings.library_versions() | turbo.library_version()
    libraries = decoders | structure.versions()
    listed = ", ".join(f"{name} {version}" for name, version in libraries.items())
    return f"batchify {__version__} ({listed})"


def limits_text() -> str:
    """Return how many CPUs this process may use, and how much memory."""
    from batchify.common import system
    from batchify.common.text import plural, size_text

    memory = system.usable_memory()
    text = "" if memory is None else f", {size_text(memory)} of memory"
    return plural(system.usable_cpus(), "CPU") + text


def tell_origins(context: click.Context) -> None:
    """Report on stderr if options come from a file; with ``--verbose``, the source of each."""
    if is_quiet() or (context.params.get("json") and not is_verbose()):
        return
    sources = {
        ParameterSource.COMMANDLINE: "the command line",
        ParameterSource.ENVIRONMENT: "the environment",
        ParameterSource.DEFAULT_MAP: config_path(context),
    }
    if is_verbose():
        click.echo(versions_text(), err=True)
        click.echo(limits_text(), err=True)
    for source, name in sources.items():
        options = ", ".join(_from(context, source))
        if options and is_verbose():
            click.echo(f"options from {name}: {options}", err=True)
        elif options and source is ParameterSource.DEFAULT_MAP:
            click.echo(f"options from {name}", err=True)


def origin_text(context: click.Context, param: click.Parameter | None) -> str:
    """Return where a value comes from, unless that is the command line."""
    if param is None:
        return ""
    source = context.get_parameter_source(str(param.name))
    if source is ParameterSource.DEFAULT_MAP:
        return f"from {config_path(context)}"
    if source is ParameterSource.ENVIRONMENT:
        more = param.envvar or ()
        names = [
            own_variable(context, str(param.name)),
            *([more] if isinstance(more, str) else more),
        ]
        return f"from {next(filter(os.environ.get, names))}"
    return ""


def _from(context: click.Context, source: ParameterSource) -> list[str]:
    """Return the options of a command that come from a source."""
    return [
        each.opts[-1].removeprefix("--")
        for each in context.command.params
        if isinstance(each, click.Option) and context.get_parameter_source(str(each.name)) is source
    ]
