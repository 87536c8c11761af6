"""What has to be done again and again beside serving."""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from mirror.errors import Unavailable
from mirror.jobs.conditions import Conditions
from mirror.jobs.statuses import Statuses
from mirror.metrics import Metrics
from mirror.store.blobs import BlobStore
from mirror.store.sightings import Sightings

log = structlog.get_logger()

_COUNT_SECONDS = 5.0
_SWEEP_SECONDS = 86_400.0


async def count_jobs(statuses: Statuses, metrics: Metrics) -> None:
    """Show in the metrics how many images are in which state, until cancelled."""
    while True:
        with contextlib.suppress(Unavailable):  # The probe of the state database says so.
            metrics.publish_jobs(await statuses.counts())
        await asyncio.sleep(_COUNT_SECONDS)


async def show_conditions(conditions: Conditions, metrics: Metrics) -> None:
    """Show in the metrics what is wrong with publishers, until cancelled."""
    while True:
        with contextlib.suppress(Unavailable):
            metrics.publisher_conditions(await conditions.all())
        await asyncio.sleep(_COUNT_SECONDS)


async def sweep_parts(store: BlobStore, unused_seconds: float) -> None:
    """Remove transfers that nobody went on with for so long, at once and then daily, until cancelled."""
    while True:
        try:
            swept = await asyncio.to_thread(store.sweep, unused_seconds)
        except Unavailable as error:
            log.warning("parts_not_swept", reason=str(error))
        else:
            if swept.files:
                log.info("parts_swept", files=swept.files, size=swept.size)
        await asyncio.sleep(_SWEEP_SECONDS)


async def drop_sightings(sightings: Sightings, kept_seconds: float) -> None:
    """Forget which repositories were public so long ago that it counts no more, at once and then daily, until cancelled."""
    while True:
        with contextlib.suppress(Unavailable):  # The probe of the state database says so.
            await sightings.drop_before(time.time() - kept_seconds)
        await asyncio.sleep(_SWEEP_SECONDS)
