"""Tags and links, as the manifest and blob handlers use them."""

from __future__ import annotations

import pytest

from mirror.errors import InvalidInput, Unavailable
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor
from mirror.oci.reference import RepositoryName
from mirror.state.engine import Database, DatabaseSettings
from mirror.store.links import Links
from mirror.store.tags import TagRecord, Tags
from tests.support.state import SwitchedDatabase, digest_of

DEBIAN = RepositoryName.of("docker.io", "debian")
OTHER = RepositoryName.of("quay.io", "other/debian")
LAYER = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest_of("layer"), 5_000_000_000)
CONFIG = Descriptor("application/vnd.oci.image.config.v1+json", digest_of("config"), 700)
MANIFEST = Descriptor(OCI_MANIFEST, digest_of("manifest"), 480)


def _record(digest: str, checked_at: float = 1.5) -> TagRecord:
    return TagRecord(digest_of(digest), OCI_MANIFEST, 480, checked_at)


async def test_a_tag_survives_the_process_and_belongs_to_one_repository(database: Database) -> None:
    await Tags(database).put(DEBIAN, "12", _record("a", 1_700_000_000.25))
    restarted = Tags(database)
    assert await restarted.get(DEBIAN, "12") == _record("a", 1_700_000_000.25)
    assert await restarted.get(OTHER, "12") is None
    assert await restarted.get(DEBIAN, "13") is None


async def test_an_older_answer_never_replaces_a_newer_one(database: Database) -> None:
    await Tags(database).put(DEBIAN, "12", _record("new", 20.0))
    await Tags(database).put(DEBIAN, "12", _record("old", 10.0))
    restarted = await Tags(database).get(DEBIAN, "12")
    assert restarted is not None
    assert restarted.digest == digest_of("new")


async def test_tags_that_point_at_a_digest(database: Database) -> None:
    tags = Tags(database)
    for tag, digest in (("latest", "a"), ("12", "a"), ("11", "b")):
        await tags.put(DEBIAN, tag, _record(digest))
    await tags.put(OTHER, "stolen", _record("a"))
    assert await tags.pointing_at(DEBIAN, digest_of("a")) == ["12", "latest"]
    await tags.put(DEBIAN, "latest", _record("c", 2.0))
    assert await tags.pointing_at(DEBIAN, digest_of("a")) == ["12"]


async def test_a_tag_that_the_upstream_has_deleted_is_forgotten(database: Database) -> None:
    tags = Tags(database)
    await tags.put(DEBIAN, "12", _record("a"))
    await tags.forget(DEBIAN, "12")
    await tags.forget(DEBIAN, "13")
    for remaining in (tags, Tags(database)):
        assert await remaining.get(DEBIAN, "12") is None
        assert await remaining.pointing_at(DEBIAN, digest_of("a")) == []


async def test_a_tag_has_an_answer_for_each_set_of_types_and_is_forgotten_with_all_of_them(database: Database) -> None:
    tags = Tags(database)
    await tags.put(DEBIAN, "12", _record("index"))
    for accept, digest in (("type/a", "a"), ("type/b", "b")):
        await tags.put(DEBIAN, "12", _record(digest), accept)
    for remaining in (tags, Tags(database)):
        found = [await remaining.get(DEBIAN, "12", accept) for accept in ("", "type/a", "type/b", "type/c")]
        assert found == [_record("index"), _record("a"), _record("b"), None]
    assert await tags.pointing_at(DEBIAN, digest_of("index")) == ["12"]
    assert await tags.pointing_at(DEBIAN, digest_of("a")) == []
    await tags.forget(DEBIAN, "12", "type/a")
    for remaining in (tags, Tags(database)):
        assert [await remaining.get(DEBIAN, "12", accept) for accept in ("", "type/a")] == [_record("index"), None]
    await tags.forget(DEBIAN, "12")
    for remaining in (tags, Tags(database)):
        assert [await remaining.get(DEBIAN, "12", accept) for accept in ("", "type/b")] == [None, None]


async def test_a_warm_tag_and_a_warm_link_cost_no_sql(database: SwitchedDatabase) -> None:
    tags, links = Tags(database), Links(database)
    await tags.put(DEBIAN, "12", _record("a"))
    await links.add(DEBIAN, MANIFEST, [CONFIG, LAYER])
    assert await links.find(DEBIAN, LAYER.digest) == LAYER
    uses = database.uses
    await tags.get(DEBIAN, "12")
    await links.find(DEBIAN, LAYER.digest)
    await links.manifest(MANIFEST.digest)
    await links.add(DEBIAN, MANIFEST, [CONFIG, LAYER])
    assert database.uses == uses


