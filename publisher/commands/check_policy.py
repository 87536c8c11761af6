"""`debark-publisher check-policy`: whether a policy file could be put in force."""

from __future__ import annotations

from pathlib import Path

import click

from mirror.errors import InvalidInput
from publisher.commands.verb import EXIT_FAILED
from publisher.policy_file import PolicyFile


@click.command(name="check-policy")
@click.argument("file", type=click.Path(path_type=Path))
def check_policy(file: Path) -> None:
    """Report every mistake in the policy FILE, one a line: before it is moved to where `publish.policy_file` points.

    Exit codes: 0 all is well; 1 there are mistakes.
    """
    try:
        PolicyFile(file)
    except InvalidInput as error:
        click.echo(str(error), err=True)
        raise click.exceptions.Exit(EXIT_FAILED) from error
    click.echo(f"{file}: all is well")
