from __future__ import annotations

import stat

from publisher.cvmfs.cuts import CutLimits, cut
from publisher.cvmfs.entry import Directory, Entry

FILE = Entry(mode=stat.S_IFREG)


def tree(files: int, **directories: Directory) -> Directory:
    made = Directory(Entry(mode=stat.S_IFDIR))
    made.children.update({b"file%d" % number: FILE for number in range(files)})
    made.children.update({name.encode(): child for name, child in directories.items()})
    return made


def sizes(top: Directory, limits: CutLimits) -> dict[bytes, int]:
    """Entries of each catalog by its path, counted independently."""
    places = cut(top, b"/top", limits)
    roots = {id(directory) for _, directory in places}
    result = {}
    for path, directory in places:
        count, pending = 1, [directory]
        while pending:
            for child in pending.pop().children.values():
                count += 1
                if isinstance(child, Directory) and id(child) not in roots:
                    pending.append(child)
        result[path] = count
    return result


def test_small_trees_stay_whole() -> None:
    assert sizes(tree(99), CutLimits(100, 10)) == {b"/top": 100}


def test_the_largest_directories_are_cut_off_first() -> None:
    top = tree(5, small=tree(3), middle=tree(40), large=tree(60))
    assert sizes(top, CutLimits(60, 10)) == {b"/top/large": 61, b"/top": 52}


def test_cuts_happen_deep_inside_and_children_come_before_parents() -> None:
    top = tree(1, a=tree(1, b=tree(50, c=tree(50))))
    places = [path for path, _ in cut(top, b"/top", CutLimits(60, 10))]
    assert places == [b"/top/a/b/c", b"/top"]


def test_small_directories_are_cut_only_where_the_limit_cannot_be_kept_otherwise() -> None:
    many = {f"d{number}": tree(4) for number in range(30)}
    assert len(sizes(tree(0, **many), CutLimits(200, 10))) == 1
    cuts = sizes(tree(0, **many), CutLimits(100, 10))
    assert max(cuts.values()) <= 100
    assert 1 < len(cuts) < 20


def test_one_huge_directory_cannot_be_cut() -> None:
    assert sizes(tree(500), CutLimits(100, 10)) == {b"/top": 501}


def test_very_deep_trees() -> None:
    top = inner = tree(1)
    for _ in range(2000):
        deeper = tree(1)
        inner.children[b"d"] = deeper
        inner = deeper
    found = sizes(top, CutLimits(100, 50))
    assert max(found.values()) <= 100
    assert len(found) > 20
