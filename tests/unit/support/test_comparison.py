"""The comparison must see what it is for: every kind of difference, and nothing where policy explains it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from publisher.cvmfs.entry import Directory, Entry
from tests.support.comparison import ADDED_LINKS, BIND_DIRECTORIES, BIND_MODES, EMPTIED_FILES, differences, expected, published
from tests.support.unpacked import Found, walk


@pytest.fixture
def reference(tmp_path: Path) -> list[Found]:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hosts").write_text("127.0.0.1 build-host\n")
    (root / "etc/passwd").write_text("root\n")
    (root / "etc/passwd").chmod(0o400)
    (root / "etc/shadow").hardlink_to(root / "etc/passwd")
    (root / "link").symlink_to("etc/$(X)")
    os.mkfifo(root / "fifo")
    return list(walk(root))


def _faithful(reference: list[Found]) -> dict[str, Found]:
    """What a right publisher makes of the reference."""
    blank = replace(reference[0], xattrs={}, size=0, sha256="")
    tree = expected(reference)
    for path in (*BIND_DIRECTORIES, ".singularity.d", ".singularity.d/env", ".singularity.d/actions"):
        tree.setdefault(path, replace(blank, path=path, mode=0o40000 | BIND_MODES.get(path, 0o755)))
    scripts = (".singularity.d/env/10-docker2singularity.sh", ".singularity.d/actions/exec", ".singularity.d/runscript")
    for number, path in enumerate(scripts, start=1):
        tree[path] = replace(blank, path=path, mode=0o100755, inode=-number)
    for number, path in enumerate(EMPTIED_FILES, start=1):
        tree[path] = replace(blank, path=path, mode=0o100644, inode=-10 - number)
    for number, (path, target) in enumerate(ADDED_LINKS.items(), start=1):
        tree[path] = replace(blank, path=path, mode=0o120777, target=target, inode=-20 - number)
    return tree


def test_a_faithful_tree_has_no_differences(reference: list[Found]) -> None:
    tree = _faithful(reference)
    assert tree["etc/passwd"].mode == 0o100600
    assert differences(reference, tree) == []


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("etc/passwd", {"mode": 0o100400}),
        ("etc/passwd", {"uid": 4242}),
        ("etc/passwd", {"sha256": "0" * 64}),
        ("etc/passwd", {"mtime_ns": 1}),
        ("etc/passwd", {"inode": -1}),
        ("etc/passwd", {"xattrs": {"user.x": "y"}}),
        ("link", {"target": "etc/"}),
        ("fifo", {"mode": 0o100644}),
        ("etc/hosts", {"size": 1}),
        (".run", {"target": "elsewhere"}),
        ("sys", {"mode": 0o40700}),
    ],
)
def test_every_wrong_fact_is_one_line(reference: list[Found], path: str, change: dict[str, object]) -> None:
    tree = _faithful(reference)
    tree[path] = replace(tree[path], **change)  # type: ignore[arg-type]
    assert len(differences(reference, tree)) == 1


def test_what_lacks_and_what_is_too_much_is_seen(reference: list[Found]) -> None:
    tree = _faithful(reference)
    tree["extra"] = replace(tree.pop("fifo"), path="extra")
    assert differences(reference, tree) == ["'fifo' is missing", "'extra' is in no layer of the image"]


def test_content_that_is_shorter_than_the_catalog_says_is_seen() -> None:
    entry = Entry(0o100644, size=3)
    tree = published(Directory(Entry(0o40755), {b"f": entry}), lambda _: [b"ab"])
    assert "of 2 bytes" in tree["f"].sha256
