"""`debark report` on files as they lie in a log directory."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mirror.report.accesslog import LONGEST_LINE, AccessRecord, format_line
from mirror.report.command import report
from mirror.report.render import human_size
from tests.support.access_records import CHILD, INDEX, LAYER, MANIFEST, NOON


def text_of(*records: AccessRecord) -> str:
    return "".join(format_line(record) + "\n" for record in records)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(report, [str(argument) for argument in arguments])


def document(*arguments: object) -> Any:
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.jsonl"
    path.write_text(text_of(INDEX, CHILD, LAYER))
    return path


def test_table_tells_what_was_pulled(log: Path) -> None:
    result = run(log)
    assert result.exit_code == 0
    assert "1 pull, 0 of them of images that are in /cvmfs; 3 requests for content, 52.0 kB sent." in result.stdout
    assert "docker.io/library/debian:12" in result.stdout
    assert "192.0.2.7" in result.stdout
    assert "Served from cache: 0.0% of requests" in result.stdout


def test_rotated_and_packed_logs_are_read_together(log: Path, tmp_path: Path) -> None:
    packed = tmp_path / "access.jsonl.1.gz"
    packed.write_bytes(gzip.compress(text_of(MANIFEST, MANIFEST).encode()))
    found = document(packed, log)
    assert found["pulls"] == 3
    assert found["images"][0] == {"name": "docker.io/library/debian:12", "pulls": 3, "requests": 5, "bytes": 54_000}
    assert found["days"] == [{"name": "2026-11-23", "pulls": 3, "requests": 5, "bytes": 54_000}]
    assert found["from"] == "2026-11-23T12:00:00+00:00"


def test_period_is_half_open_and_utc(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(text_of(*(replace(MANIFEST, time=NOON + hours * 3600) for hours in (-13, -12, 0, 12))))
    assert document("--since", "2026-11-23", "--until", "2026-11-24", log)["pulls"] == 2
    assert document("--since", "2026-11-23T13:00:00+01:00", log)["pulls"] == 2
    assert run("--since", "yesterday", log).exit_code == 2


def test_bad_lines_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    newer = format_line(MANIFEST).replace('"v":1', '"v":2')
    log.write_text(f"garbage\n\n{newer}\n{'x' * (2 * LONGEST_LINE)}\n" + text_of(MANIFEST) + format_line(MANIFEST)[:50])
    found = document(log)
    assert (found["bad_lines"], found["pulls"]) == (4, 1)
    assert "4 lines could not be read" in run(log).stdout
    assert "access log version 2" in run(log).stdout


def test_a_damaged_gzip_gives_what_can_be_read(tmp_path: Path) -> None:
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress(text_of(*[MANIFEST] * 2000).encode(), compresslevel=0)[:-2000])
    found = document(packed)
    assert found["bad_lines"] == 1
    assert 1900 < found["pulls"] < 2000


def test_an_empty_log_is_said_to_be_empty(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    assert "No request" in run(log).stdout
    assert document(log)["served_from_cache"] == {"requests": None, "bytes": None}


def test_names_from_outside_cannot_steer_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(text_of(replace(MANIFEST, user="\x1b[2Jroot\n[bold]x[/bold]\ud800")))
    result = run(log)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "?[2Jroot?[bold]x[/bold]?" in result.stdout


def test_top_limits_rows_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(text_of(*(replace(MANIFEST, reference=f"t{number}") for number in range(30))))
    result = run("--top", 3, log)
    assert "3 of 30; --top shows more" in result.stdout
    assert len(document("--top", 3, log)["images"]) == 3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    result = run(tmp_path / "none")
    assert result.exit_code == 2
    assert "none" in result.output


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_600, "1.00 MB"), (123_456_789, "123 MB"), (5 * 10**18, "5.00 EB")],
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert human_size(size) == text
