"""`debark-publisher ingest`: unpack an archive at a path, delete others, all in one revision."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click

from mirror.errors import InvalidInput, NotFound
from mirror.jobs.notes import Notes
from publisher.audit import Act
from publisher.commands.report import Report, size
from publisher.commands.verb import path_value, verb
from publisher.commands.workplace import Workplace
from publisher.cvmfs.cuts import CutLimits, GrowthLimits
from publisher.cvmfs.entry import Directory
from publisher.cvmfs.path import ROOT
from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layer_settings import layer_limits, layer_policy
from publisher.layers.ingest import LayerResult, ingest_layer
from publisher.overlay import date, lay_over
from publisher.repository import Repository
from publisher.transaction import Transaction

_STDIN = "-"


@verb("ingest")
@click.option(
    "-t", "--tar", metavar="FILE", help="Archive to unpack, plain or compressed with gzip or zstd; - for standard input."
)
@click.option("-b", "--base", metavar="PATH", default="", help="Directory to unpack into; the root of the repository without it.")
@click.option("-d", "--delete", "deleted", metavar="PATH", multiple=True, help="Path to delete before; may be repeated.")
@click.option("-c", "--catalog", is_flag=True, help="Give the base directory a nested catalog of its own.")
@click.option("--replace", is_flag=True, help="Delete what the base directory holds now; the same as --delete of it.")
def ingest(
    place: Workplace,
    report: Report,
    *,
    tar: str | None,
    base: str,
    deleted: tuple[str, ...],
    catalog: bool,
    replace: bool,
) -> None:
    """Unpack an archive in the repository FQRN, and publish it: no mount, no root, no transaction to open before.

    Directories that exist are kept, and what the archive has is laid over them. Devices, sockets and all extended attributes but
    user.* are left out, and said so.
    """
    into = path_value(base)
    gone = [path_value(path) for path in deleted] + ([into] if replace else [])
    if tar is None and not gone and not catalog:
        raise InvalidInput("nothing to do: name an archive (--tar), paths to delete (--delete), or ask for a catalog (--catalog)")
    if ROOT in gone or (catalog and into == ROOT):
        raise InvalidInput("the root directory of a repository cannot be deleted, and always has a catalog; name a --base")
    repository = place.repository()
    since = time.time()
    unpacked = None if tar is None else _unpack(place, repository, tar, report)
    growth = GrowthLimits(entries=place.config.publish.catalog_entries)
    limits = CutLimits(most=place.config.publish.catalog_entries)
    with report.progress("publishing"), Transaction(repository, limits=limits, growth=growth) as transaction:
        transaction.rely_on(since)
        for path in gone:
            if not transaction.remove(path):
                raise NotFound(f"{path.decode('utf-8', 'backslashreplace')} does not exist in {place.fqrn}; nothing was changed")
        if unpacked is not None:
            _put(transaction, into, unpacked.tree, catalog=catalog)
        elif catalog:
            transaction.make_catalog(into)
        published = transaction.commit()
    # Nobody's access is changed here, as it is in the root file systems of images.
    entries, notes = (
        (unpacked.entries, dataclasses.replace(unpacked.notes, access_added=0)) if unpacked is not None else (0, Notes())
    )
    paths = [into.decode("utf-8", "backslashreplace")] if unpacked is not None else []
    deleted_paths = [path.decode("utf-8", "backslashreplace") for path in gone]
    revision = published.revision
    place.audit.record(Act.CHANGED, fqrn=place.fqrn, revision=revision, what="ingest", names=paths, removed=deleted_paths)
    if notes.left_out:
        report.warn(notes.words())
    report.result(
        f"{place.fqrn} is at revision {published.revision}: {entries} entries unpacked"
        + (f" ({size(unpacked.size)})" if unpacked is not None else "")
        + (f", {len(gone)} paths deleted" if gone else ""),
        fqrn=place.fqrn,
        revision=published.revision,
        root=str(published.root_hash),
        entries=entries,
        bytes=unpacked.size if unpacked is not None else 0,
        deleted=len(gone),
        notes=notes.as_dict(),
        seconds=round(time.time() - since, 3),
    )


def _put(transaction: Transaction, into: bytes, tree: Directory, *, catalog: bool) -> None:
    now = int(time.time())
    if catalog and not transaction.exists(into):
        date(tree, now)
        transaction.graft(into, tree)
        return
    lay_over(transaction, into, tree, now)
    if catalog:
        transaction.make_catalog(into)


def _unpack(place: Workplace, repository: Repository, tar: str, report: Report) -> LayerResult:
    with ExitStack() as stack:
        archive = _open(tar, stack)
        total = None if tar == _STDIN else Path(tar).stat().st_size
        pipeline = stack.enter_context(place.pipeline(repository))
        update = stack.enter_context(report.progress(f"unpacking {tar}", is_bytes=True))
        counted = _Counted(archive, lambda done: update(done, total))
        publish = place.config.publish
        try:
            return ingest_layer(counted, None, pipeline, layer_limits(publish), deletions=False, policy=layer_policy(publish))
        except (BrokenLayer, UnsafeLayer) as error:
            raise type(error)(f"{'standard input' if tar == _STDIN else tar}: {error}") from error


def _open(tar: str, stack: ExitStack) -> BinaryIO:
    if tar == _STDIN:
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(tar).open("rb"))
    except OSError as error:
        raise InvalidInput(f"the archive {tar} cannot be read: {error.strerror}") from error


class _Counted:
    """Tells how much of a stream was read."""

    def __init__(self, stream: BinaryIO, told: Callable[[int], None]) -> None:
        self._stream = stream
        self._told = told
        self._done = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        self._told(self._done)
        return data
