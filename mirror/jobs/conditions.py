"""What keeps publishers from their work, or makes them work by old rules, for all who report health. A few rows at the most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum

from sqlalchemy import delete, select

from mirror.state.engine import Database
from mirror.state.schema import conditions


class Condition(StrEnum):
    """What is wrong."""

    DISK = "disk"
    """Too little room: nothing more is published."""
    POLICY = "policy"
    """The policy file is broken: the one before is in force."""
    AUDIT = "audit"
    """The audit log cannot be written: nothing counts as published."""


class Conditions:
    """The conditions of all publishers. Every method raises Unavailable when the state database cannot be reached."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        """clock: Unix seconds."""
        self._database = database
        self._clock = clock

    async def replace(self, publisher: str, found: Mapping[Condition, str]) -> None:
        """What is wrong with this publisher now, in words, and nothing else is. One that lasts keeps its beginning."""
        rows = [
            {"publisher": publisher, "name": name.value, "text": text, "since": self._clock()} for name, text in found.items()
        ]
        gone = delete(conditions).where(
            conditions.c.publisher == publisher, conditions.c.name.not_in([name.value for name in found])
        )
        insert = self._database.insert(conditions)
        renewed = insert.on_conflict_do_update(index_elements=["publisher", "name"], set_={"text": insert.excluded.text})
        async with self._database.write() as connection:
            await connection.execute(gone)
            if rows:
                await connection.execute(renewed, rows)

    async def all(self) -> dict[Condition, str]:
        """What is wrong with any publisher."""
        statement = select(conditions.c.name, conditions.c.text).order_by(conditions.c.since)
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        found: dict[Condition, list[str]] = {}
        for row in rows:
            texts = found.setdefault(Condition(row.name), [])
            if row.text not in texts:
                texts.append(row.text)
        return {name: "; ".join(texts) for name, texts in found.items()}
