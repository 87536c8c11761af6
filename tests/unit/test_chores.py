import asyncio
import os
from pathlib import Path

from mirror.chores import sweep_parts
from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from tests.support.faulty_registry import until


async def test_transfers_that_nobody_went_on_with_are_swept_at_the_start(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, 0)
    old, young = (store.layout.part(Digest.of(name)) for name in (b"old", b"young"))
    old.parent.mkdir(parents=True)
    for path in (old, young):
        path.write_bytes(b"the beginning")
    os.utime(old, (1_000_000, 1_000_000))
    task = asyncio.create_task(sweep_parts(store, 3600))
    await until(lambda: not old.exists())
    assert young.exists()
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
