"""Names that are kept whether they are used or not, because a recipe names them.

A name may be pinned by several recipes; it is kept as long as one of them names it. A digest that is pinned keeps the image,
whatever other names its repository has for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, bindparam, delete, exists, select

from mirror.jobs.model import ImageStatus
from mirror.oci.reference import ImageReference, Reference, RepositoryName
from mirror.state.engine import Database
from mirror.state.schema import pins


@dataclass(frozen=True, slots=True)
class Pin:
    """A name that a recipe keeps since `at` (Unix seconds)."""

    image: ImageReference
    recipe: str
    at: float


@dataclass(frozen=True, slots=True)
class PinChange:
    """What a new reading of a recipe changed."""

    added: Sequence[ImageReference]
    removed: Sequence[ImageReference]


class Pins:
    """All pins. Every method raises Unavailable when the state database cannot be reached."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        """clock: Unix seconds."""
        self._database = database
        self._clock = clock

    async def put(self, recipe: str, images: Collection[ImageReference]) -> PinChange:
        """Let the recipe keep exactly these names; what it kept before stays pinned since then."""
        now = self._clock()
        wanted = set(images)
        async with self._database.write() as connection:
            known = {pin.image for pin in map(_pin, await connection.execute(_of(recipe)))}
            added, removed = sorted(wanted - known, key=str), sorted(known - wanted, key=str)
            if added:
                rows = [_key(image) | {"recipe": recipe, "pinned_at": now} for image in added]
                await connection.execute(self._database.insert(pins).on_conflict_do_nothing(), rows)
            if removed:
                statement = delete(pins).where(
                    pins.c.recipe == recipe,
                    pins.c.registry == bindparam("old_registry"),
                    pins.c.repository == bindparam("old_repository"),
                    pins.c.reference == bindparam("old_reference"),
                )
                gone = [{f"old_{column}": value for column, value in _key(image).items()} for image in removed]
                await connection.execute(statement, gone)
        return PinChange(added, removed)

    async def of(self, recipe: str) -> list[Pin]:
        """What a recipe keeps, by name."""
        async with self._database.read() as connection:
            return [_pin(row) for row in await connection.execute(_of(recipe))]

    async def all(self) -> list[Pin]:
        """Every pin, by name and recipe."""
        statement = select(pins).order_by(pins.c.registry, pins.c.repository, pins.c.reference, pins.c.recipe)
        async with self._database.read() as connection:
            return [_pin(row) for row in await connection.execute(statement)]

    async def is_pinned(self, status: ImageStatus) -> bool:
        """Whether a recipe keeps this name, or the image or index that it leads to, by digest, in the same repository."""
        name = status.image.name
        references = {str(status.image.reference), str(status.target), str(status.manifest)}
        statement = select(
            exists().where(
                pins.c.registry == name.registry, pins.c.repository == name.repository, pins.c.reference.in_(references)
            )
        )
        async with self._database.read() as connection:
            return bool((await connection.execute(statement)).scalar_one())


def _of(recipe: str) -> Select[Any]:
    return select(pins).where(pins.c.recipe == recipe).order_by(pins.c.registry, pins.c.repository, pins.c.reference)


def _key(image: ImageReference) -> dict[str, str]:
    return {"registry": image.name.registry, "repository": image.name.repository, "reference": str(image.reference)}


def _pin(row: Any) -> Pin:
    return Pin(
        ImageReference(RepositoryName(row.registry, row.repository), Reference.parse(row.reference)), row.recipe, row.pinned_at
    )
