"""The real `debark serve` with its publisher, on loopback, with a data directory of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.support.registry_client import Answer, RegistryClient

_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.05
PROGRAMS = Path(sys.executable).parent

IMPATIENT = """
[tags]
ttl = 0
[publish]
lease = 5
first_pause = 1
"""
"""Tags are asked for again at each pull, and the wait after a publisher that died is short."""


class DebarkProcess:
    """Started by `with`, or by start and stop; its data, and where it listens, outlive a stop.

    upstreams: URL by name. settings: the configuration file's text. environment: variables that it gets beside those that are.
    tls: how to speak to it, if it has a certificate. listen: host and port, 0 for one that is free.
    """

    def __init__(
        self,
        directory: Path,
        upstreams: Mapping[str, str],
        settings: str = IMPATIENT,
        environment: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        listen: str = "127.0.0.1:0",
    ) -> None:
        self._tls = tls
        self.data = directory / "data"
        self._output = directory / "output"
        self._configuration = directory / "debark.toml"
        self._upstreams = upstreams
        self._environment = {**os.environ, **(environment or {})}
        self._listen = listen
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text(settings)

    def start(self) -> None:
        """Return once /healthz answers. Raises RuntimeError with what was printed if it ends or stays silent."""
        (self.data / "run" / "address").unlink(missing_ok=True)
        command = [str(PROGRAMS / "debark"), "serve", "--data", str(self.data), "--listen", self._listen]
        command += ["--config", str(self._configuration)]
        command += [f"--upstream={name}={url}" for name, url in self._upstreams.items()]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=self._environment
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"debark serve does not start:\n{self.output()[-4000:]}")
            time.sleep(_POLL_SECONDS)
        self._listen = self.address

    def signal(self, number: signal.Signals) -> None:
        """Send it to the process that keeps the others."""
        assert self._process is not None
        self._process.send_signal(number)

    def reload(self, settings: str) -> None:
        """Change the configuration file, and send SIGHUP."""
        self._configuration.write_text(settings)
        self.signal(signal.SIGHUP)

    def wait(self) -> int:
        """Its exit code, when it ends by itself. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        code = self._process.wait(_STOP_SECONDS)
        self._process = None
        return code

    def stop(self) -> None:
        """SIGTERM, and wait. Raises RuntimeError if it does not end or says that something went wrong."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise RuntimeError(f"debark serve does not end on SIGTERM:\n{self.output()[-4000:]}") from error
        if code != 0:
            raise RuntimeError(f"debark serve ended with exit code {code}:\n{self.output()[-4000:]}")

    def kill(self) -> None:
        """SIGKILL: nothing can be tidied up; the publisher notices by itself that its parent is gone."""
        if self._process is not None:
            publishers = self.publisher_pids()
            self._process.kill()
            self._process.wait()
            self._process = None
            wait_until(lambda: not any(map(_command_line, publishers)), _STOP_SECONDS, lambda: "the publisher lives on")

    @property
    def address(self) -> str:
        """Host and port, such as `127.0.0.1:40123`."""
        file = self.data / "run" / "address"
        return file.read_text().strip() if file.exists() else self._listen

    @property
    def pid(self) -> int:
        """Of `debark serve`. Raises RuntimeError while it does not run."""
        if self._process is None:
            raise RuntimeError("debark serve does not run")
        return self._process.pid

    def client(self) -> RegistryClient:
        return RegistryClient(self.address, tls=self._tls)

    def output(self) -> str:
        """What it printed so far, the start screen included."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def publisher_pids(self) -> list[int]:
        """Process ids of the publisher: one, or none for the moment before it is started again."""
        if self._process is None:
            return []
        return [pid for pid in _children(self._process.pid) if b"\0publisher\0run\0" in _command_line(pid)]

    def worker_pids(self) -> list[int]:
        """Process ids of all workers, those included that finish what they have."""
        if self._process is None:
            return []
        return [pid for child in _children(self._process.pid) for pid in _children(child) if _name(pid).startswith("debark-")]

    def log_events(self, event: str) -> list[dict[str, Any]]:
        """What debark.log says of one kind."""
        lines = [json.loads(line) for line in (self.data / "log" / "debark.log").read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def wait_for_log(self, event: str, number: int = 1) -> list[dict[str, Any]]:
        """The same, once there are so many."""
        wait_until(lambda: len(self.log_events(event)) >= number, 30, lambda: f"no {event}:\n{self._logs()}")
        return self.log_events(event)

    def counted(self, name: str, **labels: str) -> float:
        """The value of one metric of the server now; 0 if there is none."""
        text = self.get("/metrics").body.decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0.0

    def kill_publisher(self) -> bool:
        """SIGKILL for the publisher; whether there was one."""
        pids = self.publisher_pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def image(self, reference: str) -> dict[str, Any] | None:
        """What the mirror says of an image such as `hub.test/debian:12`, or None if it knows nothing of it."""
        answer = self.client().get(f"/_debark/v1/images?ref=docker://{reference}")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise AssertionError(f"{answer.status} {answer.body!r}")
        document: dict[str, Any] = answer.json()
        return document

    def wait_for(
        self, reference: str, states: Iterable[str] = ("published",), *, manifest: str = "", seconds: float = 120
    ) -> dict[str, Any]:
        """The image's document once it is in one of the states, and its manifest the given one.

        Raises AssertionError with the logs when the time is over.
        """
        wanted = frozenset(states)
        image: dict[str, Any] | None = None

        def reached() -> bool:
            nonlocal image
            image = self.image(reference)
            return image is not None and image["state"] in wanted and manifest in ("", image["manifest"])

        wait_until(reached, seconds, lambda: f"{reference} is no {' or '.join(sorted(wanted))} but {image}\n{self._logs()}")
        assert image is not None
        return image

    def repositories(self) -> list[dict[str, Any]]:
        document = self.client().get("/_debark/v1/repositories").json()
        repositories: list[dict[str, Any]] = document["repositories"]
        return repositories

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line tool with these arguments, to its end; DEBARK_SERVER leads it here."""
        environment = {**os.environ, "DEBARK_SERVER": f"http://{self.address}"}
        return subprocess.run(
            [PROGRAMS / "debark", *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def access_records(self) -> list[dict[str, Any]]:
        """The access log's lines so far. They are written for many requests together: one more is made and waited for."""
        asked = self.get("/v2/").headers["X-Request-Id"]
        records: list[dict[str, Any]] = []

        def is_there() -> bool:
            complete = (self.data / "log" / "access.jsonl").read_text().rpartition("\n")[0]
            records[:] = [json.loads(line) for line in complete.splitlines()]
            return any(record["id"] == asked for record in records)

        wait_until(is_there, 10, lambda: f"the access log has no line for request {asked}")
        return [record for record in records if record["id"] != asked]

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.client().get(path, headers)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _answers(self) -> bool:
        if not (self.data / "run" / "address").exists() and "address_not_written" not in self.output():
            return False
        try:
            return self.client().get("/healthz").status == 200
        except OSError:
            return False

    def _logs(self) -> str:
        texts = [self.output()[-3000:]]
        texts += [path.read_text(errors="replace")[-3000:] for path in sorted((self.data / "log").glob("*.log"))]
        return "\n".join(texts)


def wait_until(condition: Callable[[], bool], seconds: float, complaint: Callable[[], str]) -> None:
    """Ask often until it is so. Raises AssertionError with the complaint when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {complaint()}")
        time.sleep(_POLL_SECONDS)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # Threads, too, come and go.
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
