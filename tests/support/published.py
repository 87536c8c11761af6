"""What debark published, opened as a client would: trusting nothing but the public key that the mirror hands out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from mirror.errors import NotFound
from publisher.check import check
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.reader import RepositoryReader
from publisher.keys import load_public_key
from publisher.objects.local import LocalObjectStore
from tests.support import comparison
from tests.support.debark_process import DebarkProcess
from tests.support.unpacked import Found


def open_repository(debark: DebarkProcess, fqrn: str) -> RepositoryReader:
    """From its directory; signature and whitelist are verified by opening it."""
    return RepositoryReader(LocalObjectStore(debark.data / "cvmfs" / fqrn), fqrn, public_key(debark, fqrn))


def public_key(debark: DebarkProcess, fqrn: str) -> rsa.RSAPublicKey:
    """As a client's administrator would get it."""
    return load_public_key(debark.get(f"/_debark/v1/repositories/{fqrn}.pub").body)


def problems(debark: DebarkProcess, fqrn: str) -> list[str]:
    """What is wrong with the repository: signatures, reference log, statistics of every catalog, content of every object."""
    return [str(problem) for problem in check(open_repository(debark, fqrn), data=True)]


class WebSource:
    """The same storage as a CernVM-FS client gets it: by HTTP from the mirror."""

    def __init__(self, debark: DebarkProcess, fqrn: str) -> None:
        self._get = debark.get
        self._root = f"/cvmfs/{fqrn}"

    def get(self, content: ContentHash, kind: ObjectKind) -> bytes:
        return self.read_file(content.object_path(kind))

    def pieces(self, content: ContentHash, kind: ObjectKind) -> Iterator[bytes]:
        yield self.get(content, kind)

    def read_file(self, name: str) -> bytes:
        answer = self._get(f"{self._root}/{name}")
        if answer.status != 200:
            raise NotFound(f"{name}: {answer.status}")
        return answer.body


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
