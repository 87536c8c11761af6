"""A root file system that is not written as it was made is not published, and spoils no other image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mirror.jobs.model import State
from mirror.oci.digest import Digest
from publisher.cvmfs.builder import BuiltCatalog, build
from publisher.cvmfs.entry import Directory, Entry
from publisher.images import layout
from tests.support.faulty_registry import FaultyRegistry
from tests.support.publishing import offer, publishing
from tests.support.small_images import tiny


async def test_a_wrong_catalog_is_found_before_anybody_can_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt, fine = tiny("spoilt"), tiny("fine")
    roots = {layout.flat_root(Digest.of(spoilt.config))}

    def careless(store: Any, path: bytes, tree: Directory, *rest: Any) -> BuiltCatalog:
        if path.lstrip(b"/") in roots:
            etc = tree.children[b"etc"]
            assert isinstance(etc, Directory)
            motd = etc.children[b"motd"]
            assert isinstance(motd, Entry)
            wrong = Directory(etc.entry, {**etc.children, b"motd": replace(motd, mode=motd.mode ^ 0o111)})
            tree = Directory(tree.entry, {**tree.children, b"etc": wrong})
        return build(store, path, tree, *rest)

    monkeypatch.setattr("publisher.transaction.build", careless)
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        await here.request("hub.test/team/spoilt:1", offer(hub, "team/spoilt", "1", spoilt))
        await here.request("hub.test/team/fine:1", offer(hub, "team/fine", "1", fine))
        failed = await here.reach("hub.test/team/spoilt:1", {State.FAILED, State.PUBLISHED, State.REFUSED})
        await here.published("hub.test/team/fine:1")
        reader = here.reader()
        assert failed.state is State.FAILED
        assert failed.reason is not None
        assert "not written as it was made" in failed.reason
        assert "differs is /etc/motd" in failed.reason
        assert reader.lookup(b"hub.test/team/spoilt:1") is None
        assert reader.lookup(*roots) is None
        roots.clear()
        await here.published("hub.test/team/spoilt:1")  # tried again by itself
        assert here.problems() == []
