"""What a CVMFS client needs to mount a repository. Pure."""

from __future__ import annotations

from mirror.jobs.repositories import RepositoryFacts

DIRECTORY = "/etc/cvmfs"
"""Where clients have their settings: config.d/<fqrn>.conf, and keys/<fqrn>.pub."""


def server_url(facts: RepositoryFacts, mirror: str) -> str:
    """The value of CVMFS_SERVER_URL; the client puts the name in. mirror: URL of this mirror."""
    return facts.url_at(mirror).replace(facts.fqrn, "@fqrn@")


def client_settings(facts: RepositoryFacts, mirror: str) -> str:
    """The client's file for one repository, read by a shell. mirror: URL of this mirror, of harmless characters only."""
    url = server_url(facts, mirror)
    # Without it the client looks for authorities among those of grids only.
    authorities = "CVMFS_USE_SSL_SYSTEM_CA=true\n" if url.startswith("https:") else ""
    return (
        f"# CVMFS client: {DIRECTORY}/config.d/{facts.fqrn}.conf\n"
        f'CVMFS_SERVER_URL="{url}"\n'
        f"CVMFS_PUBLIC_KEY={DIRECTORY}/keys/{facts.fqrn}.pub\n"
        "CVMFS_HTTP_PROXY=DIRECT\n"
        f"{authorities}"
    )
