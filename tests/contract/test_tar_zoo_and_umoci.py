"""Images of every kind of archive: is what we make of them what `umoci unpack` makes, and where not, why?

Compared entry by entry: type, mode, owner, size, content, target, time to the nanosecond, extended attributes, hard links; up to
the policy that tests.support.comparison states.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from mirror.errors import MirrorError
from publisher.cvmfs.entry import Directory
from publisher.layers.ingest import ingest_layer
from publisher.layers.limits import LayerLimits
from publisher.layers.merge import merge
from publisher.layers.permissions import PermissionPolicy, apply_permissions
from publisher.objects.compress import DEFAULT_COMPRESSOR, compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from tests.support.comparison import image_differences, published
from tests.support.layers import content_of
from tests.support.memory_store import MemoryStore
from tests.support.tar_zoo import HAND_MADE, Layers, packed_by_gnu_tar, write_layout
from tests.support.unpacked import Found, unpack_all

NOW = r"in place of 1[0-9]{18}"

DISAGREEMENTS: dict[str, tuple[list[str], str]] = {
    "missing parents": (
        [rf"'a' has mtime_ns 1 {NOW}", rf"'a/b' has mtime_ns 1 {NOW}"],
        "umoci gives directories that nobody describes the time of unpacking; ours is the same at every unpacking",
    ),
    "opaque keeps what the layer has deeper": (
        [rf"'d/sub' has mtime_ns 1700000000000000000 {NOW}"],
        "umoci deletes what was in the directory after it has set its time; ours is the time that the layer says",
    ),
    "opaque where nobody has a directory": (
        ["'no' is in no layer of the image", "'no/such' is in no layer of the image"],
        "an opaque directory is a directory; umoci passes over the mark where there is nothing to hide",
    ),
    "through a link of a lower layer": (
        [
            "'usr/bin/new' is missing",
            "'bin/new' is in no layer of the image",
            "'bin' has mode 0o40755 in place of 0o120777",
            "'bin' has mtime_ns 1 in place of 1700000000000000000",
            "'bin' has target '' in place of 'usr/bin'",
        ],
        """docker and podman unpack a layer by itself, and an overlay of the layers' directories shows the upper one in place
        of the link; umoci and containerd unpack into the merged tree and follow it. The directories of layers that we publish can
        only be the former, and the root file system shows the same image as these""",
    ),
    "whiteout through a link of a lower layer": (
        ["'usr/bin/tool' is in no layer of the image"],
        "as above; there is no directory to delete from, so the link stays as well",
    ),
    "names of catalogs": (
        ["'.cvmfscatalog' is missing", "'d/.cvmfsdirtab' is missing"],
        "CVMFS would take these for marks of its own; left out and counted",
    ),
}
"""By image: the differences, as patterns, and why ours is as it is."""

ONLY_OURS = {
    "directory over file": "umoci reads etc/group of the image, which is a directory here, after it has unpacked all",
    "opaque of what is a file below": "as above",
    "global headers": "umoci 0.4 knows no global headers; docker, podman and containerd pass over them, as we do",
    "contiguous file": "POSIX: who does not know type 7 is to take it for a regular file",
    "GNU tar, sparse, gnu": "umoci knows sparse files in the form of PAX only",
}
"""Images that umoci does not unpack, and we do."""

ONLY_UMOCI = {
    "leaves the root": "umoci puts '../up' into the root; no tool makes such a name by accident, so the image is refused",
}
"""The reverse."""

REFUSED = {
    "hard link to nothing",
    "hard link to what is deleted",
    "hard link to what comes later",
    "below a file",
    "a damaged header",
}
"""Images that neither of us takes."""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Layers, list[Found] | str]]:
    """Every image with what umoci makes of it: objects, or a complaint."""
    directory = tmp_path_factory.mktemp("tar-zoo")
    images = {**HAND_MADE, **packed_by_gnu_tar(directory)}
    layout = directory / "layout"
    found = unpack_all(layout, write_layout(layout, images))
    return {name: (layers, reference) for (name, layers), reference in zip(images.items(), found, strict=True)}


def flat_root(layers: Sequence[bytes]) -> tuple[Directory, dict[str, Found]]:
    """As the publisher makes it, before it adds what container runtimes want."""
    store = MemoryStore()
    trees: list[Directory] = []
    with Pipeline(store, compressor(DEFAULT_COMPRESSOR), PipelineLimits()) as pipeline:
        for layer in layers:
            below = tuple(trees)
            lower = (lambda stack=below: merge(stack)) if below else None
            trees.append(ingest_layer(io.BytesIO(layer), None, pipeline, LayerLimits(), lower=lower).tree)
    flat = merge(trees)
    apply_permissions(flat, PermissionPolicy())
    return flat, published(flat, lambda entry: [content_of(store, entry)])


def test_every_image_is_what_umoci_makes_of_it_or_there_is_a_reason(
    zoo: dict[str, tuple[Layers, list[Found] | str]],
) -> None:
    surprises = []
    for name, (layers, reference) in zoo.items():
        try:
            _, ours = flat_root(layers)
        except MirrorError as refusal:
            expected = name in REFUSED if isinstance(reference, str) else name in ONLY_UMOCI
            surprises += [] if expected else [f"{name}: refused: {refusal}"]
            continue
        if isinstance(reference, str):
            surprises += [] if name in ONLY_OURS else [f"{name}: {reference}"]
            continue
        patterns, _ = DISAGREEMENTS.get(name, ([], ""))
        found = image_differences(reference, ours)
        if len(found) != len(patterns) or not all(map(re.fullmatch, sorted(patterns), sorted(found))):
            surprises.append(f"{name}: {found}")
    assert surprises == []
    assert len(zoo) > 80
    named = {*DISAGREEMENTS, *ONLY_OURS, *ONLY_UMOCI, *REFUSED}
    assert named <= zoo.keys(), "a reason is left for an image that is there no more"


def test_the_root_directory_itself_is_the_same(zoo: dict[str, tuple[Layers, list[Found] | str]]) -> None:
    for name in ("attributes only", "opaque root", "the same layer twice", "missing parents that are below"):
        layers, reference = zoo[name]
        assert not isinstance(reference, str)
        root = flat_root(layers)[0].entry
        found = reference[0]
        assert (root.mode, root.uid, root.gid) == (found.mode | 0o700, found.uid, found.gid), name
        assert root.mtime * 10**9 + root.mtime_ns == found.mtime_ns, name


def test_images_that_umoci_does_not_take_have_what_their_archives_say(tmp_path: Path) -> None:
    sparse = flat_root(packed_by_gnu_tar(tmp_path)["GNU tar, sparse, gnu"])[1]
    dense = (tmp_path / "source" / "holes").read_bytes()
    assert sparse["holes"].size == len(dense)
    assert sparse["holes"].sha256 == _sha256(dense)
    contiguous = flat_root(HAND_MADE["contiguous file"])[1]
    assert contiguous["seven"].sha256 == _sha256(b"abc")
    assert flat_root(HAND_MADE["global headers"])[1].keys() == {"a", "b"}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
