"""What is added to a flat root for Apptainer, and what of the image stays as it is."""

from __future__ import annotations

import io
import json
import stat
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from mirror.oci.manifest import ImageConfig
from mirror.oci.platform import Platform
from publisher.cvmfs.entry import Directory, Entry
from publisher.images.singularity import with_singularity_files
from publisher.objects.compress import compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from tests.support.layers import archive, content_of, entry_at, header, ingest, padded, paths
from tests.support.memory_store import MemoryStore

CONFIG = ImageConfig(Platform("linux", "amd64"), (), ("PATH=/usr/bin", "LANG=C"), ("/entry",), ("cmd",), {"b": "2", "a": "ä"})


def added(*members: bytes) -> tuple[Directory, MemoryStore]:
    layer = ingest(archive(*members))
    with Pipeline(layer.store, compressor("zlib-6"), PipelineLimits()) as pipeline:
        with_singularity_files(layer.tree, CONFIG, pipeline)
    return layer.tree, layer.store


def test_everything_is_there_in_an_empty_root() -> None:
    tree, store = added()
    own = """actions actions/exec actions/run actions/shell actions/start actions/test env env/01-base.sh
        env/10-docker2singularity.sh env/90-environment.sh env/95-apps.sh env/99-base.sh env/99-runtimevars.sh
        labels.json libs runscript startscript"""
    mounts = "cvmfs dev etc etc/hosts etc/localtime etc/resolv.conf home proc root srv sys tmp var var/tmp"
    links = ".exec .run .shell .test environment singularity"
    assert paths(tree) == sorted(
        [".singularity.d", *mounts.split(), *links.split(), *(f".singularity.d/{name}" for name in own.split())]
    )
    for path, entry in tree.walk():
        node = path.decode()
        if stat.S_ISLNK(entry.mode):
            assert stat.S_ISREG(entry_at(tree, entry.symlink.decode()).mode), "links lead to files"
        elif stat.S_ISREG(entry.mode):
            bare = node.endswith((".json", "hosts", "resolv.conf", "localtime"))
            assert stat.S_IMODE(entry.mode) == (0o644 if bare else 0o755), node
        else:
            assert stat.S_IMODE(entry.mode) == (0o1777 if node.endswith("tmp") else 0o755), node
    assert content_of(store, entry_at(tree, "etc/hosts")) == b""
    zone = ZoneInfo.from_file(io.BytesIO(content_of(store, entry_at(tree, "etc/localtime"))))
    assert datetime(2026, 7, 1, tzinfo=zone).utcoffset() == timedelta(0)
    assert entry_at(tree, "etc/hosts") is not entry_at(tree, "etc/resolv.conf")
    assert json.loads(content_of(store, entry_at(tree, ".singularity.d/labels.json"))) == {"a": "ä", "b": "2"}


def test_the_image_keeps_its_own_directories_and_links() -> None:
    tree, _ = added(
        header(b"tmp", b"5", mode=b"0000700\0"),
        header(b"home", b"2", link=b"var/home"),
        header(b"var", b"2", link=b"/mnt/var"),
        header(b"singularity", size=2) + padded(b"my"),
        header(b"proc"),
        header(b"etc/localtime", b"2", link=b"/usr/share/zoneinfo/Etc/UTC"),
    )
    assert stat.S_IMODE(entry_at(tree, "tmp").mode) == 0o700
    assert entry_at(tree, "home").symlink == b"var/home"
    assert entry_at(tree, "var").symlink == b"/mnt/var"
    assert stat.S_ISREG(entry_at(tree, "singularity").mode)
    assert stat.S_ISREG(entry_at(tree, "proc").mode)
    assert entry_at(tree, "etc/localtime").symlink == b"/usr/share/zoneinfo/Etc/UTC"


def test_links_are_never_followed() -> None:
    tree, store = added(
        header(b"etc/resolv.conf", b"2", link=b"../run/resolv.conf"),
        header(b"run/resolv.conf", size=4) + padded(b"keep"),
        header(b"etc/hosts", b"1", link=b"run/resolv.conf"),
        header(b".singularity.d", b"2", link=b"run"),
    )
    assert content_of(store, entry_at(tree, "run/resolv.conf")) == b"keep"
    assert stat.S_ISREG(entry_at(tree, "etc/resolv.conf").mode)
    assert content_of(store, entry_at(tree, "etc/resolv.conf")) == b""
    assert content_of(store, entry_at(tree, "etc/hosts")) == b""
    assert entry_at(tree, ".singularity.d").is_directory
    run = tree.children[b"run"]
    assert isinstance(run, Directory)
    assert list(run.children) == [b"resolv.conf"]


def test_an_etc_that_is_a_link_is_left_alone() -> None:
    tree, _ = added(header(b"etc", b"2", link=b"usr/etc"), header(b"usr/etc/passwd"))
    assert entry_at(tree, "etc").symlink == b"usr/etc"
    assert paths(tree).count("usr/etc/hosts") == 0


@pytest.mark.parametrize("place", [b".singularity.d/env", b".singularity.d/env/99-base.sh", b".singularity.d/runscript"])
def test_what_stands_in_the_way_is_replaced(place: bytes) -> None:
    for member in (header(place, b"2", link=b"/etc/passwd"), header(place), header(place + b"/d/e")):
        tree, store = added(member)
        assert content_of(store, entry_at(tree, ".singularity.d/env/99-base.sh")).startswith(b"# ")
        assert content_of(store, entry_at(tree, ".singularity.d/runscript")).startswith(b"#!/bin/sh\n")


def test_scripts_that_the_image_has_beside_ours_stay() -> None:
    tree, _ = added(header(b".singularity.d/env/91-own.sh"))
    assert isinstance(entry_at(tree, ".singularity.d/env/91-own.sh"), Entry)
