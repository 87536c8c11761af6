"""The certificate that the server presents, before and after it is renewed."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from mirror.errors import InvalidInput
from mirror.tls import ServerCertificate
from tests.support.certificates import issue


async def presented(port: int) -> str:
    """The common name that a new connection sees."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    name = x509.load_der_x509_certificate(raw).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    assert isinstance(name, str)
    return name


async def test_a_renewed_certificate_is_presented_to_new_connections(tmp_path: Path) -> None:
    certificate = ServerCertificate(*issue(tmp_path, "old.example.org"))

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=certificate.context)
    port = server.sockets[0].getsockname()[1]
    assert await presented(port) == "old.example.org"
    issue(tmp_path, "new.example.org")
    certificate.look()
    assert await presented(port) == "new.example.org"
    (tmp_path / "server.crt").write_text("half a file")
    certificate.look()
    assert await presented(port) == "new.example.org"
    server.close()
    await server.wait_closed()


def test_a_pair_that_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    certificate, _ = issue(tmp_path, "a")
    _, key = issue(tmp_path / "other", "b")
    with pytest.raises(InvalidInput, match=r"server\.crt and key .* cannot be used together"):
        ServerCertificate(certificate, key)
