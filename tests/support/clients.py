"""Real, unchanged clients, each with configuration and credentials of its own and nothing of the machine's."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.hub import Hub
from tests.support.registry_client import Credentials, digest_of
from tests.support.tool import run


@dataclass(frozen=True)
class Copy:
    """What skopeo's `dir:` transport wrote: the manifest and every blob under its digest's hex."""

    directory: Path

    @property
    def manifest(self) -> bytes:
        return (self.directory / "manifest.json").read_bytes()

    @property
    def blobs(self) -> dict[str, bytes]:
        """Content by the digest that its file is named after."""
        files = (file for file in self.directory.iterdir() if file.name not in {"manifest.json", "version"})
        return {f"sha256:{file.name}": file.read_bytes() for file in files}

    def differences(self, hub: Hub, repository: str, reference: str) -> list[str]:
        """What is not the hub's to the byte; empty where all is."""
        found = []
        if self.manifest != hub.client().manifest(repository, reference).body:
            found.append("the manifest")
        blobs = self.blobs
        manifest = json.loads(self.manifest)
        named = {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
        if set(blobs) != named:
            found.append(f"blobs {sorted(blobs)} where the manifest names {sorted(named)}")
        found += [digest for digest, data in blobs.items() if digest_of(data) != digest]
        found += [digest for digest, data in blobs.items() if data != hub.client().blob(repository, digest).body]
        return found


class Skopeo:
    """skopeo with plain HTTP allowed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._registries = directory / "registries.conf"
        self._authentication = directory / "auth.json"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        (directory / "registries.d").mkdir(exist_ok=True)
        self._registries.write_text("")
        self._authentication.write_text(json.dumps({"auths": {}}))

    def mirror(self, registry: str, location: str) -> None:
        """From now on ask `location` (host, port and perhaps a path) first for what is named after `registry`."""
        self._registries.write_text(
            f'[[registry]]\nprefix = "{registry}"\nlocation = "{registry}"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "{location}"\ninsecure = true\n'
        )

    def login(self, registry: str, credentials: Credentials) -> None:
        self._authentication.write_text(json.dumps({"auths": {registry: {"auth": credentials.basic}}}))

    def pull(self, name: str, to: str, *more: str) -> Copy:
        """`skopeo copy docker://NAME dir:...`; raises ToolFailed."""
        destination = self._directory / to
        run([*self._pull_command(name, destination), *more], env=self._environment())
        return Copy(destination)

    def start_pull(self, name: str, to: str) -> subprocess.Popen[bytes]:
        """The same, not waited for."""
        return subprocess.Popen(
            self._pull_command(name, self._directory / to),
            env=self._environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def push(self, layout: Path, tag: str, name: str) -> None:
        """From an OCI layout, all digests kept."""
        options = ["--quiet", "--preserve-digests", "--dest-tls-verify=false"]
        run([*self._skopeo(), "copy", *options, f"oci:{layout}:{tag}", f"docker://{name}"], env=self._environment())

    def convert(self, source: str, destination: str, *options: str) -> None:
        """`skopeo copy` from one transport to another; raises ToolFailed."""
        run([*self._skopeo(), "copy", "--quiet", *options, source, destination], env=self._environment())

    def _pull_command(self, name: str, destination: Path) -> list[str]:
        options = ["--quiet", "--preserve-digests", "--src-tls-verify=false"]
        return [*self._skopeo(), "copy", *options, f"docker://{name}", f"dir:{destination}"]

    def _skopeo(self) -> list[str]:
        configured = ["--policy", f"{self._directory}/policy.json", "--registries.d", f"{self._directory}/registries.d"]
        return ["skopeo", *configured, "--registries-conf", str(self._registries)]

    def _environment(self) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._directory),
            "TMPDIR": os.environ.get("TMPDIR", "/var/tmp"),
            "REGISTRY_AUTH_FILE": str(self._authentication),
        }
