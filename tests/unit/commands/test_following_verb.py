"""`replicate --follow` as a process of its own, on a terminal and in a pipe, beside a publisher that makes revisions."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from publisher.objects.local import LocalObjectStore
from tests.support.processes import children
from tests.support.repository_server import RepositoryServer, ThreadedServer
from tests.support.tool import TOP
from tests.support.verbs import Verbs
from tests.unit.commands.test_verbs import tar

FQRN = "followed.example.org"
_SECONDS = 30.0
_COLOURS = re.compile("\x1b\\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def verbs(tmp_path: Path) -> Verbs:
    made = Verbs(tmp_path / "data", FQRN)
    made.run("mkfs")
    made.run("ingest", "-t", "-", given=tar(**{f"file{number}": f"content {number}" for number in range(20)}))
    return made


@pytest.fixture
def server(verbs: Verbs) -> Iterator[RepositoryServer]:
    with ThreadedServer(RepositoryServer(LocalObjectStore(verbs.data / "cvmfs" / FQRN), FQRN)) as server:
        yield server


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def command(verbs: Verbs, url: str, place: Path, *options: str) -> list[str]:
    key = verbs.data / "keys" / f"{FQRN}.pub"
    verb = [sys.executable, "-m", "publisher", "replicate", "--data", str(place / "own"), FQRN, url]
    return [*verb, "-k", str(key), "--storage", str(place / "replica"), "--follow", *options]


def announce(port: int, **changed: object) -> int:
    """As `cvmfs_swissknife notify -p` does; the status of the answer."""
    message = {
        "version": 1,
        "timestamp": "23 Nov 2026 09:09:36",
        "type": "activity",
        "repository": FQRN,
        "manifest": base64.b64encode(b"C...").decode(),
        **changed,
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/notifications/publish",
        data=json.dumps(message).encode(),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, words: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        self.process = subprocess.Popen(words, cwd=TOP, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        self.shown = ""

    def until(self, pattern: str) -> str:
        """What matched, once it is shown; what was shown before is forgotten."""
        deadline = time.monotonic() + _SECONDS
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < deadline, self.shown[-1000:]
            ready, _, _ = select.select([self._ours], [], [], 0.1)
            if ready:
                try:
                    self.shown += _COLOURS.sub("", os.read(self._ours, 65536).decode(errors="replace"))
                except OSError:
                    raise AssertionError(f"it ended with {self.process.wait()}: {self.shown[-1000:]}") from None
        self.shown = self.shown[found.end() :]
        return found[0]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


def test_on_a_terminal_with_a_bar_and_at_once_when_a_revision_is_announced(
    verbs: Verbs, server: RepositoryServer, tmp_path: Path
) -> None:
    """It looks once an hour; so what it sees sooner it was told of."""
    go_on = threading.Event()
    (slow,) = [entry["object"] for entry in verbs.records("ls", "-l") if entry["path"] == "file7"]

    async def held(request: web.Request) -> web.StreamResponse:
        await asyncio.to_thread(go_on.wait, _SECONDS)
        return web.Response(body=(verbs.data / "cvmfs" / FQRN / f"data/{slow[:2]}/{slow[2:]}").read_bytes())

    server.faults[f"data/{slow[:2]}/{slow[2:]}"] = held
    port = free_port()
    terminal = Terminal(command(verbs, server.url, tmp_path, "--poll", "1h", "--listen", f"127.0.0.1:{port}"))
    try:
        assert terminal.until(r"replicating[^\r\n]*\b19/20\b")
        go_on.set()
        assert "20 objects" in terminal.until(rf"the replica of {FQRN} is now at revision 2: [^\r\n]*")
        verbs.run("ingest", "-t", "-", given=tar(more="of it"))
        looks = server.requests[".cvmfspublished"]
        assert announce(port, repository="other.example.org") == 404
        assert announce(port, type="something else") == 400
        assert server.requests[".cvmfspublished"] == looks
        assert announce(port) == 200
        assert "1 objects" in terminal.until(rf"the replica of {FQRN} is now at revision 3: [^\r\n]*")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(_SECONDS) == 0
    finally:
        go_on.set()
        terminal.close()


def test_in_a_pipe_one_line_a_revision_also_after_a_kill(verbs: Verbs, server: RepositoryServer, tmp_path: Path) -> None:
    words = command(verbs, server.url, tmp_path, "--poll", "0.05", "--json")
    for revision in (2, 4):
        with subprocess.Popen(words, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
            try:
                assert follower.stdout is not None
                for expected in (revision, revision + 1):
                    told = json.loads(follower.stdout.readline())
                    assert (told["revision"], told["changed"]) == (expected, True)
                    verbs.run("ingest", "-t", "-", given=tar(**{f"more{expected}": "x"}))
            finally:
                follower.kill()
        assert follower.returncode == -signal.SIGKILL
    elsewhere = Verbs(tmp_path / "elsewhere", FQRN)
    elsewhere.data.mkdir()
    (elsewhere.data / "cvmfs").mkdir()
    (elsewhere.data / "cvmfs" / FQRN).symlink_to(tmp_path / "replica")
    key = str(verbs.data / "keys" / f"{FQRN}.pub")
    assert elsewhere.records("info", "--public-key", key)[0]["revision"] >= 5


@pytest.mark.parametrize(("processes", "connections"), [(0, 2), (3, 8)])
def test_processes_and_connections_are_as_many_as_are_asked_for(
    verbs: Verbs, server: RepositoryServer, tmp_path: Path, processes: int, connections: int
) -> None:
    verbs.run("ingest", "-t", "-", given=tar(**{f"many{number}": f"content {number}" for number in range(1100)}))
    before, seen = children(), set[int]()
    server.on_request = lambda _: seen.update(children() - before)
    options = ["--processes", str(processes), "-j", str(connections)]
    (replica,) = verbs.records("replicate", server.url, "--storage", tmp_path / "replica", *options)
    assert replica["objects"] == 1100
    assert len(seen) == processes
    assert processes or len(server.connections) <= connections


@pytest.mark.parametrize(
    "options",
    [["--listen", "127.0.0.1:1"], ["--follow", "--allow-older"], ["--follow", "--listen", "nowhere"]],
    ids=["listen alone", "follow back", "no address"],
)
def test_options_that_make_no_sense_together(verbs: Verbs, tmp_path: Path, options: list[str]) -> None:
    verbs.run("replicate", "http://127.0.0.1:1/x", "--storage", tmp_path / "replica", *options, code=2)
