"""`debark-publisher ls`: what is in a directory of a repository."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import click

from mirror.errors import NotFound
from publisher.commands.reading import public_key_option, tag_option, url_option
from publisher.commands.report import Report
from publisher.commands.verb import path_value, verb
from publisher.commands.workplace import Workplace
from publisher.cvmfs.entry import Entry
from publisher.cvmfs.path import basename, show

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@verb("ls")
@click.argument("path", default="")
@click.option("-l", "--long", "is_long", is_flag=True, help="Also mode, owner, size, time and targets of links.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below the directory, too.")
@tag_option
@url_option
@public_key_option
def ls(
    place: Workplace,
    report: Report,
    *,
    path: str,
    is_long: bool,
    recursive: bool,
    name: str | None,
    url: str | None,
    public_key: Path | None,
) -> None:
    """List PATH of the repository FQRN as clients see it, without mounting it. Symbolic links are not followed."""
    wanted = path_value(path)
    with place.opened(url, public_key) as opened:
        snapshot = opened.snapshot(name)
        entry = snapshot.lookup(wanted)
        if entry is None:
            raise NotFound(f"{show(wanted)} does not exist in {place.fqrn}")
        if not entry.is_directory:
            _show(basename(wanted), entry, report, is_long=is_long)
            return
        listing = snapshot.walk(wanted) if recursive else sorted(snapshot.listing(wanted).items())
        for found, each in listing:
            _show(found, each, report, is_long=is_long)


def _show(name: bytes, entry: Entry, report: Report, *, is_long: bool) -> None:
    text = shown = name.decode("utf-8", "backslashreplace")
    size = len(entry.symlink) if entry.symlink else entry.size
    if is_long:
        text = f"{stat.filemode(entry.mode)} {entry.uid:5} {entry.gid:5} {size:11} {_when(entry.mtime)} {shown}"
        text += f" -> {entry.symlink.decode('utf-8', 'backslashreplace')}" if entry.symlink else ""
    report.line(
        text,
        path=name.decode("utf-8", "surrogateescape"),
        kind=_KINDS[stat.S_IFMT(entry.mode)],
        mode=f"{stat.S_IMODE(entry.mode):04o}",
        uid=entry.uid,
        gid=entry.gid,
        size=size,
        mtime=entry.mtime,
        mtime_ns=entry.mtime_ns,
        target=entry.symlink.decode("utf-8", "surrogateescape") if entry.symlink else None,
        object=str(entry.content) if entry.content is not None else None,
        chunks=[str(chunk.content) for chunk in entry.chunks],
    )


def _when(seconds: int) -> str:
    """A time as people read it; one that no calendar has as the number that it is."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return f"@{seconds}"
