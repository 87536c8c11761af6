"""Where an upstream may send us."""

from __future__ import annotations

import pytest
from yarl import URL

from mirror.errors import Denied
from mirror.upstream.model import Credential, Upstream
from mirror.upstream.presets import PRESETS
from mirror.upstream.trust import check_realm, check_redirect, is_public_address

HUB = PRESETS["docker.io"]
PLAIN = Upstream("lab", "http://10.1.2.3:5000", ("10.9.9.9:9000",), allow_private_addresses=True)


@pytest.mark.parametrize(
    "target",
    [
        "https://registry-1.docker.io/v2/x",
        "https://auth.docker.io/token",
        "https://production.cloudflare.docker.com/registry-v2/x?sig=1",
        "https://docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com/x",
        "https://docker-images-prod.s3.dualstack.us-east-1.amazonaws.com/x",
    ],
)
def test_docker_hub_may_use_its_own_hosts(target: str) -> None:
    check_redirect(HUB, URL(target))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("https://evil.example/x", "not one of its trusted hosts; if it is right, add 'evil.example'"),
        ("https://evil-docker.io/x", "trusted hosts"),
        ("https://auth.docker.io.evil.example/x", "trusted hosts"),
        ("http://registry-1.docker.io/x", "not encrypted"),
        ("https://169.254.169.254/latest/meta-data", "trusted hosts"),
        ("ftp://registry-1.docker.io/x", "no web address"),
        ("file:///etc/passwd", "no web address"),
        ("https://user:secret@auth.docker.io/token", "user name of its own"),
    ],
)
def test_docker_hub_may_not_use_others(target: str, words: str) -> None:
    for check in (check_redirect, check_realm):
        with pytest.raises(Denied, match=words):
            check(HUB, URL(target))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("registry.example.org", "auth.example.org", True),
        ("registry.example.ac.uk", "example.ac.uk", True),
        ("example.ac.uk", "other.ac.uk", False),
        ("one.github.io", "two.github.io", False),
        ("quay.io", "cdn01.quay.io", True),
        ("quay.io", "ghcr.io", False),
        ("localhost", "other", False),
    ],
)
def test_a_site_is_what_one_owner_registers(one: str, other: str, *, same: bool) -> None:
    hub = Upstream("hub", f"https://{one}")
    if same:
        check_realm(hub, URL(f"https://{other}/token"))
    else:
        with pytest.raises(Denied):
            check_realm(hub, URL(f"https://{other}/token"))


def test_a_plain_upstream_keeps_its_tokens_at_home() -> None:
    check_realm(PLAIN, URL("http://10.1.2.3:5001/token"))
    check_redirect(PLAIN, URL("http://10.9.9.9:9000/bucket"))
    with pytest.raises(Denied):
        check_realm(PLAIN, URL("http://10.9.9.9:9000/token"))
    with pytest.raises(Denied):
        check_redirect(PLAIN, URL("http://10.9.9.9:22/"))


def test_private_addresses_need_leave() -> None:
    strict = Upstream("hub", "https://hub.example.org", ("10.9.9.9",))

    with pytest.raises(Denied, match="allow_private_addresses"):
        check_redirect(strict, URL("https://10.9.9.9/x"))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:127.0.0.1", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::808:808", True),
        ("64:ff9b:1::808:808", False),
        ("fd00::1", False),
        ("nonsense", False),
    ],
)
def test_public_addresses(address: str, *, public: bool) -> None:
    assert is_public_address(address) is public


def test_presets_are_what_they_are_named() -> None:
    assert set(PRESETS) >= {"docker.io", "quay.io", "ghcr.io", "registry.gitlab.com", "gcr.io", "registry.k8s.io", "nvcr.io"}
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert preset.url.scheme == "https"
        assert preset.credential is None
        assert not preset.allow_private_addresses


def test_passwords_are_not_shown() -> None:
    assert "secret" not in repr(Upstream("hub", "https://hub.example.org", credential=Credential("me", "secret")))
