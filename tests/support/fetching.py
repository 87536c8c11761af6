"""A store, a client and a fetcher in front of a registry that misbehaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.fetch.blobs import BlobFetcher
from mirror.fetch.download import DownloadPolicy
from mirror.fetch.filler import FetchLimits
from mirror.fetch.reader import BlobReader
from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.upstream.client import UpstreamClient
from mirror.upstream.policy import RetryPolicy
from tests.support.faulty_registry import FaultyRegistry
from tests.support.upstreams import client_of

REPOSITORY = "team/app"
QUICK_DOWNLOADS = DownloadPolicy(
    begin=RetryPolicy(attempts=3, first_delay=0.001, longest_delay=0.01),
    resume=RetryPolicy(attempts=8, first_delay=0.005, longest_delay=0.2),
    max_resumes=30,
)


@dataclass
class Bench:
    """Everything that a test of fetching needs."""

    hub: FaultyRegistry
    client: UpstreamClient
    store: BlobStore
    fetcher: BlobFetcher

    def fetch(self, digest: Digest, size: int | None = None) -> BlobReader:
        return self.fetcher.fetch(self.client, REPOSITORY, digest, size)


@asynccontextmanager
async def bench(
    root: Path, *, limits: FetchLimits | None = None, min_free_bytes: int = 0, store: BlobStore | None = None, **settings: Any
) -> AsyncIterator[Bench]:
    """A bench with a hub of its own; settings are those of `Upstream`."""
    async with FaultyRegistry() as hub, client_of(hub.url, **settings) as client:
        used = store or BlobStore(root, min_free_bytes)
        fetcher = BlobFetcher(used, limits or FetchLimits(download=QUICK_DOWNLOADS))
        try:
            yield Bench(hub, client, used, fetcher)
        finally:
            await fetcher.close()


async def read_span(reader: BlobReader, start: int = 0, end: int | None = None) -> bytes:
    """The bytes; whatever `spans` raises."""
    return b"".join([span if isinstance(span, bytes) else span.read() async for span in reader.spans(start, end)])


async def read_all(reader: BlobReader) -> bytes:
    """The whole blob, closing the reader."""
    with reader:
        await reader.started()
        return await read_span(reader)


async def read_what_comes(reader: BlobReader) -> tuple[bytes, Exception | None]:
    """What a client gets before the end or a failure, and the failure."""
    pieces = bytearray()
    with reader:
        try:
            await reader.started()
            async for span in reader.spans():
                pieces += span if isinstance(span, bytes) else span.read()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return bytes(pieces), error
    return bytes(pieces), None
