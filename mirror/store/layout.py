"""Where content lies below the data directory.

    <data>/
      blobs/sha256/ab/<hex>    committed content: blobs, manifests, configs alike; complete, verified, never changed
      blobs/sha512/ab/<hex>    (ab: the first two of the hexadecimal digits)
      parts/sha256/<hex>       a blob on its way in; whoever fills it holds an exclusive flock on it
      parts/put/<hex>.<pid>.<number>
                               small content for the moment between its first byte and its renaming

Parts and blobs must be on one file system: a commit is a rename. The rest of the data directory (`state.sqlite`, `cvmfs/`,
`spool/`, `keys/`, `log/`) belongs to other rooms. Pure: nothing here touches a file.
"""

from __future__ import annotations

from pathlib import Path

from mirror.oci.digest import Digest


class StoreLayout:
    """The paths of one store."""

    def __init__(self, root: Path) -> None:
        """root: the data directory."""
        self.root = root
        self.blobs = root / "blobs"
        self.parts = root / "parts"
        self.puts = self.parts / "put"

    def blob(self, digest: Digest) -> Path:
        """Path of committed content."""
        return self.blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def part(self, digest: Digest) -> Path:
        """Path of content that is being fetched."""
        return self.parts / digest.algorithm / digest.hex

    def put(self, digest: Digest, pid: int, number: int) -> Path:
        """Path of small content that process `pid` is writing."""
        return self.puts / f"{digest.hex}.{pid}.{number}"
