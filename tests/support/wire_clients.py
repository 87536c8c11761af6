"""How well-known clients ask: their requests on the wire, header by header, in the order in which they send them.

As observed with apptainer 1.4.5, skopeo 1.22 and podman 5.8 (both containers/image), docker 28.5 and 20.10, containerd 2.1 and
1.6, crane 0.20 and oras 1.3. Where they only differ in what they print, they are one client here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.raw_http import RawConnection, Reply
from tests.support.registry_client import digest_of

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

_IMAGE_LIBRARY = (OCI_MANIFEST, DOCKER_MANIFEST, DOCKER_SIGNED, DOCKER_SCHEMA1, DOCKER_LIST, OCI_INDEX)
_MOBY = (DOCKER_MANIFEST, DOCKER_LIST, "application/json", OCI_INDEX, OCI_MANIFEST, DOCKER_SIGNED)
_GGCR = (f"{DOCKER_MANIFEST},{OCI_MANIFEST},{DOCKER_LIST},{OCI_INDEX}",)
_CONTAINERD = (f"{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, */*",)
_ORAS = (f"{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, application/vnd.oci.artifact.manifest.v1+json",)
_ZSTD = "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"


@dataclass(frozen=True)
class WireClient:
    """What one client sends. `accept` has one entry for each header line."""

    name: str
    agent: str
    accept: tuple[str, ...]
    way: str = "/v2/hub.test/{name}"
    namespace: str = ""
    """The value of `ns=` on every request; empty: none."""
    begins: tuple[str, ...] = ("GET /v2/",)
    """What it sends before it downloads: `HEAD` and `GET` are of the tag."""
    by_digest: bool = False
    """Whether it downloads the manifest under the digest that the HEAD told it."""
    heads_digests: bool = False
    """Whether it sends HEAD for manifests by digest, too."""
    accept_encoding: str = "gzip"
    blob_encoding: str = "identity"
    closes: bool = False
    """Whether each request has a connection of its own."""
    config_first: bool = True
    all_platforms: bool = False
    """Whether it takes all that an index names, and not the image for its own platform only."""
    narrow_children: bool = False
    """Whether manifests in an index are asked for with nothing but their own type."""
    resumes: bool = False
    """Whether a broken blob is gone on with by Range."""
    keeps_credentials: bool = False
    """Whether it sends what it has for the mirror to another port of the same host too, where it is sent there."""


CLIENTS = (
    WireClient("skopeo, podman", "containers/5.39.2 (github.com/containers/image)", _IMAGE_LIBRARY, resumes=True),
    WireClient("skopeo, mirror at the root", "skopeo/1.22.0", _IMAGE_LIBRARY, "/v2/{name}", resumes=True, keeps_credentials=True),
    WireClient(
        "apptainer",
        "Apptainer/1.4.5 (Linux amd64) Go/1.26.0",
        _GGCR,
        begins=("GET /v2/", "HEAD", "GET /v2/"),
        config_first=False,
        narrow_children=True,
    ),
    WireClient("apptainer, hub unreachable", "go-containerregistry", _GGCR, begins=("GET /v2/", "GET"), config_first=False),
    WireClient(
        "docker",
        "docker/28.5.2 go/go1.26 UpstreamClient(Docker-Client/28.5.2 \\(linux\\))",
        _MOBY,
        "/v2/{name}",
        begins=("GET /v2/", "HEAD"),
        by_digest=True,
        closes=True,
        resumes=True,
    ),
    WireClient(
        "containerd",
        "containerd/2.1.9",
        _CONTAINERD,
        "/v2/{name}",
        namespace="hub.test",
        begins=("HEAD",),
        by_digest=True,
        accept_encoding=_ZSTD,
        blob_encoding=_ZSTD,
        narrow_children=True,
        resumes=True,
        keeps_credentials=True,
    ),
    WireClient(
        "containerd, override_path",
        "containerd/1.6.20",
        _CONTAINERD,
        namespace="hub.test",
        begins=("HEAD",),
        by_digest=True,
        heads_digests=True,
        resumes=True,
    ),
    WireClient("crane", "go-containerregistry", _GGCR, config_first=False, narrow_children=True),
    WireClient("oras", "oras/1.3.3", _ORAS, begins=(), narrow_children=True, all_platforms=True),
)


@dataclass(frozen=True)
class Pulled:
    """What a client has in the end: everything that the digest of the tag leads to, and each answer on the way."""

    manifests: tuple[bytes, ...]
    blobs: dict[str, bytes]
    replies: tuple[tuple[str, Reply], ...]
    """With the request that it is the answer to, such as `HEAD /v2/team/app/manifests/1`."""


class Puller:
    """Pulls as a client does. Raises AssertionError where an answer is one that this client would give up at."""

    def __init__(self, client: WireClient, address: str, credentials: str = "") -> None:
        """credentials: what it has for the mirror, as the value of `Authorization`; empty: none."""
        self._client = client
        self._address = address
        self._credentials = credentials
        self._connection: RawConnection | None = None
        self._replies: list[tuple[str, Reply]] = []

    def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]] = ()) -> Reply:
        """One request; path without the query that this client adds."""
        client = self._client
        query = f"?ns={client.namespace}" if client.namespace and path != "/v2/" else ""
        fields = [("Host", self._address), ("User-Agent", client.agent), *headers]
        fields += [("Authorization", self._credentials)] if self._credentials else []
        fields += [("Connection", "close")] if client.closes else []
        connection = self._connection = self._connection or RawConnection(self._address)
        reply = _exchange(connection, method, f"{path}{query}", fields)
        assert reply is not None, f"{client.name}: no answer to {method} {path}"
        self._replies.append((f"{method} {path}", reply))
        if client.closes:
            assert connection.is_closed()
            self.close()
        return reply

    def manifest(self, method: str, name: str, reference: str, accept: Sequence[str] = ()) -> Reply:
        """accept: header lines in place of the usual ones."""
        lines = [("Accept", line) for line in accept or self._client.accept]
        path = f"{self._client.way.format(name=name)}/manifests/{reference}"
        return self.ask(method, path, [*lines, ("Accept-Encoding", self._client.accept_encoding)])

    def blob(self, name: str, descriptor: dict[str, Any], start: int = 0) -> Reply:
        path = f"{self._client.way.format(name=name)}/blobs/{descriptor['digest']}"
        accept = f"{descriptor['mediaType']}, */*"
        fields = [("Accept", accept), ("Accept-Encoding", self._client.blob_encoding)]
        fields += [("Range", f"bytes={start}-")] if start else []
        reply = self.ask("GET", path, fields)
        return self._follow(reply, fields, path) if reply.status == 307 else reply

    def pull(self, name: str, reference: str) -> Pulled:
        """What this client takes of it, to the last byte: the image for linux/amd64, unless it takes all."""
        self._replies.clear()
        head = self._begin(name, reference)
        if self._client.by_digest:
            assert head is not None
            reference = head.headers["Docker-Content-Digest"]
        manifests = []
        blobs: dict[str, bytes] = {}
        waiting: list[tuple[str, tuple[str, ...]]] = [(reference, ())]
        while waiting:
            manifests.append(self._checked_manifest(name, *waiting.pop(0)).body)
            document = json.loads(manifests[-1])
            if "manifests" not in document:
                blobs |= self._blobs(name, [document["config"], *document["layers"]])
                continue
            for child in self._wanted(document["manifests"]):
                waiting += [(child["digest"], (child["mediaType"],) if self._client.narrow_children else ())]
        self.close()
        return Pulled(tuple(manifests), blobs, tuple(self._replies))

    def _wanted(self, children: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        fitting = [child for child in children if child.get("platform", {}).get("architecture") in ("amd64", None)]
        return children if self._client.all_platforms else fitting[:1]

    def _blobs(self, name: str, wanted: Sequence[dict[str, Any]]) -> dict[str, bytes]:
        """By digest. wanted: the config and the layers, as a manifest describes them."""
        blobs = {}
        for descriptor in wanted if self._client.config_first else [*wanted[1:], wanted[0]]:
            reply = self.blob(name, descriptor)
            assert reply.status == 200, (self._client.name, reply.status, reply.body[:300])
            assert digest_of(reply.body) == descriptor["digest"]
            assert "Content-Encoding" not in reply.headers
            blobs[descriptor["digest"]] = reply.body
        return blobs

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _follow(self, reply: Reply, headers: Sequence[tuple[str, str]], path: str) -> Reply:
        """As Go's own client does it: with the headers of the first request, from whose host it says that it comes."""
        target = urlsplit(reply.headers["Location"])
        assert target.hostname is not None
        fields = [("Host", target.netloc), ("User-Agent", self._client.agent), *headers]
        fields += [("Referer", f"http://{self._address}{path}")]
        if self._credentials and self._client.keeps_credentials and target.hostname == self._address.rpartition(":")[0]:
            fields += [("Authorization", self._credentials)]
        with RawConnection(target.netloc) as connection:
            followed = _exchange(connection, "GET", f"{target.path}?{target.query}".rstrip("?"), fields)
        assert followed is not None, f"{self._client.name}: no answer from {target.netloc}"
        return followed

    def _begin(self, name: str, reference: str) -> Reply | None:
        """What comes before the download; the answer to the HEAD, if there was one."""
        head = None
        for request in self._client.begins:
            if request == "GET /v2/":
                assert self.ask("GET", "/v2/").status == 200
                continue
            reply = self.manifest(request, name, reference)
            assert reply.status == 200, (self._client.name, reply.status, reply.body[:300])
            assert int(reply.headers["Content-Length"]) > 0
            head = reply if request == "HEAD" else head
        return head

    def _checked_manifest(self, name: str, reference: str, accept: Sequence[str] = ()) -> Reply:
        if self._client.heads_digests and ":" in reference:
            assert self.manifest("HEAD", name, reference, accept).headers["Docker-Content-Digest"] == reference
        reply = self.manifest("GET", name, reference, accept)
        assert reply.status == 200, (self._client.name, reply.status, reply.body[:300])
        digest = digest_of(reply.body)
        assert reply.headers["Docker-Content-Digest"] == digest
        assert ":" not in reference or digest == reference
        document = json.loads(reply.body)
        assert reply.headers["Content-Type"] == document["mediaType"]
        return reply


def _exchange(connection: RawConnection, method: str, target: str, fields: Sequence[tuple[str, str]]) -> Reply | None:
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    connection.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode())
    return connection.reply(method)
