"""What a response says about the image's directory in /cvmfs. Pure.

`Warning: 299 - "text"` is the form of the OCI distribution specification ("Warnings"): code 299, agent `-`, one quoted string,
nothing behind it. Most clients print it; they print each different text once, so there is one text an image. It goes on HEAD and
GET of manifests, index and children alike. Scripts read the `X-CVMFS-*` headers.
"""

from __future__ import annotations

from urllib.parse import quote

from mirror.jobs.model import ImageStatus, State

STATE_HEADER = "X-CVMFS-State"
PATH_HEADER = "X-CVMFS-Path"
REVISION_HEADER = "X-CVMFS-Revision"

_TEXT_LIMIT = 400
"""Characters of a reason that still make one readable line on a terminal."""


def hint_headers(status: ImageStatus | None) -> dict[str, str]:
    """Headers for a manifest response of this image; empty as long as nothing is known of it."""
    if status is None:
        return {}
    headers = {STATE_HEADER: status.state.value}
    publication = status.publication
    if publication is not None:
        headers[STATE_HEADER] = State.PUBLISHED.value
        headers[PATH_HEADER] = _ascii(publication.path)
        headers[REVISION_HEADER] = str(publication.revision)
        headers["Link"] = f'<file://{quote(publication.path)}>; rel="alternate"'
        which = f"{status.image} for {status.platform}" if status.platform is not None else str(status.image)
        headers["Warning"] = warning(f"{which} is unpacked: apptainer exec {publication.path} COMMAND")
    elif status.state is State.REFUSED:
        headers["Warning"] = warning(f"{status.image} is not in /cvmfs: {status.reason}")
    elif status.state is State.QUEUED and status.reason:
        headers["Warning"] = warning(f"{status.image} waits to be in /cvmfs: {status.reason}")
    elif status.state is State.FAILED and status.reason:
        again = "it is tried again by itself" if status.next_try is not None else "pull it again to have it tried again"
        headers["Warning"] = warning(f"{status.image} is not in /cvmfs yet, {again}: {status.reason}")
    return headers


def warning(text: str) -> str:
    """The value of a `Warning` header that clients show: one line of ASCII in a quoted string."""
    line = _ascii(" ".join(text.split()))[:_TEXT_LIMIT]
    escaped = line.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def _ascii(text: str) -> str:
    return "".join(character if " " <= character <= "~" else "?" for character in text)
