"""Several real worker processes on one port: one cache, one fetch, one answer about the server, whichever of them dies."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_MANIFEST
from tests.support.debark_process import DebarkProcess, wait_until
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.mirror_server import add_image
from tests.support.registry_client import ACCEPT, Answer

HUB = "hub.test"
LAYER = random.Random(7).randbytes(3_000_000)
HELD = 1_000_000
NAME = "hub.test/team/app"
SETTINGS = """
[server]
workers = 2
grace = "20 s"
[store]
min_free = 0
[publish]
enabled = false
"""


@asynccontextmanager
async def serving(directory: Path, hub: FaultyRegistry, settings: str = SETTINGS) -> AsyncIterator[DebarkProcess]:
    debark = DebarkProcess(directory, {HUB: hub.url}, settings)
    await asyncio.to_thread(debark.start)
    try:
        yield debark
    finally:
        hub.release.set()
        await asyncio.to_thread(debark.stop)


@pytest.fixture
async def hub() -> AsyncIterator[FaultyRegistry]:
    async with FaultyRegistry() as started:
        yield started


@contextmanager
def connections(address: str, number: int) -> Iterator[list[http.client.HTTPConnection]]:
    """All of them connected before the first one is used."""
    opened = [http.client.HTTPConnection(address, timeout=60) for _ in range(number)]
    try:
        for connection in opened:
            connection.connect()
        yield opened
    finally:
        for connection in opened:
            connection.close()


def ask(connection: http.client.HTTPConnection, path: str, accept: str = ACCEPT) -> Answer:
    connection.request("GET", path, headers={"Accept": accept})
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def worker_of(answer: Answer) -> str:
    """What tells workers apart: the beginning of their request ids."""
    return answer.headers["X-Request-Id"][:12]


async def ask_all(opened: list[http.client.HTTPConnection], path: str, accept: str = ACCEPT) -> list[Answer]:
    """The same of all connections at the same time."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(len(opened)) as threads:
        return await asyncio.gather(*(loop.run_in_executor(threads, ask, connection, path, accept) for connection in opened))


async def by_worker(debark: DebarkProcess) -> list[http.client.HTTPConnection]:
    """A connection to each of two workers; to be closed."""
    found: dict[str, http.client.HTTPConnection] = {}
    surplus: list[http.client.HTTPConnection] = []
    while len(found) < 2:
        assert len(surplus) < 100
        connection = http.client.HTTPConnection(debark.address, timeout=60)
        worker = worker_of(await asyncio.to_thread(ask, connection, "/readyz"))
        if worker in found:
            surplus.append(connection)
        else:
            found[worker] = connection
    for connection in surplus:
        connection.close()
    return list(found.values())


async def test_few_connections_are_spread(tmp_path: Path, hub: FaultyRegistry) -> None:
    async with serving(tmp_path, hub) as debark:
        with connections(debark.address, 12) as opened:
            answers = await ask_all(opened, "/v2/")

    # Six each, on a machine that has nothing else to do.
    assert min(Counter(map(worker_of, answers)).values()) >= 3
    assert len(set(map(worker_of, answers))) == 2


async def test_a_cold_tag_is_one_request_and_a_warm_one_none(tmp_path: Path, hub: FaultyRegistry) -> None:
    image = add_image(hub, "team/app", "1", LAYER)
    hub.faults.before_headers = 0.3
    async with serving(tmp_path, hub) as debark:
        with connections(debark.address, 16) as opened:
            cold = await ask_all(opened, f"/v2/{NAME}/manifests/1")
            warm = await ask_all(opened, f"/v2/{NAME}/manifests/1")
            by_digest = await ask_all(opened, f"/v2/{NAME}/manifests/{image.digest}")

    for answers in (cold, warm, by_digest):
        assert {(answer.status, answer.body) for answer in answers} == {(200, image.raw)}
        assert len(set(map(worker_of, answers))) == 2
    assert Counter(answer.headers["X-Debark-Cache"] for answer in cold) == {"miss": 1, "joined": 15}
    assert (hub.count("GET", "/manifests/"), hub.count("HEAD", "/manifests/")) == (1, 0)


