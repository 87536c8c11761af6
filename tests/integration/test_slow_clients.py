"""Clients that send nothing, or a request by drops, hold no connection for long; whoever goes on asking keeps it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub
from tests.support.raw_http import RawConnection
from tests.support.registry_client import OCI_MANIFEST

REQUEST = b"GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n"


@pytest.fixture(scope="module")
def debark(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebarkProcess]:
    """Patient for a second."""
    directory: Path = tmp_path_factory.mktemp("impatient")
    settings = "[server]\nkeepalive = 1\nslow_time = 1\n[publish]\nenabled = false\n"
    with DebarkProcess(directory, {"hub.test": hub.url}, settings) as started:
        yield started


@pytest.fixture
def address(debark: DebarkProcess) -> str:
    return debark.address


@pytest.mark.parametrize("sent", [b"", REQUEST[:1], REQUEST[:-2]])
def test_a_request_that_does_not_come_is_not_waited_for(address: str, sent: bytes) -> None:
    with RawConnection(address) as client:
        client.send(sent)
        assert client.is_closed()


def test_nor_is_one_that_comes_by_drops(address: str) -> None:
    closed = threading.Event()

    def drip(client: RawConnection) -> None:
        while not closed.wait(0.1):
            client.send(b"x")

    with RawConnection(address) as client, ThreadPoolExecutor(1) as threads:
        client.send(b"GET /v2/ HTTP/1.1\r\nHost: mirror\r\nX: ")
        threads.submit(drip, client)
        try:
            assert client.is_closed()
        finally:
            closed.set()


def test_nor_the_next_one_on_a_connection(address: str) -> None:
    with RawConnection(address) as client:
        client.send(REQUEST + REQUEST[:10])
        answer = client.reply()
        assert answer is not None
        assert answer.status == 200
        assert client.is_closed()


def test_who_goes_on_asking_is_answered(address: str) -> None:
    with RawConnection(address) as client:
        for _ in range(8):
            client.send(REQUEST)
            answer = client.reply()
            assert answer is not None
            assert answer.status == 200
            time.sleep(0.3)


def test_answers_that_nobody_reads_are_not_kept_for_ever(debark: DebarkProcess, hub: Hub) -> None:
    config = hub.client().push_blob("slow/app", b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [],
        "annotations": {"padding": "x" * 3_000_000},
    }
    hub.client().push_manifest("slow/app", "1", json.dumps(document).encode(), OCI_MANIFEST)
    request = b"GET /v2/hub.test/slow/app/manifests/1 HTTP/1.1\r\nHost: mirror\r\n\r\n"
    with RawConnection(debark.address) as client:
        client.send(5 * request)
        debark.wait_for_log("client_too_slow")
        whole = 0
        with contextlib.suppress(EOFError, ConnectionResetError):
            while (answer := client.reply()) is not None:
                assert answer.status == 200
                whole += 1
        assert whole < 5
    assert debark.client().manifest("hub.test/slow/app", "1").json() == document
