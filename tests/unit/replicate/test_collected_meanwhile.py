"""Garbage is collected at a stratum 0 while a replica is in the middle of a pull: the revision that it was given stays whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.cvmfs.hash import ObjectKind
from publisher.errors import RepositoryDamaged
from tests.support.collecting import DAY, collect_later, publish_image, remove_image
from tests.support.memory_store import MemoryStore
from tests.support.replicas import pull, replica_problems
from tests.support.repositories import FQRN, new_repository
from tests.support.repository_server import RepositoryServer


@pytest.mark.parametrize(("waited", "is_whole"), [(DAY - 1, True), (2 * DAY, False)], ids=["within the grace", "after it"])
async def test_a_pull_is_served_for_the_grace_period(tmp_path: Path, waited: float, is_whole: bool) -> None:
    """Its manifest is read; then the image goes, and the garbage with it; then come the objects."""
    repository, source = new_repository(tmp_path / "stratum0")
    publish_image(repository, "kept")
    publish_image(repository, "gone")
    given = repository.manifest()
    replica, spool = MemoryStore(), tmp_path / "spool"
    deleted = 0

    async with RepositoryServer(source, FQRN).running() as server:

        def collect_once(path: str) -> None:
            nonlocal deleted
            if path == given.root.object_path(ObjectKind.CATALOG):
                server.on_request = lambda _: None
                remove_image(repository, "gone")
                deleted = collect_later(repository, waited).deleted.objects

        server.on_request = collect_once
        if is_whole:
            result = await pull(server.url, replica, spool)
            assert result.manifest.root == given.root
            assert replica_problems(replica, spool) == []
        else:
            with pytest.raises(RepositoryDamaged, match="missing at the source"):
                await pull(server.url, replica, spool)
            assert ".cvmfspublished" not in replica.files
        assert deleted
        assert (await pull(server.url, replica, spool)).manifest.revision == given.revision + 1
    assert replica_problems(replica, spool) == []
