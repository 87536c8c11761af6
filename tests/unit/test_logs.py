"""Logs as an administrator finds them: one JSON object a line, no secrets, rotation without a signal, nobody waits for a disk."""

import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from mirror.logs import LogOptions, Logs

log = structlog.get_logger()


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    handlers = logging.getLogger().handlers[:]
    yield
    assert logging.getLogger().handlers == handlers


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def logged(action: Any, **options: Any) -> str:
    stream = io.StringIO()
    logs = Logs(LogOptions(**options), stream)
    try:
        action()
    finally:
        logs.close()
    return stream.getvalue()


def test_events_are_json_objects_with_time_level_and_context() -> None:
    def act() -> None:
        with structlog.contextvars.bound_contextvars(request_id="r-1"):
            log.info("blob_stored", digest="sha256:ab", size=7, path=Path("/x"))

    (event,) = lines(logged(act))
    assert list(event)[:3] == ["time", "level", "event"]
    assert event["time"].endswith("Z")
    assert event | {"time": ""} == {
        "time": "",
        "level": "info",
        "event": "blob_stored",
        "digest": "sha256:ab",
        "size": 7,
        "path": "/x",
        "request_id": "r-1",
    }


def test_level_is_kept() -> None:
    def act() -> None:
        log.debug("d")
        log.info("i")
        log.warning("w")
        logging.getLogger("library").info("li")
        logging.getLogger("library").error("le")

    assert [event["event"] for event in lines(logged(act, level="warning"))] == ["w", "le"]


def test_exceptions_are_rendered_though_another_thread_writes_them() -> None:
    def act() -> None:
        try:
            raise ValueError("broken: Bearer abcdef123456")
        except ValueError:
            log.exception("failed")

    (event,) = lines(logged(act))
    assert "ValueError: broken" in event["exception"]
    assert "abcdef123456" not in event["exception"]


def test_library_logs_take_the_same_way() -> None:
    (event,) = lines(logged(lambda: logging.getLogger("aiohttp.server").error("unhandled %s", "thing")))
    assert (event["event"], event["logger"], event["level"]) == ("unhandled thing", "aiohttp.server", "error")
    assert event["time"].endswith("Z")


def test_pretty_lines_let_nothing_steer_the_terminal() -> None:
    text = logged(lambda: log.info("pulled", agent="\x1b[2Jevil", note="\x9b31m"), form="pretty")
    assert "pulled" in text
    assert "evil" in text
    assert "\x1b" not in text
    assert "\x9b" not in text


def test_file_gets_all_and_standard_error_the_bad_news(tmp_path: Path) -> None:
    def act() -> None:
        log.info("fine")
        log.error("bad")

    file = tmp_path / "log" / "debark.log"
    console = logged(act, file=file)
    assert [event["event"] for event in lines(console)] == ["bad"]
    assert [event["event"] for event in lines(file.read_text())] == ["fine", "bad"]


def test_moved_file_is_opened_anew(tmp_path: Path) -> None:
    file = tmp_path / "debark.log"

    def wait_for(text: str) -> None:
        for _ in range(500):
            if file.exists() and text in file.read_text():
                return
            threading.Event().wait(0.01)
        raise AssertionError(f"{text} was not written")

    def act() -> None:
        log.info("before")
        wait_for("before")
        file.rename(tmp_path / "debark.log.1")
        log.info("after")
        wait_for("after")

    logged(act, file=file)
    assert "after" not in (tmp_path / "debark.log.1").read_text()


def test_a_stalled_disk_costs_events_not_time() -> None:
    gate = threading.Event()

    class Stalled(io.StringIO):
        def write(self, text: str) -> int:
            gate.wait(10)
            return super().write(text)

    drops: list[None] = []
    stream = Stalled()
    logs = Logs(LogOptions(queue=5), stream, on_drop=lambda: drops.append(None))
    for number in range(50):
        log.info("event", number=number)
    assert logs.dropped >= 44
    gate.set()
    logs.close()
    assert len(drops) == logs.dropped
    assert len(lines(stream.getvalue())) == 50 - logs.dropped


def test_a_closed_terminal_is_survived() -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    logs = Logs(LogOptions(), Closed())
    log.info("event")
    logs.close()
    assert logs.dropped == 1


def test_a_long_line_goes_out_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes write the same file."""
    written: list[bytes] = []
    write = os.write

    def watched(descriptor: int, data: bytes) -> int:
        written.append(data)
        return write(descriptor, data)

    logs = Logs(LogOptions(file=tmp_path / "log", worker=3), io.StringIO())
    monkeypatch.setattr(os, "write", watched)
    log.info("long", text="x" * 100_000)
    logs.close()
    monkeypatch.undo()

    (line,) = (tmp_path / "log").read_bytes().splitlines(keepends=True)
    assert line in written
    assert json.loads(line)["worker"] == 3
