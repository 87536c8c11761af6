"""What is kept of a layer, what is not, and how it is counted."""

from __future__ import annotations

import stat

import pytest

from mirror.jobs.notes import Notes
from publisher.layers.permissions import PermissionPolicy, apply_permissions
from publisher.layers.policy import LayerPolicy
from tests.support.layers import archive, entry_at, header, ingest, pax

CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
TAR = archive(
    header(b"bin", b"5", mode=b"0003755\0"),
    header(b"bin/su", mode=b"0004755\0"),
    header(b"bin/wall", mode=b"0002755\0"),
    header(b"bin/both", mode=b"0006755\0"),
    header(b"bin/link", b"2", mode=b"0007777\0", link=b"su"),
    pax([(b"SCHILY.xattr.security.capability", CAPABILITY), (b"SCHILY.xattr.security.selinux", b"x")]),
    header(b"bin/ping", mode=b"0000755\0"),
    header(b"closed", mode=b"0000444\0"),
    header(b"shut", b"5", mode=b"0000555\0"),
    header(b"null", b"3"),
    header(b".cvmfscatalog"),
)


def test_by_default_set_user_id_stays_and_capabilities_do_not() -> None:
    layer = ingest(TAR)
    assert layer.result.notes == Notes(
        devices_dropped=1, capabilities_dropped=1, xattrs_dropped=1, names_dropped=1, setuid_kept=3, access_added=2
    )
    assert entry_at(layer.tree, "bin/both").mode == stat.S_IFREG | 0o6755
    assert entry_at(layer.tree, "bin/ping").xattrs == ()


def test_both_can_be_decided_otherwise() -> None:
    layer = ingest(TAR, policy=LayerPolicy(setuid=False, capabilities=True))
    assert (layer.result.notes.setuid_dropped, layer.result.notes.setuid_kept) == (3, 0)
    assert (layer.result.notes.capabilities_dropped, layer.result.notes.capabilities_kept) == (0, 1)
    assert [entry_at(layer.tree, f"bin/{name}").mode & 0o7777 for name in ("su", "wall", "both")] == [0o755] * 3
    assert entry_at(layer.tree, "bin").mode == stat.S_IFDIR | 0o3755, "what directories have lets nobody become somebody else"
    assert entry_at(layer.tree, "bin/ping").xattrs == ((b"security.capability", CAPABILITY),)


def test_a_root_file_system_loses_set_user_id_of_layers_that_were_unpacked_with_it() -> None:
    flat = ingest(TAR).tree
    apply_permissions(flat, PermissionPolicy(setuid=False))
    assert [entry_at(flat, f"bin/{name}").mode & 0o7777 for name in ("su", "wall", "both")] == [0o755] * 3
    assert entry_at(flat, "bin").mode == stat.S_IFDIR | 0o3755


def test_notes_add_up_and_are_told_in_words() -> None:
    total = Notes(setuid_kept=2, devices_dropped=1) + Notes(devices_dropped=2)
    assert Notes.parse(total.as_json()) == total
    assert total.as_dict() == {"devices_dropped": 3, "setuid_kept": 2}
    assert total.words() == "3 device nodes left out; 2 files with set-user-ID or set-group-ID, as in the image"
    assert total.left_out
    assert not Notes(setuid_kept=2).left_out
    assert Notes().words() == ""


@pytest.mark.parametrize("name", Notes.__dataclass_fields__)
def test_every_note_has_words(name: str) -> None:
    assert Notes(**{name: 7}).words().startswith("7 ")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, '{"setuid_kept": true}', '{"unheard_of": 3}'])
def test_what_is_no_note_says_nothing(text: str) -> None:
    assert Notes.parse(text) == Notes()
