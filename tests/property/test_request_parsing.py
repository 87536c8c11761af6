"""What clients put into paths and headers: whatever it is, reading it ends, and says something true."""

from __future__ import annotations

import base64
import contextlib
import re
from urllib.parse import parse_qsl, quote, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import InvalidInput, MirrorError, NotFound
from mirror.oci.digest import Digest
from mirror.oci.listing import link_to_next, next_page, parse_count
from mirror.oci.reference import DOCKER_HUB
from mirror.proxy.basic import read_basic
from mirror.proxy.client_address import AddressRanges, client_address
from mirror.proxy.conditions import client_has, entity_tag, wants_revalidation
from mirror.proxy.hints import warning
from mirror.proxy.routes import Kind, UpstreamNames, parse_path, parse_user_reference

UPSTREAMS = UpstreamNames(
    {"docker.io": "docker.io", "quay.io": "quay.io", "hub.test:5000": "hub.test:5000", "alias.test": "quay.io", "team": "team"},
    default="docker.io",
    hosts={"quay.example.org": "quay.io", "hub.example.org:8585": "hub.test:5000"},
)
REGISTRIES = frozenset(UPSTREAMS.canonical.values())
DIGEST = Digest.of(b"content")
ANY = st.text(max_size=300)
NEARLY = st.text("abz019._-/:@%+ A\x00é", max_size=60)
COMPONENTS = st.from_regex(r"[a-z0-9]{1,4}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
TAGS = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,12}", fullmatch=True)
DIGESTS = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(["sha256", "sha512"]))
SPACES = st.text(" \t", max_size=2)


@st.composite
def repositories(draw: st.DrawFn) -> str:
    """Names whose first component is no registry's."""
    first = draw(COMPONENTS.filter(lambda text: "." not in text and text not in {"team", "localhost"}))
    return "/".join([first, *draw(st.lists(COMPONENTS, max_size=3))])


@given(
    st.one_of(ANY, NEARLY, st.builds("{}/manifests/{}".format, NEARLY, NEARLY), st.builds("{}/blobs/{}".format, NEARLY, NEARLY)),
    st.none() | ANY | st.sampled_from(["quay.io", "QUAY.io", "elsewhere.test", "169.254.169.254", "docker.io"]),
    ANY | st.sampled_from(["quay.example.org", "hub.example.org:8585", "quay.example.org:1"]),
)
def test_any_path_leads_into_the_closed_world_or_is_refused(path: str, namespace: str | None, host: str) -> None:
    with contextlib.suppress(InvalidInput, NotFound):
        route = parse_path(path, namespace, UPSTREAMS.at(host))
        if route is not None:
            assert route.name.registry in REGISTRIES
            assert re.fullmatch(r"[a-z0-9._/-]{1,255}", route.name.repository)
            assert not {"", ".", ".."} & set(route.name.repository.split("/"))
            written = f"{route.name}/{route.kind.value}/{route.reference or 'list'}"
            assert parse_path(written, None, UPSTREAMS) == route


@given(repositories(), TAGS | DIGESTS.map(str), st.sampled_from(sorted(REGISTRIES)))
def test_all_ways_of_naming_lead_to_one_route(repository: str, reference: str, registry: str) -> None:
    end = f"{repository}/manifests/{reference}"
    wanted = parse_path(f"{registry}/{end}", None, UPSTREAMS)
    assert wanted is not None
    assert wanted.name.registry == registry
    assert wanted.name.repository == (f"library/{repository}" if registry == DOCKER_HUB and "/" not in repository else repository)
    assert str(wanted.reference) == reference
    assert parse_path(end, registry, UPSTREAMS) == wanted
    assert parse_path(end, registry.upper(), UPSTREAMS) == wanted
    assert parse_path(f"{registry}/{end}", registry, UPSTREAMS) == wanted
    assert parse_path(f"{registry.upper()}/{end}", "docker.io", UPSTREAMS) == wanted


@given(repositories(), DIGESTS)
def test_each_endpoint_is_told_by_its_own_component_whatever_the_repository_is_called(repository: str, digest: Digest) -> None:
    for inner in (repository, f"{repository}/manifests", f"blobs/{repository}", f"{repository}/tags/list", "manifests/tags"):
        for kind, last in ((Kind.MANIFEST, "tag"), (Kind.BLOB, str(digest)), (Kind.REFERRERS, str(digest)), (Kind.TAGS, "list")):
            route = parse_path(f"quay.io/{inner}/{kind.value}/{last}", None, UPSTREAMS)
            assert route is not None
            assert (route.kind, route.name.repository) == (kind, inner)


@given(ANY | NEARLY)
def test_any_reference_that_a_person_types_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidInput, NotFound):
        image = parse_user_reference(text, "mirror.test:8585", UPSTREAMS)
        assert image.name.registry in REGISTRIES
        assert parse_user_reference(str(image), "mirror.test:8585", UPSTREAMS) == image