async def test_what_a_tag_is_to_clients_of_one_type_is_asked_once(tmp_path: Path, hub: FaultyRegistry) -> None:
    raw = add_image(hub, "team/app", "image", LAYER).raw.replace(OCI_MANIFEST.encode(), DOCKER_MANIFEST.encode())
    child = hub.add_manifest("team/app", "child", raw, DOCKER_MANIFEST)
    listed = {
        "mediaType": DOCKER_MANIFEST,
        "digest": str(child),
        "size": len(raw),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    index = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [listed]}).encode()
    hub.add_manifest("team/app", "1", index, DOCKER_LIST)
    hub.faults.honours_accept = True
    hub.faults.before_headers = 0.3
    async with serving(tmp_path, hub) as debark:
        with connections(debark.address, 16) as opened:
            answers = await ask_all(opened, f"/v2/{NAME}/manifests/1", DOCKER_MANIFEST)
            others = await ask_all(opened, f"/v2/{NAME}/manifests/1")

    assert {(answer.status, answer.body) for answer in answers} == {(200, raw)}
    assert {(answer.status, answer.body) for answer in others} == {(200, index)}
    assert len(set(map(worker_of, answers))) == 2
    assert (hub.count("GET", "/manifests/"), hub.count("HEAD", "/manifests/")) == (2, 0)


async def test_a_cold_manifest_by_digest_is_one_request(tmp_path: Path, hub: FaultyRegistry) -> None:
    image = add_image(hub, "team/app", "1", LAYER)
    hub.faults.before_headers = 0.3
    async with serving(tmp_path, hub) as debark:
        with connections(debark.address, 16) as opened:
            answers = await ask_all(opened, f"/v2/{NAME}/manifests/{image.digest}")

    assert {(answer.status, answer.body) for answer in answers} == {(200, image.raw)}
    assert hub.count("GET", "/manifests/") == 1


async def test_a_tag_that_one_worker_has_asked_for_again_is_fresh_for_the_other(tmp_path: Path, hub: FaultyRegistry) -> None:
    image = add_image(hub, "team/app", "1", LAYER)
    async with serving(tmp_path, hub, SETTINGS + '[tags]\nttl = "2 s"\n') as debark:
        opened = await by_worker(debark)
        await ask_all(opened, f"/v2/{NAME}/manifests/1")
        await asyncio.sleep(2.1)
        for connection in opened:
            assert (await asyncio.to_thread(ask, connection, f"/v2/{NAME}/manifests/1")).body == image.raw
            connection.close()

    assert (hub.count("GET", "/manifests/"), hub.count("HEAD", "/manifests/")) == (1, 1)


async def test_that_a_repository_is_public_is_known_to_all_workers_and_after_a_restart_while_the_hub_is_away(
    tmp_path: Path, hub: FaultyRegistry
) -> None:
    image = add_image(hub, "team/app", "1", LAYER)
    path = f"/v2/{NAME}/manifests/1"
    async with serving(tmp_path, hub, SETTINGS + f'[upstreams."{HUB}"]\nprivate = "client"\n') as debark:
        opened = await by_worker(debark)
        for connection in opened:
            assert (await asyncio.to_thread(ask, connection, path)).body == image.raw
            connection.close()
        # The first worker asked as nobody; the second one for nothing at all.
        assert (hub.count("HEAD", "/manifests/"), hub.count("GET", "/manifests/")) == (1, 1)
        for digest in (image.layer, image.config):
            assert (await asyncio.to_thread(debark.client().blob, NAME, str(digest))).status == 200
        await asyncio.to_thread(debark.stop)
        await hub.kill()
        await asyncio.to_thread(debark.start)
        opened = await by_worker(debark)
        for connection in opened:
            assert (await asyncio.to_thread(ask, connection, path)).body == image.raw
            assert (await asyncio.to_thread(ask, connection, f"/v2/{NAME}/blobs/{image.layer}")).body == LAYER
            assert (await asyncio.to_thread(ask, connection, "/v2/hub.test/team/other/manifests/1")).status == 503
            connection.close()


async def test_a_cold_blob_is_one_request(tmp_path: Path, hub: FaultyRegistry) -> None:
    image = add_image(hub, "team/app", "1", LAYER)
    hub.faults.hold_at = HELD
    async with serving(tmp_path, hub) as debark:
        with connections(debark.address, 16) as opened:
            await ask_all(opened[:1], f"/v2/{NAME}/manifests/1")
            asking = asyncio.create_task(ask_all(opened, f"/v2/{NAME}/blobs/{image.layer}"))
            await until(lambda: hub.count("GET", "/blobs/") == 1)
            await asyncio.sleep(0.3)
            hub.release.set()
            answers = await asking
        assert len(set(map(worker_of, answers))) == 2
        assert await asyncio.to_thread(debark.counted, "debark_fills_total", result="stored") == 1
        assert await asyncio.to_thread(debark.counted, "debark_fills_total", result="followed") == 1

    assert {(answer.status, answer.body) for answer in answers} == {(200, LAYER)}
    assert hub.count("GET", "/blobs/") == 1


