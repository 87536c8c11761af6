"""A server that changes its settings and stops without a client noticing, and tells a service manager what it does."""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.support.debark_process import PROGRAMS, DebarkProcess, wait_until
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.mirror_server import Image, add_image
from tests.support.raw_http import RawConnection
from tests.support.registry_client import ACCEPT, Answer, RegistryClient

HUB = "hub.test"
LAYER = random.Random(8).randbytes(3_000_000)
HELD = 1_000_000
NAME = "hub.test/team/app"
QUIET = """
[store]
min_free = 0
[publish]
enabled = false
"""
SETTINGS = "[server]\nworkers = 2\n" + QUIET


@pytest.fixture
async def hub() -> AsyncIterator[FaultyRegistry]:
    async with FaultyRegistry() as started:
        yield started


@asynccontextmanager
async def serving(
    directory: Path, hub: FaultyRegistry, settings: str = SETTINGS, environment: dict[str, str] | None = None
) -> AsyncIterator[DebarkProcess]:
    debark = DebarkProcess(directory, {HUB: hub.url}, settings, environment)
    await asyncio.to_thread(debark.start)
    try:
        yield debark
    finally:
        hub.release.set()
        await asyncio.to_thread(debark.stop)


def ask(connection: http.client.HTTPConnection, path: str) -> Answer:
    connection.request("GET", path, headers={"Accept": ACCEPT})
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


@asynccontextmanager
async def held_transfer(debark: DebarkProcess, hub: FaultyRegistry) -> AsyncIterator[asyncio.Task[Answer]]:
    """A client that is in the middle of a layer, until the hub goes on."""
    image = add_image(hub, "team/app", "1", LAYER)
    hub.faults.hold_at = HELD
    await asyncio.to_thread(debark.client().manifest, NAME, "1")
    transfer = asyncio.create_task(asyncio.to_thread(debark.client().blob, NAME, str(image.layer)))
    part = debark.data / "parts" / "sha256" / image.layer.hex
    await until(lambda: part.exists() and part.stat().st_size == HELD)
    await asyncio.sleep(0.2)
    yield transfer


async def test_new_settings_cost_nobody_a_request(tmp_path: Path, hub: FaultyRegistry) -> None:
    async with serving(tmp_path, hub) as debark, held_transfer(debark, hub) as transfer:
        old = debark.worker_pids()
        statuses: list[int] = []
        changed = asyncio.Event()

        def hammer() -> None:
            while not changed.is_set():
                statuses.append(debark.get("/v2/").status)

        hammering = [asyncio.create_task(asyncio.to_thread(hammer)) for _ in range(3)]
        await asyncio.sleep(0.2)
        debark.reload(SETTINGS.replace("workers = 2", "workers = 3\nmax_header = '4 KiB'"))
        await asyncio.to_thread(debark.wait_for_log, "settings_changed")
        await asyncio.sleep(1)
        changed.set()
        await asyncio.gather(*hammering)
        assert set(statuses) == {200}
        assert not transfer.done()
        assert len(set(debark.worker_pids()) - set(old)) == 3
        long = {"X-Long": "x" * 6000}
        assert (await asyncio.to_thread(debark.get, "/v2/", long)).status == 431

        hub.release.set()
        assert (await transfer).body == LAYER
        await asyncio.to_thread(wait_until, lambda: not set(debark.worker_pids()) & set(old), 20, lambda: "old workers stay")
        assert await asyncio.to_thread(debark.counted, "debark_requests_total", kind="blob", status="200", cache="miss") == 1


@pytest.mark.parametrize("asked", [0, 1])
async def test_an_old_worker_does_not_keep_connections_that_it_does_not_serve(
    tmp_path: Path, hub: FaultyRegistry, asked: int
) -> None:
    async with serving(tmp_path, hub) as debark, held_transfer(debark, hub) as transfer:
        with RawConnection(debark.address) as idle:
            for _ in range(asked):
                idle.send(b"GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n")
                assert idle.reply() is not None
            debark.reload(SETTINGS.replace("workers = 2", "workers = 2\nmax_header = '4 KiB'"))
            assert await asyncio.to_thread(idle.is_closed)
        assert not transfer.done()
        hub.release.set()
        assert (await transfer).body == LAYER


