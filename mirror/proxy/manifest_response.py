"""A manifest as an HTTP response (OCI distribution specification 1.1, "Pulling manifests")."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from mirror.oci.digest import Digest
from mirror.proxy.conditions import client_has, entity_tag


def manifest_response(
    request: web.Request, raw: bytes, media_type: str, digest: Digest, headers: Mapping[str, str]
) -> web.Response:
    """200 with all of it, or 304 if the client has it. headers: further ones."""
    common = {**headers, "Docker-Content-Digest": str(digest), "ETag": entity_tag(digest)}
    if client_has(request.headers.getall("If-None-Match", ()), digest):
        return web.Response(status=304, headers=common)
    return web.Response(body=raw, headers={**common, "Content-Type": media_type})
