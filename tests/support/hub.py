"""A real docker-registry on a loopback port, with a directory and a configuration file of its own."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.registry_client import Credentials, RegistryClient

READER = Credentials("reader", "read me, please")
_READER_HTPASSWD = "reader:$2y$05$abcdefghijklmnopqrstuuogLYssIv7fNNJ40.PgvtxOLL1EYPP9m"
"""As `htpasswd -nbB` writes it: docker-registry takes bcrypt only."""
_LISTENING = re.compile(r"listening on (127\.0\.0\.1:[0-9]+)")
_START_SECONDS = 30.0


class Hub:
    """Started by `with`, or by start and stop; what was pushed survives a stop, and so does the address.

    private: every request needs READER's name and password.
    """

    def __init__(self, directory: Path, *, private: bool = False) -> None:
        self.directory = directory
        self.credentials = READER if private else None
        self._address = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port, such as `127.0.0.1:40123`: also the name that clients know the hub by."""
        if not self._address:
            raise RuntimeError("the hub was never started")
        return self._address

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def log_path(self) -> Path:
        return self.directory / "hub.log"

    def client(self) -> RegistryClient:
        return RegistryClient(self.address, self.credentials)

    def start(self) -> None:
        """Return once it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "config.yml"
        configuration.write_text(json.dumps(self._configuration()))  # JSON is YAML, too
        written = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(["docker-registry", "serve", str(configuration)], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not (found := _LISTENING.search(self._log_from(written))):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"docker-registry does not start: {self._log_from(written)[-2000:]}")
            time.sleep(0.02)
        self._address = found[1]
        answer = self.client().get("/v2/")
        if answer.status != 200:
            raise RuntimeError(f"docker-registry answers {answer.status} to GET /v2/")

    def stop(self) -> None:
        """End it and wait for that; connections are closed in the middle of whatever they carry."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def requests(self, method: str, path: str, agent: str = "") -> int:
        """How many requests with this method and path were answered so far, those for a part of the body left out.

        agent: with what the names of those begin whose requests count.
        """
        text = self.log_path.read_text(errors="replace")
        line = re.escape(f'"{method} {path} HTTP/1.1"') + r' ([0-9]{3}) [0-9]+ "[^"]*" "' + re.escape(agent)
        return sum(1 for status in re.findall(line, text) if status != "206")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _log_from(self, offset: int) -> str:
        return self.log_path.read_bytes()[offset:].decode(errors="replace")

    def _configuration(self) -> dict[str, object]:
        configuration: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info", "formatter": "text"},
            "storage": {"filesystem": {"rootdirectory": str(self.directory / "storage")}, "delete": {"enabled": True}},
            "http": {"addr": self._address or "127.0.0.1:0", "secret": "one of many hubs"},
        }
        if self.credentials:
            passwords = self.directory / "htpasswd"
            passwords.write_text(_READER_HTPASSWD + "\n")
            configuration["auth"] = {"htpasswd": {"realm": "tests", "path": str(passwords)}}
        return configuration
