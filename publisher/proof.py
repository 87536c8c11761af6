"""Shows that an upstream gives content to everybody: by having it, not by saying so. Architecture, rule 1.

An answer to HEAD costs an upstream nothing, and one that lies could have content published that it never had: what the mirror
holds from elsewhere by a credential. So the bytes themselves are asked for, without credentials, and compared.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mirror.errors import IntegrityError
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor
from mirror.upstream.blob_requests import BlobStream
from mirror.upstream.client import UpstreamClient
from mirror.upstream.policy import SHORT_REQUESTS, RetryPolicy
from mirror.upstream.retrying import retrying

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProofSettings:
    """What a proof costs."""

    part: int = 64 << 10
    """Bytes of a blob that are asked for, at a random place; what is not much larger is asked for as a whole."""

    @property
    def whole(self) -> int:
        """Up to so many bytes a blob is asked for as a whole."""
        return 4 * self.part


class Proof:
    """Asks one upstream's anonymous client."""

    def __init__(
        self,
        settings: ProofSettings,
        *,
        place: Callable[[int], int] = secrets.randbelow,
        retry: RetryPolicy = SHORT_REQUESTS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """place: a number below the given one that no upstream can foresee."""
        self._settings = settings
        self._place = place
        self._retry = retry
        self._sleep = sleep

    def is_small(self, blob: Descriptor) -> bool:
        """Whether the blob is asked for as a whole, so that nothing is needed to compare it with."""
        return blob.size <= self._settings.whole

    async def of_whole(self, client: UpstreamClient, repository: str, blob: Descriptor) -> None:
        """Read all of a blob, and compare its digest. Raises Denied, NotFound, UpstreamUnavailable, IntegrityError."""
        data = await self._with_retries(lambda: _read(client, repository, blob, 0, None))
        if len(data) != blob.size or Digest.of(data, blob.digest.algorithm) != blob.digest:
            raise _not_the_same(client, repository, blob)

    async def of_part(self, client: UpstreamClient, repository: str, blob: Descriptor, file: Path) -> None:
        """Read a part at a random place, and compare it with our verified file of the blob.

        Whoever lacks a share of the blob is found out with the probability of that share, each time. An upstream that ignores
        Range has to send all that comes before the place.
        Raises Denied, NotFound, UpstreamUnavailable, IntegrityError.
        """
        length = min(self._settings.part, blob.size)
        offset = self._place(blob.size - length + 1)
        theirs = await self._with_retries(lambda: _read(client, repository, blob, offset, length))
        if theirs != await asyncio.to_thread(_read_file, file, offset, length):
            raise _not_the_same(client, repository, blob)

    async def _with_retries(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await retrying(attempt, self._retry, self._sleep)


async def _read(client: UpstreamClient, repository: str, blob: Descriptor, offset: int, length: int | None) -> bytes:
    """So many bytes from there; without a length up to the end, but never more than the blob should have."""
    wanted = blob.size - offset if length is None else length
    async with client.open_blob(repository, blob.digest, offset, length) as stream:
        if stream.status == 416 or stream.total not in (None, blob.size):
            raise _not_the_same(client, repository, blob)
        return await _at_most(stream, wanted, exact=length is not None)


async def _at_most(stream: BlobStream, wanted: int, *, exact: bool) -> bytes:
    """The first bytes of a stream; one more than wanted, if there are more and that matters."""
    data = bytearray()
    async for chunk in stream.chunks:
        data += chunk
        if len(data) > wanted or (exact and len(data) == wanted):
            break
    return bytes(data[: wanted if exact else wanted + 1])


def _read_file(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), length, offset)


def _not_the_same(client: UpstreamClient, repository: str, blob: Descriptor) -> IntegrityError:
    return IntegrityError(
        f"upstream {client.upstream.name} does not give everybody the content of {repository}@{blob.digest}, only something else"
    )
