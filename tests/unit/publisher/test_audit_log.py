"""The audit log: whole lines on the disk, by several writers, through rotation, and loud when it cannot be written."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.errors import Unavailable
from publisher.audit import Act, AuditLog
from tests.support.small_images import file, pack
from tests.support.verbs import Verbs

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_when_what_and_who(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    AuditLog(path, lambda: NOW, "anna").record(Act.REMOVED, fqrn="a.b", revision=7, reason="spam\nand \xe4", image=None)
    (line,) = lines(path)
    assert line.pop("process")
    assert line == {
        "time": "2026-01-02T03:04:05.000Z",
        "act": "removed",
        "by": "anna",
        "fqrn": "a.b",
        "revision": 7,
        "reason": "spam\nand \xe4",
    }
    assert path.stat().st_mode & 0o007 == 0


def test_it_is_appended_to_and_may_be_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = AuditLog(path)
    audit.record(Act.PUBLISHED, number=1)
    AuditLog(path).record(Act.PUBLISHED, number=2)
    path.rename(tmp_path / "audit.jsonl.1")
    audit.record(Act.PUBLISHED, number=3)
    assert [line["number"] for line in lines(tmp_path / "audit.jsonl.1")] == [1, 2]
    assert [line["number"] for line in lines(path)] == [3]


def test_it_is_on_the_disk_when_record_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    path = tmp_path / "audit.jsonl"
    AuditLog(path).record(Act.PUBLISHED)
    assert path.stat().st_ino in synced
    assert tmp_path.stat().st_ino in synced


def test_several_writers_never_mix_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    def write() -> None:
        for number in range(10):
            AuditLog(path).record(Act.PUBLISHED, number=number, text="x" * 5000)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(path)) == 40


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that is full: no file of this process grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_cannot_be_written_is_an_error_and_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = AuditLog(path)
    audit.record(Act.PUBLISHED, number=1)
    with (
        files_of_at_most(path.stat().st_size + 20),
        capture_logs() as logs,
        pytest.raises(Unavailable, match="cannot be written"),
    ):
        audit.record(Act.REMOVED, reason="why", file="x")
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("audit_not_written", "error")]
    problems = [audit.problem]
    audit.record(Act.PUBLISHED, number=2)
    problems.append(audit.problem)
    assert [bool(problem) for problem in problems] == [True, False]
    assert [line["number"] for line in lines(path)] == [1, 2]


def test_verbs_write_down_what_they_did(tmp_path: Path) -> None:
    verbs = Verbs(tmp_path, "audit.example.org")
    verbs.run("mkfs")
    archive = tmp_path / "archive.tar"
    archive.write_bytes(pack([file("hello", b"world")]))
    verbs.run("ingest", "--tar", archive, "--base", "software")
    verbs.run("tag", "--add", "release")
    verbs.run("rollback")
    verbs.run("resign")
    verbs.run("gc")
    written = lines(tmp_path / "log" / "audit.jsonl")
    assert [(line["act"], line.get("what", "")) for line in written] == [
        ("made", ""),
        ("changed", "ingest"),
        ("changed", "tag"),
        ("changed", "rollback to revision 1"),
        ("signed", "whitelist"),
        ("collected", ""),
    ]
    assert {line["fqrn"] for line in written} == {"audit.example.org"}
    assert written[1]["revision"] == 2
