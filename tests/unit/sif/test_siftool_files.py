"""Files of siftool, the reference implementation of SIF, as this project reads them; and what it reads of the tests' own."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.sif.unpack import find_root
from tests.support.sif_images import by_siftool, whole
from tests.support.squashfs_images import MemoryBytes
from tests.support.tool import run

ROOT = b"a file system" * 1000


def test_the_root_of_its_files_is_found(tmp_path: Path) -> None:
    made = by_siftool(ROOT, tmp_path)
    architecture, root = find_root(MemoryBytes(made))
    assert architecture == "amd64"
    assert made[root.offset :][: root.size] == ROOT


@pytest.mark.parametrize(("system", "reason"), [("2", "ext3"), ("3", "archive"), ("4", "raw")])
def test_its_other_file_systems_are_told_apart(tmp_path: Path, system: str, reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        find_root(MemoryBytes(by_siftool(ROOT, tmp_path, system)))


def test_it_reads_the_files_of_these_tests(tmp_path: Path) -> None:
    file = tmp_path / "own.sif"
    file.write_bytes(whole(ROOT))
    listing = run(["siftool", "list", file]).stdout
    assert "FS (Squashfs/*System/amd64)" in listing
    assert "Def.FILE" in listing
    dump = tmp_path / "dump"
    dump.write_text(run(["siftool", "dump", "3", file]).stdout)
    assert dump.read_bytes() == ROOT
