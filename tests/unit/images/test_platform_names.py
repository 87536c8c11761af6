"""Names for platforms in a repository: the paths that scripts compute on their machines."""

from __future__ import annotations

import posixpath
import stat
from pathlib import Path

import pytest

from mirror.jobs.model import PlatformName, PublishRequest
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference
from publisher.cvmfs.cuts import GrowthLimits
from publisher.cvmfs.entry import Directory, Entry
from publisher.images import layout
from publisher.images.names import own_names, place_name, place_platform_name, platform_names
from publisher.images.remove import remove_links
from publisher.objects.compress import compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from publisher.repository import Repository
from publisher.transaction import Transaction
from tests.support.repositories import new_repository, problems
from tests.support.sample_tree import regular

DEBIAN = ImageReference.parse("debian:12")
QUAY = ImageReference.parse("quay.io/a/b:1")
AMD64, ARM64, ARM_V7 = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "arm", "v7")
CONFIG, OTHER = Digest.of(b"config"), Digest.of(b"other")


@pytest.mark.parametrize(
    ("platform", "directory", "machine"),
    [
        ("linux/amd64", ".multiarch/amd64", "x86_64"),
        ("linux/arm64/v8", ".multiarch/arm64", "aarch64"),
        ("linux/arm64", ".multiarch/arm64", "arm64:v8"),
        ("linux/arm", ".multiarch/arm:v7", "armv7l"),
        ("linux/arm/v6", ".multiarch/arm:v6", "armv6l"),
        ("linux/386", ".multiarch/386", "i686"),
        ("linux/ppc64le", ".multiarch/ppc64le", None),
        ("linux/amd64/v3", ".multiarch/amd64:v3", None),
        ("windows/amd64", ".multiarch/windows-amd64", None),
    ],
)
def test_the_directory_of_a_platform_and_what_machines_call_it(platform: str, directory: str, machine: str | None) -> None:
    normal = Platform.parse(platform).normal
    assert layout.platform_directory(normal) == directory.encode()
    aliases = layout.platform_aliases(normal)
    assert f".multiarch/{machine}".encode() in aliases if machine else not aliases
    link = layout.platform_link(PlatformName(DEBIAN, normal))
    assert link == f"{directory}/docker.io/library/debian:12".encode()
    target = layout.target_from(link, CONFIG)
    assert posixpath.normpath(posixpath.join(posixpath.dirname(link), target)) == layout.flat_root(CONFIG).decode().encode()
    assert any(link.startswith(catalog + b"/") for catalog in layout.platform_catalogs(normal))


def test_each_name_has_a_platform_asked_for_or_shown_by_the_config() -> None:
    def request(image: ImageReference, platform: Platform | None = None) -> PublishRequest:
        return PublishRequest(image, CONFIG, CONFIG, platform)

    requests = [request(DEBIAN), request(QUAY), request(QUAY, ARM_V7)]
    assert own_names(requests) == (DEBIAN, QUAY)
    assert set(platform_names(requests, Platform("linux", "arm"))) == {
        PlatformName(DEBIAN, ARM_V7),
        PlatformName(QUAY, ARM_V7),
    }
    for nothing in (None, Platform("", ""), Platform("linux", "../x"), Platform("unknown", "unknown")):
        assert platform_names(requests, nothing) == (PlatformName(QUAY, ARM_V7),)


def _flat(repository: Repository, text: str) -> Directory:
    root = Directory(Entry(mode=stat.S_IFDIR | 0o755, mtime=1))
    root.children[b"file"] = regular(repository.store, text.encode())
    return root


def _read(repository: Repository, path: str) -> bytes:
    """Through every symbolic link, as a job's script would."""
    reader, parts, done = repository.reader(), path.encode().split(b"/"), b""
    while parts:
        name = parts.pop(0)
        if name == b"..":
            done = posixpath.dirname(done)
            continue
        entry = reader.lookup(posixpath.join(done, name))
        assert entry is not None, posixpath.join(done, name)
        if stat.S_ISLNK(entry.mode):
            parts = [*entry.symlink.split(b"/"), *parts]
        else:
            done = posixpath.join(done, name)
    return reader.read(done)


def _place(repository: Repository, *names: ImageReference | PlatformName, config: Digest = CONFIG) -> None:
    with Transaction(repository) as transaction:
        if not transaction.exists(layout.flat_root(config)):
            transaction.graft(layout.flat_root(config), _flat(repository, str(config)))
        manifest = regular(repository.store, f"manifest of {config}".encode())
        for name in names:
            place = place_platform_name if isinstance(name, PlatformName) else place_name
            place(transaction, name, config, manifest)  # type: ignore[arg-type]
        transaction.commit()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return new_repository(tmp_path)[0]


