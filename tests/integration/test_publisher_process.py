"""The publisher as a process of its own: alone, not twice, and stopped."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.clients import Skopeo
from tests.support.debark_process import IMPATIENT, PROGRAMS, DebarkProcess, wait_until
from tests.support.hub import Hub
from tests.support.published import problems
from tests.support.small_images import tiny

_SECONDS = 30.0


@contextmanager
def publisher(data: Path, hub: Hub, configuration: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`debark-publisher run` and the file with its output; killed at the end if it still lives."""
    command = [str(PROGRAMS / "debark-publisher"), "run", "--data", str(data), "--config", str(configuration)]
    log = configuration.with_suffix(".output")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--upstream=hub.test={hub.url}"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def test_a_second_publisher_of_a_data_directory_refuses_to_start(debark: DebarkProcess, hub: Hub, tmp_path: Path) -> None:
    configuration = tmp_path / "debark.toml"
    configuration.write_text(IMPATIENT)
    wait_until(lambda: len(debark.repositories()) == 2, _SECONDS, lambda: "the publisher does not make its repositories")
    with publisher(debark.data, hub, configuration) as (second, output):
        assert second.wait(_SECONDS) == 1
    assert "another publisher" in output.read_text()
    assert str(debark.data) in output.read_text()
    assert "Traceback" not in output.read_text()
    assert debark.get("/healthz").json()["status"] == "ok"


def test_it_finishes_alone_what_a_mirror_that_died_has_accepted(hub: Hub, tmp_path: Path, skopeo: Skopeo) -> None:
    name = "hub.test/alone/app:1"
    tiny("alone").push(hub.client(), "alone/app", "1")
    settings = IMPATIENT + "supervised = false\n"
    debark = DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}, settings)
    with debark:
        skopeo.pull(f"{debark.address}/{name}", "app")
        debark.wait_for(name, {"queued"})
        debark.kill()
        with publisher(debark.data, hub, tmp_path / "debark" / "debark.toml") as (alone, output):
            wait_until(lambda: "image_published" in output.read_text(), _SECONDS, output.read_text)
            alone.send_signal(signal.SIGTERM)
            assert alone.wait(_SECONDS) == 0
        assert "Traceback" not in output.read_text()
        debark.start()
        assert debark.publisher_pids() == []
        image = debark.wait_for(name)
        assert image["revision"] == 2
        assert problems(debark, image["fqrn"]) == []
        assert debark.get("/healthz").json()["status"] == "ok"
