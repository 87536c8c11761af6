"""Options of the verbs that read a repository, wherever it is."""

from __future__ import annotations

from pathlib import Path

import click

url_option = click.option("-u", "--url", help="Read it over HTTP, from a stratum 0 or 1 such as http://HOST/cvmfs/FQRN.")
public_key_option = click.option(
    "-k",
    "--public-key",
    type=click.Path(path_type=Path),
    help="Public master key to trust; FQRN.pub in the data directory or in /etc/cvmfs/keys without it.",
)
tag_option = click.option(
    "-t", "--tag", "name", metavar="NAME", help="Named snapshot to look at; the current revision without it."
)
