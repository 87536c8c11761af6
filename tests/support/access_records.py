"""Access records for tests."""

from __future__ import annotations

from dataclasses import replace

from mirror.fetch.result import CacheResult
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.report.accesslog import AccessRecord, RequestKind

NOON = 1_795_435_200.0
"""2026-11-23T12:00:00Z"""

INDEX_DIGEST = "sha256:" + "aa" * 32
CHILD_DIGEST = "sha256:" + "bb" * 32
LAYER_DIGEST = "sha256:" + "cc" * 32

MANIFEST = AccessRecord(
    time=NOON,
    client="192.0.2.7",
    method="GET",
    path="/v2/library/debian/manifests/12",
    kind=RequestKind.MANIFEST,
    status=200,
    size=1000,
    seconds=0.02,
    upstream="docker.io",
    repository="library/debian",
    reference="12",
    digest=CHILD_DIGEST,
    media_type=OCI_MANIFEST,
    cache=CacheResult.MISS,
    state="queued",
    agent="skopeo/1.22.0",
    request_id="r-1",
)
INDEX = replace(MANIFEST, digest=INDEX_DIGEST, media_type=OCI_INDEX)
CHILD = replace(MANIFEST, reference=CHILD_DIGEST)
LAYER = replace(
    MANIFEST,
    kind=RequestKind.BLOB,
    reference=LAYER_DIGEST,
    digest=LAYER_DIGEST,
    media_type="",
    size=50_000,
    cache=CacheResult.JOINED,
)
PING = replace(
    MANIFEST,
    kind=RequestKind.PING,
    path="/v2/",
    upstream="",
    repository="",
    reference="",
    digest="",
    cache=None,
    size=2,
)
