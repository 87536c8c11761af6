"""A recipe carried out: which images it stands for now, all of them asked for, and their names pinned."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from mirror.errors import MirrorError
from mirror.jobs.pins import PinChange, Pins
from mirror.oci.reference import ImageReference, Reference
from publisher.asking import Asked, Asker, UpstreamNames
from publisher.outcomes import MISSING, MISTAKEN, Outcome, outcome_of_failure
from publisher.recipe import Recipe, Wish

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class PreloadLimits:
    """Bounds of one run. images: that a recipe may stand for. at_once: questions to upstreams at the same time."""

    images: int = 10_000
    at_once: int = 8


@dataclass(slots=True)
class Expansion:
    """What a recipe stands for now.

    lines: each image with the line that names it. listed: those that are there because their tag matches. pins: what is kept.
    """

    lines: dict[ImageReference, int] = field(default_factory=dict)
    listed: set[ImageReference] = field(default_factory=set)
    pins: set[ImageReference] = field(default_factory=set)
    problems: list[Outcome] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Preloaded:
    """What came of a recipe: images that were asked for with their lines, outcomes of all that could not be, and pins."""

    asked: Sequence[tuple[Asked, int]]
    problems: Sequence[Outcome]
    listed: frozenset[ImageReference]
    pins: PinChange


class Preload:
    """Carries recipes out."""

    def __init__(self, asker: Asker, names: UpstreamNames, pins: Pins, limits: PreloadLimits) -> None:
        self._asker = asker
        self._names = names
        self._pins = pins
        self._limits = limits

    async def carry_out(self, recipe: Recipe, key: str, told: Callable[[int, int], None] = lambda _done, _all: None) -> Preloaded:
        """Ask for everything. key: under which the recipe keeps names. told: how many images were asked for, of how many.

        A name stays pinned as long as the recipe names it, whether it can be had now or not. Raises Unavailable.
        """
        before = [pin.image for pin in await self._pins.of(key)]
        expansion = await self._expand(recipe, before)
        change = await self._pins.put(key, expansion.pins)
        done = 0

        async def ask(image: ImageReference) -> Asked | Outcome:
            nonlocal done
            try:
                return await self._asker.ask(image)
            except MirrorError as error:
                return outcome_of_failure(str(image), error, expansion.lines[image])
            finally:
                done += 1
                told(done, len(expansion.lines))

        results = await _each(list(expansion.lines), ask, self._limits.at_once)
        asked = [(result, expansion.lines[result.image]) for result in results if isinstance(result, Asked)]
        problems = [result for result in results if isinstance(result, Outcome)]
        return Preloaded(asked, [*expansion.problems, *problems], frozenset(expansion.listed), change)

    async def _expand(self, recipe: Recipe, before: Sequence[ImageReference]) -> Expansion:
        found = Expansion()
        found.problems += [Outcome("", MISTAKEN, reason=bad.reason, line=bad.line) for bad in recipe.mistakes]
        if recipe.mistakes:
            # What a broken line stood for is not known: nothing is given up because of a slip.
            found.pins.update(before)
        wishes: list[Wish] = []
        for wish in recipe.wishes:
            try:
                wishes.append(replace(wish, name=self._names.name(wish.name)))
            except MirrorError as error:
                found.problems.append(Outcome(str(wish), MISTAKEN, reason=str(error), line=wish.line))
                found.pins.update(_kept(wish, before))
        for wish, tags in zip(wishes, await _each(wishes, self._tags, self._limits.at_once), strict=True):
            self._add(found, wish, tags, before)
        return found

    def _add(self, found: Expansion, wish: Wish, tags: list[str] | Outcome, before: Sequence[ImageReference]) -> None:
        if isinstance(tags, Outcome):
            found.problems.append(tags)
            found.pins.update(_kept(wish, before))
            return
        listed = [ImageReference(wish.name, Reference(tag=tag)) for tag in tags]
        images = listed if wish.reference is None else [ImageReference(wish.name, wish.reference)]
        if not images:
            reason = f"no tag of {wish.name} matches '{wish.pattern}' now"
            found.problems.append(Outcome(str(wish), MISSING, reason=reason, line=wish.line))
        new = [image for image in images if image not in found.lines]
        if len(found.lines) + len(new) > self._limits.images:
            reason = f"{len(new)} images would make more than {self._limits.images} in all; see --at-most"
            found.problems.append(Outcome(str(wish), MISTAKEN, reason=reason, line=wish.line))
            found.pins.update(_kept(wish, before))
            return
        found.lines.update(dict.fromkeys(new, wish.line))
        if wish.reference is None:
            found.listed.update(new)
        else:
            found.listed.difference_update(images)
        found.pins.update(images)

    async def _tags(self, wish: Wish) -> list[str] | Outcome:
        """The tags that a pattern stands for; none for a wish without one."""
        if wish.reference is not None:
            return []
        try:
            tags = await self._asker.tags(wish.name)
        except MirrorError as error:
            return outcome_of_failure(str(wish), error, wish.line)
        return [tag for tag in tags if wish.matches(ImageReference(wish.name, Reference(tag=tag)))]


def _kept(wish: Wish, before: Sequence[ImageReference]) -> set[ImageReference]:
    """What the wish stands for as far as is known without the upstream."""
    named = {ImageReference(wish.name, wish.reference)} if wish.reference is not None else set()
    return named | {image for image in before if wish.matches(image)}


async def _each(items: Sequence[T], work: Callable[[T], Awaitable[R]], at_once: int) -> list[R]:
    """The results in the order of the items."""
    turn = asyncio.Semaphore(at_once)

    async def one(item: T) -> R:
        async with turn:
            return await work(item)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item)) for item in items]
    return [task.result() for task in tasks]
