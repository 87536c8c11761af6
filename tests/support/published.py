"""What debark published, opened as a client would: from the storage, trusting the public key that the mirror hands out."""

from __future__ import annotations

from typing import Any

from publisher.cvmfs.reader import RepositoryReader
from publisher.keys import load_public_key
from publisher.objects.local import LocalObjectStore
from tests.support import comparison
from tests.support.debark_process import DebarkProcess
from tests.support.unpacked import Found


def open_repository(debark: DebarkProcess, fqrn: str) -> RepositoryReader:
    """Signature and whitelist are verified by opening it."""
    key = debark.get(f"/_debark/v1/repositories/{fqrn}.pub").body
    return RepositoryReader(LocalObjectStore(debark.data / "cvmfs" / fqrn), fqrn, load_public_key(key))


def flat_tree(debark: DebarkProcess, image: dict[str, Any]) -> dict[str, Found]:
    """The directory that the image's public link leads to, for comparison.differences."""
    reader = open_repository(debark, image["fqrn"])
    tree = reader.tree(follow(reader, inside(image)))
    return comparison.published(tree, reader.snapshot.content)


def inside(image: dict[str, Any]) -> bytes:
    """The image's path below the repository's root."""
    prefix = f"/cvmfs/{image['fqrn']}/"
    path: str = image["path"]
    assert path.startswith(prefix), path
    return path.removeprefix(prefix).encode()


def follow(reader: RepositoryReader, link: bytes) -> bytes:
    """Where a relative symbolic link leads."""
    entry = reader.lookup(link)
    assert entry is not None, f"{link!r} does not exist"
    assert entry.symlink, f"{link!r} is no symbolic link"
    parts = link.split(b"/")[:-1]
    for component in entry.symlink.split(b"/"):
        if component == b"..":
            parts.pop()
        else:
            parts.append(component)
    return b"/".join(parts)
