"""A SIF image in a real registry, as `apptainer push oras://` leaves it there, pulled through the mirror and published.

The file is siftool's, the squashfs in it mksquashfs's; the manifest is written as Apptainer writes it.
"""

from __future__ import annotations

import json
import stat
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Copy, Skopeo
from tests.support.comparison import ADDED_FILE, BIND_DIRECTORIES, EMPTIED_FILES
from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub
from tests.support.published import flat_tree, follow, inside, open_repository, problems
from tests.support.registry_client import digest_of
from tests.support.sif_images import EMPTY_CONFIG, ENCRYPTED, SifImage, by_siftool, root, sif
from tests.support.tool import run
from tests.support.unpacked import Found, walk

NAME = "hub.test/sif/python"
RUNSCRIPT = '#!/bin/sh\nexec python3 "$@"\n'


@dataclass(frozen=True)
class Pulled:
    sif: SifImage
    copy: Copy
    source: Path
    """The directory that the squashfs was made of."""
    image: dict[str, Any]
    """The mirror's document on it, published."""


@pytest.fixture(scope="module")
def pulled(debark: DebarkProcess, hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Pulled:
    directory = tmp_path_factory.mktemp("sif")
    source, made = directory / "root", directory / "made.sqfs"
    (source / ".singularity.d").mkdir(parents=True)
    (source / ".singularity.d" / "runscript").write_text(RUNSCRIPT)
    run(["cp", "-r", "--preserve=mode,timestamps", Path(sysconfig.get_path("stdlib")) / "email", source / "email"])
    run(["mksquashfs", source, made, "-quiet", "-no-progress", "-no-xattrs"])
    image = SifImage(by_siftool(made.read_bytes(), directory))
    image.push(hub.client(), "sif/python", "3")
    copy = Skopeo(directory / "skopeo").pull(f"{debark.address}/{NAME}:3", "pulled")
    return Pulled(image, copy, source, debark.wait_for(f"{NAME}:3"))


def test_the_client_gets_the_hubs_bytes(pulled: Pulled, hub: Hub) -> None:
    assert pulled.copy.differences(hub, "sif/python", "3") == []
    assert pulled.copy.blobs[digest_of(pulled.sif.file)] == pulled.sif.file


def test_the_published_tree_is_the_one_that_was_packed(pulled: Pulled, debark: DebarkProcess) -> None:
    found = flat_tree(debark, pulled.image)
    ours = {path: _plain(one) for path, one in found.items()}
    source = {one.path: _plain(one) for one in walk(pulled.source) if one.path}
    added = ours.keys() - source.keys()
    assert added == {*BIND_DIRECTORIES, *EMPTIED_FILES, ADDED_FILE}
    assert {path: one for path, one in ours.items() if path not in added} == source
    assert len(source) > 20


def test_it_is_filed_under_the_digest_of_its_file(pulled: Pulled, debark: DebarkProcess) -> None:
    reader = open_repository(debark, pulled.image["fqrn"])
    digest = digest_of(pulled.sif.file).removeprefix("sha256:")
    place = follow(reader, inside(pulled.image))
    assert place == f".flat/{digest[:2]}/{digest}".encode()
    assert reader.read(place + b"/.singularity.d/runscript") == RUNSCRIPT.encode()
    assert reader.read(b".metadata/" + inside(pulled.image) + b"/manifest.json") == pulled.copy.manifest
    assert reader.lookup(f".layers/{digest[:2]}/{digest}".encode()) is None
    assert problems(debark, pulled.image["fqrn"]) == []


def test_an_encrypted_image_is_served_and_refused_with_the_reason(hub: Hub, debark: DebarkProcess, skopeo: Skopeo) -> None:
    image = SifImage(sif([root(b"only who has the key", ENCRYPTED)]))
    image.push(hub.client(), "sif/secret", "1")
    copy = skopeo.pull(f"{debark.address}/hub.test/sif/secret:1", "secret")
    assert copy.blobs == {digest_of(image.file): image.file, digest_of(EMPTY_CONFIG): EMPTY_CONFIG}
    document = debark.wait_for("hub.test/sif/secret:1", {"refused", "failed", "published"})
    assert (document["state"], "encrypted" in document["reason"]) == ("refused", True)
    assert json.loads(copy.manifest)["layers"][0]["digest"] == digest_of(image.file)


def _plain(found: Found) -> Found:
    """Whole seconds are what squashfs has, links of directories what a disk has; permissions are by policy."""
    added = 0o700 if stat.S_ISDIR(found.mode) else 0o600 if stat.S_ISREG(found.mode) else 0
    return replace(found, mode=found.mode | added, mtime_ns=found.mtime_ns // 10**9, inode=0, xattrs={})
