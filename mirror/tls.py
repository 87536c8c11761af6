"""The server's certificate, which may be renewed while the server runs: new connections get the new one."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from pathlib import Path

from mirror.errors import InvalidInput
from mirror.watched_file import WatchedFile

_LOOK_SECONDS = 5.0
_READ_BUFFER = 64 << 10
"""Bytes; a record of TLS has 16 KiB. Transfers from upstreams get no slower by it."""


class ServerCertificate:
    """A certificate chain and its private key, PEM, and the TLS context that presents them."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises InvalidInput if they cannot be used."""
        self._key = key
        self.context = _context()
        self._file = WatchedFile(certificate, self._load, look_seconds=0)

    async def watch(self) -> None:
        """Follow changes of the certificate's file until cancelled. Replace the key first, and the certificate last."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await asyncio.to_thread(self._file.current)

    def look(self) -> None:
        """Read the file now, if it has changed."""
        self._file.current()

    def _load(self, certificate: Path) -> None:
        try:
            # Tried on another context before: half a pair would be left in the one that is in use.
            _context().load_cert_chain(certificate, self._key)
            self.context.load_cert_chain(certificate, self._key)
        except ssl.SSLError as error:
            raise InvalidInput(f"certificate {certificate} and key {self._key} cannot be used together: {error}") from error
        except OSError as error:
            raise InvalidInput(f"certificate {certificate} or key {self._key} cannot be read: {error.strerror}") from error


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def bound_read_buffers() -> None:
    """Have TLS connections of this process read into 64 KiB each: the event loop would take 256 KiB for one that only waits."""
    sslproto.SSLProtocol.max_size = _READ_BUFFER