async def test_a_cold_blob_that_is_not_there_is_said_to_be_so_by_all(tmp_path: Path, hub: FaultyRegistry) -> None:
    image = add_image(hub, "team/app", "1", LAYER)
    del hub.blobs[str(image.layer)]
    hub.faults.before_headers = 0.2
    async with serving(tmp_path, hub) as debark:
        with connections(debark.address, 8) as opened:
            await ask_all(opened[:1], f"/v2/{NAME}/manifests/1")
            answers = await ask_all(opened, f"/v2/{NAME}/blobs/{image.layer}")

    assert {(answer.status, answer.json()["errors"][0]["code"]) for answer in answers} == {(404, "BLOB_UNKNOWN")}
    assert hub.count("GET", "/blobs/") <= 2


async def test_a_worker_that_is_killed_while_it_fills_harms_nobody_else(tmp_path: Path, hub: FaultyRegistry) -> None:
    image = add_image(hub, "team/app", "1", LAYER)
    hub.faults.hold_at = HELD
    async with serving(tmp_path, hub) as debark:
        doomed, other = await by_worker(debark)
        await asyncio.to_thread(ask, other, f"/v2/{NAME}/manifests/1")
        pids = debark.worker_pids()
        filling = asyncio.create_task(asyncio.to_thread(ask, doomed, f"/v2/{NAME}/blobs/{image.layer}"))
        await until(lambda: hub.count("GET", "/blobs/") == 1)
        following = asyncio.create_task(asyncio.to_thread(ask, other, f"/v2/{NAME}/blobs/{image.layer}"))
        await asyncio.sleep(0.3)
        before = await asyncio.to_thread(debark.counted, "debark_requests_total", kind="manifest", status="200", cache="miss")
        hub.faults.hold_at = None
        os.kill(filler_of(debark, image.layer, pids), signal.SIGKILL)

        with pytest.raises((http.client.HTTPException, OSError)):
            await filling
        assert (await following).body == LAYER
        died = await asyncio.to_thread(debark.wait_for_log, "worker_died")
        assert died[0]["exit_code"] == -signal.SIGKILL
        await asyncio.to_thread(debark.wait_for_log, "worker_serves", 3)
        with connections(debark.address, 16) as opened:
            answers = await ask_all(opened, f"/v2/{NAME}/blobs/{image.layer}")
        assert {(answer.status, answer.body) for answer in answers} == {(200, LAYER)}
        assert len(set(map(worker_of, answers))) == 2
        assert await asyncio.to_thread(debark.counted, "debark_worker_restarts_total") == 1
        after = await asyncio.to_thread(debark.counted, "debark_requests_total", kind="manifest", status="200", cache="miss")
        assert (before, after) == (1, 1)
        for connection in (doomed, other):
            connection.close()

    assert [seen.range for seen in hub.seen if seen.method == "GET" and "/blobs/" in seen.path] == [None, f"bytes={HELD}-"]


def filler_of(debark: DebarkProcess, digest: Digest, pids: list[int]) -> int:
    """The worker that holds the lock on a part file (proc(5), /proc/locks)."""
    inode = (debark.data / "parts" / digest.algorithm / digest.hex).stat().st_ino
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    (holder,) = [int(words[4]) for words in lines if words[1] == "FLOCK" and words[5].endswith(f":{inode}")]
    assert holder in pids
    return holder


async def test_metrics_and_health_are_the_servers(tmp_path: Path, hub: FaultyRegistry) -> None:
    async with serving(tmp_path, hub) as debark:
        first, second = await by_worker(debark)
        with connections(debark.address, 4) as opened:
            opened += [first, second]
            await ask_all(opened, "/v2/")
            bodies = [answer.body.decode() for answer in await ask_all(opened, "/metrics")]
            healths = [answer.json() for answer in await ask_all(opened, "/healthz")]
        await asyncio.to_thread(
            wait_until,
            lambda: debark.counted("debark_requests_total", kind="ping", status="200", cache="") == 6,
            10,
            lambda: "the pings were not all counted",
        )

    for body in bodies:
        counts = [float(line.split()[1]) for line in body.splitlines() if line.startswith("debark_open_connections{")]
        assert len(counts) == 2
        assert sum(counts) >= 6
        for worker in "01":
            assert f'process_resident_memory_bytes{{worker="{worker}"}}' in body
    assert all(health == {"status": "ok", "parts": dict.fromkeys(health["parts"], "ok")} for health in healths)
    assert {"store", "state", "workers"} <= healths[0]["parts"].keys()


async def test_a_worker_that_hangs_is_seen_in_the_health_of_the_server(tmp_path: Path, hub: FaultyRegistry) -> None:
    async with serving(tmp_path, hub) as debark:
        doomed = debark.worker_pids()[0]
        os.kill(doomed, signal.SIGSTOP)
        health = (await asyncio.to_thread(debark.get, "/healthz")).json()
        os.kill(doomed, signal.SIGCONT)

    assert health["status"] == "degraded"
    assert "1 of 2 do not answer" in health["parts"]["workers"]