async def test_a_tag_is_remembered_even_if_it_could_not_be_stored(database: SwitchedDatabase) -> None:
    tags = Tags(database)
    database.away = True
    with pytest.raises(Unavailable):
        await tags.put(DEBIAN, "12", _record("a"))
    assert await tags.get(DEBIAN, "12") == _record("a")


async def test_content_is_found_only_in_the_repository_whose_manifest_names_it(database: Database) -> None:
    await Links(database).add(DEBIAN, MANIFEST, [CONFIG, LAYER, LAYER])
    restarted = Links(database)
    assert await restarted.find(DEBIAN, LAYER.digest) == LAYER
    assert await restarted.find(DEBIAN, MANIFEST.digest) == MANIFEST
    assert await restarted.find(OTHER, LAYER.digest) is None
    assert await restarted.find(DEBIAN, digest_of("unknown")) is None


async def test_a_manifest_has_the_media_type_with_which_it_was_stored(database: Database) -> None:
    links = Links(database)
    index = Descriptor(OCI_INDEX, digest_of("index"), 900)
    await links.add(DEBIAN, index, [MANIFEST])
    assert await Links(database).manifest(index.digest) == index
    assert await Links(database).manifest(MANIFEST.digest) is None, "listed, but never fetched"
    await links.add(DEBIAN, MANIFEST, [LAYER])
    assert await Links(database).manifest(MANIFEST.digest) == MANIFEST


async def test_who_was_given_a_manifest_asks_for_its_blobs_without_sql(database: SwitchedDatabase) -> None:
    links = Links(database)
    await links.add(DEBIAN, MANIFEST, [CONFIG, LAYER])
    before = database.uses
    assert [await links.find(DEBIAN, blob.digest) for blob in (CONFIG, LAYER)] == [CONFIG, LAYER]
    assert database.uses == before


async def test_links_are_added_for_each_repository_even_if_manifest_and_link_are_known(database: Database) -> None:
    await Links(database).add(OTHER, MANIFEST, [LAYER])
    links = Links(database)
    await links.add(DEBIAN, Descriptor(OCI_INDEX, digest_of("index"), 900), [MANIFEST])
    await links.find(DEBIAN, MANIFEST.digest)
    await links.manifest(MANIFEST.digest)
    await links.add(DEBIAN, MANIFEST, [LAYER])
    assert await links.find(DEBIAN, LAYER.digest) == LAYER


async def test_a_manifest_that_names_a_manifest_as_its_layer_does_not_change_what_that_is(database: Database) -> None:
    links = Links(database)
    await links.add(DEBIAN, MANIFEST, [LAYER])
    forged = Descriptor(LAYER.media_type, MANIFEST.digest, 1)
    await links.add(DEBIAN, Descriptor(OCI_MANIFEST, digest_of("forger"), 480), [forged])
    assert await Links(database).find(DEBIAN, MANIFEST.digest) == MANIFEST


async def test_an_index_may_name_thousands_of_manifests(database: Database) -> None:
    references = [Descriptor(OCI_MANIFEST, digest_of(f"child {number}"), number) for number in range(6000)]
    await Links(database).add(DEBIAN, Descriptor(OCI_INDEX, digest_of("index"), 900), references)
    assert await Links(database).find(DEBIAN, references[-1].digest) == references[-1]


@pytest.mark.parametrize("url", ["mysql://127.0.0.1/x", "not a url", "sqlite+nosuch:///x", "sqlite+pysqlite:///x"])
def test_a_url_that_cannot_work_is_refused_in_words(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"state database|driver"):
        Database(DatabaseSettings(url))


async def test_a_database_that_cannot_be_reached_is_unavailable_and_its_password_is_not_shown() -> None:
    database = Database(DatabaseSettings("sqlite:////nonexistent/directory/state.sqlite"))
    with pytest.raises(Unavailable, match=r"state database sqlite.*/nonexistent/directory/state.sqlite"):
        await Tags(database).get(DEBIAN, "12")
    await database.close()
    hidden = Database(DatabaseSettings("postgresql://user:secret@127.0.0.1:1/state", wait_seconds=1.0))
    with pytest.raises(Unavailable) as caught:
        await Tags(hidden).get(DEBIAN, "12")
    assert "secret" not in str(caught.value)
    await hidden.close()
