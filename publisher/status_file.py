"""`.cvmfs_status.json`: when a repository was last replicated, collected and checked, for monitors. Repository format, 2."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from mirror.errors import NotFound
from publisher.objects.store import ObjectStore

STATUS_NAME = ".cvmfs_status.json"


def note_status(store: ObjectStore, **fields: str) -> None:
    """Set fields and leave all others as they are, whoever wrote them. Blocking. Raises StorageFull, Unavailable."""
    try:
        status: Any = json.loads(store.read_file(STATUS_NAME))
    except (NotFound, ValueError):
        status = {}
    known = status if isinstance(status, dict) else {}
    store.write_file(STATUS_NAME, json.dumps(known | fields, indent=2).encode() + b"\n")


def utc_date(seconds: float) -> str:
    """Unix seconds as `date --utc` says them, which is what CernVM-FS's tools write and its monitors read."""
    return f"{datetime.fromtimestamp(seconds, UTC):%a %b %e %H:%M:%S UTC %Y}"
