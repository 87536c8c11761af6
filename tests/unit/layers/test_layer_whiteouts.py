"""Deletions, replacements and links of one layer, as overlayfs wants to see them."""

from __future__ import annotations

import stat

import pytest

from publisher.cvmfs.entry import OPAQUE_XATTRS, Directory
from publisher.errors import BrokenLayer
from publisher.layers.merge import merge
from tests.support.layers import archive, directory_at, entry_at, header, ingest, padded, paths, pax


def folder(name: bytes) -> bytes:
    return header(name, b"5", mode=b"0000755\0")


def text(name: bytes, content: bytes) -> bytes:
    return header(name, size=len(content)) + padded(content)


def lower_tree() -> Directory:
    return ingest(
        archive(
            header(b"./", b"5", mode=b"0000711\0", mtime=b"00000000007\0"),
            header(b"etc", b"5", mode=b"0000750\0", uid=b"0000012\0", mtime=b"00000000010\0"),
            text(b"etc/passwd", b"root"),
            header(b"bin", b"2", link=b"usr/bin"),
            folder(b"usr/bin"),
            text(b"usr/bin/tool", b"tool"),
            folder(b"opt/app"),
            text(b"opt/app/data", b"data"),
        )
    ).tree


def test_a_whiteout_is_a_character_device_0_0() -> None:
    entry = entry_at(ingest(archive(header(b"etc/.wh.passwd"))).tree, "etc/passwd")
    assert (entry.mode, entry.rdev, entry.size) == (stat.S_IFCHR, 0, 0)


def test_two_whiteouts_are_no_hard_links() -> None:
    tree = ingest(archive(header(b".wh.a"), header(b".wh.b"))).tree
    assert entry_at(tree, "a") is not entry_at(tree, "b")


def test_the_kind_of_a_mark_does_not_matter() -> None:
    for mark in (header(b".wh.a", b"5"), header(b".wh.a", b"2", link=b"x"), header(b".wh.a", b"1", link=b"nothing")):
        assert paths(ingest(archive(mark)).tree) == ["-a"]


@pytest.mark.parametrize("order", [0, 1])
def test_an_entry_wins_over_a_deletion_of_its_name(order: int) -> None:
    parts = [header(b".wh.f"), header(b"f")]
    assert paths(ingest(archive(*parts[:: 1 - 2 * order])).tree) == ["f"]


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("explicit", [True, False])
def test_a_directory_that_is_deleted_and_made_again_is_opaque(order: int, explicit: bool) -> None:
    made = (folder(b"d") if explicit else b"") + header(b"d/f")
    parts = [header(b".wh.d"), made]
    tree = ingest(archive(*parts[:: 1 - 2 * order])).tree
    assert paths(tree) == ["d", "d/f"]
    assert entry_at(tree, "d").is_opaque


@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_an_opaque_mark_may_stand_anywhere(position: int) -> None:
    parts = [folder(b"d"), header(b"d/a"), header(b"d/b")]
    parts.insert(position, header(b"d/.wh..wh..opq"))
    tree = ingest(archive(*parts)).tree
    assert paths(tree) == ["d", "d/a", "d/b"]
    assert entry_at(tree, "d").xattrs == OPAQUE_XATTRS


def test_an_opaque_directory_keeps_its_xattrs() -> None:
    tree = ingest(archive(pax([(b"SCHILY.xattr.user.z", b"1")]), folder(b"d"), header(b"d/.wh..wh..opq"))).tree
    assert entry_at(tree, "d").xattrs == (*OPAQUE_XATTRS, (b"user.z", b"1"))


def test_the_root_can_be_opaque() -> None:
    tree = ingest(archive(header(b".wh..wh..opq"), header(b"f")), lower=lower_tree()).tree
    assert tree.entry.is_opaque
    assert paths(merge([lower_tree(), tree])) == ["f"]


def test_the_last_of_several_members_wins() -> None:
    layer = ingest(archive(text(b"f", b"one"), header(b"l", b"1", link=b"f"), text(b"f", b"two"), text(b"f", b"three")))
    assert (layer.read("f"), layer.read("l")) == (b"three", b"one")


def test_a_file_replaces_a_directory_and_the_reverse() -> None:
    layer = ingest(archive(header(b"x/a/b"), text(b"x", b"file"), text(b"y", b"file"), folder(b"y"), header(b"y/a")))
    assert paths(layer.tree) == ["x", "y", "y/a"]
    assert layer.read("x") == b"file"


def test_members_go_where_their_path_leads_when_they_come() -> None:
    moved = archive(header(b"a/b/one"), folder(b"c"), header(b"a", b"2", link=b"c"), header(b"a/b/two"), header(b"a/f"))
    assert paths(ingest(moved).tree) == ["a", "c", "c/b", "c/b/two", "c/f"]
    itself = archive(header(b"l", b"2", link=b"."), header(b"l/one"), folder(b"l/l"), header(b"l/two"))
    assert paths(ingest(itself).tree) == ["l", "l/two", "one"]


def test_a_directory_that_comes_twice_keeps_its_content() -> None:
    tree = ingest(archive(folder(b"d"), header(b"d/f"), header(b"d", b"5", mode=b"0000700\0"))).tree
    assert paths(tree) == ["d", "d/f"]
    assert entry_at(tree, "d").mode == stat.S_IFDIR | 0o700


def test_a_link_leads_to_this_layer_first() -> None:
    layer = ingest(archive(text(b"etc/passwd", b"new"), header(b"l", b"1", link=b"etc/passwd")), lower=lower_tree())
    assert layer.read("l") == b"new"


