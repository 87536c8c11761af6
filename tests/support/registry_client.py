"""The smallest client that can ask a registry anything and push anything, also what no tool would push."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, "application/vnd.docker.distribution.manifest.list.v2+json"))


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Credentials:
    user: str
    password: str

    @property
    def basic(self) -> str:
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RegistryClient:
    """One connection per question; redirects are not followed, nothing is tried again."""

    def __init__(
        self, address: str, credentials: Credentials | None = None, seconds: float = 60, tls: ssl.SSLContext | None = None
    ) -> None:
        self._address = address
        self._headers = {"Authorization": f"Basic {credentials.basic}"} if credentials else {}
        self._seconds = seconds
        self._tls = tls

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
        """Raises OSError or http.client.HTTPException where there is no complete answer."""
        connection = http.client.HTTPConnection(self._address, timeout=self._seconds)
        if self._tls is not None:
            connection = http.client.HTTPSConnection(self._address, timeout=self._seconds, context=self._tls)
        try:
            connection.request(method, path, body=body, headers={**self._headers, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("GET", path, headers)

    def head(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("HEAD", path, headers)

    def manifest(self, repository: str, reference: str) -> Answer:
        return self.get(f"/v2/{repository}/manifests/{reference}", {"Accept": ACCEPT})

    def blob(self, repository: str, digest: str) -> Answer:
        return self.get(f"/v2/{repository}/blobs/{digest}")

    def push_blob(self, repository: str, data: bytes, digest: str | None = None) -> str:
        """Upload in one go; the digest, which is a sha256 one unless another one is given."""
        digest = digest or digest_of(data)
        started = self._expect(202, "POST", f"/v2/{repository}/blobs/uploads/")
        location = urlsplit(started.headers["Location"])
        query = f"{location.query}&digest={digest}"
        self._expect(201, "PUT", f"{location.path}?{query}", {"Content-Type": "application/octet-stream"}, data)
        return digest

    def push_manifest(self, repository: str, reference: str, manifest: bytes, media_type: str) -> str:
        """Upload under a tag or its own digest; the digest."""
        self._expect(201, "PUT", f"/v2/{repository}/manifests/{reference}", {"Content-Type": media_type}, manifest)
        return digest_of(manifest)

    def _expect(
        self, status: int, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        answer = self.ask(method, path, headers, body)
        if answer.status != status:
            raise AssertionError(f"{method} {path}: {answer.status} {answer.body[:500]!r} in place of {status}")
        return answer
