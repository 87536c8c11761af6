"""Small images placed into a repository as the publisher does it, without hub, queue and worker."""

from __future__ import annotations

import io

from mirror.oci.digest import Digest
from mirror.oci.manifest import ImageManifest, parse_config, parse_manifest
from mirror.oci.reference import ImageReference
from publisher.images.place import PreparedImage, UnpackedLayer
from publisher.images.singularity import with_singularity_files
from publisher.layers.ingest import ingest_layer
from publisher.layers.limits import LayerLimits
from publisher.layers.merge import merge
from publisher.objects.pipeline import Pipeline
from tests.support.registry_client import OCI_MANIFEST
from tests.support.small_images import Image


def prepared(pipeline: Pipeline, image: Image, *names: str) -> PreparedImage:
    """An image with all its layers unpacked."""
    manifest = parse_manifest(image.manifest, OCI_MANIFEST)
    assert isinstance(manifest, ImageManifest)
    layers: list[UnpackedLayer] = []
    for descriptor, layer in zip(manifest.layers, image.layers, strict=True):
        result = ingest_layer(
            io.BytesIO(layer.packed),
            Digest.parse(layer.diff_id),
            pipeline,
            LayerLimits(),
            lower=lambda: merge([below.tree for below in layers]),
        )
        layers.append(UnpackedLayer(descriptor, result.diff_id, result.tree, result.entries, result.size))
    flat = merge([layer.tree for layer in layers])
    with_singularity_files(flat, parse_config(image.config), pipeline)
    return PreparedImage(
        Digest.parse(image.digest),
        image.manifest,
        manifest,
        tuple(ImageReference.parse(name) for name in names),
        layers=tuple(layers),
        flat=flat,
        raw_config=image.config,
    )
