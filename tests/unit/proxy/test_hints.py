from dataclasses import replace

import pytest

from mirror.jobs.model import ImageStatus, Publication, State
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference
from mirror.proxy.hints import hint_headers, warning

PATH = "/cvmfs/unpacked.example.org/docker.io/library/debian:12"


def status(state: State, publication: Publication | None = None, reason: str | None = None) -> ImageStatus:
    return ImageStatus(
        image=ImageReference.parse("docker.io/library/debian:12"),
        manifest=Digest.of(b"manifest"),
        target=Digest.of(b"index"),
        state=state,
        reason=reason,
        publication=publication,
        attempts=1,
        next_try=None,
        requested=1.0,
        updated=2.0,
        published=None,
    )


def test_nothing_is_said_of_an_image_that_nobody_knows() -> None:
    assert hint_headers(None) == {}


def test_a_published_image_is_announced_in_the_form_that_clients_print() -> None:
    headers = hint_headers(status(State.PUBLISHED, Publication("unpacked.example.org", PATH, 7)))
    assert headers["Warning"] == f'299 - "docker.io/library/debian:12 is unpacked: apptainer exec {PATH} COMMAND"'
    assert headers["X-CVMFS-State"] == "published"
    assert headers["X-CVMFS-Path"] == PATH
    assert headers["X-CVMFS-Revision"] == "7"
    assert headers["Link"] == '<file:///cvmfs/unpacked.example.org/docker.io/library/debian%3A12>; rel="alternate"'


def test_a_published_image_keeps_its_hint_while_another_name_of_it_is_being_added() -> None:
    headers = hint_headers(status(State.COMMITTING, Publication("unpacked.example.org", PATH, 7)))
    assert headers["X-CVMFS-State"] == "published"


@pytest.mark.parametrize(
    "state", [State.QUEUED, State.FETCHING, State.INGESTING, State.COMMITTING, State.REPLICATING, State.FAILED]
)
def test_before_publication_only_the_state_is_said(state: State) -> None:
    assert hint_headers(status(state)) == {"X-CVMFS-State": state.value}


def test_an_image_that_waits_for_more_than_its_turn_says_for_what() -> None:
    headers = hint_headers(status(State.QUEUED, reason="the disk is full"))
    assert headers["Warning"] == '299 - "docker.io/library/debian:12 waits to be in /cvmfs: the disk is full"'


def test_a_failure_says_whether_it_mends_itself() -> None:
    failed = replace(status(State.FAILED, reason="the hub is away"), next_try=1.0)
    assert "not in /cvmfs yet, it is tried again by itself: the hub is away" in hint_headers(failed)["Warning"]
    assert "pull it again" in hint_headers(replace(failed, next_try=None))["Warning"]


def test_the_hint_for_a_platforms_image_says_which() -> None:
    path = "/cvmfs/unpacked.example.org/.multiarch/arm64/docker.io/library/debian:12"
    found = replace(status(State.PUBLISHED, Publication("unpacked.example.org", path, 7)), platform=Platform("linux", "arm64"))
    expected = f'299 - "docker.io/library/debian:12 for linux/arm64 is unpacked: apptainer exec {path} COMMAND"'
    assert hint_headers(found)["Warning"] == expected


def test_of_an_artifact_only_the_state_is_said() -> None:
    assert hint_headers(status(State.NOT_AN_IMAGE, reason="it is a chart")) == {"X-CVMFS-State": "not-an-image"}


def test_a_refusal_is_explained_to_the_user() -> None:
    headers = hint_headers(status(State.REFUSED, reason='layer 2 has the member "../x"'))
    assert headers["Warning"] == r'299 - "docker.io/library/debian:12 is not in /cvmfs: layer 2 has the member \"../x\""'


@pytest.mark.parametrize("hostile", ["a\r\nSet-Cookie: x", "a\x00b", "é", 'quote " and \\', "x" * 5000])
def test_no_text_can_break_out_of_the_header(hostile: str) -> None:
    value = warning(hostile)
    assert value.startswith('299 - "')
    assert value.endswith('"')
    assert all(" " <= character <= "~" for character in value)
    inner = value[len('299 - "') : -1].replace("\\\\", "").replace('\\"', "")
    assert '"' not in inner
    assert "\\" not in inner
    assert len(value) < 1000
