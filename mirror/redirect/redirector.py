"""Where a client is sent for a blob, if anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from mirror.jobs.packed_layers import PackedCopy
from mirror.oci.digest import Digest
from mirror.redirect.places import Place, in_order
from mirror.redirect.witness import Witness


class Copies(Protocol):
    """Which repositories hold a blob as it is."""

    async def find(self, digest: Digest) -> tuple[PackedCopy, ...]:
        """Copies of a layer's blob; never fails."""


class Redirector:
    """Chooses among the places that serve a blob."""

    def __init__(
        self, places: Sequence[Place], copies: Copies, witness: Witness, *, smallest: int = 0, patience: float = 1.0
    ) -> None:
        """smallest: bytes of the smallest blob that is worth it. patience: seconds that a request may wait for places."""
        self._places = places
        self._copies = copies
        self._witness = witness
        self._smallest = smallest
        self._patience = patience

    async def find(self, digest: Digest, client: str) -> str | None:
        """The URL of a place that serves the blob to this client; None if there is none now. client: its address."""
        copies = [copy for copy in await self._copies.find(digest) if copy.size >= self._smallest]
        if not copies:
            return None
        unknown = []
        for place in in_order(self._places, client, digest):
            for copy in copies:
                serves = self._witness.knows(place, copy)
                if serves:
                    return place.address_of(copy)
                if serves is None:
                    unknown.append((place, copy))
        return await self._first(unknown)

    async def close(self) -> None:
        """Give up what is asked."""
        await self._witness.close()

    async def _first(self, unknown: Sequence[tuple[Place, PackedCopy]]) -> str | None:
        """One that turns out to serve the blob, if that comes soon; the others go on being asked for those who come later."""
        waiting = {asyncio.ensure_future(self._witness.see(*pair)): pair for pair in unknown}
        pending = set(waiting)
        try:
            async with asyncio.timeout(self._patience):
                while pending:
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for answer in done:
                        if answer.result():
                            place, copy = waiting[answer]
                            return place.address_of(copy)
        except TimeoutError:
            return None
        finally:
            for answer in pending:
                answer.cancel()
        return None
