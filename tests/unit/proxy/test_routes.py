import pytest

from mirror.errors import InvalidInput
from mirror.oci.digest import Digest
from mirror.oci.reference import Reference, RepositoryName
from mirror.proxy.routes import (
    BadDigest,
    BadReference,
    Kind,
    Route,
    UnknownUpstream,
    UpstreamNames,
    parse_path,
    parse_user_reference,
)

UPSTREAMS = UpstreamNames(
    {"docker.io": "docker.io", "quay.io": "quay.io", "hub": "hub", "alias.example": "hub"}, default="docker.io"
)
DIGEST = Digest.of(b"content")


@pytest.mark.parametrize(
    ("path", "namespace", "name"),
    [
        ("library/debian/manifests/12", None, RepositoryName("docker.io", "library/debian")),
        ("debian/manifests/12", None, RepositoryName("docker.io", "library/debian")),
        ("docker.io/debian/manifests/12", None, RepositoryName("docker.io", "library/debian")),
        ("registry-1.docker.io/debian/manifests/12", None, RepositoryName("docker.io", "library/debian")),
        ("team/app/manifests/12", "quay.io", RepositoryName("quay.io", "team/app")),
        ("quay.io/team/app/manifests/12", "quay.io", RepositoryName("quay.io", "team/app")),
        ("quay.io/team/app/manifests/12", "docker.io", RepositoryName("quay.io", "team/app")),
        ("QUAY.io/team/app/manifests/12", None, RepositoryName("quay.io", "team/app")),
        ("hub/a/b/c/manifests/12", None, RepositoryName("hub", "a/b/c")),
        ("alias.example/a/manifests/12", None, RepositoryName("hub", "a")),
        ("manifests/manifests/12", None, RepositoryName("docker.io", "library/manifests")),
        ("a/blobs/b/manifests/12", None, RepositoryName("docker.io", "a/blobs/b")),
    ],
)
def test_every_way_of_naming_the_upstream_leads_to_the_same_repository(
    path: str, namespace: str | None, name: RepositoryName
) -> None:
    assert parse_path(path, namespace, UPSTREAMS) == Route(Kind.MANIFEST, name, Reference(tag="12"))


def test_lists_are_endpoints_too() -> None:
    name = RepositoryName("quay.io", "team/app")
    assert parse_path("quay.io/team/app/tags/list", None, UPSTREAMS) == Route(Kind.TAGS, name, None)
    subject = Reference(digest=DIGEST)
    assert parse_path(f"team/app/referrers/{DIGEST}", "quay.io", UPSTREAMS) == Route(Kind.REFERRERS, name, subject)


def test_a_name_of_the_server_may_stand_for_an_upstream() -> None:
    names = UpstreamNames({"docker.io": "docker.io", "quay.io": "quay.io"}, "docker.io", {"quay.example.org": "quay.io"})
    for host in ("quay.example.org", "QUAY.example.org:8585"):
        assert names.at(host).resolve("team/app", None) == RepositoryName("quay.io", "team/app")
        assert names.at(host).resolve("team/app", "docker.io") == RepositoryName("docker.io", "team/app")
    assert names.at("other.example.org").resolve("team/app", None) == RepositoryName("docker.io", "team/app")


def test_a_digest_may_name_a_manifest_and_must_name_a_blob() -> None:
    name = RepositoryName("docker.io", "library/debian")
    assert parse_path(f"debian/manifests/{DIGEST}", None, UPSTREAMS) == Route(Kind.MANIFEST, name, Reference(digest=DIGEST))
    assert parse_path(f"debian/blobs/{DIGEST}", None, UPSTREAMS) == Route(Kind.BLOB, name, Reference(digest=DIGEST))
    with pytest.raises(BadDigest, match="latest"):
        parse_path("debian/blobs/latest", None, UPSTREAMS)


@pytest.mark.parametrize("reference", ["-x", "a b", "x" * 129, ""])
def test_what_is_neither_tag_nor_digest_is_refused(reference: str) -> None:
    with pytest.raises(BadReference):
        parse_path(f"debian/manifests/{reference}", None, UPSTREAMS)


@pytest.mark.parametrize("digest", ["sha256:abc", "md5:" + "0" * 32, "sha256:" + "A" * 64])
def test_a_broken_digest_is_refused(digest: str) -> None:
    with pytest.raises(BadDigest, match="digest"):
        parse_path(f"debian/manifests/{digest}", None, UPSTREAMS)


@pytest.mark.parametrize("repository", ["Debian", "a//b", "a/../b", "a/./b", "-a", "a_-b", "a" * 256, "", "ä"])
def test_a_broken_repository_name_is_refused(repository: str) -> None:
    with pytest.raises(InvalidInput, match="repository name"):
        parse_path(f"{repository}/manifests/12", None, UPSTREAMS)


@pytest.mark.parametrize(
    ("path", "namespace"),
    [("evil.example/app/manifests/1", None), ("app/manifests/1", "evil.example"), ("10.0.0.1:80/a/manifests/1", None)],
)
def test_an_upstream_that_is_not_configured_is_named_together_with_those_that_are(path: str, namespace: str | None) -> None:
    with pytest.raises(UnknownUpstream, match=r"not an upstream of this mirror; configured are: docker\.io, hub, quay\.io"):
        parse_path(path, namespace, UPSTREAMS)


@pytest.mark.parametrize("path", ["", "debian", "debian/tags/all", "debian/tags/", "_catalog", "debian/blobs/uploads/"])
def test_other_paths_are_no_endpoints(path: str) -> None:
    assert parse_path(path, None, UPSTREAMS) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("docker://debian:12", "docker.io/library/debian:12"),
        ("docker://127.0.0.1:8585/quay.io/team/app:1", "quay.io/team/app:1"),
        ("docker://127.0.0.1:8585/debian:1", "docker.io/library/debian:1"),
        ("hub/app", "hub/app:latest"),
        (f"quay.io/team/app:1@{DIGEST}", f"quay.io/team/app@{DIGEST}"),
    ],
)
def test_a_reference_is_understood_as_users_type_it(text: str, shown: str) -> None:
    assert str(parse_user_reference(text, "127.0.0.1:8585", UPSTREAMS)) == shown
