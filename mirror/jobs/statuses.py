"""What is known of images: the read side of the publish queue."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, or_, select

from mirror.jobs.change import is_name, is_of, parse_platform, platform_text
from mirror.jobs.model import ImageStatus, Publication, PublishRequest, State
from mirror.jobs.notes import Notes
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, Reference, RepositoryName
from mirror.state.engine import Database
from mirror.state.schema import counters, images, links, names


@dataclass(frozen=True, slots=True)
class Changes:
    """Repositories in which the status of some name changed, and the serial from which to ask the next time."""

    serial: int
    repositories: frozenset[RepositoryName]


@dataclass(frozen=True, slots=True)
class PublishedSubject:
    """A published name, and one of the manifests that it leads to: the image's, or the index that the name resolved to."""

    status: ImageStatus
    subject: Descriptor
    serial: int
    """Of its last change."""


class Statuses:
    """Look-ups by name and by digest. Every method raises Unavailable when the state database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def status(self, image: ImageReference, platform: Platform | None = None) -> ImageStatus | None:
        """The state of a name, or of its image for a platform (in normal form); None if it never was to be published.

        A digest stands for every name of its repository that leads to it: one that is published, if there is one, the oldest of
        those, so that the answer does not change with every new name. An index stands for the image that its name leads to
        without a platform, if that is wanted at all.
        """
        if image.reference.digest is None:
            statement = _rows().where(*is_name(image, platform))
        else:
            digest = str(image.reference.digest)
            of_its_index = (names.c.manifest_digest != digest) & (names.c.platform != "")
            statement = (
                _rows()
                .where(*_leads_to(image.name, image.reference.digest))
                .order_by(
                    of_its_index,
                    names.c.published_at.is_(None),
                    names.c.platform != "",
                    names.c.requested_at,
                    names.c.reference,
                    names.c.platform,
                )
                .limit(1)
            )
            if platform is not None:
                statement = statement.where(names.c.platform == platform_text(platform))
        async with self._database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else _status(row)

    async def platforms(self, image: ImageReference) -> list[ImageStatus]:
        """The states of a name's images for platforms, by platform. For a digest: of a name that is made of it."""
        statement = _rows().where(*is_of(image), names.c.platform != "").order_by(names.c.platform)
        async with self._database.read() as connection:
            return [_status(row) for row in await connection.execute(statement)]

    async def requests(self, name: RepositoryName, digest: Digest) -> list[PublishRequest]:
        """All names of this repository that lead to the digest, be it the image's manifest or an index that lists it."""
        statement = select(names.c.reference, names.c.platform, names.c.target_digest, names.c.manifest_digest).where(
            *_leads_to(name, digest)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        return [
            PublishRequest(
                ImageReference(name, Reference.parse(row.reference)),
                Digest.parse(row.target_digest),
                Digest.parse(row.manifest_digest),
                parse_platform(row.platform),
            )
            for row in rows
        ]

    async def subjects(self, name: RepositoryName, since: int, limit: int) -> list[PublishedSubject]:
        """What the repository has published, of which something changed after this serial; the newest changes last.

        Only of manifests that the repository may serve, and of so many of the newest changes.
        """
        linked = links.c.digest.in_([names.c.target_digest, names.c.manifest_digest])
        statement = (
            _rows()
            .add_columns(names.c.serial, links.c.digest, links.c.media_type, links.c.size)
            .join(links, (links.c.registry == names.c.registry) & (links.c.repository == names.c.repository) & linked)
            .where(
                names.c.registry == name.registry,
                names.c.repository == name.repository,
                names.c.serial > since,
                names.c.published_at.is_not(None),
            )
            .order_by(names.c.serial.desc(), names.c.requested_at.desc(), names.c.reference, names.c.platform)
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        return await asyncio.to_thread(lambda: [_subject(row) for row in reversed(rows)])

    async def times(self, manifest: Digest) -> dict[State, float]:
        """When the image last came into each state that it has been in (Unix seconds)."""
        columns = [images.c[state.column].label(state.value) for state in State]
        statement = select(*columns).where(images.c.manifest_digest == str(manifest))
        async with self._database.read() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
        return {state: row[state.value] for state in State if row[state.value] is not None} if row is not None else {}

    async def counts(self) -> dict[State, int]:
        """How many images are in each state; states without images are 0."""
        statement = select(images.c.state, func.count()).group_by(images.c.state)
        async with self._database.read() as connection:
            found = {State(state): number for state, number in await connection.execute(statement)}
        return {state: found.get(state, 0) for state in State}

    async def serial(self) -> int:
        """The serial of the newest change."""
        statement = select(counters.c.value).where(counters.c.name == "names")
        async with self._database.read() as connection:
            value: int = (await connection.execute(statement)).scalar_one()
        return value

    async def changes(self, since: int) -> Changes:
        """What changed after this serial. Nothing is ever left out, however long ago that was."""
        statement = (
            select(names.c.registry, names.c.repository, func.max(names.c.serial).label("serial"))
            .where(names.c.serial > since)
            .group_by(names.c.registry, names.c.repository)
        )
        async with self._database.read() as connection:
            rows: Collection[Any] = (await connection.execute(statement)).all()
        return Changes(
            serial=max((row.serial for row in rows), default=since),
            repositories=frozenset(RepositoryName(row.registry, row.repository) for row in rows),
        )


def _rows() -> Select[Any]:
    """Names, each with its image."""
    return select(
        names.c.registry,
        names.c.repository,
        names.c.reference,
        names.c.platform,
        names.c.target_digest,
        names.c.manifest_digest,
        names.c.requested_at,
        names.c.fqrn,
        names.c.path,
        names.c.revision,
        names.c.published_at,
        names.c.refusal,
        images.c.state,
        images.c.reason,
        images.c.attempts,
        images.c.ready_at,
        images.c.updated_at,
        images.c.notes,
    ).join(images, images.c.manifest_digest == names.c.manifest_digest)


def _leads_to(name: RepositoryName, digest: Digest) -> tuple[Any, ...]:
    return (
        names.c.registry == name.registry,
        names.c.repository == name.repository,
        or_(names.c.target_digest == str(digest), names.c.manifest_digest == str(digest)),
    )


def _subject(row: Any) -> PublishedSubject:
    return PublishedSubject(_status(row), Descriptor(row.media_type, Digest.parse(row.digest), row.size), row.serial)


def _status(row: Any) -> ImageStatus:
    state = State(row.state)
    publication = None
    reason = row.reason
    if row.refusal is not None:
        state, reason = State.REFUSED, row.refusal
    if row.published_at is not None:
        # The image may be a job again for the sake of other names; this one stays readable.
        state = State.PUBLISHED
        publication = Publication(row.fqrn, row.path, row.revision)
    return ImageStatus(
        image=ImageReference(RepositoryName(row.registry, row.repository), Reference.parse(row.reference)),
        manifest=Digest.parse(row.manifest_digest),
        target=Digest.parse(row.target_digest),
        state=state,
        reason=reason if publication is None else None,
        publication=publication,
        attempts=row.attempts,
        next_try=row.ready_at if state is State.FAILED else None,
        requested=row.requested_at,
        updated=row.updated_at,
        published=row.published_at,
        platform=parse_platform(row.platform),
        notes=Notes.parse(row.notes or "{}"),
    )
