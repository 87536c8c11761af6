"""Where a repository's files are, as the settings say: in the data directory, or in a bucket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mirror.config.models import Config
from mirror.config.publish import PublishSettings, S3Settings
from mirror.data import DataDirectory
from mirror.errors import InvalidInput
from publisher.objects import credentials
from publisher.objects.local import LocalObjectStore
from publisher.objects.pipeline import PipelineLimits
from publisher.objects.store import ObjectStore

_LEFTOVER_SECONDS = 86_400.0
"""Files on their way in that are older than this belong to nobody."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A repository's files, and how they are reached."""

    store: ObjectStore
    url: str
    """Where clients find them: a path below this mirror, or a whole URL elsewhere."""
    concurrency: int
    """Objects that are best stored at the same time: as many as there are cores to compress them, or more if each is awaited."""
    small_concurrency: int = 1
    """The same of small ones, whose work is a row of short calls: one, unless each is awaited."""


def open_storage(fqrn: str, config: Config, data: DataDirectory, environment: Mapping[str, str] = os.environ) -> Storage:
    """Blocking. Raises InvalidInput where the settings cannot be used, StorageFull, Unavailable."""
    where = config.publish.storage_of(fqrn)
    if where:
        return open_bucket(fqrn, where, config.publish.s3, data.spool / fqrn / "locks", environment)
    store = LocalObjectStore(data.cvmfs / fqrn)
    store.remove_leftovers(_LEFTOVER_SECONDS)
    return Storage(store, f"/cvmfs/{fqrn}", len(os.sched_getaffinity(0)))


def pipeline_limits(publish: PublishSettings, storage: Storage) -> PipelineLimits:
    """How content gets into this storage."""
    return PipelineLimits(
        chunk_above=publish.chunk,
        chunk_size=publish.chunk,
        bytes_in_flight=publish.in_flight,
        threads=publish.threads or storage.concurrency,
        small_threads=storage.small_concurrency,
        known=publish.known_files,
    )


def open_bucket(fqrn: str, where: str, settings: S3Settings, locks: Path, environment: Mapping[str, str] = os.environ) -> Storage:
    """A repository, or a replica of one, in a bucket. Nothing is asked of the service yet.

    where: `s3://bucket/prefix`, below which the repository has a directory of its own; locks: a directory for lock files.
    Raises InvalidInput where the settings cannot be used.
    """
    try:
        from publisher.objects.s3 import S3Limits, S3ObjectStore, S3Place  # noqa: PLC0415 (obstore is an optional package)
    except ImportError as error:
        raise InvalidInput(f"{where}: the Python package obstore is missing ({error}); pip install 'debark[s3]'") from error
    bucket, _, prefix = where.removeprefix("s3://").partition("/")
    endpoint = settings.endpoint or f"https://s3.{settings.region}.amazonaws.com"
    place = S3Place(endpoint, bucket, f"{prefix}/{fqrn}".lstrip("/"), region=settings.region, path_style=settings.path_style)
    if settings.credentials_file:
        keys = credentials.from_file(Path(settings.credentials_file), settings.profile)
    else:
        keys = credentials.from_environment(environment)
    limits = S3Limits(
        connect_timeout=settings.connect_timeout,
        timeout=settings.timeout,
        attempts=settings.attempts,
        longest_pause=settings.longest_pause,
        connections=settings.connections,
        create_only=settings.create_only,
    )
    url = f"{settings.public_url}/{fqrn}" if settings.public_url else place.url
    return Storage(S3ObjectStore(place, keys, locks, limits), url, settings.connections, settings.connections)
