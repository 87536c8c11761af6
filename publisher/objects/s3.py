"""A repository's storage in an S3 bucket, which any CVMFS client or stratum 1 can read over plain HTTP. Format, section 2.

    <prefix>/.cvmfspublished, .cvmfswhitelist, .cvmfsreflog ...   the named files
    <prefix>/data/00 .. ff/<38 hex digits><marker><letter>        objects

An S3 server shows an object complete or not at all, and has it in safe storage once the request is answered; so there is no
staging area and nothing to flush. Requests are made by obstore, outside of the interpreter lock; it signs them, and repeats them
where the network or the server fails (measured for 8 kB objects: 0.4 ms of CPU time a request, boto3 1.6 ms, minio 0.8 ms).
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from mirror.errors import InvalidInput, NotFound, StorageFull, Unavailable
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects.credentials import S3Credentials
from publisher.objects.names import named_file, parse_object_name
from publisher.objects.store import REFRESH_SECONDS, StoredObject

_PAGE = 1000
"""Objects of one page of a listing: what S3 servers give at the most."""
_PART = 8 << 20
"""Bytes above which an object is sent in parts, and of each part; servers take none below 5 MiB but the last."""
_MOST_PARTS = 10_000
"""Of one object, as S3 has it."""
_PARTS_AT_ONCE = 2
_UPLOADS = 4
"""Objects sent in parts at the same time: with `_PARTS_AT_ONCE` parts each in memory."""
_READ_AT_ONCE = 1 << 20
_OBJECT_HEADERS: dict[str, str] = {"Content-Type": "application/octet-stream", "Cache-Control": "max-age=259200"}
_NAMED_HEADERS: dict[str, str] = {"Content-Type": "application/x-cvmfs", "Cache-Control": "max-age=61"}
_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>", re.ASCII)
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]{1,40})", re.ASCII)
_CAUSE = re.compile(r'(?:message|error): "([^"]{1,200})"')
_KIND = re.compile(r"HttpError \{\s*kind: ([A-Za-z]{1,40})", re.ASCII)
_FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "StorageFull", "InsufficientStorage"})
_FULL_STATUS = "507"


@dataclass(frozen=True, slots=True)
class S3Place:
    """Where the repository is."""

    endpoint: str
    """Of the service, such as `https://s3.example.org`."""
    bucket: str
    prefix: str
    """Of all keys, without a `/` at its ends."""
    region: str = "us-east-1"
    path_style: bool = True
    """The bucket is named in the path of URLs, not in their host."""

    @property
    def url(self) -> str:
        """Where the service has it, for those whom it lets read."""
        return f"{self.endpoint}/{self.bucket}/{self.prefix}" if self.path_style else f"{self.endpoint_of_bucket}/{self.prefix}"

    @property
    def endpoint_of_bucket(self) -> str:
        """The endpoint with the bucket's name before its host."""
        parts = urlsplit(self.endpoint)
        return parts._replace(netloc=f"{self.bucket}.{parts.netloc}").geturl()

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


@dataclass(frozen=True, slots=True)
class S3Limits:
    """Patience, in seconds, and habits of the server."""

    connect_timeout: float = 5.0
    timeout: float = 120.0
    """For one request with its answer."""
    attempts: int = 8
    """Of one request, pauses between them doubling up to `longest_pause`."""
    longest_pause: float = 15.0
    connections: int = 32
    """Kept open between requests."""
    create_only: bool = True
    """The server knows `If-None-Match: *` and refuses to replace an object then; without it each object is looked for first."""

    def __post_init__(self) -> None:
        """Raises InvalidInput where nothing could ever be done."""
        if min(self.connect_timeout, self.timeout, self.longest_pause, self.attempts, self.connections) <= 0:
            raise InvalidInput("timeouts, attempts and connections of an S3 storage must be more than 0")


