"""Command-line options that lay settings over the configuration file, the same for mirror and publisher."""

from __future__ import annotations

from pathlib import Path

import click


def _named_urls(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        name, equals, url = value.partition("=")
        if not name or not equals or not url:
            raise click.BadParameter(f"'{value}' is not NAME=URL, such as hub.example.org=https://registry.example.org")
        pairs.append((name, url))
    return tuple(pairs)


file_option = click.option(
    "--config", "file", envvar="DEBARK_CONFIG", type=click.Path(path_type=Path), help="Configuration file (TOML)."
)
data_option = click.option(
    "--data", type=click.Path(path_type=Path), help="Data directory; $XDG_DATA_HOME/debark or ~/.local/share/debark without it."
)
upstream_option = click.option(
    "--upstream", "upstreams", metavar="NAME=URL", multiple=True, callback=_named_urls, help="Mirror this registry too."
)
log_level_option = click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="The least that is logged."
)
