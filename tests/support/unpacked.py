"""An independent unpack of an image: `umoci unpack`, then a plain walk of what it left on the disk.

Run by root as `python -m tests.support.unpacked LAYOUT WORKDIR TAG...` it prints one JSON line an image: the objects that were
found, or what umoci complains of. Owners, devices and files that nobody may read are real only for root. `unpack` and
`unpack_all` are the ways to call it from a test.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.support.tool import ToolFailed, as_root, run


@dataclass(frozen=True)
class Found:
    """One object on the disk. Texts are paths, targets and values in Latin-1, which keeps every byte."""

    path: str
    """From the root of the image, without a leading slash; the root itself is empty."""
    mode: int
    uid: int
    gid: int
    size: int
    """Of regular files; else 0."""
    mtime_ns: int
    inode: int
    target: str
    sha256: str
    """Of a regular file's content."""
    xattrs: dict[str, str]


def unpack(layout: Path, tag: str) -> list[Found]:
    """Unpack an image beside its layout (that file system has extended attributes), look, and remove it. Raises ToolFailed."""
    (found,) = unpack_all(layout, [tag])
    if isinstance(found, str):
        raise ToolFailed(found)
    return found


def unpack_all(layout: Path, tags: Sequence[str]) -> list[list[Found] | str]:
    """The same of several images; of one that umoci does not unpack, what it says. Raises ToolFailed if all of it fails."""
    workdir = mkdtemp(prefix="unpacked-", dir=layout.parent)
    listing = run(as_root([sys.executable, "-m", __name__, layout, workdir, *tags]))
    answers: list[list[dict[str, Any]] | str] = [json.loads(line) for line in listing.stdout.splitlines()]
    return [answer if isinstance(answer, str) else [Found(**found) for found in answer] for answer in answers]


def walk(root: Path) -> Iterator[Found]:
    """The directory itself and all below it."""
    top = os.fsencode(root)
    yield _look(top, b"")
    yield from _below(top, b"")


def _below(top: bytes, prefix: bytes) -> Iterator[Found]:
    for name in sorted(os.listdir(top + b"/" + prefix)):  # noqa: PTH208 - pathlib has no paths of bytes
        found = _look(top, prefix + name)
        yield found
        if stat.S_ISDIR(found.mode):
            yield from _below(top, prefix + name + b"/")


def _look(top: bytes, path: bytes) -> Found:
    full = top + b"/" + path if path else top
    status = os.lstat(full)
    regular = stat.S_ISREG(status.st_mode)
    return Found(
        path=path.decode("latin-1"),
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if regular else 0,
        mtime_ns=status.st_mtime_ns,
        inode=status.st_ino,
        target=os.readlink(full).decode("latin-1") if stat.S_ISLNK(status.st_mode) else "",  # noqa: PTH115 - as above
        sha256=_sha256(full) if regular else "",
        xattrs={
            name: os.getxattr(full, name, follow_symlinks=False).decode("latin-1")
            for name in sorted(os.listxattr(full, follow_symlinks=False))
        },
    )


def _sha256(path: bytes) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - as above
        return hashlib.file_digest(file, "sha256").hexdigest()


def _main(layout: str, workdir: Path, tags: Sequence[str]) -> None:
    bundle = workdir / "bundle"
    try:
        for tag in tags:
            try:
                run(["umoci", "unpack", "--image", f"{layout}:{tag}", bundle])
                print(json.dumps([asdict(found) for found in walk(bundle / "rootfs")]))
            except ToolFailed as error:
                print(json.dumps(str(error)))
            shutil.rmtree(bundle, ignore_errors=True)
    finally:
        shutil.rmtree(workdir)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
