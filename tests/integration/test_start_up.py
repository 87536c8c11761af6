"""A mirror that cannot start says why in a few words, with the mend, and leaves nothing running."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.support.debark_process import PROGRAMS, wait_until
from tests.support.registry_client import RegistryClient


def serve(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """To its end, which must come by itself."""
    command = [str(PROGRAMS / "debark"), "serve", "--data", str(data), "--listen", "127.0.0.1:0", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = serve(tmp_path, "--listen", f"127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot listen on 127.0.0.1:{port}: something else listens there; choose another address" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "address").exists()


def test_a_data_directory_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = serve(tmp_path / "file" / "data")
    assert done.returncode == 1
    assert str(tmp_path / "file" / "data") in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_with_mistakes_all_of_them_at_once(tmp_path: Path) -> None:
    file = tmp_path / "debark.toml"
    file.write_text('default_upstream = "nowhere.example.org"\n[server]\nlisten = "here"\nmax_request = 5\n')
    done = serve(tmp_path / "data", "--config", str(file))
    assert done.returncode == 2
    for words in ("default_upstream", "max_request", "did you mean 'max_requests'?"):
        assert words in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_password_file_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "debark.toml"
    file.write_text('[upstreams."docker.io"]\nusername = "site"\npassword_file = "nothing"\n')
    done = serve(tmp_path / "data", "--config", str(file))
    assert done.returncode == 1
    assert f"{tmp_path / 'nothing'}: the secret cannot be read" in done.stderr


def test_a_database_of_a_newer_version(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.sqlite") as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('9999')")
    database.close()
    done = serve(tmp_path)
    assert done.returncode == 1
    assert "a newer version of debark has used it" in done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_mirror_that_publishes_nothing_starts_and_stops(tmp_path: Path, how: signal.Signals) -> None:
    file = tmp_path / "debark.toml"
    file.write_text('[publish]\nenabled = false\n[log]\nfile = "none"\naccess_file = "none"\n')
    data, output = tmp_path / "not" / "there" / "yet", tmp_path / "output"
    command = [str(PROGRAMS / "debark"), "serve", "--config", str(file), "--data", str(data), "--listen", "127.0.0.1:0"]
    with output.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        address = data / "run" / "address"
        wait_until(lambda: address.exists() or process.poll() is not None, 30, output.read_text)
        client = RegistryClient(address.read_text().strip())
        assert client.get("/v2/").status == 200
        assert client.get("/healthz").json()["status"] == "ok"
        wait_until(lambda: "mirrors registries at" in output.read_text(), 10, output.read_text)
        process.send_signal(how)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert not address.exists()
    assert "CVMFS" not in output.read_text()
    assert "Warning" not in output.read_text()