class S3ObjectStore:
    """The object store protocol on a bucket; safe for several threads, and for readers in other processes."""

    def __init__(
        self,
        place: S3Place,
        credentials: S3Credentials,
        locks: Path,
        limits: S3Limits | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is asked of the server yet.

        locks: a directory for lock files, the same for all processes that write the repository; made where it lacks.
        clock: Unix seconds. Raises InvalidInput.
        """
        self._place = place
        self._locks = locks
        self._limits = limits = limits or S3Limits()
        self._clock = clock
        self._uploads = threading.BoundedSemaphore(_UPLOADS)
        config: dict[str, str | bool] = {
            "access_key_id": credentials.access_key,
            "secret_access_key": credentials.secret_key,
            "region": place.region,
            "endpoint": place.endpoint if place.path_style else place.endpoint_of_bucket,
            "virtual_hosted_style_request": not place.path_style,
        }
        if credentials.session_token:
            config["token"] = credentials.session_token
        try:
            self._store = S3Store(
                place.bucket,
                prefix=place.prefix,
                config=config,  # type: ignore[arg-type]  # a TypedDict, of which this is a part
                client_options={
                    "allow_http": place.endpoint.startswith("http://"),
                    "connect_timeout": timedelta(seconds=limits.connect_timeout),
                    "timeout": timedelta(seconds=limits.timeout),
                    "pool_max_idle_per_host": str(limits.connections),
                },
                retry_config={
                    "max_retries": limits.attempts - 1,
                    "retry_timeout": timedelta(seconds=limits.attempts * (limits.timeout + limits.longest_pause)),
                    "backoff": {"max_backoff": timedelta(seconds=limits.longest_pause)},
                },
            )
        except (BaseError, ValueError) as error:
            raise InvalidInput(f"{place} at {place.endpoint} cannot be used: {_reason(error)}") from None

    def get(self, content: ContentHash, kind: ObjectKind) -> bytes:
        """The stored (compressed) bytes, not yet verified. Raises NotFound, Unavailable."""
        return self._read(content.object_path(kind))

    def pieces(self, content: ContentHash, kind: ObjectKind) -> Iterator[bytes]:
        """What `get` gives, a piece at a time, as it arrives. Raises NotFound, Unavailable."""
        path = content.object_path(kind)
        with self._failures(f"{self._place}/{path} cannot be read"):
            try:
                answer = obstore.get(self._store, path)
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                raise NotFound(f"{self._place}/{path} does not exist") from None
            for piece in answer.stream(min_chunk_size=_READ_AT_ONCE):
                yield bytes(piece)

    def read_file(self, name: str) -> bytes:
        """A named file of the repository's root. Raises NotFound, Unavailable."""
        return self._read(named_file(name))

    def put(self, content: ContentHash, kind: ObjectKind, stored: bytes | memoryview) -> bool:
        """Store the object unless it is there; whether it was new. One that is there for long is written again, to be young.

        Raises StorageFull, Unavailable.
        """
        path = content.object_path(kind)
        with self._failures(f"object {content} cannot be stored in {self._place}"):
            if self._limits.create_only:
                with suppress(AlreadyExistsError):
                    self._write(path, stored, _OBJECT_HEADERS, "create")
                    return True
            with self._expiry(content, fcntl.LOCK_SH):
                modified = self._modified(path)
                if modified is None or modified < self._clock() - REFRESH_SECONDS:
                    self._write(path, stored, _OBJECT_HEADERS, "overwrite")
            return modified is None

    def put_file(self, content: ContentHash, kind: ObjectKind, stored: Path) -> bool:
        """As `put`, of a file; a large one in parts, of which the server makes one object when all are there.

        Raises StorageFull, Unavailable.
        """
        what = f"object {content} cannot be stored in {self._place}"
        with self._failures(what):
            size = stored.stat().st_size
            is_new = (
                self.put(content, kind, stored.read_bytes()) if size <= _PART else self._put_parts(content, kind, stored, size)
            )
            stored.unlink()
        return is_new

    def renew(self, content: ContentHash, kind: ObjectKind, size: int) -> bool:
        """Make an object of this size as good as new; false if there is none. One that is there for long is written again.

        Raises StorageFull, Unavailable.
        """
        path = content.object_path(kind)
        with self._failures(f"object {content} cannot be renewed in {self._place}"), self._expiry(content, fcntl.LOCK_SH):
            try:
                found = obstore.head(self._store, path)
                if found["size"] != size:
                    return False
                if found["last_modified"].timestamp() < self._clock() - REFRESH_SECONDS:
                    self._write(path, obstore.get(self._store, path).bytes().to_bytes(), _OBJECT_HEADERS, "overwrite")
            except FileNotFoundError:
                return False
        return True

    def contains(self, content: ContentHash, kind: ObjectKind) -> bool:
        """Whether the object is there. Raises Unavailable."""
        with self._failures(f"object {content} cannot be looked up in {self._place}"):
            return self._modified(content.object_path(kind)) is not None

    def delete(self, content: ContentHash, kind: ObjectKind) -> None:
        """Remove the object; no error if it is gone already. Raises Unavailable."""
        with self._failures(f"object {content} cannot be removed from {self._place}"), suppress(FileNotFoundError):
            obstore.delete(self._store, content.object_path(kind))

    def expire(self, content: ContentHash, kind: ObjectKind, before: float) -> bool:
        """Remove the object if it was last written before this (Unix seconds); whether it was removed. Raises Unavailable."""
        path = content.object_path(kind)
        what = f"object {content} cannot be removed from {self._place}"
        with self._failures(what), self._expiry(content, fcntl.LOCK_EX), suppress(FileNotFoundError):
            modified = self._modified(path)
            if modified is not None and modified < before:
                obstore.delete(self._store, path)
                return True
        return False

    def objects(self) -> Iterator[StoredObject]:
        """Every object, in the order of the names; keys that are none are passed over. Raises Unavailable."""
        pages = iter(obstore.list(self._store, "data", chunk_size=_PAGE))
        while True:
            with self._failures(f"the objects of {self._place} cannot be listed"):
                page = next(pages, None)
            if page is None:
                return
            for found in page:
                parsed = parse_object_name(found["path"].removeprefix("data/"))
                if parsed is not None:
                    yield StoredObject(*parsed, found["size"], found["last_modified"].timestamp())

    def write_file(self, name: str, data: bytes) -> None:
        """Replace a named file atomically and durably. Raises StorageFull, Unavailable."""
        with self._failures(f"{self._place}/{named_file(name)} cannot be written"):
            self._write(name, data, _NAMED_HEADERS, "overwrite")

    def delete_file(self, name: str) -> None:
        """Remove a named file; no error if it is gone already. Raises Unavailable."""
        with self._failures(f"{self._place}/{named_file(name)} cannot be removed"), suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    def flush(self) -> None:
        """Nothing to wait for: what the server has acknowledged, it keeps."""

    def _read(self, path: str) -> bytes:
        with self._failures(f"{self._place}/{path} cannot be read"):
            try:
                return obstore.get(self._store, path).bytes().to_bytes()
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                raise NotFound(f"{self._place}/{path} does not exist") from None

    def _write(self, path: str, data: bytes | memoryview, headers: dict[str, str], mode: Literal["create", "overwrite"]) -> None:
        obstore.put(self._store, path, data, attributes=headers, mode=mode, use_multipart=False)

    def _modified(self, path: str) -> float | None:
        """When the object was written, in Unix seconds; None if it is not there."""
        try:
            return obstore.head(self._store, path)["last_modified"].timestamp()
        except FileNotFoundError:
            return None

    def _put_parts(self, content: ContentHash, kind: ObjectKind, stored: Path, size: int) -> bool:
        """A server cannot be told to keep what is there when parts become an object, so it is looked for before."""
        path = content.object_path(kind)
        with self._expiry(content, fcntl.LOCK_SH):
            modified = self._modified(path)
            if modified is None or modified < self._clock() - REFRESH_SECONDS:
                with self._uploads, stored.open("rb") as file:
                    part = max(_PART, -(-size // _MOST_PARTS))
                    obstore.put(
                        self._store, path, file, attributes=_OBJECT_HEADERS, chunk_size=part, max_concurrency=_PARTS_AT_ONCE
                    )
        return modified is None

    @contextmanager
    def _expiry(self, content: ContentHash, operation: int) -> Iterator[None]:
        """Keep `expire` out while an object that is there is put again: S3 cannot remove an object only if it is unchanged."""
        self._locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._locks / f"{content.value[0]:02x}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, operation)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """The library's errors as those of the protocol: its own texts repeat the whole answer, so they are not shown."""
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._refused(what, error) from None
        except FileNotFoundError:
            raise Unavailable(f"{what}: there is no bucket '{self._place.bucket}' at {self._place.endpoint}; make it") from None
        except (BaseError, OSError) as error:
            if _code(error) in _FULL or _reason(error).startswith(_FULL_STATUS):
                raise StorageFull(f"{what}: the storage is full ({_reason(error)})") from None
            raise Unavailable(f"{what}: {self._place.endpoint}: {_reason(error)}") from None

    def _refused(self, what: str, error: Exception) -> Unavailable:
        if _code(error) in _FULL:
            return StorageFull(f"{what}: the storage is full ({_code(error)})")
        return Unavailable(
            f"{what}: {self._place.endpoint} does not let this access key do it ({_reason(error)}); "
            "look at the credentials and at the rights on the bucket"
        )


def _code(error: Exception) -> str:
    match = _CODE.search(str(error))
    return match[1] if match else ""


def _reason(error: Exception) -> str:
    """What the server said, or why it said nothing."""
    text = str(error)
    status = _STATUS.search(text)
    if status is not None:
        return f"{status[1]} {_code(error)}".strip()
    cause = _CAUSE.search(text) or _KIND.search(text)
    return cause[1] if cause else text.partition("\n")[0][:300]
