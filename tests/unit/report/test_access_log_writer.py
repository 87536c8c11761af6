"""The access log on disk: nothing lost on a good day, nobody waiting on a bad one."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.errors import Unavailable
from mirror.report.accesslog import format_line, parse_line
from mirror.report.writer import AccessLog
from tests.support.access_records import LAYER, MANIFEST


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_records_are_written_in_order_and_close_waits_for_them(tmp_path: Path) -> None:
    path = tmp_path / "log" / "access.jsonl"
    log = AccessLog(path)
    records = [replace(LAYER, request_id=str(number)) for number in range(3000)]
    for record in records:
        log.write(record)
    log.close()
    assert [parse_line(line) for line in path.read_text().splitlines()] == records
    assert path.stat().st_mode & 0o007 == 0


def test_a_log_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    for record in (MANIFEST, LAYER):
        log = AccessLog(path)
        log.write(record)
        log.close()
    assert [parse_line(line) for line in path.read_text().splitlines()] == [MANIFEST, LAYER]


def test_a_line_cut_by_a_crash_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.write_text(format_line(MANIFEST)[:40])
    log = AccessLog(path)
    log.write(LAYER)
    log.close()
    assert parse_line(path.read_text().splitlines()[1]) == LAYER


def test_a_line_that_another_process_leaves_incomplete_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    log = AccessLog(path)
    log.write(MANIFEST)
    wait_until(lambda: path.stat().st_size > 0)
    with path.open("a") as other:
        other.write(format_line(MANIFEST)[:40])
    log.write(LAYER)
    log.close()
    first, _, last = path.read_text().splitlines()
    assert [parse_line(first), parse_line(last)] == [MANIFEST, LAYER]


def test_several_writers_and_a_rotation_leave_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    logs = [AccessLog(path) for _ in range(3)]
    for number in range(6000):
        logs[number % 3].write(replace(LAYER, request_id=str(number)))
        if number in (2000, 4000):
            wait_until(lambda: path.exists() and path.stat().st_size > 0)
            path.rename(tmp_path / f"access.jsonl.{number}")
    for log in logs:
        log.close()
    lines = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    assert sorted(int(parse_line(line).request_id) for line in lines) == list(range(6000))


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_rotation_needs_no_signal(tmp_path: Path, how: str) -> None:
    path = tmp_path / "access.jsonl"
    log = AccessLog(path)
    log.write(MANIFEST)
    wait_until(lambda: path.stat().st_size > 0)
    if how == "moved":
        path.rename(tmp_path / "access.jsonl.1")
    else:
        path.unlink()
    log.write(LAYER)
    wait_until(lambda: path.exists() and path.stat().st_size > 0)
    log.close()
    assert [parse_line(line) for line in path.read_text().splitlines()] == [LAYER]


def test_when_the_disk_stalls_records_are_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    drops: list[None] = []
    path.touch()
    log = AccessLog(path, capacity=10, on_drop=lambda: drops.append(None))
    path.unlink()
    os.mkfifo(path)  # opening it for writing blocks until somebody reads
    log.write(MANIFEST)
    wait_until(lambda: not log._records)
    for _ in range(25):
        log.write(LAYER)
    assert len(drops) == 15
    reader = os.open(path, os.O_RDONLY)
    log.close()
    os.close(reader)


def test_when_the_disk_is_full_records_are_counted_as_lost_and_the_log_recovers(tmp_path: Path) -> None:
    drops: list[None] = []
    path = tmp_path / "access.jsonl"
    log = AccessLog(path, on_drop=lambda: drops.append(None))
    path.unlink()
    path.symlink_to("/dev/full")
    log.write(MANIFEST)
    wait_until(lambda: len(drops) == 1)
    path.unlink()
    log.write(LAYER)
    wait_until(lambda: path.exists() and path.stat().st_size > 0)
    log.close()
    assert [parse_line(line) for line in path.read_text().splitlines()] == [LAYER]
    assert len(drops) == 1


def test_a_log_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="file/access"):
        AccessLog(tmp_path / "file" / "access.jsonl")