async def test_settings_with_mistakes_change_nothing(tmp_path: Path, hub: FaultyRegistry) -> None:
    async with serving(tmp_path, hub) as debark:
        before = debark.worker_pids()
        debark.reload('[server]\nworkers = "many"\nmax_request = 5\n')
        (refused,) = await asyncio.to_thread(debark.wait_for_log, "settings_not_changed")
        assert "server.workers" in refused["mistakes"][0]
        assert "did you mean" in refused["mistakes"][1]
        settings = (await asyncio.to_thread(debark.get, "/healthz")).json()["parts"]["settings"]
        assert "server.workers" in settings
        assert "1 more" in settings

        # What only shows when they are used is a mistake as well.
        debark.reload(SETTINGS + f'[upstreams."{HUB}"]\nusername = "site"\npassword_file = "nothing"\n')
        _, refused = await asyncio.to_thread(debark.wait_for_log, "settings_not_changed", 2)
        assert "the secret cannot be read" in refused["mistakes"][0]
        assert debark.worker_pids() == before
        assert debark.get("/v2/").status == 200

        debark.reload(SETTINGS)
        await asyncio.to_thread(debark.wait_for_log, "settings_changed")
        assert debark.get("/healthz").json()["parts"]["settings"] == "ok"


async def test_what_the_command_line_says_is_said_for_good(tmp_path: Path, hub: FaultyRegistry) -> None:
    async with serving(tmp_path, hub) as debark:
        client = debark.client()
        debark.reload(SETTINGS.replace("[server]", f'[server]\nlisten = "127.0.0.1:1"\ndata = "{tmp_path}/elsewhere"'))
        await asyncio.to_thread(debark.wait_for_log, "settings_changed")
        assert debark.log_events("settings_need_restart") == []
        assert client.get("/v2/").status == 200


async def test_a_transfer_is_finished_before_the_end_and_nobody_new_is_let_in(tmp_path: Path, hub: FaultyRegistry) -> None:
    settings = SETTINGS.replace("[server]", "[server]\nstop_delay = '1 s'")
    async with serving(tmp_path, hub, settings) as debark, held_transfer(debark, hub) as transfer:
        client, idle = debark.client(), http.client.HTTPConnection(debark.address)
        assert ask(idle, "/readyz").json()["status"] == "ready"
        debark.signal(signal.SIGTERM)
        await asyncio.sleep(0.4)
        leaving = client.get("/readyz")
        assert (leaving.status, leaving.json()["parts"]["server"]) == (503, "the server is stopping")
        assert client.get("/v2/").status == 200
        assert ask(idle, "/v2/").status == 200
        await asyncio.to_thread(wait_until, lambda: not listens(client), 20, lambda: "it still listens")
        await asyncio.sleep(2)
        assert not transfer.done()
        hub.release.set()
        assert (await transfer).body == LAYER
        idle.close()


async def test_who_asks_without_pause_is_told_when_the_connection_ends(tmp_path: Path, hub: FaultyRegistry) -> None:
    add_image(hub, "team/app", "1", b"layer")
    async with serving(tmp_path, hub) as debark:
        connection = http.client.HTTPConnection(debark.address)

        def ask_until_told() -> list[str]:
            """Of one tag, whose answer is kept as it goes over the wire."""
            said = []
            while "close" not in said:
                answer = ask(connection, f"/v2/{NAME}/manifests/1")
                assert answer.status == 200
                said.append(answer.headers.get("Connection", ""))
            return said

        asking = asyncio.create_task(asyncio.to_thread(ask_until_told))
        await asyncio.sleep(0.5)
        debark.signal(signal.SIGTERM)
        assert len(await asking) > 10
        connection.close()


