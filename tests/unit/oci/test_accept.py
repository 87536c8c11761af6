"""The header `Accept` of real clients, and of strange ones."""

from __future__ import annotations

import pytest

from mirror.oci.accept import ANYTHING, EVERYTHING, LONGEST, MANIFEST_TYPES, parse_accept
from mirror.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1, OCI_INDEX, OCI_MANIFEST

CONTAINERD = f"{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, */*"
IMAGE_LIBRARY = [OCI_MANIFEST, DOCKER_MANIFEST, f"{DOCKER_SCHEMA1}", DOCKER_LIST, OCI_INDEX]


@pytest.mark.parametrize("lines", [[], [""], ["*/*"], [CONTAINERD], IMAGE_LIBRARY, [", ".join(MANIFEST_TYPES)]])
def test_what_current_clients_send_takes_every_type(lines: list[str]) -> None:
    accept = parse_accept(lines)
    assert all(accept.takes(media_type) for media_type in MANIFEST_TYPES)


def test_what_an_old_client_sends_takes_its_type_only() -> None:
    accept = parse_accept([DOCKER_MANIFEST])
    assert [media_type for media_type in MANIFEST_TYPES if accept.takes(media_type)] == [DOCKER_MANIFEST]
    assert accept.asks_for == DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("application/*", set(MANIFEST_TYPES)),
        ("text/html, application/xml;q=0.9, */*;q=0.8", set(MANIFEST_TYPES)),
        (f"*/*, {OCI_INDEX};q=0, {DOCKER_LIST}; Q=0.000", {OCI_MANIFEST, DOCKER_MANIFEST}),
        (f"application/*;q=0, */*, {OCI_INDEX}", {OCI_INDEX}),
        (f"{OCI_INDEX.upper()} ;charset=utf-8; q=0.001 ,,", {OCI_INDEX}),
        (f'{OCI_INDEX};note="a, b; q=0", {OCI_MANIFEST}', {OCI_INDEX, OCI_MANIFEST}),
        (f'{OCI_INDEX};note="\\", \\"";q=0, {OCI_MANIFEST}', {OCI_MANIFEST}),
        (f"{OCI_INDEX};q=0;v=1, {OCI_INDEX}", {OCI_INDEX}),
        (f"{OCI_INDEX};q=much, {OCI_MANIFEST};q=-1;q", {OCI_INDEX, OCI_MANIFEST}),
        (f"nonsense, */json, {DOCKER_LIST}", {DOCKER_LIST}),
    ],
)
def test_ranges_and_weights(header: str, taken: set[str]) -> None:
    accept = parse_accept([header])
    assert {media_type for media_type in MANIFEST_TYPES if accept.takes(media_type)} == taken


@pytest.mark.parametrize(
    "header",
    [
        "application/json",
        "text/html;q=0",
        "*/*;q=0",
        "nonsense",
        ",;,",
        DOCKER_SCHEMA1,
        f"{DOCKER_MANIFEST}{' ' * LONGEST}",
        ",".join([DOCKER_MANIFEST, *(f"a/{number}" for number in range(60))]),
    ],
)
def test_a_header_that_is_of_no_use_is_as_good_as_none(header: str) -> None:
    assert parse_accept([header]) == ANYTHING


def test_types_that_the_mirror_does_not_know_are_taken_by_who_names_them() -> None:
    accept = parse_accept([f"{OCI_MANIFEST}, application/vnd.example+json"])
    assert accept.takes("application/vnd.example+json")
    assert not accept.takes("application/vnd.other+json")
    assert accept.asks_for == OCI_MANIFEST


def test_upstreams_are_asked_for_everything_with_a_way_out_for_new_types() -> None:
    assert ANYTHING.asks_for == EVERYTHING == f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}, */*;q=0.1"