@given(ANY | st.text("0123456789-+. ", max_size=12))
def test_any_count_is_a_bounded_number_or_refused(text: str) -> None:
    try:
        count = parse_count(text)
    except MirrorError:
        return
    assert count is not None
    assert 0 <= count < 10**9
    assert int(text) == count


@given(st.lists(st.one_of(ANY, st.text('W/"*, \tsha256:', max_size=20)), max_size=4), DIGESTS)
def test_any_condition_is_understood_only_if_it_names_the_content(values: list[str], digest: Digest) -> None:
    named = any(entity_tag(digest) in value or "*" in value for value in values)
    assert client_has(values, digest) <= named


@given(st.lists(st.tuples(SPACES, st.booleans(), DIGESTS, SPACES), max_size=5), DIGESTS, st.integers(0, 5))
def test_what_a_client_has_is_found_in_any_list(listed: list[tuple[str, bool, Digest, str]], digest: Digest, cut: int) -> None:
    tags = [f"{before}{'W/' if weak else ''}{entity_tag(one)}{after}" for before, weak, one, after in listed]
    lines = [",".join(part) for part in (tags[:cut], tags[cut:])]
    assert client_has(lines, digest) is any(one == digest for _, _, one, _ in listed)
    assert client_has([*lines, f" {entity_tag(digest)} "], digest)
    assert client_has([*lines, "*"], digest)


@given(st.lists(ANY | st.text("no-cache=,; \tmaxge0", max_size=30), max_size=4))
def test_any_cache_control_is_read(values: list[str]) -> None:
    joined = ",".join(values).lower()
    assert wants_revalidation(values) <= ("no-cache" in joined or "max-age=0" in joined)


@given(
    st.lists(st.sampled_from(["no-store", "max-age=60", "only-if-cached", "private", "x=y"]), max_size=3),
    st.sampled_from(["no-cache", "No-Cache", "max-age=0", "MAX-AGE=0"]),
    SPACES,
    st.booleans(),
)
def test_a_wish_for_freshness_is_seen_among_others(others: list[str], wish: str, space: str, alone: bool) -> None:
    assert not wants_revalidation([",".join(others)])
    together = [",".join([*others, f"{space}{wish}{space}"])]
    assert wants_revalidation([*others, wish] if alone else together)


TRUSTED = AddressRanges.parse(["127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"])
STRANGERS = st.ip_addresses().map(str).filter(lambda address: address not in TRUSTED)
PROXIES = st.integers(1, 254).map(lambda number: f"10.1.2.{number}") | st.integers(1, 99).map(lambda n: f"2001:db8::{n}")


@given(st.lists(ANY | NEARLY, max_size=4), STRANGERS)
def test_what_strangers_say_of_themselves_is_not_believed(forwarded: list[str], peer: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == peer
    assert client_address("10.0.0.1", forwarded, AddressRanges()) == "10.0.0.1"


@given(st.lists(STRANGERS | ANY.filter(lambda text: "," not in text), max_size=3), STRANGERS, st.lists(PROXIES, max_size=3))
def test_the_last_stranger_is_the_client_whatever_stands_before(made_up: list[str], client: str, proxies: list[str]) -> None:
    assert client_address("10.0.0.1", [", ".join([*made_up, client, *proxies])], TRUSTED) == client
    assert client_address("10.0.0.1", [*made_up, client, *proxies], TRUSTED) == client


@given(st.lists(ANY | NEARLY, max_size=4))
def test_any_list_of_proxies_leads_to_some_text_and_no_trust(forwarded: list[str]) -> None:
    found = client_address("10.0.0.1", forwarded, TRUSTED)
    assert found == "10.0.0.1" or found in TRUSTED or any(found in value for value in forwarded)


@given(ANY | st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode()))
def test_any_basic_credentials_are_read_or_none(value: str) -> None:
    user, password = read_basic(value)
    assert ":" not in user
    if user:
        assert base64.b64decode(value).decode() in (f"{user}:{password}", user)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(WORDS, st.dictionaries(WORDS, WORDS, max_size=4))
def test_our_links_lead_to_what_they_were_made_of(path: str, query: dict[str, str]) -> None:
    target = next_page([link_to_next(f"/v2/{quote(path)}/tags/list", query)])
    assert target is not None
    parts = urlsplit(target)
    assert parts.path == f"/v2/{quote(path)}/tags/list"
    assert dict(parse_qsl(parts.query, keep_blank_values=True)) == query


@given(st.lists(ANY | st.text('<>;,="rel next\\a', max_size=200), max_size=3))
def test_any_link_is_read_or_passed_over(values: list[str]) -> None:
    target = next_page(values)
    assert target is None or any(f"<{target}>" in value for value in values)


@given(st.text(max_size=1000))
def test_any_text_makes_one_harmless_warning(text: str) -> None:
    assert re.fullmatch(r'299 - "(?:[ !#-\[\]-~]|\\["\\])*"', warning(text))
