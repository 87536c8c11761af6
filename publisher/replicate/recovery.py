"""What a power failure leaves of a replication: files that were written, but whose content never reached the disk.

While a replication runs, the spool directory says when the storage was flushed last, and in which run of the machine. One that
begins and finds this has a predecessor that died; if the machine has been started since, all that came after that flush is read
and verified, and catalogs among it prove nothing of what is below them, so that they are gone through again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from publisher.cvmfs.hash import ContentHash, ContentHasher, ObjectKind
from publisher.objects.store import ObjectStore
from publisher.replicate.files import local_failures

_NAME = "replicating.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MARGIN = 3600.0
"""Seconds by which the clocks of the storage and of this machine may differ."""

log = structlog.get_logger()


class FlushJournal:
    """Of one replica; all methods block."""

    def __init__(self, spool: Path, store: ObjectStore, clock: Callable[[], float] = time.time, boot: str | None = None) -> None:
        """clock: Unix seconds; boot: identifies the run of the machine, None asks the kernel."""
        self._path = spool / _NAME
        self._store = store
        self._clock = clock
        self._boot = boot if boot is not None else _this_boot()

    @property
    def is_left(self) -> bool:
        """Whether a predecessor died."""
        return self._path.exists()

    def begin(self) -> frozenset[ContentHash]:
        """Verify what a predecessor may have lost; the catalogs that prove nothing. Raises StorageFull, Unavailable."""
        doubtful: frozenset[ContentHash] = frozenset()
        left = self._read()
        if left is not None:
            boot, flushed = left
            if not boot or boot != self._boot:
                doubtful = self._verify(flushed - _MARGIN)
        self.flush()
        return doubtful

    def flush(self) -> None:
        """Bring everything stored so far to disk, and note it. Raises StorageFull, Unavailable."""
        now = self._clock()
        self._store.flush()
        temporary = self._path.with_suffix(".new")
        with local_failures(self._path):
            temporary.write_text(json.dumps({"boot": self._boot, "flushed": now}), "ascii")
            temporary.replace(self._path)

    def end(self) -> None:
        """The replication is complete and on disk."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> tuple[str, float] | None:
        try:
            note: Any = json.loads(self._path.read_bytes())
            return str(note["boot"]), float(note["flushed"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return "", 0.0

    def _verify(self, since: float) -> frozenset[ContentHash]:
        log.warning("replica_verified_after_power_failure", since=since)
        doubtful, lost = set(), 0
        for stored in self._store.objects():
            if stored.modified < since:
                continue
            hasher = ContentHasher(stored.content.algorithm)
            for piece in self._store.pieces(stored.content, stored.kind):
                hasher.update(piece)
            if hasher.result() != stored.content:
                self._store.delete(stored.content, stored.kind)
                lost += 1
            if stored.kind is ObjectKind.CATALOG:
                doubtful.add(stored.content)
        log.info("replica_verified", lost=lost, doubtful_catalogs=len(doubtful))
        return frozenset(doubtful)


def _this_boot() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