def listens(client: RegistryClient) -> bool:
    try:
        client.get("/v2/")
    except ConnectionRefusedError:
        return False
    except (OSError, http.client.HTTPException):
        return True
    return True


async def test_a_transfer_that_lasts_too_long_is_cut_and_gone_on_with_after_the_start(
    tmp_path: Path, hub: FaultyRegistry
) -> None:
    settings = SETTINGS.replace("[server]", "[server]\ngrace = '1 s'")
    debark = DebarkProcess(tmp_path, {HUB: hub.url}, settings)
    await asyncio.to_thread(debark.start)
    async with held_transfer(debark, hub) as transfer:
        await asyncio.to_thread(debark.stop)
        with pytest.raises((http.client.HTTPException, OSError)):
            await transfer
        assert debark.log_events("connections_cut")
    hub.faults.hold_at = None
    await asyncio.to_thread(debark.start)
    image = add_image(hub, "team/app", "1", LAYER)
    assert (await asyncio.to_thread(debark.client().blob, NAME, str(image.layer))).body == LAYER
    await asyncio.to_thread(debark.stop)
    assert [seen.range for seen in hub.seen if seen.method == "GET" and "/blobs/" in seen.path] == [None, f"bytes={HELD}-"]


async def test_workers_end_with_the_process_that_keeps_them(tmp_path: Path, hub: FaultyRegistry) -> None:
    debark = DebarkProcess(tmp_path, {HUB: hub.url}, SETTINGS)
    await asyncio.to_thread(debark.start)
    workers = debark.worker_pids()
    assert len(workers) == 2
    await asyncio.to_thread(debark.kill)
    await asyncio.to_thread(wait_until, lambda: not any(map(is_alive, workers)), 20, lambda: "workers live on")


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


# A service manager


