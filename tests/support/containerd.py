"""A real containerd with a directory of its own, and `ctr`, its client: content is fetched and kept, nothing is run."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.debark_process import wait_until
from tests.support.tool import ToolFailed, as_root, run

_START_SECONDS = 60.0
_NOWHERE = "http://127.0.0.1:1"
"""In place of the registries themselves, which are asked where the mirror has nothing."""
_CONFIGURATION = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
                    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.overlayfs",
                    "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing",
                    "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{directory}/socket"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
"""


class Containerd:
    """Started by `with`. Its directory is short-lived and has a short name, for the sake of its sockets."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="ctd-"))
        self._hosts = self._directory / "certs.d"
        self._process: subprocess.Popen[bytes] | None = None

    def mirror(self, registry: str, address: str, path: str = "") -> None:
        """Ask `address` for what is named after a registry (`_default`: any). path: in place of `/v2`, by `override_path`."""
        directory = self._hosts / registry
        directory.mkdir(parents=True, exist_ok=True)
        override = "  override_path = true\n" if path else ""
        text = f'server = "{_NOWHERE}"\n[host."http://{address}{path}"]\n  capabilities = ["pull", "resolve"]\n{override}'
        (directory / "hosts.toml").write_text(text)

    def fetch(self, reference: str, *options: str) -> None:
        """Manifests, config and layers of an image for this machine's platform. Raises ToolFailed."""
        self._ctr("content", "fetch", "--hosts-dir", str(self._hosts), *options, reference)

    def content(self) -> set[str]:
        """Digests of all that is kept; each was verified when it came."""
        return set(self._ctr("content", "ls", "-q").split())

    def digest(self, reference: str) -> str:
        """What an image's name leads to."""
        lines = [line.split() for line in self._ctr("images", "ls").splitlines()]
        return next(line[2] for line in lines if line[0] == reference)

    def __enter__(self) -> Self:
        configuration = self._directory / "config.toml"
        configuration.write_text(_CONFIGURATION.format(directory=self._directory))
        with (self._directory / "log").open("wb") as log:
            command = as_root(["containerd", "--config", str(configuration)])
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self._answers, _START_SECONDS, (self._directory / "log").read_text)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process is not None
        run(as_root(["kill", str(self._process.pid)]))
        self._process.wait(60)
        run(as_root(["rm", "-r", self._directory]))

    def _answers(self) -> bool:
        try:
            self._ctr("version")
        except ToolFailed:
            return False
        return True

    def _ctr(self, *arguments: str) -> str:
        return run(as_root(["ctr", "--address", f"{self._directory}/socket", *arguments])).stdout
