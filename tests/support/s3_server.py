"""A real S3 server of the tests' own: signatures (version 4) are checked, `If-None-Match: *` is known, listings come in pages."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from publisher.objects.credentials import S3Credentials
from publisher.objects.s3 import S3Place
from tests.support.tool import TOP

BUCKET = "cvmfs"
CREDENTIALS = S3Credentials("test:tester", "a-secret-of-tests")
_START_SECONDS = 60.0


class S3Server:
    """OpenStack Swift (tests/support/swift_process.py) with one bucket. Started by `with`."""

    def __init__(self, directory: Path) -> None:
        """directory: for all that it keeps; must not exist yet, on a file system with extended attributes."""
        self.directory = directory
        self.endpoint = ""
        """Where the S3 interface is, such as `http://127.0.0.1:41234`."""
        self.public_url = ""
        """Where a web server gives the bucket's content to anybody."""
        self._process: subprocess.Popen[bytes] | None = None

    def place(self, prefix: str) -> S3Place:
        return S3Place(self.endpoint, BUCKET, prefix)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True)
        command: list[str | Path] = [sys.executable, "-m", "tests.support.swift_process", self.directory, CREDENTIALS.secret_key]
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=TOP, stdin=subprocess.PIPE, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not (ports := self.directory / "ports").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Swift does not start: {(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.02)
        s3, web = ports.read_text().split()
        self.endpoint = f"http://127.0.0.1:{s3}"
        self.public_url = f"http://127.0.0.1:{web}/v1/AUTH_test/{BUCKET}"
        with urllib.request.urlopen(urllib.request.Request(self.public_url, method="PUT", data=b""), timeout=10):
            return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End it and wait for that."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
