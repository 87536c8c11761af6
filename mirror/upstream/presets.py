"""Public registries as they are reached in the open Internet: where to dial, and where they keep blobs and tokens.

Hosts of an upstream's own registrable site need no entry (`auth.docker.io`, `cdn01.quay.io`, `gitlab.com`). The lists follow what
the registries' operators publish for firewalls; one that moved its blobs shows as an error that names the new host.
"""

from __future__ import annotations

from types import MappingProxyType

from mirror.upstream.model import Upstream

PRESETS = MappingProxyType(
    {
        upstream.name: upstream
        for upstream in (
            Upstream(
                "docker.io",
                "https://registry-1.docker.io",
                (
                    "production.cloudflare.docker.com",
                    "production.cloudfront.docker.com",
                    "*.r2.cloudflarestorage.com",
                    "docker-images-prod.s3.amazonaws.com",
                    "docker-images-prod.s3.*.amazonaws.com",
                ),
            ),
            Upstream(
                "quay.io",
                "https://quay.io",
                ("quayio-production-s3.s3.amazonaws.com", "quayio-production-s3.s3.*.amazonaws.com"),
            ),
            Upstream("ghcr.io", "https://ghcr.io", ("pkg-containers.githubusercontent.com",)),
            Upstream(
                "registry.gitlab.com",
                "https://registry.gitlab.com",
                ("cdn.registry.gitlab-static.net", "storage.googleapis.com"),
            ),
            Upstream("gcr.io", "https://gcr.io", ("storage.googleapis.com", "*.pkg.dev")),
            Upstream(
                "registry.k8s.io",
                "https://registry.k8s.io",
                ("*.pkg.dev", "storage.googleapis.com", "prod-registry-k8s-io-*.s3.dualstack.*.amazonaws.com"),
            ),
            Upstream("mcr.microsoft.com", "https://mcr.microsoft.com", ("*.cdn.mscr.io",)),
            Upstream("public.ecr.aws", "https://public.ecr.aws", ("*.cloudfront.net",)),
            Upstream("nvcr.io", "https://nvcr.io", ("authn.nvidia.com", "xfiles.ngc.nvidia.com")),
        )
    }
)
"""By the name under which they are asked for."""
