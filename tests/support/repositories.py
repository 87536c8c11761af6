"""Repositories for tests: keys are made once, clocks are set by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from publisher.check import check
from publisher.creation import create_repository
from publisher.keys import RepositoryKeys
from publisher.repository import Repository
from publisher.spool import RepositorySettings
from tests.support.memory_store import MemoryStore

FQRN = "layers.example.org"
NOW = 1_800_000_000.0
SETTINGS = RepositorySettings(compressor="zlib-6", ttl=60)


@cache
def keys_of(fqrn: str) -> RepositoryKeys:
    return RepositoryKeys.generate(fqrn, datetime.fromtimestamp(NOW, UTC))


class Clock:
    """Seconds since the epoch, moved by tests."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def new_repository(
    directory: Path, *, fqrn: str = FQRN, clock: Callable[[], float] | None = None
) -> tuple[Repository, MemoryStore]:
    """An empty repository in memory, with its keys and spool below a directory."""
    keys = directory / "keys"
    if not keys.exists():
        keys_of(fqrn).save(keys)
    clock = clock or Clock()
    store = MemoryStore(clock)
    repository = create_repository(fqrn, store, keys=keys, spool=directory / "spool" / fqrn, settings=SETTINGS, clock=clock)
    return repository, store


def reopened(repository: Repository, directory: Path) -> Repository:
    """The same repository as another process finds it, which remembers nothing."""
    fqrn = repository.fqrn
    return Repository.open(
        fqrn, repository.store, keys=directory / "keys", spool=directory / "spool" / fqrn, clock=repository.clock
    )  # fmt: skip


def problems(repository: Repository, *, data: bool = True) -> list[str]:
    """What a full check finds, as text."""
    return [str(problem) for problem in check(repository.reader(), contains=repository.store.contains, data=data)]
