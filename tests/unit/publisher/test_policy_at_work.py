"""Policy, room on the disk, amounts a day and take-downs, as a publisher at work follows them and writes them down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from mirror.config.models import Config
from mirror.jobs.blocks import Blocks
from mirror.jobs.conditions import Condition, Conditions
from mirror.jobs.model import ImageStatus, State
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference
from publisher import disk
from publisher.images import layout
from tests.support.faulty_registry import FaultyRegistry, until
from tests.support.publishing import FQRN, Publishing, offer, publishing
from tests.support.small_images import Image, tiny

APP = "hub.test/team/app"


def with_policy(here: Publishing, text: str) -> Path:
    """Let the publisher to come follow this policy."""
    path = here.config.data / "policy.toml"
    path.write_text(text)
    here.config = changed(here.config, policy_file=str(path))
    return path


def changed(config: Config, **publish: object) -> Config:
    return config.model_copy(update={"publish": config.publish.model_copy(update=publish)})


def audit(here: Publishing) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (here.config.data / "log" / "audit.jsonl").read_text().splitlines()]


async def ask(here: Publishing, hub: FaultyRegistry, tag: str, image: Image, states: Collection[State]) -> ImageStatus:
    await here.request(f"{APP}:{tag}", offer(hub, "team/app", tag, image))
    return await here.reach(f"{APP}:{tag}", states)


async def test_denied_names_are_refused_with_the_rule_and_others_of_the_image_are_published(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        path = with_policy(here, '[[rules]]\naction = "deny"\ntag = "nightly"\nreason = "too many"\n')
        image = tiny()
        for tag in ("nightly", "1"):
            await here.request(f"{APP}:{tag}", offer(hub, "team/app", tag, image))
        async with here.publisher():
            status = await here.reach(f"{APP}:nightly", {State.REFUSED})
            assert "rule 1" in (status.reason or "")
            assert "too many" in (status.reason or "")
            await here.published(f"{APP}:1")
            assert here.reader().lookup(f"{APP}:nightly".encode()) is None
            path.write_text('default = "deny"\n')
            await until(lambda: sum(line["act"] == "policy" for line in audit(here)) == 2, 20)
            status = await ask(here, hub, "2", tiny("another"), {State.REFUSED, State.PUBLISHED})
        assert "no rule" in (status.reason or "")
        assert {line["act"] for line in audit(here)} == {"made", "policy", "published"}


@pytest.mark.parametrize(
    ("limit", "when"),
    [
        ("layers = 1", "at once"),
        ("compressed_bytes = 100", "at once"),
        ("entries = 8", "unpacked"),
        ("expanded_bytes = 10300", "unpacked"),
    ],
)
async def test_an_image_beyond_a_limit_is_refused_with_the_limit(tmp_path: Path, limit: str, when: str) -> None:
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        with_policy(here, f"[limits]\n{limit}\n")
        async with here.publisher():
            status = await ask(here, hub, "1", tiny(), {State.REFUSED, State.PUBLISHED})
        assert status.state is State.REFUSED
        assert f"'{limit.partition(' ')[0]}'" in (status.reason or "")
        fetched = str(Digest.of(tiny().layers[0].packed)) in str(hub.seen)
        assert fetched == (when == "unpacked")


async def test_a_days_amount_makes_more_of_a_repository_wait(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        with_policy(here, "[daily]\nimages = 1\n")
        async with here.publisher():
            await ask(here, hub, "1", tiny("one"), {State.PUBLISHED})
            status = await ask(here, hub, "2", tiny("two"), {State.FAILED, State.PUBLISHED})
            assert status.state is State.FAILED
            assert status.next_try is not None
            assert "a day's amount of hub.test/team/app" in (status.reason or "")
            other = tiny("three")
            await here.request("hub.test/team/other:1", offer(hub, "team/other", "1", other))
            await here.published("hub.test/team/other:1")


async def test_a_full_disk_pauses_publishing_says_so_and_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [1 << 30]
    monkeypatch.setattr(disk.DiskGate.__init__, "__defaults__", (lambda _: free[0],))
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        here.config = changed(here.config, min_free=2 << 30, resume_free=4 << 30)
        conditions = Conditions(here.queue._database)
        async with here.publisher():
            await here.request(f"{APP}:1", offer(hub, "team/app", "1", tiny()))
            status = await here.reach(f"{APP}:1", set(State))
            async with asyncio.timeout(20):
                while status.reason is None:
                    await asyncio.sleep(0.05)
                    status = await here.reach(f"{APP}:1", set(State))
            assert status.state is State.QUEUED
            assert "less than 2 GiB free" in (status.reason or "")
            assert Condition.DISK in await conditions.all()
            free[0] = 3 << 30
            await asyncio.sleep(1.2)
            assert (await here.reach(f"{APP}:1", set(State))).state is State.QUEUED
            free[0] = 4 << 30
            await here.published(f"{APP}:1")
            assert await conditions.all() == {}


async def test_a_take_down_removes_the_image_beside_a_publisher_at_work_and_keeps_it_away(tmp_path: Path) -> None:
    first, second = tiny("bad"), tiny("good")
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        digest = offer(hub, "team/app", "bad", first)
        for tag in ("bad", "too"):
            await here.request(f"{APP}:{tag}", digest)
            await here.published(f"{APP}:{tag}")
        await ask(here, hub, "good", second, {State.PUBLISHED})
        await Blocks(here.queue._database).add([digest], ImageReference.parse(f"{APP}:bad"), "leaks a secret", "anna")
        await until(lambda: here.reader().lookup(layout.flat_root(Digest.of(first.config))) is None, 20)
        status = await here.reach(f"{APP}:bad", {State.REFUSED})
        assert "leaks a secret" in (status.reason or "")
        await until(lambda: any(line["act"] == "removed" for line in audit(here)), 20)
        reader = here.reader()
        assert [reader.lookup(f"{APP}:{tag}".encode()) is None for tag in ("bad", "too", "good")] == [True, True, False]
        # Another name of it, pulled later, changes nothing.
        await here.request(f"{APP}:again", digest)
        again = await here.reach(f"{APP}:again", {State.REFUSED, State.PUBLISHED})
        assert again.state is State.REFUSED
    line = next(line for line in audit(here) if line["act"] == "removed")
    assert (line["by"], line["reason"], line["fqrn"]) == ("anna", "leaks a secret", FQRN)
    assert {f"{APP}:bad", f"{APP}:too"} <= set(line["names"])
    assert here.problems() == []


async def test_a_publication_is_written_down_before_it_is_told(tmp_path: Path) -> None:
    image = tiny()
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        await ask(here, hub, "1", image, {State.PUBLISHED})
        (line,) = [line for line in audit(here) if line["act"] == "published"]
    assert line["names"] == [f"{APP}:1"]
    assert (line["fqrn"], line["revision"], line["manifest"]) == (FQRN, 2, image.digest)


async def test_what_cannot_be_written_down_does_not_count_as_published(tmp_path: Path) -> None:
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        log = here.config.data / "log" / "audit.jsonl"
        await until(log.exists, 20)
        log.unlink()
        log.mkdir()
        status = await ask(here, hub, "1", tiny(), {State.FAILED, State.PUBLISHED})
        assert status.state is State.FAILED
        assert "audit log" in (status.reason or "")
        log.rmdir()
        await here.published(f"{APP}:1")
        assert [line["act"] for line in audit(here)] == ["published"]
