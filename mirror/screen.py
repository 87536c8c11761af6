"""What `debark serve` prints when it is ready: how to point clients at it, and how to mount what it publishes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mirror.jobs.repositories import RepositoryFacts
from mirror.proxy.client_settings import DIRECTORY, server_url

_IMAGE = "docker.io/library/debian:12"


def start_screen(url: str, logs: Path, keys: Path, repositories: Iterable[RepositoryFacts], cvmfs_url: str = "") -> str:
    """A short text. url, cvmfs_url: of the server, as clients and, if not so, CVMFS clients reach it. logs, keys: directories."""
    lines = [f"debark mirrors registries at {url}", "", *_pulling(url)]
    published = list(repositories)
    if published:
        lines += ["", *_mounting(url, cvmfs_url or url, keys, published)]
    lines += ["", f"Logs: {logs}   State: {url}/healthz   Stop: Ctrl-C"]
    return "\n".join(lines)


def _pulling(url: str) -> list[str]:
    scheme, _, address = url.partition("://")
    plain = scheme == "http"
    apptainer, podman, skopeo = ("--no-https ", "--tls-verify=false ", "--src-tls-verify=false ") if plain else ("", "", "")
    insecure = ", insecure = true" if plain else ""
    return [
        "Pull through it, with nothing to configure:",
        f"  apptainer pull {apptainer}docker://{address}/{_IMAGE}",
        f"  podman pull {podman}{address}/{_IMAGE}",
        f"  skopeo copy {skopeo}docker://{address}/{_IMAGE} dir:debian",
        "Or make it the mirror of Docker Hub (files to copy, for other registries as well, are in conf/clients):",
        f'  docker      daemon.json: "registry-mirrors": ["{url}"]',
        f'  others      registries.conf, in "docker.io": [[registry.mirror]] location = "{address}/docker.io"{insecure}',
        f'  containerd  certs.d/docker.io/hosts.toml: [host."{url}"] capabilities = ["pull", "resolve"]',
        f"Where an image is in /cvmfs:  debark where --server {url} --wait docker://{_IMAGE}",
    ]


def _mounting(url: str, cvmfs_url: str, keys: Path, repositories: Sequence[RepositoryFacts]) -> list[str]:
    source = f"{url}/_debark/v1/repositories/$fqrn"
    return [
        f"CVMFS clients mount what was pulled, after this (as root; the keys are those in {keys}):",
        f"  for fqrn in {' '.join(facts.fqrn for facts in repositories)}; do",
        f"    curl -fo {DIRECTORY}/config.d/$fqrn.conf {source}.conf",
        f"    curl -fo {DIRECTORY}/keys/$fqrn.pub {source}.pub",
        "  done",
        "which sets",
        *_server_urls(cvmfs_url, repositories),
        f"  CVMFS_PUBLIC_KEY={DIRECTORY}/keys/$fqrn.pub",
    ]


def _server_urls(url: str, repositories: Sequence[RepositoryFacts]) -> Iterator[str]:
    """The client's setting; where repositories are at several places, one for each of these."""
    places: dict[str, list[str]] = {}
    for facts in repositories:
        places.setdefault(server_url(facts, url), []).append(facts.fqrn)
    for place, fqrns in places.items():
        yield f'  CVMFS_SERVER_URL="{place}"' + (f"  (of {', '.join(fqrns)})" if len(places) > 1 else "")
