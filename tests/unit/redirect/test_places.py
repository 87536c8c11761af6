"""Which place a client is sent to first."""

from __future__ import annotations

import pytest

from mirror.errors import InvalidInput
from mirror.oci.digest import Digest
from mirror.proxy.client_address import AddressRanges
from mirror.redirect.places import Place, in_order
from mirror.redirect.published import Published, parse_published

SITE = AddressRanges.parse(["10.0.0.0/8"])
BLOB = Digest.of(b"blob")


def names(places: list[Place]) -> list[str]:
    return [place.name for place in places]


def test_a_place_of_the_clients_own_comes_first_and_that_of_others_never() -> None:
    places = [Place("everybody", "http://a"), Place("site", "http://b", SITE)]
    assert names(in_order(places, "10.1.2.3", BLOB)) == ["site", "everybody"]
    assert names(in_order(places, "192.0.2.1", BLOB)) == ["everybody"]
    assert in_order(places[1:], "", BLOB) == []


def test_clients_are_spread_and_each_stays_with_its_place_when_another_is_lost() -> None:
    places = [Place(str(number), f"http://{number}") for number in range(4)]
    clients = [f"192.0.2.{number}" for number in range(200)]
    first = {client: names(in_order(places, client, BLOB))[0] for client in clients}
    assert all(25 < sum(1 for place in first.values() if place == str(number)) < 80 for number in range(4))
    left = {client: names(in_order(places[:3], client, BLOB))[0] for client in clients}
    assert all(left[client] == first[client] for client in clients if first[client] != "3")
    blobs = {names(in_order(places, "192.0.2.1", Digest.of(b"%d" % number)))[0] for number in range(50)}
    assert len(blobs) == 4, "clients behind one address are spread, too"


def test_the_revision_of_a_repository_is_read_up_to_the_signature() -> None:
    data = b"Cabab\nS42\nNlayers.example.org\nGyes\n--\nhash\nS99\n\xff\x00"
    assert parse_published(data) == Published("layers.example.org", 42)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"S42\n--\n",
        b"Nx.y\n--\n",
        b"S-1\nNx.y\n",
        b"S\xd9\xa1\nNx.y\n",
        b"S" + b"9" * 30 + b"\nNx.y\n",
        b"\x00" * 100_000,
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_published(data)
