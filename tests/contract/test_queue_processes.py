"""Several processes on one database: claims at the same time, and processes that are killed."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import time

from mirror.jobs.queue import Queue
from mirror.jobs.retry import RetryPolicy
from mirror.state.engine import Database
from tests.support.state import digest_of, python_process, request_for

JOBS = 60

_PRELUDE = """
import asyncio, json, sys
from mirror.jobs.model import PublishRequest
from mirror.jobs.queue import Queue
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database, DatabaseSettings

url, owner = sys.argv[1:]
database = Database(DatabaseSettings(url, wait_seconds=60.0))
queue = Queue(database)
"""

_CLAIM = (
    _PRELUDE
    + """
async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    claimed = []
    while jobs := await queue.claim(owner, 2, 600.0):
        claimed += [str(job.manifest) for job in jobs]
        await asyncio.sleep(0.002)
    await database.close()
    print(json.dumps(claimed))

asyncio.run(main())
"""
)

_ENQUEUE_FOREVER = (
    _PRELUDE
    + """
async def main():
    number = 0
    while True:
        manifest = Digest.of(f"m{number}".encode())
        await queue.enqueue(PublishRequest(ImageReference.parse(f"debian:{number}"), manifest, manifest))
        print(manifest, flush=True)
        number += 1

asyncio.run(main())
"""
)

_CLAIM_AND_HANG = (
    _PRELUDE
    + """
async def main():
    jobs = await queue.claim(owner, 1, 0.5)
    print(jobs[0].manifest, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
)


async def test_processes_that_claim_together_share_the_jobs(empty_url: str, database: Database) -> None:
    queue = Queue(database)
    for number in range(JOBS):
        await queue.enqueue(request_for(f"debian:{number}", f"m{number}"))
    processes = [await python_process(_CLAIM, empty_url, owner) for owner in ("p1", "p2")]
    for process in processes:
        assert process.stdout is not None
        await process.stdout.readline()
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [errors for _, errors in outputs] == [b"", b""]
    claimed = [json.loads(output) for output, _ in outputs]
    assert all(claimed), "both got some"
    assert sorted(itertools.chain(*claimed)) == sorted(str(digest_of(f"m{number}")) for number in range(JOBS))


async def test_what_was_acknowledged_survives_the_death_of_the_process(empty_url: str, database: Database) -> None:
    process = await python_process(_ENQUEUE_FOREVER, empty_url, "mirror")
    assert process.stdout is not None
    acknowledged = {(await process.stdout.readline()).decode().strip() for _ in range(10)}
    process.send_signal(signal.SIGKILL)
    acknowledged |= {line.decode().strip() async for line in process.stdout}
    await process.wait()
    jobs = await Queue(database).claim("p1", 10_000, 60.0)
    assert acknowledged <= {str(job.manifest) for job in jobs}
    assert len(jobs) <= len(acknowledged) + 1


async def test_the_job_of_a_killed_publisher_is_taken_over(empty_url: str, database: Database) -> None:
    queue = Queue(database, policy=RetryPolicy())
    request = request_for("debian:12", "m")
    await queue.enqueue(request)
    process = await python_process(_CLAIM_AND_HANG, empty_url, "p1")
    assert process.stdout is not None
    assert await process.stdout.readline() == f"{request.manifest}\n".encode()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    start = time.monotonic()
    assert await queue.wait(20)
    assert time.monotonic() - start < 10
    [job] = await queue.claim("p2", 10, 60.0)
    assert (job.requests, job.attempts) == ((request,), 2)
