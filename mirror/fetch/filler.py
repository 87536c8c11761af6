"""The work of one fill: claim the part file, or follow the process that has it; fetch, verify, commit.

claim the part --> locked by another process --> follow the growing file --> it was committed: done
      |                                               |          |--> it was given up: detach
      |<---------- the other process found nothing ---|----------'
      |<---------- the other process died -----------'
      v
transfer (Range from the end of what is there) --> verified --> committed
      |                                     `--> wrong: discarded, failed
      `--> the store cannot take it: discarded, detached (readers stream from the upstream)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from mirror.errors import IntegrityError, MirrorError, StorageFull, Unavailable
from mirror.fetch.disk import DiskThreads
from mirror.fetch.download import Download, DownloadPolicy
from mirror.fetch.fill import Detached, Fill
from mirror.store.blobs import BlobStore
from mirror.store.part import PartFile
from mirror.upstream.model import UpstreamUnavailable

log = structlog.get_logger()

_CLAIM_TRIES = 100
_CATCH_UP_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of fetching blobs."""

    max_fills: int = 1000
    """Blobs on their way in, or waiting for it, at the same time; further ones are refused."""
    max_blob_bytes: int = 100 << 30
    """Larger blobs are refused."""
    disk_threads: int = 8
    follow_seconds: float = 0.02
    """How often one looks how far another process's fill has come."""
    download: DownloadPolicy = field(default_factory=DownloadPolicy)