def test_scripts_find_images_by_what_their_machine_says(repository: Repository) -> None:
    _place(repository, DEBIAN, PlatformName(DEBIAN, AMD64), config=CONFIG)
    _place(repository, PlatformName(DEBIAN, ARM64), PlatformName(QUAY, ARM64), config=OTHER)
    image = "docker.io/library/debian:12/file"
    assert _read(repository, image) == str(CONFIG).encode()
    for machine, config in (("amd64", CONFIG), ("x86_64", CONFIG), ("arm64", OTHER), ("aarch64", OTHER), ("arm64:v8", OTHER)):
        assert _read(repository, f".multiarch/{machine}/{image}") == str(config).encode()
    for prefix, config in (("", CONFIG), (".multiarch/aarch64/", OTHER)):
        assert _read(repository, f"{prefix}registry.hub.docker.com/library/debian:12/file") == str(config).encode()
    assert repository.reader().lookup(b"quay.io") is None
    document = ".metadata/.multiarch/arm64/docker.io/library/debian:12/manifest.json"
    assert _read(repository, document) == f"manifest of {OTHER}".encode()
    assert problems(repository) == []


def test_placing_again_publishes_nothing(repository: Repository) -> None:
    names = (DEBIAN, PlatformName(DEBIAN, ARM64))
    _place(repository, *names)
    before = repository.manifest().revision
    _place(repository, *names)
    assert repository.manifest().revision == before


def test_a_repository_that_ducc_has_begun_keeps_its_directories(repository: Repository) -> None:
    with Transaction(repository) as transaction:
        transaction.make_directory(b".multiarch/arm64:v8/registry.hub.docker.com/library")
        transaction.put_symlink(b".multiarch/arm64", b"arm64:v8")
        transaction.put_symlink(b".multiarch/aarch64", b"arm64:v8")
        transaction.make_directory(b"registry.hub.docker.com/library")
        transaction.commit()
    _place(repository, DEBIAN, PlatformName(DEBIAN, ARM64))
    for machine in ("arm64", "aarch64", "arm64:v8"):
        assert _read(repository, f".multiarch/{machine}/docker.io/library/debian:12/file") == str(CONFIG).encode()
    kept = repository.reader().lookup(b"registry.hub.docker.com")
    assert kept is not None
    assert kept.is_directory
    _remove(repository, layout.platform_link(PlatformName(DEBIAN, ARM64)))
    assert repository.reader().lookup(b".multiarch/arm64:v8/docker.io/library/debian:12") is None


def _remove(repository: Repository, *links: bytes) -> None:
    with Pipeline(repository.store, compressor("zlib-6"), PipelineLimits()) as pipeline, Transaction(repository) as transaction:
        remove_links(transaction, pipeline, links, 1.0)
        transaction.commit()


def test_a_link_that_is_removed_leaves_the_image_and_its_other_names(repository: Repository) -> None:
    _place(repository, DEBIAN, QUAY, PlatformName(DEBIAN, AMD64), PlatformName(QUAY, AMD64))
    _remove(repository, b"quay.io/a/b:1", b".multiarch/amd64/quay.io/a/b:1", b"never/was:there", layout.flat_root(CONFIG))
    reader = repository.reader()
    for gone in (b"quay.io", b".metadata/quay.io", b".multiarch/amd64/quay.io", b".metadata/.multiarch/amd64/quay.io"):
        assert reader.lookup(gone) is None
    assert _read(repository, ".multiarch/x86_64/docker.io/library/debian:12/file") == str(CONFIG).encode()
    assert problems(repository) == []


def test_the_cost_of_one_more_name_does_not_grow_with_those_that_are_there(repository: Repository) -> None:
    growth, written = GrowthLimits(entries=60, worth=5), []
    for batch in range(8):
        images = [ImageReference.parse(f"hub{number % 7}.test/team{number}/app:{batch}") for number in range(50)]
        with Transaction(repository, growth=growth) as transaction:
            for image in images:
                place_platform_name(transaction, PlatformName(image, AMD64), CONFIG, regular(repository.store, b"m"))
            transaction.commit()
        before = sum(stored.size for stored in repository.store.objects())
        with Transaction(repository, growth=growth) as transaction:
            one = PlatformName(ImageReference.parse(f"hub1.test/team1/app:one{batch}"), AMD64)
            place_platform_name(transaction, one, CONFIG, regular(repository.store, b"m"))
            transaction.commit()
        written.append(sum(stored.size for stored in repository.store.objects()) - before)
    assert written[-1] < 2 * written[1], written
    assert problems(repository) == []
