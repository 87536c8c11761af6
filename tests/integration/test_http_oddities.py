"""What no client should send: the answer is right or a clear refusal, never a hang or a traceback, and the server goes on.

Sources: RFC 9112 (framing, sections 3, 3.2, 5.2, 6.1, 6.3 and 11.2), RFC 9110 (section 10.1.1, `Expect`), RFC 6585 (section 5).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.debark_process import DebarkProcess, wait_until
from tests.support.hub import Hub
from tests.support.raw_http import RawConnection, Reply
from tests.support.small_images import tiny

IMAGE = tiny("oddities")
PATH = "/v2/hub.test/odd/app/manifests/1"
LONGEST = 16 * 1024
"""Bytes of a request line's target, and of a header, by default (server.max_header)."""


@pytest.fixture(scope="module")
def address(hub: Hub, debark: DebarkProcess) -> Iterator[str]:
    """Of a mirror of `odd/app:1`; nothing that it is sent makes it log a traceback or give up."""
    IMAGE.push(hub.client(), "odd/app", "1")
    yield debark.address
    assert debark.client().manifest("hub.test/odd/app", "1").body == IMAGE.manifest
    lines = [json.loads(line) for line in (debark.data / "log" / "debark.log").read_text().splitlines()]
    assert [line for line in lines if "exception" in line or line["level"] == "error"] == []
    assert "Traceback" not in debark.output()


def get(path: str = PATH, *lines: str, version: str = "HTTP/1.1", body: str = "", host: str = "Host: mirror") -> bytes:
    head = "\r\n".join([f"GET {path} {version}", *([host] if host else []), *lines])
    return f"{head}\r\n\r\n{body}".encode("latin-1")


NEXT = "GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n"
"""What an attacker would smuggle past a server in front: it must not get an answer of its own."""


