"""A process of its own that fetches one blob into a store: `python -m tests.support.fetching_process URL ROOT DIGEST`.

Writes `started` when the upstream has answered, then `<result> <sha256 of what was read>`, or `failed <class>`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from mirror.errors import MirrorError
from mirror.fetch.blobs import BlobFetcher
from mirror.fetch.filler import FetchLimits
from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from tests.support.fetching import QUICK_DOWNLOADS, REPOSITORY
from tests.support.upstreams import client_of

ROOT = Path(__file__).parent.parent.parent


async def start(url: str, store: Path, digest: Digest) -> Process:
    """Begin to fetch in another process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.fetching_process", url, str(store), str(digest), stdout=PIPE, env=environment
    )


async def main(url: str, root: str, digest_text: str) -> None:
    """Fetch."""
    digest = Digest.parse(digest_text)
    hasher = hashlib.sha256()
    async with client_of(url) as client:
        fetcher = BlobFetcher(BlobStore(Path(root), 0), FetchLimits(download=QUICK_DOWNLOADS))
        try:
            with fetcher.fetch(client, REPOSITORY, digest) as reader:
                await reader.started()
                print("started", flush=True)
                async for span in reader.spans():
                    hasher.update(span if isinstance(span, bytes) else span.read())
                await reader.stored()
            print(reader.result, hasher.hexdigest(), flush=True)
        except MirrorError as error:
            print("failed", type(error).__name__, flush=True)
        finally:
            await fetcher.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
