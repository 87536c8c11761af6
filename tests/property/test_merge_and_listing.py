"""What merging makes of a stack of layers is what the layers show, found the other way round."""

from __future__ import annotations

import stat
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from publisher.cvmfs.entry import OPAQUE_XATTRS, Directory, Entry
from publisher.layers.listing import first_misplaced, visible
from publisher.layers.merge import merge
from publisher.layers.tree import IMPLIED

NAMES = st.sampled_from([b"a", b"b", b"c"])
WHITEOUT = Entry(mode=stat.S_IFCHR)
LEAVES = st.one_of(st.builds(Entry, mode=st.just(stat.S_IFREG | 0o644)), st.builds(lambda: replace(WHITEOUT)))
ATTRIBUTES = st.sampled_from(
    [Entry(mode=stat.S_IFDIR | 0o755), Entry(mode=stat.S_IFDIR | 0o700, xattrs=tuple(sorted(OPAQUE_XATTRS))), IMPLIED]
)
LAYERS = st.lists(
    st.recursive(
        st.builds(Directory, ATTRIBUTES, st.dictionaries(NAMES, LEAVES, max_size=3)),
        lambda below: st.builds(Directory, ATTRIBUTES, st.dictionaries(NAMES, st.one_of(LEAVES, below), max_size=3)),
        max_leaves=8,
    ),
    max_size=4,
)


def stack(*layers: dict[bytes, Directory | Entry]) -> list[Directory]:
    return [Directory(Entry(mode=stat.S_IFDIR | 0o755), layer) for layer in layers]


FILE, DIRECTORY = Entry(mode=stat.S_IFREG), Entry(mode=stat.S_IFDIR | 0o755)


@settings(max_examples=400)
@given(LAYERS)
@example(stack({b"a": Directory(DIRECTORY, {b"b": FILE})}, {b"a": FILE}, {b"a": Directory(DIRECTORY)}))
@example(stack({b"a": Directory(DIRECTORY, {b"b": FILE})}, {b"a": Directory(IMPLIED, {b"b": WHITEOUT})}))
@example(stack({b"a": FILE}, {b"a": Directory(IMPLIED, {b"b": WHITEOUT})}))
@example(stack({b"a": Directory(IMPLIED, {b"a": Directory(IMPLIED)})}))
def test_both_ways_agree(layers: list[Directory]) -> None:
    flat = merge(layers)
    assert {path for path, _ in flat.walk()} == set(visible(layers))
    assert first_misplaced(flat, layers) is None


@given(LAYERS.filter(lambda layers: bool(visible(layers))), st.data())
def test_whatever_is_changed_in_a_merged_tree_is_found(layers: list[Directory], data: st.DataObject) -> None:
    flat = merge(layers)
    path = data.draw(st.sampled_from(sorted(visible(layers))))
    *parents, name = path.split(b"/")
    directory = flat
    for parent in parents:
        below = directory.children[parent]
        assert isinstance(below, Directory)
        directory = below
    kind = data.draw(st.sampled_from(["lost", "another", "more"]))
    if kind == "lost":
        del directory.children[name]
    elif kind == "another":
        directory.children[name] = Entry(mode=stat.S_IFIFO)
    else:
        directory.children[name + b"+"] = Entry(mode=stat.S_IFIFO)
    found = first_misplaced(flat, layers)
    assert found is not None
    assert found.startswith(path)
