"""A hub that throttles, errs, is silent or away, as each well-known client meets it: it gets what it can make the best of.

What they do (observed): docker and containerd go to the hub at once after a 503, for manifests and for blobs; containers/image
does so for manifests only, and waits 30 s for each 429 first; apptainer goes nowhere else, and asks again three times within 1 s
after a 5xx. So a 429 is never passed on, nothing that is here is withheld, no manifest is given out whose blobs cannot be had,
and no transfer that has begun is cut.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.faulty_registry import Faults
from tests.support.mirror_server import LAYER_TYPE, Image, MirrorServer, add_image, mirror_server
from tests.support.raw_http import Reply
from tests.support.wire_clients import CLIENTS, Pulled, Puller, WireClient

LAYER = bytes(range(256)) * 1000
PARTLY = b"of the other image" * 1000
QUICK = {"tags": {"ttl": 0, "absent": 0, "patience": 0.3}, "fetch": {"longest_pause": 0.1}}
MIDDLE = 100_000


@dataclass(frozen=True)
class Fault:
    """A state of the hub; what it is, as the message to the user has it, and when the mirror says to come again, in seconds."""

    name: str
    faults: Faults | None
    """None: it is away."""
    words: str
    retry_after: int = 1


FAULTS = (
    Fault("429", Faults(status=429), "throttles"),
    Fault("429 for a while", Faults(status=429, headers={"Retry-After": "7"}), "throttles", 7),
    Fault("500", Faults(status=500), "500"),
    Fault("503 for a while", Faults(status=503, headers={"Retry-After": "60"}), "503", 60),
    Fault("away", None, "cannot be reached"),
)
SILENCE = Fault("silence", Faults(before_headers=60), "silent")


@dataclass
class Setting:
    """A mirror in front of a hub that is well, which has three images: one is here whole, of one the manifest, of one nothing."""

    mirror: MirrorServer
    puller: Puller
    client: WireClient
    layer: dict[str, Any]
    """Of the image of which only the manifest is here."""

    def of(self, client: WireClient) -> Setting:
        """The same for another client."""
        return replace(self, client=client, puller=Puller(client, f"127.0.0.1:{self.mirror.port}"))

    async def manifest(self, method: str, name: str) -> Reply:
        return await asyncio.to_thread(self.puller.manifest, method, name, "1")

    async def blob(self, name: str, descriptor: dict[str, Any]) -> Reply:
        return await asyncio.to_thread(self.puller.blob, name, descriptor)

    async def pull(self, name: str) -> Pulled:
        return await asyncio.to_thread(self.puller.pull, name, "1")


@asynccontextmanager
async def setting(root: Path, client: WireClient) -> AsyncIterator[Setting]:
    upstream = {"attempts": 1, "read_timeout": 1, "breaker_failures": 100}
    async with mirror_server(root, upstream=upstream, settings=QUICK) as mirror:
        add_image(mirror.hub, "team/whole", "1", LAYER)
        add_image(mirror.hub, "team/never", "1", b"never asked for")
        partly = add_image(mirror.hub, "team/partly", "1", PARTLY)
        here = Setting(mirror, Puller(client, f"127.0.0.1:{mirror.port}"), client, described(partly))
        await here.pull("team/whole")
        assert (await here.manifest("GET", "team/partly")).status == 200
        try:
            yield here
        finally:
            here.puller.close()


def described(image: Image) -> dict[str, Any]:
    return {"digest": str(image.layer), "mediaType": LAYER_TYPE}


def asks_for_tags(client: WireClient) -> Sequence[str]:
    """By which methods it asks for a tag, in this order."""
    first = [method for method in client.begins if method in {"HEAD", "GET"}]
    return first if client.by_digest else [*first, "GET"]


def refused(reply: Reply, method: str, fault: Fault, client: WireClient) -> None:
    """That it is an answer from which who can goes elsewhere at once, and who cannot tells its user why."""
    assert reply.status == 503, (client.name, method, reply.status)
    assert 1 <= int(reply.headers["Retry-After"]) <= fault.retry_after
    if method == "GET":
        (error,) = json.loads(reply.body)["errors"]
        assert error["code"] == "UNAVAILABLE"
        assert "hub.test" in error["message"]
        assert fault.words in error["message"], error["message"]


@pytest.fixture(params=CLIENTS, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest) -> WireClient:
    found: WireClient = request.param
    return found


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_what_is_here_is_given_and_the_rest_refused_so_that_they_go_elsewhere(
    tmp_path: Path, client: WireClient, fault: Fault
) -> None:
    async with setting(tmp_path, client) as here:
        await break_hub(here, fault)
        await meets(here, fault)
        await mend_hub(here, fault)
        if fault.retry_after == 1:
            assert (await here.blob("team/partly", here.layer)).body == PARTLY
            assert len((await here.pull("team/never")).blobs) == 2


async def test_the_same_for_all_of_them_if_it_is_silent(tmp_path: Path) -> None:
    async with setting(tmp_path, CLIENTS[0]) as here:
        await break_hub(here, SILENCE)
        await asyncio.gather(*(meets(here.of(client), SILENCE) for client in CLIENTS))
        await mend_hub(here, SILENCE)
        assert (await here.blob("team/partly", here.layer)).body == PARTLY


async def meets(here: Setting, fault: Fault) -> None:
    """What the client gets while the hub is as it is."""
    replies = [(method, await here.manifest(method, "team/never")) for method in asks_for_tags(here.client)]
    for method, reply in replies:
        refused(reply, method, fault, here.client)
    assert replies[0][1].headers["Retry-After"] == str(fault.retry_after)
    refused(await here.blob("team/partly", here.layer), "GET", fault, here.client)

    pulled = await here.pull("team/whole")
    assert LAYER in pulled.blobs.values()
    for request, reply in pulled.replies:
        if request.endswith("/manifests/1"):
            assert (reply.headers["X-Debark-Cache"], int(reply.headers["Age"]) >= 0) == ("stale", True)

    if fault.faults is None or fault.faults.status != 429:
        for method in asks_for_tags(here.client):
            reply = await here.manifest(method, "team/partly")
            assert reply.status == 503, "its blobs cannot be had: who got it would have to give up"
    here.puller.close()


async def test_a_throttled_tag_is_answered_from_here_and_its_blobs_are_fetched(tmp_path: Path, client: WireClient) -> None:
    async with setting(tmp_path, client) as here:
        hub = here.mirror.hub
        hub.seen.clear()
        # Hubs count manifests, and go on giving blobs.
        hub.faults = Faults(statuses=[429], headers={"Retry-After": "600"})
        pulled = await here.pull("team/partly")
        assert PARTLY in pulled.blobs.values()
        assert hub.count("HEAD", "/manifests/") + hub.count("GET", "/manifests/") == 1, "who throttles is left alone"


async def test_a_transfer_that_has_begun_is_gone_on_with(tmp_path: Path, client: WireClient) -> None:
    async with setting(tmp_path, client) as here:
        layer = described(add_image(here.mirror.hub, "team/cut", "1", bytes(reversed(LAYER))))
        assert (await here.manifest("GET", "team/cut")).status == 200
        here.mirror.hub.faults = Faults(cut_at=MIDDLE, statuses=[0, 429, 500, 503])
        reply = await here.blob("team/cut", layer)
        assert (reply.status, reply.body) == (200, bytes(reversed(LAYER)))


async def test_a_hub_that_is_slow_to_begin_is_waited_for(tmp_path: Path, client: WireClient) -> None:
    async with setting(tmp_path, client) as here:
        here.mirror.hub.faults = Faults(before_headers=0.4)
        assert len((await here.pull("team/never")).blobs) == 2


@pytest.mark.parametrize(
    ("faults", "status", "code", "words"),
    [
        (Faults(status=401), 403, "DENIED", "hub.test"),
        (Faults(status=403), 403, "DENIED", "hub.test"),
        (Faults(status=404), 404, "MANIFEST_UNKNOWN", "hub.test"),
        (Faults(wrong_content=True), 502, "UPSTREAM_INVALID", "another digest"),
    ],
    ids=["401", "403", "404", "other bytes"],
)
async def test_what_the_hub_refuses_is_refused_in_its_sense(
    tmp_path: Path, client: WireClient, faults: Faults, status: int, code: str, words: str
) -> None:
    async with setting(tmp_path, client) as here:
        here.mirror.hub.faults = deepcopy(faults)
        for method in asks_for_tags(client):
            reply = await here.manifest(method, "team/never")
            assert (reply.status, reply.headers["Retry-After"]) == (status, None)
        reply = await here.manifest("GET", "team/never")
        (error,) = json.loads(reply.body)["errors"]
        assert error["code"] == code
        assert words in error["message"]


async def test_a_blob_that_comes_wrong_never_arrives_whole(tmp_path: Path, client: WireClient) -> None:
    async with setting(tmp_path, client) as here:
        here.mirror.hub.faults = Faults(wrong_content=True)
        with pytest.raises((EOFError, ConnectionResetError)):
            await here.blob("team/partly", here.layer)
        here.puller.close()
        here.mirror.hub.faults = Faults()
        assert (await here.blob("team/partly", here.layer)).body == PARTLY


async def break_hub(here: Setting, fault: Fault) -> None:
    if fault.faults is None:
        await here.mirror.hub.kill()
    else:
        here.mirror.hub.faults = deepcopy(fault.faults)


async def mend_hub(here: Setting, fault: Fault) -> None:
    here.mirror.hub.faults = Faults()
    if fault.faults is None:
        await here.mirror.hub.start()