def test_a_link_into_a_lower_layer_is_the_same_entry() -> None:
    lower = lower_tree()
    tree = ingest(archive(header(b"etc/shadow", b"1", link=b"/etc/passwd")), lower=lower).tree
    assert entry_at(tree, "etc/shadow") is entry_at(lower, "etc/passwd")
    flat = merge([lower, tree])
    assert entry_at(flat, "etc/shadow") is entry_at(flat, "etc/passwd")


def test_a_link_into_a_lower_layer_may_lead_through_links_of_either() -> None:
    lower = lower_tree()
    tree = ingest(
        archive(
            header(b"here", b"2", link=b"../bin"), header(b"l", b"1", link=b"here/tool"), header(b"m", b"1", link=b"bin/tool")
        ),
        lower=lower,
    ).tree
    assert entry_at(tree, "l") is entry_at(tree, "m") is entry_at(lower, "usr/bin/tool")


@pytest.mark.parametrize(
    "hidden",
    [
        header(b"opt/app/.wh.data"),
        header(b".wh.opt"),
        header(b"opt/.wh..wh..opq"),
        header(b"opt/app/.wh..wh..opq"),
        header(b"opt"),
    ],
)
def test_a_link_does_not_lead_to_what_this_layer_deletes(hidden: bytes) -> None:
    with pytest.raises(BrokenLayer, match="'l' is a hard link to 'opt/app/data', which does not exist"):
        ingest(archive(hidden, header(b"l", b"1", link=b"opt/app/data")), lower=lower_tree())


def test_implied_directories_look_as_in_the_lower_layers() -> None:
    """So that neither the flat root nor an overlay of the layers shows a directory that no layer described."""
    lower = lower_tree()
    tree = ingest(archive(header(b"etc/new"), header(b"srv/new")), lower=lower).tree
    etc = entry_at(tree, "etc")
    assert (etc.mode, etc.uid, etc.mtime) == (stat.S_IFDIR | 0o750, 10, 8)
    assert entry_at(tree, "srv").mode == stat.S_IFDIR | 0o755
    assert merge([lower, tree]).entry is lower.entry


def test_a_layer_depends_on_those_below_only_by_links_into_them_and_implied_directories() -> None:
    own = archive(folder(b"etc"), header(b"etc/f"), header(b"etc/g", b"1", link=b"etc/f"), header(b"etc/.wh.x"), header(b"top"))
    for lower in (None, lower_tree()):
        assert not ingest(own, lower=lower).result.depends_on_lower
    for other in (header(b"etc/f"), header(b"l", b"1", link=b"etc/passwd"), header(b"sda", b"4")):
        assert ingest(archive(other), lower=lower_tree()).result.depends_on_lower
    assert ingest(archive(header(b"etc/f"))).result.depends_on_lower, "over another layer it would look otherwise"


def test_a_device_that_is_left_out_hides_what_it_would_have_replaced() -> None:
    lower = lower_tree()
    tree = ingest(
        archive(folder(b"etc"), header(b"etc/passwd", b"3"), text(b"own", b"x"), header(b"own", b"4")), lower=lower
    ).tree
    assert paths(tree) == ["-etc/passwd", "-own", "etc"]
    assert "etc/passwd" not in paths(merge([lower, tree]))


def test_deletions_make_no_directory() -> None:
    lower = lower_tree()
    for mark in (header(b"no/such/.wh.x"), header(b"bin/.wh.tool"), header(b"etc/passwd/.wh.x")):
        assert paths(merge([lower, ingest(archive(mark), lower=lower).tree])) == paths(lower)
    gone = archive(header(b"opt/app/.wh.data"), header(b".wh.opt"), header(b"opt/.wh.app"))
    tree = ingest(gone, lower=lower).tree
    assert paths(tree) == ["-opt"]
    made = ingest(archive(folder(b"new"), header(b"new/.wh.x")), lower=lower).tree
    assert "new" in paths(merge([lower, made]))


def test_lower_layers_are_asked_for_only_if_needed_and_once() -> None:
    asked = 0

    def lower() -> Directory:
        nonlocal asked
        asked += 1
        return lower_tree()

    ingest(archive(folder(b"./"), folder(b"etc"), header(b"etc/f")), lower=lower)
    assert asked == 0
    links = [header(b"l%d" % number, b"1", link=b"etc/passwd") for number in range(3)]
    ingest(archive(*links, header(b"etc/f")), lower=lower)
    assert asked == 1


def test_entries_of_a_layer_do_not_follow_links_of_lower_layers() -> None:
    """As in an overlay: the layer's own directory stands in the place of the lower link."""
    lower = lower_tree()
    tree = ingest(archive(header(b"bin/new")), lower=lower).tree
    assert entry_at(tree, "bin").mode == stat.S_IFDIR | 0o755
    assert list(directory_at(merge([lower, tree]), "bin").children) == [b"new"]


def test_entries_count_whiteouts_but_not_the_root() -> None:
    assert ingest(archive(folder(b"./"), header(b"a/b"), header(b".wh.c"))).result.entries == 3


@pytest.mark.parametrize("file_first", [True, False])
def test_whiteouts_below_a_directory_that_became_a_file_hide_nothing_more(file_first: bool) -> None:
    members = [header(b"d"), header(b"d/.wh.old")]
    layer = ingest(archive(*members if file_first else reversed(members)))
    assert paths(layer.tree) == ["d"]
