"""The client of upstreams and the fetching of blobs with a real docker-registry."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mirror.errors import Denied, NotFound
from mirror.fetch.blobs import BlobFetcher
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference
from mirror.store.blobs import BlobStore
from mirror.upstream.model import Credential
from tests.support.fetching import read_all
from tests.support.hub import READER, Hub
from tests.support.upstreams import client_of

BLOB = random.Random(6).randbytes(3_000_000)


async def test_an_open_registry(hub: Hub, tmp_path: Path) -> None:
    digest = Digest.parse(hub.client().push_blob("upstream/open", BLOB))
    async with client_of(hub.url) as client:
        assert await client.head_blob("upstream/open", digest) == len(BLOB)
        async with client.open_blob("upstream/open", digest, 1_000_000) as stream:
            assert (stream.status, stream.total) == (206, len(BLOB))
            assert b"".join([chunk async for chunk in stream.chunks]) == BLOB[1_000_000:]
        with pytest.raises(NotFound, match="MANIFEST_UNKNOWN"):
            await client.get_manifest("upstream/open", Reference(tag="never"))
        fetcher = BlobFetcher(BlobStore(tmp_path, 0))
        assert await read_all(fetcher.fetch(client, "upstream/open", digest, len(BLOB))) == BLOB
        await fetcher.close()


async def test_a_registry_with_passwords(tmp_path: Path) -> None:
    with Hub(tmp_path, private=True) as hub:
        digest = Digest.parse(hub.client().push_blob("upstream/closed", BLOB))
        async with client_of(hub.url, credential=Credential(READER.user, READER.password)) as client:
            assert await client.head_blob("upstream/closed", digest) == len(BLOB)
        async with client_of(hub.url, credential=Credential(READER.user, "wrong")) as client:
            with pytest.raises(Denied):
                await client.head_blob("upstream/closed", digest)
        async with client_of(hub.url, anonymous=True, credential=Credential(READER.user, READER.password)) as client:
            with pytest.raises(Denied):
                await client.head_blob("upstream/closed", digest)
