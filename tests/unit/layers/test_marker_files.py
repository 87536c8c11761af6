"""Deletions as `.wh.` files: the form that some consumers want, and that is read like the other."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.cvmfs.entry import Directory, Entry
from publisher.errors import UnsafeLayer
from publisher.layers.marker_files import with_marker_files, without_marker_files
from publisher.layers.merge import merge
from publisher.layers.whiteout import whiteout_entry, with_opaque
from tests.support.layers import archive, header, ingest, paths

EMPTY = Entry(mode=stat.S_IFREG | 0o644, mtime=7)

Tree = dict[str, "Tree | str"]


def tree(shape: Tree, *, opaque: bool = False) -> Directory:
    """Texts are kinds: `file`, `gone`; a directory whose key ends with `!` is opaque."""
    entry = Entry(mode=stat.S_IFDIR | 0o755, xattrs=with_opaque(((b"user.own", b"1"),)) if opaque else ((b"user.own", b"1"),))
    made = Directory(entry)
    for name, child in shape.items():
        key = name.removesuffix("!").encode()
        if isinstance(child, dict):
            made.children[key] = tree(child, opaque=name.endswith("!"))
        else:
            made.children[key] = whiteout_entry() if child == "gone" else Entry(mode=stat.S_IFREG | 0o600)
    return made


def shape(of: Directory) -> Tree:
    """The reverse of `tree`."""
    found: Tree = {}
    for name, child in sorted(of.children.items()):
        if isinstance(child, Directory):
            found[name.decode() + ("!" if child.entry.is_opaque else "")] = shape(child)
        else:
            found[name.decode()] = "gone" if child.is_whiteout else "file"
    return found


names = st.sampled_from("abcd")
trees: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(names, st.sampled_from(["file", "gone"])),
    lambda below: st.dictionaries(st.one_of(names, names.map(lambda name: name + "!")), below, max_size=3).map(
        lambda found: {name: child for name, child in found.items() if name.endswith("!") or name + "!" not in found}
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(trees)
def test_there_and_back_nothing_changes(given_shape: Tree) -> None:
    native = tree(given_shape)
    files = with_marker_files(native, EMPTY)
    assert not any(stat.S_ISCHR(entry.mode) or entry.is_opaque for _, entry in files.walk())
    assert shape(without_marker_files(files)) == shape(native)
    assert shape(native) == shape(tree(given_shape)), "what was given is not changed"
    assert shape(without_marker_files(native)) == shape(native), "layers in the other form are left as they are"


@settings(deadline=None)
@given(trees, trees)
def test_root_file_systems_are_the_same_either_way(lower: Tree, upper: Tree) -> None:
    layers = [tree(lower), tree(upper)]
    read = [without_marker_files(with_marker_files(layer, EMPTY)) for layer in layers]
    assert paths(merge(read)) == paths(merge(layers))


def test_marks_are_the_files_that_layers_have_them_as() -> None:
    files = with_marker_files(tree({"etc!": {"gone": "gone", "kept": "file"}, "opt": "gone"}), EMPTY)
    assert paths(files) == [".wh.opt", "etc", "etc/.wh..wh..opq", "etc/.wh.gone", "etc/kept"]
    marks = [entry for path, entry in files.walk() if b".wh." in path]
    assert {(mark.mode, mark.mtime) for mark in marks} == {(EMPTY.mode, EMPTY.mtime)}
    assert len({id(mark) for mark in marks}) == 3, "marks are no hard links of one another"
    etc = files.children[b"etc"]
    assert isinstance(etc, Directory)
    assert etc.entry.xattrs == ((b"user.own", b"1"),)


def test_layers_that_other_tools_wrote_are_read_by_the_same_rules_as_archives() -> None:
    names = ["etc/.wh.both", "etc/both", "usr/dir/in", "usr/.wh.dir", ".wh..wh.plnk", "var/.wh..wh..opq", "var/new", ".wh.gone"]
    as_ducc_leaves_them = tree(
        {
            "etc": {".wh.both": "file", "both": "file"},
            "usr": {"dir": {"in": "file"}, ".wh.dir": "file"},
            ".wh..wh.plnk": "file",
            "var": {".wh..wh..opq": "file", "new": "file"},
            ".wh.gone": "file",
        }
    )
    expected = ingest(archive(*(header(name.encode()) for name in names))).tree
    assert shape(without_marker_files(as_ducc_leaves_them)) == shape(expected)


def test_a_name_too_long_for_a_mark_is_refused() -> None:
    long = Directory(Entry(mode=stat.S_IFDIR | 0o755), {b"n" * 252: whiteout_entry()})
    with pytest.raises(UnsafeLayer, match="too long"):
        with_marker_files(long, EMPTY)
