"""Layers that are kept elsewhere: *foreign* in Docker's words, *non-distributable* in OCI's. Windows's base layers were such.

Their descriptors have URLs, because the registries of the images need not have them (OCI image specification, descriptor.md,
`urls`; layer.md, "Non-Distributable Layers"). These URLs are those of blobs in other registries. So nothing new is dialled for
them: a layer is fetched if the operator says so, and if one of its URLs is a blob, with the layer's own digest, of a registry
that this mirror has as upstream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from yarl import URL

from mirror.errors import InvalidInput
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, ImageManifest
from mirror.oci.reference import RepositoryName
from mirror.upstream.model import Upstream

_MARKS = (".foreign.", ".nondistributable.")
_BLOB = re.compile(r"/v2/(.+)/blobs/([^/]+)")


def is_foreign(layer: Descriptor) -> bool:
    """Whether the layer's media type says that its registry need not have it."""
    return any(mark in layer.media_type for mark in _MARKS)


class ForeignLayers:
    """Where such layers are to be had."""

    def __init__(self, upstreams: Iterable[Upstream] = (), *, fetch: bool = False) -> None:
        """fetch: whether they are unpacked at all."""
        self._upstreams = tuple(upstreams) if fetch else ()
        self._fetch = fetch

    def check(self, manifest: ImageManifest) -> None:
        """Raises InvalidInput for an image with a layer that is not fetched by rule."""
        for layer in filter(is_foreign, manifest.layers):
            if not self._fetch:
                raise InvalidInput(
                    f"layer {layer.digest} is foreign: it is kept outside the image's registry, as base layers of Windows are, "
                    "and is not unpacked; the mirror's operator can set publish.foreign_layers"
                )
            if self._home(layer) is None:
                raise InvalidInput(
                    f"layer {layer.digest} is foreign, and none of its URLs is that of a blob in a registry that this mirror has "
                    f"as upstream: {', '.join(layer.urls)[:300] or 'it has none'}"
                )

    def home(self, name: RepositoryName, blob: Descriptor) -> RepositoryName:
        """The repository to get a blob from that a manifest of `name` names."""
        return (self._home(blob) if is_foreign(blob) else None) or name

    def _home(self, layer: Descriptor) -> RepositoryName | None:
        return next((home for url in layer.urls if (home := self._repository(url, layer.digest)) is not None), None)

    def _repository(self, text: str, digest: Digest) -> RepositoryName | None:
        try:
            url = URL(text)
            for upstream in self._upstreams:
                blob = _BLOB.fullmatch(url.path.removeprefix(upstream.url.path.rstrip("/")))
                if url.absolute and url.origin() == upstream.url.origin() and blob is not None and blob[2] == str(digest):
                    return RepositoryName(upstream.name, blob[1])
        except (ValueError, InvalidInput):
            pass  # a URL that is none, or no name of a repository: somebody else's business
        return None
