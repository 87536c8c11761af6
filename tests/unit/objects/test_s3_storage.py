"""Storage in S3: what is sent, and what happens when the server errs, is full, says no, or is not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mirror.errors import InvalidInput, NotFound, StorageFull, Unavailable
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.objects import credentials
from publisher.objects.credentials import S3Credentials
from publisher.objects.s3 import S3Limits, S3ObjectStore, S3Place

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
KEYS = S3Credentials("AKIDEXAMPLE", SECRET, "a-session-token")
QUICK = S3Limits(attempts=3, longest_pause=0.2, timeout=1.0)
DATA = b"stored"
CONTENT = ContentHash.of(DATA)
Answer = tuple[int, str]
"""Status and S3's error code."""
OK = (200, "")


class Scripted(ThreadingHTTPServer):
    """Gives the answers of its script one after the other, the last one for ever, and remembers what was asked."""

    def __init__(self, script: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.asked: list[tuple[str, str, dict[str, str]]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_PUT(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.rfile.read(int(headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, headers))
        status, code = self.server.script.pop(0) if len(self.server.script) > 1 else self.server.script[0]
        body = (
            f"<Error><Code>{code}</Code><Message>{self.headers.get('Authorization')}</Message></Error>".encode() if code else b""
        )
        self.send_response(status)
        self.send_header("ETag", '"tag"')
        self.send_header("Last-Modified", "Mon, 16 Nov 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_GET = do_HEAD = do_PUT  # noqa: N815 (so http.server wants them)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def scripted(*script: Answer) -> Iterator[Scripted]:
    with Scripted(list(script)) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def store_at(server: Scripted, tmp_path: Path, limits: S3Limits = QUICK, *, path_style: bool = True) -> S3ObjectStore:
    place = S3Place(f"http://localhost:{server.server_address[1]}", "bucket", "cvmfs/a.example.org", path_style=path_style)
    return S3ObjectStore(place, KEYS, tmp_path, limits)


def test_what_clients_read_has_the_headers_of_a_stratum_0(tmp_path: Path) -> None:
    with scripted(OK) as server:
        store = store_at(server, tmp_path)
        assert store.put(CONTENT, ObjectKind.CATALOG, DATA)
        store.write_file(".cvmfspublished", b"signed")
    (_, path, headers), (_, named, of_named) = server.asked
    assert path == f"/bucket/cvmfs/a.example.org/{CONTENT.object_path(ObjectKind.CATALOG)}"
    assert (headers["content-type"], headers["cache-control"]) == ("application/octet-stream", "max-age=259200")
    assert headers["if-none-match"] == "*"
    assert headers["x-amz-security-token"] == "a-session-token"
    assert named == "/bucket/cvmfs/a.example.org/.cvmfspublished"
    assert (of_named["content-type"], of_named["cache-control"]) == ("application/x-cvmfs", "max-age=61")
    assert "if-none-match" not in of_named


def test_a_bucket_may_be_named_by_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(OK) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_address[1]}")
        place = S3Place("http://s3.example.org", "bucket", "a.example.org", path_style=False)
        S3ObjectStore(place, KEYS, tmp_path, QUICK).write_file(".cvmfspublished", b"signed")
    ((_, path, _),) = server.asked
    assert path == "http://bucket.s3.example.org/a.example.org/.cvmfspublished"


def test_what_fails_once_is_tried_again(tmp_path: Path) -> None:
    with scripted((503, "SlowDown"), (500, "InternalError"), OK) as server:
        assert store_at(server, tmp_path).put(CONTENT, ObjectKind.DATA, DATA)
    assert len(server.asked) == 3


def test_an_object_that_is_there_for_long_is_written_again_and_so_becomes_young(tmp_path: Path) -> None:
    with scripted((412, "PreconditionFailed"), OK) as server:
        assert not store_at(server, tmp_path).put(CONTENT, ObjectKind.DATA, DATA)
    assert [method for method, *_ in server.asked] == ["PUT", "HEAD", "PUT"]


def test_an_object_that_is_old_is_renewed_by_writing_what_is_there(tmp_path: Path) -> None:
    with scripted(OK) as server:
        assert store_at(server, tmp_path).renew(CONTENT, ObjectKind.DATA, 0)
    assert [method for method, *_ in server.asked] == ["HEAD", "GET", "PUT"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((503, "SlowDown"), "503 Service Unavailable SlowDown"),
        ((403, "SignatureDoesNotMatch"), "SignatureDoesNotMatch.*look at the credentials"),
        ((404, "NoSuchBucket"), "no bucket 'bucket'"),
    ],
)
def test_a_server_that_says_no_is_quoted_and_nothing_secret_with_it(answer: Answer, words: str, tmp_path: Path) -> None:
    with scripted(answer) as server:
        store = store_at(server, tmp_path)
        for attempt in (lambda: store.put(CONTENT, ObjectKind.DATA, DATA), lambda: store.get(CONTENT, ObjectKind.DATA)):
            with pytest.raises(Unavailable, match=words) as caught:
                attempt()
            shown = f"{caught.value!r} {caught.value.__cause__!r} {KEYS!r} {store!r}"
            assert SECRET not in shown
            assert "Signature=" not in shown
            assert "a-session-token" not in shown


@pytest.mark.parametrize("answer", [(507, "XMinioStorageFull"), (403, "QuotaExceeded"), (507, "")])
def test_a_full_storage_is_told_from_other_failures(answer: Answer, tmp_path: Path) -> None:
    with scripted(answer) as server, pytest.raises(StorageFull):
        store_at(server, tmp_path).put(CONTENT, ObjectKind.DATA, DATA)


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with scripted(OK) as server:
        store = store_at(server, tmp_path)
    for attempt in (
        lambda: store.read_file("x"),
        lambda: store.contains(CONTENT, ObjectKind.DATA),
        lambda: list(store.objects()),
    ):
        with pytest.raises(Unavailable, match=r"localhost.*refused"):
            attempt()


def test_a_missing_object_is_not_a_missing_server(tmp_path: Path) -> None:
    with scripted((404, "NoSuchKey")) as server:
        store = store_at(server, tmp_path)
        with pytest.raises(NotFound):
            store.get(CONTENT, ObjectKind.DATA)
        assert not store.contains(CONTENT, ObjectKind.DATA)


def test_keys_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        f"[default]\naws_access_key_id = other\naws_secret_access_key = x%y\n\n"
        f"[site]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {SECRET}\naws_session_token = a-session-token\n"
    )
    assert credentials.from_file(file, "site") == KEYS
    assert credentials.from_file(file, "default") == S3Credentials("other", "x%y")
    with pytest.raises(InvalidInput, match=r"no section \[nobody\]"):
        credentials.from_file(file, "nobody")


@pytest.mark.parametrize("text", [SECRET, f"[default]\n{SECRET}\n", f"[default]\naws_secret_access_key = {SECRET}\n", "\xff"])
def test_a_credentials_file_that_cannot_be_used_is_named_and_not_quoted(text: str, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(InvalidInput, match=str(file)) as caught:
        credentials.from_file(file, "default")
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"
    with pytest.raises(InvalidInput, match="missing"):
        credentials.from_file(tmp_path / "missing", "default")


def test_keys_come_from_the_environment() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": "a-session-token"}
    assert credentials.from_environment(environment) == KEYS
    with pytest.raises(InvalidInput, match="AWS_SECRET_ACCESS_KEY"):
        credentials.from_environment({"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE"})
