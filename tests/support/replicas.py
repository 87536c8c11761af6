"""Replicas for tests: a small repository, its copy, and what must hold for any copy at any time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mirror.upstream.policy import RetryPolicy
from publisher.check import check
from publisher.cvmfs.entry import Compression
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.reader import RepositoryReader
from publisher.objects.http_client import HttpLimits
from publisher.objects.store import ObjectStore
from publisher.replicate.model import Replicated, Replication, ReplicationLimits
from publisher.replicate.replica import replicate
from publisher.repository import Repository
from publisher.spool import Spool
from publisher.transaction import Transaction
from tests.support.repositories import FQRN, Clock, keys_of
from tests.support.sample_tree import directory, everything, regular

QUICK = RetryPolicy(attempts=3, first_delay=0.001, longest_delay=0.002)
LIMITS = ReplicationLimits(http=HttpLimits(connections=20, attempts=QUICK), threads=2)


def publish(repository: Repository, name: bytes, *, tag: str | None = None, nested: bool = True) -> None:
    """One more revision, with a tree of its own and catalogs on two levels."""
    tree = everything(repository.store)
    tree.children[b"own"] = regular(repository.store, name * 1000)
    with Transaction(repository) as transaction:
        transaction.graft(name, tree)
        if nested:
            transaction.make_catalog(name + b"/files")
        if tag:
            transaction.tag(tag)
        transaction.commit()


def publish_object(repository: Repository, content: ContentHash, size: int) -> None:
    """A revision with one file whose stored form is an object that somebody else provides."""
    tree = directory()
    tree.children[b"large"] = replace(regular(repository.store, b"x"), size=size, content=content, compression=Compression.NONE)
    with Transaction(repository) as transaction:
        transaction.graft(b"files", tree)
        transaction.commit()


async def pull(url: str, store: ObjectStore, spool: Path, **options: Any) -> Replicated:
    """Replicate the repository of `tests.support.repositories`."""
    told = {name: options.pop(name) for name in ("allow_older", "on_step") if name in options}
    return await replicate(replication(url, store, spool, **options), **told)


def replication(url: str, store: ObjectStore, spool: Path, **options: Any) -> Replication:
    """Of that repository, unless there is another `fqrn` among the options."""
    options = {"fqrn": FQRN, "limits": LIMITS, "clock": Clock(), **options}
    return Replication(url, master_key=keys_of(FQRN).master_public, store=store, spool=spool, **options)


def replica_problems(store: ObjectStore, spool: Path) -> list[str]:
    """What a full check finds in a replica; it describes its reference log itself."""
    reader = RepositoryReader(store, FQRN, keys_of(FQRN).master_public, clock=Clock())
    checksum = Spool(spool).reflog_checksum(store.read_file(".cvmfsreflog"))
    return [str(problem) for problem in check(reader, contains=store.contains, data=True, reflog_checksum=checksum)]
