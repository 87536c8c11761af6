"""The reader against a repository that CernVM-FS's own server tools made."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from publisher.check import check
from publisher.cvmfs.entry import Directory, Entry
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.path import path_key
from publisher.cvmfs.reader import RepositoryReader
from publisher.cvmfs.row import MARKER_NAME
from publisher.cvmfs.snapshot import Snapshot
from tests.support.memory_store import load_directory

GOLDEN = Path(__file__).parents[2] / "data" / "cvmfs-golden"
FQRN = "golden.example.org"
TYPES = {"dir": stat.S_IFDIR, "file": stat.S_IFREG, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK,
         "char": stat.S_IFCHR, "block": stat.S_IFBLK}  # fmt: skip

pytestmark = pytest.mark.parametrize("name", ["expected.json", "expected-second.json", "expected-first.json"])


@cache
def reader() -> RepositoryReader:
    key = load_pem_public_key((GOLDEN / f"{FQRN}.pub").read_bytes())
    assert isinstance(key, rsa.RSAPublicKey)
    return RepositoryReader(load_directory(GOLDEN / "repo"), FQRN, key)


@cache
def opened(name: str) -> tuple[dict[str, Any], Snapshot]:
    expected = json.loads((GOLDEN / name).read_text())
    if expected["tag"] == "trunk":
        return expected, reader().snapshot
    history = reader().history()
    assert history is not None
    tag = history.tags()[expected["tag"]]
    assert (tag.revision, str(tag.root)) == (expected["revision"], expected["root_hash"])
    return expected, reader().at(tag.root, tag.size)


def as_bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def test_catalogs(name: str) -> None:
    expected, snapshot = opened(name)
    found = {}
    for catalog, content in snapshot.catalogs():
        found[catalog.path.decode()] = {
            "hash": str(content),
            "entries": sum(1 for _ in catalog.rows()),
            "properties": {key: value.decode() for key, value in catalog.properties.items()},
            "statistics": dict(catalog.statistics.rows()),
        }
    assert found == {
        catalog["path"]: {key: value for key, value in catalog.items() if key not in {"path", "size"}}
        for catalog in expected["catalogs"]
    }
    sizes = {reference.path.decode(): reference.size for catalog, _ in snapshot.catalogs() for reference in catalog.nested()}
    assert sizes == {catalog["path"]: catalog["size"] for catalog in expected["catalogs"] if catalog["path"]}


def test_every_entry(name: str) -> None:
    expected, snapshot = opened(name)
    walked = dict(snapshot.walk())
    assert set(walked) == {as_bytes(entry["path"]) for entry in expected["entries"]} - {b""}
    groups: dict[int, set[int]] = {}
    for facts in expected["entries"]:
        path = as_bytes(facts["path"])
        found = snapshot.locate(path)
        entry = walked.get(path) or snapshot.lookup(path)
        assert found is not None
        assert entry is not None
        assert describe(entry, found.row.link_count, found.row.symlink) == wanted(facts), facts["path"]
        if "sha256" in facts:
            assert hashlib.sha256(snapshot.read(path)).hexdigest() == facts["sha256"]
        if "link_group" in facts:
            groups.setdefault(facts["link_group"], set()).add(id(entry))
    assert all(len(members) == 1 for members in groups.values())
    assert len({next(iter(members)) for members in groups.values()}) == len(groups)


def describe(entry: Entry, links: int, raw_target: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "type": stat.S_IFMT(entry.mode), "mode": stat.S_IMODE(entry.mode), "owner": (entry.uid, entry.gid),
        "time": (entry.mtime, entry.mtime_ns), "nlink": links, "xattrs": dict(entry.xattrs),
    }  # fmt: skip
    if stat.S_ISREG(entry.mode):
        facts["size"] = entry.size
        facts["object"] = str(entry.content) if entry.content else None
        facts["chunks"] = [[str(chunk.content), chunk.offset, chunk.size] for chunk in entry.chunks]
    if stat.S_ISLNK(entry.mode):
        facts["target"] = entry.symlink
        facts["target_raw"] = raw_target
    if stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
        facts["rdev"] = [os.major(entry.rdev), os.minor(entry.rdev)]
    return facts


def wanted(facts: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "type": TYPES[facts["type"]], "mode": int(facts["mode"], 8), "owner": (facts["uid"], facts["gid"]),
        "time": (facts["mtime"], facts["mtime_ns"]), "nlink": facts["nlink"],
        "xattrs": {as_bytes(key): base64.b64decode(value) for key, value in facts.get("xattrs", {}).items()},
    }  # fmt: skip
    if facts["type"] == "file":
        result["size"] = facts["size"]
        result["object"] = facts.get("object")
        result["chunks"] = facts.get("chunk_list", [])
    if facts["type"] == "symlink":
        result["target"] = as_bytes(facts["target"])
        result["target_raw"] = as_bytes(facts.get("target_raw", facts["target"]))
    if "rdev" in facts:
        result["rdev"] = facts["rdev"]
    return result


def test_tree_is_the_walk_without_markers(name: str) -> None:
    _, snapshot = opened(name)
    walked = {path: entry.mode for path, entry in snapshot.walk() if path.rpartition(b"/")[2] != MARKER_NAME}
    assert {path: entry.mode for path, entry in snapshot.tree().walk()} == walked


def test_parts_of_the_tree(name: str) -> None:
    _, snapshot = opened(name)
    nested = snapshot.tree(b"nested")
    assert isinstance(nested, Directory)
    assert set(snapshot.listing(b"/nested")) == set(nested.children) | {MARKER_NAME}
    assert snapshot.lookup(b"/nested/does/not/exist") is None
    root = snapshot.locate(b"")
    assert root is not None
    assert root.row.key == path_key(b"")


def test_nothing_is_wrong_with_it(name: str) -> None:
    opened(name)
    store = load_directory(GOLDEN / "repo")
    checksum = ContentHash.parse((GOLDEN / "reflog.chksum").read_text())
    assert check(reader(), contains=store.contains, data=True) == []
    assert check(reader(), contains=store.contains, reflog_checksum=checksum) == []


def test_chain_of_trust(name: str) -> None:
    expected, _ = opened(name)
    assert reader().manifest.fqrn == expected["fqrn"]
    log = reader().reflog(ContentHash.parse((GOLDEN / "reflog.chksum").read_text()))
    assert ContentHash.parse(expected["root_hash"]) in log.references()
    assert reader().reflog().references() == log.references()
