"""What became of images that were asked for: told as soon as it is known."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mirror.errors import Denied, MirrorError, NotFound, Unavailable
from mirror.jobs.model import ImageStatus, Publication, State
from mirror.jobs.statuses import Statuses
from mirror.oci.reference import ImageReference
from publisher.asking import Asked

MISSING, UNREACHABLE, MISTAKEN = "missing", "unreachable", "mistaken"
"""Results of images that did not get as far as having a state."""

_WORST_FIRST = (State.FAILED, State.REFUSED, State.NOT_AN_IMAGE, State.EXPIRED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one entry.

    image: as text; of an entry that cannot be understood, empty. result: a state, or one of the words above. is_new: whether it
    was asked for the first time. is_settled: whether nothing more happens by itself soon.
    """

    image: str
    result: str
    is_new: bool = False
    reason: str | None = None
    publication: Publication | None = None
    line: int | None = None
    is_settled: bool = True

    @property
    def is_good(self) -> bool:
        """Whether it is published, or on its way."""
        return not self.is_settled or self.result == State.PUBLISHED.value


def outcome_of_failure(image: str, error: MirrorError, line: int | None = None) -> Outcome:
    """Of an image that could not even be asked for."""
    match error:
        case NotFound():
            result = MISSING
        case Denied():
            result = State.REFUSED.value
        case Unavailable():
            result = UNREACHABLE
        case _:
            result = MISTAKEN
    return Outcome(image, result, reason=str(error), line=line)


def outcome_of(asked: Asked, own: ImageStatus | None, statuses: Sequence[ImageStatus], line: int | None = None) -> Outcome:
    """own: of the name as it was asked for. statuses: of all that is published for its sake."""
    by_state = {status.state: status for status in reversed([*statuses, *([own] if own is not None else [])])}
    under_way = [status for state, status in by_state.items() if not _is_settled(state)]
    worst = next((by_state[state] for state in _WORST_FIRST if state in by_state), None)
    if under_way:
        first = under_way[-1]
        return Outcome(str(asked.image), first.state.value, asked.is_new, first.reason, line=line, is_settled=False)
    if worst is not None:
        return Outcome(str(asked.image), worst.state.value, asked.is_new, worst.reason, line=line)
    published = own if own is not None and own.publication is not None else by_state.get(State.PUBLISHED)
    if published is None:
        # The name was taken away meanwhile.
        return Outcome(str(asked.image), MISSING, asked.is_new, "it stands for nothing any more", line=line)
    return Outcome(str(asked.image), State.PUBLISHED.value, asked.is_new, publication=published.publication, line=line)


def _is_settled(state: State) -> bool:
    return state.is_final or state is State.FAILED


class Watch:
    """Follows images on their way, by looking only at what changed."""

    def __init__(self, statuses: Statuses, asked: Iterable[tuple[Asked, int | None]]) -> None:
        """asked: each image with its line in the recipe, if there is one."""
        self._statuses = statuses
        self._open = {image.image: (image, line) for image, line in asked}
        self._serial: int | None = None

    @property
    def waiting(self) -> int:
        """How many images are on their way."""
        return len(self._open)

    async def settled(self) -> list[Outcome]:
        """The images that got where they go since the last look. Raises Unavailable."""
        found = [outcome for outcome in await self._look() if outcome[1].is_settled]
        for image, _ in found:
            del self._open[image]
        return [outcome for _, outcome in found]

    async def left(self) -> list[Outcome]:
        """Where the others stand. Raises Unavailable."""
        return [await self._outcome(image) for image in self._open]

    async def _look(self) -> list[tuple[ImageReference, Outcome]]:
        images: Collection[ImageReference] = list(self._open)
        if self._serial is None:
            self._serial = await self._statuses.serial()
        else:
            changes = await self._statuses.changes(self._serial)
            self._serial = changes.serial
            names = changes.repositories
            images = [image for image, (asked, _) in self._open.items() if names & {image.name, *_repositories(asked)}]
        return [(image, await self._outcome(image)) for image in images]

    async def _outcome(self, image: ImageReference) -> Outcome:
        asked, line = self._open[image]
        found = [await self._statuses.status(name, platform) for name, platform in asked.rows]
        own = await self._statuses.status(image)
        return outcome_of(asked, own, [status for status in found if status is not None], line)


def _repositories(asked: Asked) -> set[object]:
    return {name.name for name, _ in asked.rows}
