"""From settings to what garbage collections take."""

from __future__ import annotations

from mirror.config.publish import CollectionSettings
from publisher.gc.policy import CollectionLimits


def collection_limits(settings: CollectionSettings) -> CollectionLimits:
    """Bounds of a collection's work."""
    return CollectionLimits(
        memory=settings.memory,
        workers=settings.threads,
        batch=settings.batch,
        lock_wait=settings.lock_wait,
        lock_hold=settings.lock_hold,
        lock_pause=settings.lock_pause,
    )
