"""A publisher in this process, in front of a registry that misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mirror.config.load import load
from mirror.config.models import Config
from mirror.jobs.model import ImageStatus, PublishRequest, State
from mirror.jobs.queue import Queue
from mirror.jobs.statuses import Statuses
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database, DatabaseSettings, sqlite_url
from mirror.state.migrate import migrate
from publisher.check import check
from publisher.cvmfs.reader import RepositoryReader
from publisher.keys import load_public_key
from publisher.objects.local import LocalObjectStore
from publisher.run import run
from tests.support.faulty_registry import FaultyRegistry
from tests.support.small_images import Image

FQRN = "test.debark.example"

_SETTINGS = """
[store]
min_free = 0
[upstreams."hub.test"]
url = "URL"
attempts = 1
[publish]
repositories = REPOSITORIES
first_pause = 0.1
longest_pause = 1
lease = 2
"""


def offer(hub: FaultyRegistry, repository: str, tag: str, image: Image) -> Digest:
    """Let the hub have an image; its manifest's digest."""
    for data in (image.config, *(layer.packed for layer in image.layers)):
        hub.add_blob(data)
    return hub.add_manifest(repository, tag, image.manifest)


@dataclass
class Publishing:
    """What a test asks for and looks at."""

    config: Config
    queue: Queue
    statuses: Statuses

    async def request(self, name: str, manifest: Digest) -> None:
        """As the mirror does after a pull."""
        await self.queue.enqueue(PublishRequest(ImageReference.parse(name), manifest, manifest))

    async def reach(self, name: str, states: Collection[State], seconds: float = 20.0) -> ImageStatus:
        """The status once it is one of these."""
        status = None
        async with asyncio.timeout(seconds):
            while status is None or status.state not in states:
                await asyncio.sleep(0.01)
                status = await self.statuses.status(ImageReference.parse(name))
        return status

    async def published(self, name: str) -> ImageStatus:
        return await self.reach(name, {State.PUBLISHED})

    def reader(self) -> RepositoryReader:
        key = load_public_key((self.config.data / "keys" / f"{FQRN}.pub").read_bytes())
        return RepositoryReader(LocalObjectStore(self.config.data / "cvmfs" / FQRN), FQRN, key)

    def problems(self) -> list[str]:
        store = LocalObjectStore(self.config.data / "cvmfs" / FQRN)
        return [str(problem) for problem in check(self.reader(), contains=store.contains, data=True)]

    @asynccontextmanager
    async def publisher(self) -> AsyncIterator[asyncio.Event]:
        """A publisher at work; setting the event stops it."""
        stop = asyncio.Event()
        task = asyncio.create_task(run(self.config, stop))
        try:
            yield stop
        finally:
            stop.set()
            await task


@asynccontextmanager
async def publishing(
    directory: Path, hub: FaultyRegistry, settings: str = "", *, repositories: Sequence[str] = (FQRN,)
) -> AsyncIterator[Publishing]:
    """The state and settings; no publisher runs yet. settings: further lines of [publish]."""
    file = directory / "debark.toml"
    file.write_text(
        f'[server]\ndata = "{directory / "data"}"\n'
        + _SETTINGS.replace("URL", hub.url).replace("REPOSITORIES", json.dumps(list(repositories)))
        + settings
    )
    (directory / "data").mkdir(exist_ok=True)
    database = Database(DatabaseSettings(sqlite_url(directory / "data" / "state.sqlite")))
    try:
        await migrate(database)
        yield Publishing(load(file), Queue(database), Statuses(database))
    finally:
        await database.close()
