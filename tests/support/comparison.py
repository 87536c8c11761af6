"""Is a published flat tree the image that an independent tool unpacks, up to debark's stated policy?

The policy: directories get u+rwx and regular files u+rw; device nodes and sockets are dropped; of extended attributes only
`user.*` stay; hard links hold inside one directory; what a container runtime expects is added on top (`.singularity.d` and links
to it, directories and two empty files to bind over).
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from publisher.cvmfs.entry import Directory, Entry
from tests.support.unpacked import Found

ADDED_LINKS = {
    "singularity": ".singularity.d/runscript",
    ".run": ".singularity.d/actions/run",
    ".exec": ".singularity.d/actions/exec",
    ".test": ".singularity.d/actions/test",
    ".shell": ".singularity.d/actions/shell",
    "environment": ".singularity.d/env/90-environment.sh",
}
BIND_DIRECTORIES = ("dev", "proc", "root", "var", "var/tmp", "tmp", "etc", "sys", "home", "srv", "cvmfs")
BIND_MODES = {"tmp": 0o1777, "var/tmp": 0o1777}
EMPTIED_FILES = ("etc/hosts", "etc/resolv.conf")
ADDED_FILE = "etc/localtime"
_OWN = ".singularity.d"


def expected(reference: Iterable[Found]) -> dict[str, Found]:
    """The image's own part of what is to be published, by path; the root itself is left out."""
    return {
        found.path: _by_policy(found)
        for found in reference
        if found.path and _kept(found.mode) and found.path not in EMPTIED_FILES and not _is_own(found.path)
    }


def published(tree: Directory, contents: Callable[[Entry], Iterable[bytes]]) -> dict[str, Found]:
    """A tree from a repository in the same form; the identity of entries stands for the inode."""
    return {(path := raw.decode("latin-1")): _from_entry(path, entry, contents) for raw, entry in tree.walk()}


def differences(reference: Iterable[Found], actual: Mapping[str, Found]) -> list[str]:
    """One line per difference; empty where the trees are the same up to the policy."""
    reference = list(reference)
    return _additions(expected(reference), actual) + image_differences(reference, actual)


def image_differences(reference: Iterable[Found], actual: Mapping[str, Found]) -> list[str]:
    """The same for what the image itself has, additions passed over whether they are there or not."""
    wanted = expected(reference)
    added = {*EMPTIED_FILES, *(name for name in (*ADDED_LINKS, *BIND_DIRECTORIES, ADDED_FILE) if name not in wanted)}
    own = {path: found for path, found in actual.items() if path not in added and not _is_own(path)}
    lines = [f"{path!r} is missing" for path in sorted(wanted.keys() - own.keys())]
    lines += [f"{path!r} is in no layer of the image" for path in sorted(own.keys() - wanted.keys())]
    for path in sorted(wanted.keys() & own.keys()):
        lines += _facts_that_differ(wanted[path], own[path])
    here, there = _link_groups(wanted.values()), _link_groups(own.values())
    lines += [f"hard links of one another in the image only: {sorted(group)}" for group in here - there]
    lines += [f"hard links of one another in the repository only: {sorted(group)}" for group in there - here]
    return lines


def _additions(wanted: Mapping[str, Found], actual: Mapping[str, Found]) -> list[str]:
    own = (_OWN, f"{_OWN}/env/10-docker2singularity.sh", f"{_OWN}/actions/exec", f"{_OWN}/runscript")
    lines = [f"{path!r} was not added" for path in own if path not in actual]
    lines += [
        f"{path!r} was not added as link to {target!r}"
        for path, target in ADDED_LINKS.items()
        if path not in wanted and (path not in actual or actual[path].target != target)
    ]
    lines += [
        f"{path!r} was not added as directory of the right mode"
        for path in BIND_DIRECTORIES
        if path not in wanted and (path not in actual or actual[path].mode != stat.S_IFDIR | BIND_MODES.get(path, 0o755))
    ]
    lines += [
        f"{path!r} is not an empty file of mode 0644"
        for path in EMPTIED_FILES
        if path not in actual or actual[path].mode != stat.S_IFREG | 0o644 or actual[path].size
    ]
    return lines


def _facts_that_differ(wanted: Found, actual: Found) -> list[str]:
    facts = ("mode", "uid", "gid", "size", "mtime_ns", "target", "sha256", "xattrs")
    form: dict[str, Callable[[int], str]] = {"mode": oct}
    lines = []
    for fact in facts:
        want, have = getattr(wanted, fact), getattr(actual, fact)
        if want != have:
            shown = form.get(fact, repr)
            lines.append(f"{wanted.path!r} has {fact} {shown(have)} in place of {shown(want)}")
    return lines


def _link_groups(objects: Iterable[Found]) -> set[frozenset[str]]:
    groups: dict[tuple[str, int], set[str]] = {}
    for found in objects:
        if not stat.S_ISDIR(found.mode):
            groups.setdefault((found.path.rpartition("/")[0], found.inode), set()).add(found.path)
    return {frozenset(names) for names in groups.values() if len(names) > 1}


def _kept(mode: int) -> bool:
    return not (stat.S_ISBLK(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode))


def _is_own(path: str) -> bool:
    return path == _OWN or path.startswith(f"{_OWN}/")


def _by_policy(found: Found) -> Found:
    added = {stat.S_IFDIR: 0o700, stat.S_IFREG: 0o600}.get(stat.S_IFMT(found.mode), 0)
    xattrs = {name: value for name, value in found.xattrs.items() if name.startswith("user.")}
    return replace(found, mode=found.mode | added, xattrs=xattrs)


def _from_entry(path: str, entry: Entry, contents: Callable[[Entry], Iterable[bytes]]) -> Found:
    sha256, size = "", 0
    if stat.S_ISREG(entry.mode):
        sum256 = hashlib.sha256()
        for piece in contents(entry):
            sum256.update(piece)
            size += len(piece)
        sha256 = sum256.hexdigest()
        if size != entry.size:
            sha256 += f" of {size} bytes where the catalog says {entry.size}"
    return Found(
        path=path,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size,
        mtime_ns=entry.mtime * 10**9 + entry.mtime_ns,
        inode=id(entry),
        target=entry.symlink.decode("latin-1"),
        sha256=sha256,
        xattrs={name.decode("latin-1"): value.decode("latin-1") for name, value in entry.xattrs},
    )
