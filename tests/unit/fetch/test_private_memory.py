"""Tags of private repositories: in memory, with an answer for each set of media types."""

from __future__ import annotations

from mirror.fetch.private_memory import RememberedTags
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import RepositoryName
from mirror.store.tags import TagRecord
from tests.support.state import digest_of

NAME = RepositoryName.of("docker.io", "team/secret")


async def test_a_tag_is_forgotten_for_one_set_of_types_or_for_all() -> None:
    tags = RememberedTags(10)
    for accept in ("", "type/a", "type/b"):
        await tags.put(NAME, "1", TagRecord(digest_of(accept), OCI_MANIFEST, 3, 1.0), accept)
    found = [await tags.look(NAME, "1", accept) for accept in ("", "type/a", "type/c")]
    assert [record and record.digest for record in found] == [digest_of(""), digest_of("type/a"), None]
    await tags.forget(NAME, "1", "type/a")
    assert [await tags.get(NAME, "1", accept) is None for accept in ("", "type/a", "type/b")] == [False, True, False]
    await tags.forget(NAME, "1")
    assert [await tags.get(NAME, "1", accept) for accept in ("", "type/b")] == [None, None]