class Filler:
    """Brings one blob in."""

    def __init__(
        self,
        fill: Fill,
        store: BlobStore,
        disk: DiskThreads,
        limits: FetchLimits,
        make_room: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._make_room = make_room
        self._fill = fill
        self._store = store
        self._disk = disk
        self._limits = limits

    async def run(self) -> None:
        """Work until the fill is stored, detached or failed; failures of an expected kind go to the fill only."""
        fill = self._fill
        fill.retain()
        try:
            await self._run()
        except MirrorError as error:
            log.warning("fill_failed", digest=str(fill.digest), source=fill.sources[0].name, reason=str(error))
            fill.fail(error)
        except asyncio.CancelledError:
            fill.fail(Unavailable("the mirror is stopping"))
            raise
        except BaseException:
            fill.fail(Unavailable(f"the mirror failed to fetch {fill.digest}; its log says why"))
            raise
        finally:
            fill.release()

    async def _run(self) -> None:
        fill = self._fill
        while True:
            try:
                part = self._claim()
            except Unavailable as error:
                await self._detach(None, error)
                return
            if part is None:
                fill.use_file(self._store.open(fill.digest))
                self._finish_stored()
                return
            fill.use_file(part)
            if part.locked or await self._follow(part):
                break
            if fill.is_started:
                return
            # The other process got nothing: what its upstream told it, this one's clients are to hear from their own.
        try:
            await self._fill_part(part)
        finally:
            if part.locked:
                if not part.size:
                    part.discard()
                part.unlock()

    def _claim(self) -> PartFile | None:
        """The part, locked if nobody else fills it; None if the blob was committed in between."""
        for _ in range(_CLAIM_TRIES):
            part = self._store.part(self._fill.digest)
            try:
                if not part.try_lock():
                    return part
                is_here = self._store.size(self._fill.digest) is not None
                too_long = self._fill.total is not None and part.size > self._fill.total
                if not is_here and not too_long and part.is_current():
                    return part
                part.discard()
            except BaseException:
                part.close()
                raise
            part.close()
            if is_here:
                return None
        raise Unavailable(f"the store cannot keep hold of the part file of {self._fill.digest}")

    def _finish_stored(self) -> None:
        size = self._store.size(self._fill.digest)
        if size is None:
            raise Unavailable(f"{self._fill.digest} was removed from the store while it was asked for")
        self._fill.verify(size)
        self._fill.store(self._store.path(self._fill.digest))

    async def _follow(self, part: PartFile) -> bool:
        """Read along with another process; whether this one has to go on with the part."""
        fill = self._fill
        while not part.try_lock():
            # With the first byte, and not before, the other one's upstream has shown that it gives the blob.
            if part.refresh():
                if not fill.is_started:
                    fill.start(fill.total if fill.total is not None else await self._ask_size())
                fill.advance(part.size)
            await asyncio.sleep(self._limits.follow_seconds)
        fill.advance(part.size)
        if part.is_current():
            log.info("fill_taken_over", digest=str(fill.digest), offset=part.size)
            return True
        if self._store.size(fill.digest) is not None:
            fill.was_followed = True
            self._finish_stored()
        elif fill.is_started:
            await self._detach(part, Unavailable(f"another process gave up fetching {fill.digest}"))
        part.unlock()
        return False

    async def _fill_part(self, part: PartFile) -> None:
        left_over = part.size
        try:
            await self._find_room(max((self._fill.total or 0) - part.size, 0))
            self._fill.advance(part.size)
            await self._transfer(part)
        except IntegrityError:
            part.discard()
            if not left_over or self._fill.is_started:
                raise
            # What an earlier process left does not fit what the upstream has now.
            await self._begin_anew()
            return
        except UpstreamUnavailable:
            raise
        except Unavailable as error:
            await self._detach(part, error)
            return
        self._fill.verify(part.size)
        await self._commit(part)

    async def _find_room(self, size: int) -> None:
        """Raises StorageFull, Unavailable."""
        if self._make_room is not None and self._store.shortage(size) > 0:
            await self._make_room(size)
        self._store.check_space(size)

    async def _begin_anew(self) -> None:
        part = self._claim()
        if part is None or not part.locked or part.size:
            raise Unavailable(f"{self._fill.digest} is being fetched by another process; ask again")
        self._fill.use_file(part)
        try:
            await self._fill_part(part)
        finally:
            part.unlock()

    async def _transfer(self, part: PartFile) -> None:
        fill = self._fill
        if fill.total is not None and part.size == fill.total:
            self._start(fill.total)
        else:
            download = Download(
                fill.sources,
                fill.digest,
                offset=part.size,
                size=fill.total,
                policy=self._limits.download,
                on_start=self._start,
                on_refusal=fill.refuse,
            )
            async with aclosing(download.chunks()) as chunks:
                async for chunk in chunks:
                    self._check_size(part.size + len(chunk))
                    await self._append(part, chunk)
        await self._catch_up(part)
        if not part.is_right():
            raise IntegrityError(f"what came as {fill.digest} from {fill.sources[0].name} has another digest")

    async def _append(self, part: PartFile, chunk: bytes | memoryview) -> None:
        """What comes from the upstream meanwhile waits where it is received."""
        await self._catch_up(part)
        await self._disk.run(part.append, chunk)
        self._fill.advance(part.size)

    async def _catch_up(self, part: PartFile) -> None:
        while not part.is_hashed:
            await self._disk.run(part.catch_up, _CATCH_UP_BYTES)

    def _start(self, total: int | None) -> None:
        self._check_size(total or 0)
        if not self._fill.is_started:
            self._fill.start(total)

    def _check_size(self, size: int) -> None:
        if size > self._limits.max_blob_bytes:
            raise IntegrityError(
                f"{self._fill.digest} is larger than the {self._limits.max_blob_bytes} bytes that a blob may have"
            )

    async def _commit(self, part: PartFile) -> None:
        try:
            path = await self._disk.run(self._store.commit, part)
        except MirrorError as error:
            part.discard()
            self._report(error, part.size)
            self._fill.keep_nothing(error)
            return
        self._fill.store(path)

    def _report(self, reason: MirrorError, offset: int) -> None:
        event = "storage_full" if isinstance(reason, StorageFull) else "blob_not_kept"
        log.error(event, digest=str(self._fill.digest), offset=offset, reason=str(reason))

    async def _detach(self, part: PartFile | None, reason: MirrorError) -> None:
        """Let the readers go on without the store."""
        fill = self._fill
        offset, hasher = 0, fill.digest.hasher()
        if part is not None:
            await self._catch_up(part)
            offset, hasher = part.size, part.hasher()
            part.discard()
            if part.is_right():
                fill.verify(part.size)
                fill.keep_nothing(reason)
                return
        self._report(reason, offset)
        if not fill.is_started:
            self._start(fill.total if fill.total is not None else await self._ask_size())
        if fill.total is not None and offset >= fill.total:
            raise IntegrityError(f"what came as {fill.digest} from {fill.sources[0].name} has another digest")
        fill.detach(Detached(offset, hasher, reason))

    async def _ask_size(self) -> int | None:
        """Size of the blob upstream, None if nobody says. Raises NotFound, Denied, UpstreamUnavailable of the last source."""
        position = 0
        while True:
            source = self._fill.sources[position]
            try:
                return await source.client.head_blob(source.repository, self._fill.digest)
            except MirrorError as error:
                self._fill.refuse(source, error)
                position += 1
                if position >= len(self._fill.sources):
                    raise