@pytest.mark.parametrize(
    "request_bytes",
    [
        get(PATH, "Content-Length: 5", "Transfer-Encoding: chunked", body=f"0\r\n\r\n{NEXT}"),
        get(PATH, "Transfer-Encoding: chunked", "Content-Length: 5", body=f"0\r\n\r\n{NEXT}"),
        get(PATH, "Content-Length: 5", "Content-Length: 6", body="hello"),
        get(PATH, "Content-Length: 5, 5", body="hello"),
        get(PATH, "Content-Length: -5", body="hello"),
        get(PATH, "Content-Length: +5", body="hello"),
        get(PATH, "Content-Length: 0x5", body="hello"),
        get(PATH, "Content-Length: 5 5", body="hello"),
        get(PATH, f"Content-Length: {'9' * 30}", body="hello"),
        get(PATH, "Transfer-Encoding: xchunked", body=f"0\r\n\r\n{NEXT}"),
        get(PATH, "Transfer-Encoding: chunked, identity", body=f"0\r\n\r\n{NEXT}"),
        get(PATH, "Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=f"0\r\n\r\n{NEXT}"),
        get(PATH, "Transfer-Encoding : chunked", body=f"0\r\n\r\n{NEXT}"),
        get(PATH, "Transfer-Encoding: chunked", body=f"zz\r\n\r\n{NEXT}"),
        get(PATH, "Transfer-Encoding: chunked", body=f"-1\r\n\r\n{NEXT}"),
        get(PATH, "Transfer-Encoding: chunked", body=f"5\r\nhelloo\r\n0\r\n\r\n{NEXT}"),
        get(PATH, "Accept: a,", " b"),
        get(PATH, " Accept: a"),
        get(PATH, "X: a\x00b"),
        get(PATH, "X: a\rb"),
        get(PATH, "no colon"),
        get(PATH, ": no name"),
        get(PATH, "X\x00Y: a"),
        get(host=""),
        get(PATH, "Host: other"),
        get("/v2/odd/app/manifests/\x001"),
        get("/v2/odd/app/manifests/\xff\xfe"),
        get("*"),
        get("?x"),
        get(f"https://mirror:99999{PATH}"),
        get(version="HTTP/3.7"),
        get(version="HTTP/1.1 more"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        f"GET {PATH} HTTP/1.1\nHost: mirror\n\n".encode(),
        f"get {PATH} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode(),
        f"FETCH {PATH} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 200,
        bytes(range(256)) * 4,
    ],
    ids=lambda data: repr(data[:90]).removeprefix("b'GET /v2/hub.test/odd/app/manifests/1 "),
)
def test_what_is_no_http_is_refused_once_and_the_connection_ended(address: str, request_bytes: bytes) -> None:
    with RawConnection(address) as connection:
        connection.send(request_bytes)
        assert _refused(connection.reply(), 400)
        assert _answers_of_success(connection) == 0
    _goes_on(address)


@pytest.mark.parametrize(
    ("request_bytes", "status", "words"),
    [
        (get(f"/v2/{'a' * LONGEST}/manifests/1"), 414, "request line"),
        (get(PATH, f"X: {'a' * 100_000}"), 431, "a header has more than 16384 bytes (server.max_header)"),
        (get(PATH, f"{'X' * 100_000}: a"), 431, "a header"),
        (get(PATH, f"Authorization: Basic {'c2VjcmV0' * 9000}"), 431, "a header"),
        (get(PATH, *(f"X-{number}: a" for number in range(20_000))), 431, "Too many headers"),
    ],
    ids=["line", "value", "name", "password", "number"],
)
def test_what_is_too_large_is_refused_in_words(address: str, request_bytes: bytes, status: int, words: str) -> None:
    with RawConnection(address) as connection:
        connection.send(request_bytes)
        assert words in _refused(connection.reply(), status)
        assert connection.is_closed()
    _goes_on(address)


def test_lines_up_to_the_limit_are_read(address: str) -> None:
    for request_bytes in (get(PATH, f"X: {'a' * (LONGEST - 1)}"), get(f"{PATH}?{'a' * (LONGEST - len(PATH) - 1)}")):
        with RawConnection(address) as connection:
            connection.send(request_bytes)
            reply = connection.reply()
            assert reply is not None
            assert (reply.status, reply.body) == (200, IMAGE.manifest)


def test_what_is_no_http_is_in_the_logs_without_what_it_says(address: str, debark: DebarkProcess) -> None:
    with RawConnection(address) as connection:
        connection.send(get(PATH, "Authorization: Basic c2VjcmV0\x00"))
        reply = connection.reply()
        assert reply is not None
        assert "c2VjcmV0" not in _refused(reply, 400)
    identity = reply.headers["X-Request-Id"]

    def records() -> list[dict[str, Any]]:
        return [record for record in debark.access_records() if record["id"] == identity]

    wait_until(lambda: bool(records()), 20, lambda: "the refusal is not in the access log")
    (record,) = records()
    assert (record["status"], record["client"], record["kind"]) == (400, "127.0.0.1", "other")
    assert record["bytes"] == len(reply.body)
    lines = (debark.data / "log" / "debark.log").read_text().splitlines()
    (line,) = [line for line in map(json.loads, lines) if line.get("request_id") == identity]
    assert (line["event"], line["status"]) == ("request_malformed", 400)
    assert "c2VjcmV0" not in json.dumps(line)


def test_a_body_that_breaks_off_in_nonsense_ends_the_connection(address: str) -> None:
    with RawConnection(address) as connection:
        connection.send(get(PATH, "Transfer-Encoding: chunked"))
        reply = connection.reply()
        assert reply is not None
        assert (reply.status, reply.body) == (200, IMAGE.manifest)
        connection.send(f"zz\r\n\r\n{NEXT}".encode())
        assert _answers_of_success(connection) == 0
    _goes_on(address)


def _refused(reply: Reply | None, status: int) -> str:
    """The words with which a request was refused that no handler has seen."""
    assert reply is not None
    assert reply.status == status
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["X-Request-Id"]
    assert reply.headers["Server"].startswith("debark/")
    (error,) = json.loads(reply.body)["errors"]
    assert error["code"] == "REQUEST_INVALID"
    message: str = error["message"]
    assert message
    return message


def _answers_of_success(connection: RawConnection) -> int:
    """How many of the answers that still come, until the connection ends, are no refusals."""
    count = 0
    while (reply := connection.reply()) is not None:
        count += reply.status < 400
    return count


def _goes_on(address: str) -> None:
    with RawConnection(address) as connection:
        connection.send(get())
        reply = connection.reply()
        assert reply is not None
        assert (reply.status, reply.body) == (200, IMAGE.manifest)


@pytest.mark.parametrize(
    "request_bytes",
    [
        get(version="HTTP/1.0", host=""),
        get(version="HTTP/1.0"),
        get(f"http://other.test{PATH}"),
        get("/v2/hub%2Etest%2Fodd%2Fapp/manifests/1"),
        get("/v2/hub.test/odd/app/%6Danifests/%31"),
        get(f"{PATH}#fragment"),
        get(PATH, "Connection: Upgrade", "Upgrade: websocket"),
        get(PATH, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
        get(PATH, "User-Agent: \xff\xfe", "Authorization: Basic \xff", "Range: \xff", "If-None-Match: \xff", "Accept: \xff"),
        get(PATH, "Range: bytes=0-"),
        get(PATH, "Range: bytes=5-10"),
        get(PATH, "Accept:"),
        get(PATH, "X-Forwarded-For: 1.2.3.4, \xff, ,"),
        get(PATH, "Expect: 100-continue", "Content-Length: 5", body="hello"),
        get(PATH, "Expect: 100-continue", "Content-Length: 5"),
        get(PATH, "Expect: the moon"),
        get(PATH, "Expect: \xff"),
    ],
    ids=lambda data: repr(data[:90]).removeprefix("b'GET /v2/hub.test/odd/app/manifests/1 "),
)
def test_what_is_unusual_gets_the_right_answer(address: str, request_bytes: bytes) -> None:
    with RawConnection(address) as connection:
        connection.send(request_bytes)
        reply = connection.reply()
    assert reply is not None
    assert (reply.status, reply.body) == (200, IMAGE.manifest)
    assert reply.headers["Docker-Content-Digest"] == IMAGE.digest


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/odd/../odd/app/manifests/1", 400, "NAME_INVALID"),
        ("/v2/odd/%2e%2e/odd/app/manifests/1", 400, "NAME_INVALID"),
        ("/v2/./odd/app/manifests/1", 404, "NAME_UNKNOWN"),  # `.` has a dot, as a registry's host has
        ("/v2//odd/app/manifests/1", 400, "NAME_INVALID"),
        ("/v2/odd//app/manifests/1", 400, "NAME_INVALID"),
        ("/v2/odd/app/manifests/", 400, "MANIFEST_INVALID"),
        ("/v2/odd/app/manifests/1/", 404, "NAME_UNKNOWN"),
        ("/v2/odd/app/manifests/1%00", 400, "MANIFEST_INVALID"),
        ("/v2/odd/app/manifests/%ff%fe", 400, "MANIFEST_INVALID"),
        ("/v2/odd/app/manifests/%zz", 400, "MANIFEST_INVALID"),
        ("/v2/odd/app/manifests/%252e", 400, "MANIFEST_INVALID"),
        (f"/v2/odd/app/manifests/{'a' * 129}", 400, "MANIFEST_INVALID"),
        (f"/v2/{'a' * 300}/manifests/1", 400, "NAME_INVALID"),
        (f"/v2/odd/app/manifests/sha256:{'0' * 63}", 400, "DIGEST_INVALID"),
        (f"/v2/odd/app/manifests/sha256:{'0' * 65}", 400, "DIGEST_INVALID"),
        (f"/v2/odd/app/blobs/sha256:{'A' * 64}", 400, "DIGEST_INVALID"),
        (f"/v2/odd/app/blobs/sha512:{'0' * 64}", 400, "DIGEST_INVALID"),
        ("/v2/odd/app/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID"),
        ("/v2/odd/app/referrers/1", 400, "DIGEST_INVALID"),
        ("/v2/odd/app/manifests/1?ns=%ff%fe", 404, "NAME_UNKNOWN"),
        (f"/v2/odd/app/manifests/1?ns={'a' * 9000}", 404, "NAME_UNKNOWN"),
        ("/v2/odd/app/manifests/1?ns=hub.test%0d%0aX:%20y", 404, "NAME_UNKNOWN"),
        ("/v2/_catalog", 404, "NAME_UNKNOWN"),
        ("/v2/odd/app/tags/lists", 404, "NAME_UNKNOWN"),
        ("/v1/_ping", 404, "NAME_UNKNOWN"),
        ("//v2/odd/app/manifests/1", 404, "NAME_UNKNOWN"),
        ("/", 404, "NAME_UNKNOWN"),
        ("/cvmfs/a/../../state.sqlite", 404, "NAME_UNKNOWN"),
        ("/cvmfs/a/%2e%2e/%2e%2e/state.sqlite", 404, "NAME_UNKNOWN"),
        ("/cvmfs/a/%00", 404, "NAME_UNKNOWN"),
        ("/_debark/v1/images?ref=%ff", 400, "NAME_INVALID"),
    ],
    ids=lambda value: str(value)[:70],
)
def test_odd_names_are_refused_in_words_and_the_connection_goes_on(address: str, path: str, status: int, code: str) -> None:
    with RawConnection(address) as connection:
        for _ in range(2):
            connection.send(get(path))
            reply = connection.reply()
            assert reply is not None
            error = json.loads(reply.body)["errors"][0]
            assert (reply.status, error["code"]) == (status, code)
            assert error["message"]
            assert error["message"] != "404: Not Found"
            assert len(reply.body) < 2000
            connection.send(get(path).replace(b"GET", b"HEAD", 1))
            head = connection.reply("HEAD")
            assert head is not None
            assert head.status == status


def test_pipelined_requests_are_answered_in_their_order(address: str) -> None:
    blob = f"/v2/hub.test/odd/app/blobs/{json.loads(IMAGE.manifest)['layers'][0]['digest']}"
    with RawConnection(address) as connection:
        head = get().replace(b"GET", b"HEAD", 1)
        connection.send(get("/v2/") + head + get(blob) + get("/nothing") + get(PATH, "Connection: close"))
        replies = [connection.reply(), connection.reply("HEAD"), connection.reply(), connection.reply(), connection.reply()]
        assert [reply.status for reply in replies if reply] == [200, 200, 200, 404, 200]
        assert [reply.body for reply in replies if reply][2] == IMAGE.layers[0].packed
        assert [reply.body for reply in replies if reply][4] == IMAGE.manifest
        assert connection.is_closed()


@pytest.mark.parametrize("size", [5, 5_000_000])
def test_the_body_of_a_get_is_passed_over(address: str, size: int) -> None:
    with RawConnection(address) as connection:
        connection.send(get(PATH, f"Content-Length: {size}", body="x" * size) + get("/v2/", "Connection: close"))
        first, second = connection.reply(), connection.reply()
    assert first is not None
    assert (first.status, first.body) == (200, IMAGE.manifest)
    # A server may end the connection rather than read a large body; what it may not do is take it for a request.
    assert second is None or (second.status, second.body) == (200, b"{}")


def test_a_body_that_never_comes_keeps_nobody_from_an_answer(address: str) -> None:
    with RawConnection(address) as connection:
        connection.send(get(PATH, "Content-Length: 5000000"))
        reply = connection.reply()
        assert reply is not None
        assert (reply.status, reply.body) == (200, IMAGE.manifest)
    _goes_on(address)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", [PATH, "/v2/odd/app/blobs/uploads/", "/v2/", "/", "/nothing", "/healthz"])
def test_other_methods_are_refused_with_what_is_allowed(address: str, method: str, path: str) -> None:
    for expectation in ("100-continue", "\xff"):
        with RawConnection(address) as connection:
            lines = (f"Expect: {expectation}", "Content-Length: 5")
            connection.send(get(path, *lines, body="hello").replace(b"GET", method.encode(), 1))
            reply = connection.reply()
        assert reply is not None
        assert (reply.status, json.loads(reply.body)["errors"][0]["code"]) == (405, "UNSUPPORTED")
        assert set(reply.headers["Allow"].split(",")) == {"GET", "HEAD"}


def test_clients_that_leave_anywhere_in_a_request_harm_nobody(address: str) -> None:
    whole = get(PATH, "Content-Length: 5", "Expect: 100-continue", body="hello")
    for length in range(0, len(whole), 7):
        with RawConnection(address) as connection:
            connection.send(whole[:length])
    _goes_on(address)


@pytest.mark.parametrize("rest", ["manifests/1", "blobs/{layer}", "tags/list", "referrers/{layer}", "cvmfs"])
def test_clients_that_are_gone_when_the_answer_comes_harm_nobody(address: str, rest: str) -> None:
    layer = json.loads(IMAGE.manifest)["layers"][0]["digest"]
    path = f"/v2/hub.test/odd/app/{rest.format(layer=layer)}"
    for _ in range(40):
        connection = RawConnection(address)
        connection.send(get(path if rest != "cvmfs" else "/cvmfs/unpacked-1.debark.local/.cvmfspublished"))
        connection.reset()
    _goes_on(address)
