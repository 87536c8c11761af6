"""The mirror with a certificate of its own, as most sites will run it: pulls, renewal, and clients that do not speak TLS."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.certificates import issue
from tests.support.clients import Skopeo
from tests.support.debark_process import DebarkProcess, wait_until
from tests.support.hub import Hub
from tests.support.raw_http import RawConnection
from tests.support.registry_client import RegistryClient, digest_of
from tests.support.small_images import Image, Layer, file

NAME, PATH = "hub.test/tls/app", "/v2/hub.test/tls/app/blobs/"
LAYER = Layer.of(file("data", os.urandom(3_000_001)), compressed=False)


@dataclass(frozen=True)
class Secured:
    """A mirror that is patient for a second, and where its certificate is."""

    debark: DebarkProcess
    directory: Path

    def trusting(self) -> ssl.SSLContext:
        """Of the certificate that it presents now, and of no other one."""
        return ssl.create_default_context(cafile=str(self.directory / "server.crt"))

    def get(self, path: str, **headers: str) -> bytes:
        return RegistryClient(self.debark.address, tls=self.trusting()).get(path, headers).body


@pytest.fixture(scope="module")
def secured(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory: Path = tmp_path_factory.mktemp("secured")
    certificate, key = issue(directory, "mirror.example.org")
    settings = f'[server]\nkeepalive = 1\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n[publish]\nenabled = false\n'
    tls = ssl.create_default_context(cafile=str(certificate))
    with DebarkProcess(directory, {"hub.test": hub.url}, settings, tls=tls) as debark:
        yield Secured(debark, directory)
        assert "Traceback" not in debark.output()
        assert debark.log_events("request_failed") == []


@pytest.fixture(scope="module")
def layer(hub: Hub) -> str:
    """The digest of the layer of `tls/app:1`."""
    Image((LAYER,)).push(hub.client(), "tls/app", "1")
    return digest_of(LAYER.packed)


def test_a_real_client_that_trusts_the_certificate_pulls(secured: Secured, hub: Hub, layer: str, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    shutil.copy(secured.directory / "server.crt", trusted / "ca.crt")
    verified = ("--src-tls-verify=true", f"--src-cert-dir={trusted}")
    for to in ("cold", "warm"):
        copy = Skopeo(tmp_path).pull(f"{secured.debark.address}/{NAME}:1", to, *verified)
        assert copy.differences(hub, "tls/app", "1") == []


@pytest.mark.parametrize(("start", "end"), [(0, 0), (65_535, 65_536), (1_000_000, 2_999_999), (2_999_999, 3_000_000)])
def test_parts_of_a_blob(secured: Secured, layer: str, start: int, end: int) -> None:
    assert secured.get(f"{PATH}{layer}") == LAYER.packed
    assert secured.get(f"{PATH}{layer}", Range=f"bytes={start}-{end}") == LAYER.packed[start : end + 1]


def test_a_renewed_certificate_is_presented_without_a_restart(secured: Secured) -> None:
    pid, old = secured.debark.worker_pids(), secured.trusting()
    issue(secured.directory, "mirror.example.org")

    def is_trusted(context: ssl.SSLContext) -> bool:
        try:
            return RegistryClient(secured.debark.address, tls=context).get("/v2/").status == 200
        except ssl.SSLCertVerificationError:
            return False

    wait_until(lambda: is_trusted(secured.trusting()), 30, lambda: "the new certificate is not presented")
    assert not is_trusted(old)
    assert secured.debark.worker_pids() == pid


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
def test_a_handshake_that_does_not_come_to_its_end_is_not_waited_for(secured: Secured, sent: bytes) -> None:
    with RawConnection(secured.debark.address) as client:
        client.send(sent)
        assert client.is_closed()


def test_a_client_that_does_not_say_goodbye_is_not_waited_for(secured: Secured) -> None:
    def connections() -> int:
        (line,) = re.findall(r"^debark_open_connections.* (\d+)", secured.get("/metrics").decode(), re.MULTILINE)
        return int(line)

    host, _, port = secured.debark.address.rpartition(":")
    plain = socket.create_connection((host, int(port)))
    with secured.trusting().wrap_socket(plain, server_hostname=host) as silent:
        silent.sendall(b"GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n")
        assert silent.recv(12) == b"HTTP/1.1 200"
        assert connections() >= 2
        wait_until(lambda: connections() == 1, 15, lambda: "it is there still, long after its time")


def test_plain_http_is_turned_away(secured: Secured) -> None:
    with RawConnection(secured.debark.address) as client:
        client.send(b"GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n")
        assert client.is_closed()
    assert secured.get("/v2/") == b"{}"
