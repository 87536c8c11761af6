"""A root file system from layers."""

from __future__ import annotations

import stat

from publisher.cvmfs.entry import OPAQUE_XATTRS, Directory, Entry
from publisher.layers.merge import merge
from publisher.layers.permissions import PermissionPolicy, apply_permissions
from publisher.layers.whiteout import whiteout_entry
from tests.support.layers import entry_at, paths


def folder(children: dict[str, Directory | Entry] | None = None, *, mode: int = 0o755, opaque: bool = False) -> Directory:
    xattrs = (*OPAQUE_XATTRS, (b"user.x", b"1")) if opaque else ()
    nodes = {name.encode(): child for name, child in (children or {}).items()}
    return Directory(Entry(mode=stat.S_IFDIR | mode, xattrs=xattrs), nodes)


def file(size: int = 0, mode: int = 0o644) -> Entry:
    return Entry(mode=stat.S_IFREG | mode, size=size)


def test_upper_entries_come_over_lower_ones() -> None:
    flat = merge(
        [folder({"a": file(1), "d": folder({"x": file(1)})}), folder({"a": file(2), "d": folder({"y": file(2)}, mode=0o700)})]
    )
    assert paths(flat) == ["a", "d", "d/x", "d/y"]
    assert entry_at(flat, "a").size == 2
    assert entry_at(flat, "d").mode == stat.S_IFDIR | 0o700


def test_whiteouts_act_on_lower_layers_and_are_gone() -> None:
    flat = merge(
        [
            folder({"a": file(), "d": folder({"x": file(), "y": file()}), ".": whiteout_entry()}),
            folder({"a": whiteout_entry(), "d": folder({"x": whiteout_entry()}), "never": whiteout_entry()}),
        ]
    )
    assert paths(flat) == ["d", "d/y"]


def test_a_name_can_come_back_above_its_whiteout() -> None:
    flat = merge(
        [folder({"d": folder({"old": file()})}), folder({"d": whiteout_entry()}), folder({"d": folder({"new": file()})})]
    )
    assert paths(flat) == ["d", "d/new"]


def test_opaque_directories_hide_and_lose_their_marks() -> None:
    flat = merge(
        [folder({"d": folder({"x": file(), "e": folder({"z": file()})})}), folder({"d": folder({"y": file()}, opaque=True)})]
    )
    assert paths(flat) == ["d", "d/y"]
    assert entry_at(flat, "d").xattrs == ((b"user.x", b"1"),)
    assert entry_at(merge([folder({"d": folder(opaque=True)})]), "d").xattrs == ((b"user.x", b"1"),)


def test_another_type_replaces_the_subtree() -> None:
    flat = merge([folder({"a": folder({"x": file()}), "b": file()}), folder({"a": file(), "b": folder({"y": file()})})])
    assert paths(flat) == ["a", "b", "b/y"]
    again = merge([folder({"a": folder({"x": file()})}), folder({"a": file()}), folder({"a": folder({"y": file()})})])
    assert paths(again) == ["a", "a/y"]


def test_nothing_at_all() -> None:
    assert merge([]).children == {}
    assert merge([folder(mode=0o711)]).entry.mode == stat.S_IFDIR | 0o711


def test_layers_are_not_changed_and_share_no_directory() -> None:
    lower, upper = folder({"d": folder({"x": file()})}), folder({"d": folder({"y": file()}), "e": folder({"z": file()})})
    before = [paths(lower), paths(upper)]
    flat = merge([lower, upper])
    for path in ("d", "e"):
        node = flat.children[path.encode()]
        assert isinstance(node, Directory)
        node.children[b"added"] = file()
        node.entry = Entry(mode=0)
    assert [paths(lower), paths(upper)] == before
    assert entry_at(upper, "e").mode == stat.S_IFDIR | 0o755


def test_hard_links_stay_hard_links() -> None:
    linked = file(1)
    flat = merge([folder({"a": linked, "d": folder({"b": linked})}), folder({"d": folder()})])
    assert entry_at(flat, "a") is entry_at(flat, "d/b")


def test_the_owner_gets_in_by_default() -> None:
    linked = file(1, 0o4050)
    fifo, link = Entry(mode=stat.S_IFIFO | 0o000), Entry(mode=stat.S_IFLNK | 0o777, symlink=b"x")
    flat = folder({"d": folder({"a": linked, "b": linked}, mode=0o1077), "fifo": fifo, "link": link, "fine": file(2)})
    fine = entry_at(flat, "fine")
    apply_permissions(flat, PermissionPolicy())
    assert entry_at(flat, "d").mode == stat.S_IFDIR | 0o1777
    assert entry_at(flat, "d/a").mode == stat.S_IFREG | 0o4650
    assert entry_at(flat, "d/a") is entry_at(flat, "d/b")
    assert entry_at(flat, "d/a").size == 1
    assert linked.mode == stat.S_IFREG | 0o4050
    assert (entry_at(flat, "fifo"), entry_at(flat, "link"), entry_at(flat, "fine")) == (fifo, link, fine)


def test_everybody_can_be_let_in() -> None:
    flat = folder({"f": file(0, 0o600), "x": file(0, 0o700), "none": file(0, 0)}, mode=0o700)
    apply_permissions(flat, PermissionPolicy(owner_access=False, world_readable=True))
    assert flat.entry.mode == stat.S_IFDIR | 0o755
    assert [entry_at(flat, name).mode & 0o777 for name in ("f", "x", "none")] == [0o644, 0o755, 0o444]


def test_modes_can_be_left_alone() -> None:
    flat = folder({"f": file(0, 0)}, mode=0)
    apply_permissions(flat, PermissionPolicy(owner_access=False))
    assert (flat.entry.mode, entry_at(flat, "f").mode) == (stat.S_IFDIR, stat.S_IFREG)
