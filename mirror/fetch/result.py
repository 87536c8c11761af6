"""What the cache had to do with an answer; the words of the access log."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

FillResult = Literal["stored", "followed", "streamed", "failed"]
"""A fill ended with the blob in the store, brought there by another process, passed on without being kept (disk full), or not
complete."""


class CacheResult(StrEnum):
    """How an answer came about."""

    HIT = "hit"
    """From here, known to be right now."""
    MISS = "miss"
    """From the upstream, for this request."""
    JOINED = "joined"
    """From the upstream, for this request and another that began before."""
    STALE = "stale"
    """From here, as it was when the upstream could last be asked."""
    REDIRECTED = "redirected"
    """From another server, which the client was sent to."""