@contextmanager
def notified(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(30)
        yield receiver


def told(receiver: socket.socket) -> dict[str, str]:
    """The next message that is not just a sign of life."""
    while True:
        message = dict(line.partition("=")[::2] for line in receiver.recv(4096).decode().splitlines())
        if "WATCHDOG" not in message:
            return message


async def test_a_service_manager_is_told(tmp_path: Path, hub: FaultyRegistry) -> None:
    with notified(tmp_path / "notify") as receiver:
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        async with serving(tmp_path, hub, environment=environment) as debark:
            first = await asyncio.to_thread(told, receiver)
            assert first == {"READY": "1", "STATUS": f"serving at {debark.address} with 2 workers"}
            assert receiver.recv(4096) == b"WATCHDOG=1"

            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            debark.reload(SETTINGS.replace("workers = 2", "workers = 1"))
            reloading = await asyncio.to_thread(told, receiver)
            assert reloading["RELOADING"] == "1"
            assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            assert (await asyncio.to_thread(told, receiver))["STATUS"] == f"serving at {debark.address} with 1 worker"

            debark.reload("nonsense")
            assert (await asyncio.to_thread(told, receiver))["RELOADING"] == "1"
            assert (await asyncio.to_thread(told, receiver))["READY"] == "1"
        assert (await asyncio.to_thread(told, receiver))["STOPPING"] == "1"


@pytest.fixture
def image(hub: FaultyRegistry) -> Image:
    return add_image(hub, "team/app", "1", LAYER)


async def test_sockets_that_were_handed_over_are_served(tmp_path: Path, hub: FaultyRegistry, image: Image) -> None:
    """As systemd does it: descriptors from 3 on, and the number of them and for whom they are in the environment."""
    (tmp_path / "debark.toml").write_text(QUIET)
    by_path = tmp_path / "debark.sock"
    with socket.create_server(("127.0.0.1", 0)) as by_port, socket.socket(socket.AF_UNIX) as by_name:
        by_name.bind(str(by_path))
        by_name.listen()
        handed = [by_port.fileno(), by_name.fileno()]
        assert max(handed) < 200
        moves = " ".join(f"{target}<&{source}" for target, source in zip((203, 204), handed, strict=True))
        command = [str(PROGRAMS / "debark"), "serve", "--data", str(tmp_path / "data"), "--config", str(tmp_path / "debark.toml")]
        command += ["--upstream", f"{HUB}={hub.url}"]
        # The shell's own process becomes debark, whose number it therefore knows.
        script = f'exec {moves}; exec 3<&203 4<&204; export LISTEN_FDS=2 LISTEN_PID=$$; exec "$@"'
        process = start(["bash", "-c", script, "bash", *command], handed)
    try:
        port = by_port_of(tmp_path / "data" / "run" / "address", process)
        answer = await asyncio.to_thread(RegistryClient(port).manifest, NAME, "1")
        assert answer.body == image.raw
        local = UnixConnection(by_path)
        assert (await asyncio.to_thread(ask, local, f"/v2/{NAME}/manifests/1")).body == image.raw
        local.close()
    finally:
        process.terminate()
        assert process.wait(30) == 0
    with pytest.raises(ConnectionRefusedError):
        RegistryClient(port).get("/v2/")


def start(command: list[str], descriptors: list[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, pass_fds=descriptors)


def by_port_of(file: Path, process: subprocess.Popen[bytes]) -> str:
    wait_until(lambda: file.exists() or process.poll() is not None, 30, lambda: "debark does not start")
    return file.read_text().strip()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def test_a_handed_descriptor_that_is_no_listening_socket(tmp_path: Path) -> None:
    script = 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3</dev/null'
    command = [str(PROGRAMS / "debark"), "serve", "--data", str(tmp_path / "data")]
    done = subprocess.run(["bash", "-c", script, "bash", *command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "descriptor 3, which the service manager handed over, is no socket" in done.stderr
    assert "Traceback" not in done.stderr


async def test_without_the_process_that_makes_workers_the_server_ends_and_says_so(tmp_path: Path, hub: FaultyRegistry) -> None:
    debark = DebarkProcess(tmp_path, {HUB: hub.url}, SETTINGS)
    await asyncio.to_thread(debark.start)
    workers = debark.worker_pids()
    try:
        os.kill(parent_of(workers[0]), signal.SIGKILL)
        assert await asyncio.to_thread(debark.wait) == 1
    finally:
        await asyncio.to_thread(debark.stop)
    assert "the process that makes workers has died" in debark.output()
    await asyncio.to_thread(wait_until, lambda: not any(map(is_alive, workers)), 20, lambda: "workers live on")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_the_publisher_is_started_again_for_settings_that_concern_it(tmp_path: Path, hub: FaultyRegistry) -> None:
    settings = "[store]\nmin_free = 0\n"
    async with serving(tmp_path, hub, settings) as debark:
        await asyncio.to_thread(wait_until, lambda: len(debark.publisher_pids()) == 1, 30, debark.output)
        (first,) = debark.publisher_pids()
        debark.reload(settings + "[tags]\nttl = 5\n")
        await asyncio.to_thread(debark.wait_for_log, "settings_changed")
        assert debark.publisher_pids() == [first]

        debark.reload(settings + "[publish]\nbatch = 7\n")
        await asyncio.to_thread(debark.wait_for_log, "publisher_started", 2)
        await asyncio.to_thread(wait_until, lambda: len(debark.publisher_pids()) == 1, 30, debark.output)
        assert debark.publisher_pids() != [first]
        assert (await asyncio.to_thread(debark.get, "/healthz")).json()["parts"]["publisher"] == "ok"

        debark.reload(settings + "[publish]\nenabled = false\n")
        await asyncio.to_thread(debark.wait_for_log, "settings_changed", 3)
        await asyncio.to_thread(wait_until, lambda: "publisher" not in debark.get("/healthz").json()["parts"], 30, debark.output)
        assert not debark.publisher_pids()
