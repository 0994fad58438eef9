"""The command ``batchify completion``: the script that a shell reads to complete options."""

from __future__ import annotations

import click

from batchify.cli.help import Command


@click.command(cls=Command, general=False)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, /, shell: str) -> None:
    """Print the script that completes commands and options in a shell.

    \b
    For bash, in ~/.bashrc:
        eval "$(batchify completion bash)"

    \b
    For zsh, in ~/.zshrc, after compinit:
        eval "$(batchify completion zsh)"

    \b
    For fish, once:
        batchify completion fish > ~/.config/fish/completions/batchify.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        script = found(context.find_root().command, {}, "batchify", "_BATCHIFY_COMPLETE")
        click.echo(script.source())
