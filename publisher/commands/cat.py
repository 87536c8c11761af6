"""`debark-publisher cat`: the content of a file in a repository."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import click

from mirror.errors import InvalidInput, NotFound
from publisher.commands.reading import public_key_option, tag_option, url_option
from publisher.commands.report import Report
from publisher.commands.verb import path_value, verb
from publisher.commands.workplace import Workplace
from publisher.cvmfs.path import show


@verb("cat")
@click.argument("path")
@tag_option
@url_option
@public_key_option
def cat(place: Workplace, _report: Report, *, path: str, name: str | None, url: str | None, public_key: Path | None) -> None:
    """Write the content of the file PATH of the repository FQRN to standard output, verified piece by piece."""
    wanted = path_value(path)
    with place.opened(url, public_key) as opened:
        snapshot = opened.snapshot(name)
        entry = snapshot.lookup(wanted)
        if entry is None:
            raise NotFound(f"{show(wanted)} does not exist in {place.fqrn}")
        if not stat.S_ISREG(entry.mode):
            to = f", but a link to {show(entry.symlink)}" if entry.symlink else ""
            raise InvalidInput(f"{show(wanted)} is not a regular file{to}")
        for piece in snapshot.content(entry):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
