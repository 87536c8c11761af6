"""`debark-publisher convert` and `convert-image`: publish images that nobody has pulled yet."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mirror.config import wiring
from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.errors import InvalidInput
from mirror.jobs.model import State
from mirror.jobs.pins import Pins
from mirror.jobs.repositories import Repositories
from mirror.jobs.statuses import Statuses
from mirror.oci.reference import ImageReference
from mirror.state.engine import Database
from mirror.state.migrate import migrate
from publisher.asking import UpstreamNames, open_asker
from publisher.commands.report import Report
from publisher.commands.verb import EXIT_FAILED, duration_value, upstream_verb
from publisher.conversion import Site, wait_for_all, with_own_publisher
from publisher.outcomes import Outcome, Watch
from publisher.preload import Preload, Preloaded, PreloadLimits
from publisher.recipe import MAX_RECIPE, Recipe, parse_recipe


@upstream_verb("convert")
@click.argument("recipe", metavar="RECIPE.yaml", type=click.Path(path_type=Path))
@click.option("--name", help="Under which the recipe keeps its images; the path of the file without it.")
@click.option("--wait", is_flag=True, help="Until every image is published, refused or failed.")
@click.option("--now", is_flag=True, help="The same; and if no publisher runs, publish in this process.")
@click.option("--timeout", callback=duration_value, default="1 d", show_default=True, help="To wait at the most.")
@click.option("--at-most", type=click.IntRange(1), default=10_000, show_default=True, help="Images that patterns may stand for.")
def convert(
    config: Config, report: Report, *, recipe: Path, name: str | None, wait: bool, now: bool, timeout: float, at_most: int
) -> None:
    """Ask for all images of a wish list, as DUCC reads it, to be published; and keep them, used or not.

    Run it again to publish what tags and patterns stand for by then. What the list does not name any more is not kept any longer.
    """
    wanted = _read(recipe)
    key = name or str(recipe.absolute())
    _carry_out(
        _convert(
            config,
            report,
            wanted,
            key=key,
            patience=_Patience(wait or now, now, timeout),
            limits=PreloadLimits(images=at_most),
        )
    )


@upstream_verb("convert-image")
@click.argument("reference", metavar="REF")
@click.option("--timeout", callback=duration_value, default="1 h", show_default=True, help="To wait at the most.")
def convert_image(config: Config, report: Report, *, reference: str, timeout: float) -> None:
    """Publish the image REF now, and print its path: debian:12, quay.io/project/app@sha256:...

    By the publisher that runs, or else in this process, making the repositories if there are none. An image that was refused, or
    failed, is tried again.
    """
    _carry_out(_convert_image(config, report, reference, _Patience(wait=True, now=True, seconds=timeout)))


@dataclass(frozen=True, slots=True)
class _Patience:
    """wait: for the images. now: publish in this process if there is no publisher. seconds: to wait at the most."""

    wait: bool
    now: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class _Place:
    """What both verbs work with."""

    config: Config
    database: Database
    stack: AsyncExitStack

    @property
    def site(self) -> Site:
        """Where publishers may be."""
        return Site(self.config, Repositories(self.database))

    @property
    def names(self) -> UpstreamNames:
        """Names of registries."""
        return UpstreamNames(wiring.upstream_names(self.config))


@asynccontextmanager
async def _open(config: Config) -> AsyncIterator[_Place]:
    if not config.publish.enabled:
        raise InvalidInput("publishing is switched off (publish.enabled)")
    _ = DataDirectory(config.data).run  # The state database is made beside it.
    async with AsyncExitStack() as stack:
        database = Database(wiring.database(config))
        stack.push_async_callback(database.close)
        await migrate(database)
        yield _Place(config, database, stack)


async def _convert(
    config: Config, report: Report, recipe: Recipe, *, key: str, patience: _Patience, limits: PreloadLimits
) -> bool:
    async with _open(config) as place:
        preload = Preload(await open_asker(config, place.database, place.stack), place.names, Pins(place.database), limits)
        with report.progress("asking upstreams") as update:
            loaded = await preload.carry_out(recipe, key, update)
        told = _Told(report, loaded.listed)
        for problem in loaded.problems:
            told.add(problem)
        await _see_through(place, report, Watch(Statuses(place.database), loaded.asked), patience, told)
    _summarise(report, told, loaded)
    return told.all_is_well


async def _convert_image(config: Config, report: Report, reference: str, patience: _Patience) -> bool:
    async with _open(config) as place:
        image = place.names.image(ImageReference.parse(reference, config.default_upstream))
        asker = await open_asker(config, place.database, place.stack, judge_again=True)
        with report.progress(f"asking {image.name.registry}"):
            asked = await asker.ask(image, at_once=True)
        told = _Told(report)
        await _see_through(place, report, Watch(Statuses(place.database), [(asked, None)]), patience, told)
    return told.all_is_well


async def _see_through(place: _Place, report: Report, watch: Watch, patience: _Patience, told: _Told) -> None:
    """Wait as long as is wanted, and tell what became of the images."""
    for outcome in await watch.settled():
        told.add(outcome)
    if not watch.waiting:
        return
    has_publisher = await place.site.has_publisher()
    if not has_publisher and not patience.now:
        report.warn("no publisher runs, so these images wait; start `debark serve`, or add --now to publish them here")
    seconds = patience.seconds if patience.wait and (has_publisher or patience.now) else 0.0
    later: list[Outcome] = []
    total = watch.waiting
    with report.progress("publishing") as update:
        update(0, total)

        def settled(outcome: Outcome) -> None:
            (later.append if report.shows_progress else told.add)(outcome)
            update(total - watch.waiting, total)

        async def wait() -> None:
            await wait_for_all(place.site, watch, seconds, settled)

        await (wait() if has_publisher or not patience.now else with_own_publisher(place.config, wait))
    for outcome in later:
        told.add(outcome)
    if patience.wait and watch.waiting:
        told.is_complete = False


class _Told:
    """What was told so far."""

    def __init__(self, report: Report, listed: frozenset[ImageReference] = frozenset()) -> None:
        """listed: images that nobody named, so that it is no failure if they are none."""
        self._report = report
        self._listed = {str(image) for image in listed}
        self.counts: Counter[str] = Counter()
        self.is_complete = True
        """Whether nothing is left that was waited for."""

    @property
    def all_is_well(self) -> bool:
        """Whether all images are published, or on their way where nobody wanted to wait."""
        return self.is_complete and not self.counts["bad"]

    def add(self, outcome: Outcome) -> None:
        """Print it."""
        is_artifact = outcome.result == State.NOT_AN_IMAGE.value and outcome.image in self._listed
        self.counts["bad" if not outcome.is_good and not is_artifact else "new" if outcome.is_new else "there"] += 1
        publication = outcome.publication
        self._report.result(
            _sentence(outcome),
            image=outcome.image or None,
            line=outcome.line,
            result=outcome.result,
            new=outcome.is_new,
            path=publication.path if publication else None,
            fqrn=publication.fqrn if publication else None,
            revision=publication.revision if publication else None,
            reason=outcome.reason,
        )


def _sentence(outcome: Outcome) -> str:
    what = outcome.image or "this entry"
    where = f"line {outcome.line}: " if outcome.line is not None else ""
    if outcome.publication is not None:
        return f"{what} is {'published' if outcome.is_new else 'there already'}: {outcome.publication.path}"
    reason = f": {outcome.reason}" if outcome.reason else ""
    return f"{'' if outcome.is_good else where}{what} is {outcome.result}{reason}"


def _summarise(report: Report, told: _Told, loaded: Preloaded) -> None:
    counts, pins = told.counts, loaded.pins
    report.result(
        f"{counts['new']} images are new, {counts['there']} were there or asked for already, {counts['bad']} have problems; "
        f"{len(pins.added)} names are kept from now on, {len(pins.removed)} not any more",
        new=counts["new"],
        there=counts["there"],
        problems=counts["bad"],
        pinned=[str(image) for image in pins.added],
        unpinned=[str(image) for image in pins.removed],
    )


def _read(recipe: Path) -> Recipe:
    try:
        with recipe.open("rb") as file:
            return parse_recipe(file.read(MAX_RECIPE + 1))
    except OSError as error:
        raise InvalidInput(f"the recipe {recipe} cannot be read: {error.strerror}") from error
    except InvalidInput as error:
        raise InvalidInput(f"{recipe}: {error}") from error


def _carry_out(work: Coroutine[Any, Any, bool]) -> None:
    if not asyncio.run(work):
        raise click.exceptions.Exit(EXIT_FAILED)
