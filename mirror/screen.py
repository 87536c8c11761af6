"""What `debark serve` prints when it is ready: how to point clients at it, and how to mount what it publishes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mirror.jobs.repositories import RepositoryFacts


def start_screen(address: str, url: str, logs: Path, keys: Path, repositories: Iterable[RepositoryFacts]) -> str:
    """A short text.

    address: host and port as clients write it in a reference. url: of the server. logs, keys: directories.
    """
    repositories = list(repositories)
    lines = [
        f"debark mirrors registries at {url}",
        "",
        "Pull through it, with nothing to configure:",
        f"  apptainer pull --no-https docker://{address}/docker.io/library/debian:12",
        f"  podman pull --tls-verify=false {address}/docker.io/library/debian:12",
        f"  skopeo copy --src-tls-verify=false docker://{address}/docker.io/library/debian:12 dir:debian",
        "Or make it the mirror of Docker Hub:",
        f'  docker      /etc/docker/daemon.json:  {{"registry-mirrors": ["{url}"]}}',
        f'  podman      registries.conf, under [[registry]] prefix = "docker.io":  [[registry.mirror]] location = "{address}"',
        f"  containerd  /etc/containerd/certs.d/docker.io/hosts.toml:  [host.\"{url}\"]  capabilities = ['pull', 'resolve']",
        f"Where an image is in /cvmfs:  debark where --server {url} --wait docker://docker.io/library/debian:12",
    ]
    if repositories:
        names = ",".join(facts.fqrn for facts in repositories)
        lines += [
            "",
            "CVMFS clients mount what was pulled with this in /etc/cvmfs/default.local:",
            f"  CVMFS_REPOSITORIES={names}",
            *_server_urls(url, repositories),
            "  CVMFS_HTTP_PROXY=DIRECT",
            "  CVMFS_KEYS_DIR=/etc/cvmfs/keys/debark",
            f"and the public keys there: {', '.join(str(keys / f'{facts.fqrn}.pub') for facts in repositories)}",
            f"(also at {url}/_debark/v1/repositories/<fqrn>.pub)",
        ]
    lines += ["", f"Logs: {logs}   State: {url}/healthz   Stop: Ctrl-C"]
    return "\n".join(lines)


def _server_urls(url: str, repositories: Sequence[RepositoryFacts]) -> Iterator[str]:
    """The client's setting, with `@fqrn@` for the repository; where they are at several places, one for each of these."""
    places: dict[str, list[str]] = {}
    for facts in repositories:
        places.setdefault(facts.url_at(url).replace(facts.fqrn, "@fqrn@"), []).append(facts.fqrn)
    for place, fqrns in places.items():
        files = ", ".join(f"/etc/cvmfs/config.d/{fqrn}.local" for fqrn in fqrns)
        yield f'  CVMFS_SERVER_URL="{place}"' + (f"  (in {files})" if len(places) > 1 else "")
