"""Rules between settings, each of which is fine by itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mirror.config.mistakes import Place
from mirror.config.models import Config


def contradictions(config: Config) -> Iterator[tuple[Place, str]]:
    """Every broken rule: the key to look at first, and what is wrong."""
    yield from _upstream_names(config)
    yield from _credentials(config)
    yield from _clients_credentials(config)
    yield from _kept_answers(config)
    yield from _certificate(config)
    yield from _publishing(config)


def _upstream_names(config: Config) -> Iterator[tuple[Place, str]]:
    active = config.active_upstreams
    if not active:
        yield ("upstreams",), "every upstream is switched off; at least one is needed"
    elif config.default_upstream not in active:
        names = ", ".join(sorted(active))
        yield ("default_upstream",), f'"{config.default_upstream}" is no upstream that is switched on; these are: {names}'
    owners = {name: name for name in active}
    for name, upstream in active.items():
        for alias in upstream.aliases:
            owner = owners.setdefault(alias, name)
            if owner != name:
                yield ("upstreams", name, "aliases"), f'"{alias}" leads to upstream "{owner}" already'
    hosts: dict[str, str] = {}
    for name, upstream in active.items():
        for host in upstream.hosts:
            owner = hosts.setdefault(host, name)
            if owner != name:
                yield ("upstreams", name, "hosts"), f'"{host}" leads to upstream "{owner}" already'


def _certificate(config: Config) -> Iterator[tuple[Place, str]]:
    server = config.server
    if bool(server.tls_certificate) != bool(server.tls_key):
        present, absent = ("tls_certificate", "tls_key") if server.tls_certificate else ("tls_key", "tls_certificate")
        yield ("server", present), f"'{present}' is of no use without '{absent}'"


def _credentials(config: Config) -> Iterator[tuple[Place, str]]:
    for name, upstream in config.upstreams.items():
        if bool(upstream.username) != bool(upstream.password_file):
            present, absent = ("username", "password_file") if upstream.username else ("password_file", "username")
            yield ("upstreams", name, present), f"'{present}' is of no use without '{absent}'"
        sources = [key for key in ("username", "docker_config", "credential_helper") if getattr(upstream, key)]
        if len(sources) > 1:
            yield (
                ("upstreams", name, sources[1]),
                f"the credential comes from '{sources[0]}' already; only one of them can be used",
            )
        if "/" in upstream.credential_helper and not upstream.credential_helper.startswith("/"):
            yield ("upstreams", name, "credential_helper"), "is neither the name of a program nor an absolute path"
        if upstream.private == "serve" and not sources and not upstream.namespaces:
            yield ("upstreams", name, "private"), '"serve" is about what a credential can read, but there is none'
        if upstream.breaker_pause > upstream.breaker_longest_pause:
            yield ("upstreams", name, "breaker_pause"), "is longer than 'breaker_longest_pause'"


def _clients_credentials(config: Config) -> Iterator[tuple[Place, str]]:
    if not config.passing_upstreams:
        return
    name = config.passing_upstreams[0]
    for key in ("users_file", "issuers"):
        if getattr(config.access, key):
            yield (
                ("access", key),
                f'cannot be used with private = "client" of upstream "{name}": a request has room for one user and password only',
            )


def _kept_answers(config: Config) -> Iterator[tuple[Place, str]]:
    for key in ("public", "rights"):
        if getattr(config.access, f"{key}_kept") < getattr(config.access, key):
            yield ("access", f"{key}_kept"), f"is shorter than '{key}'"


def _publishing(config: Config) -> Iterator[tuple[Place, str]]:
    publish = config.publish
    for key in ("repositories", "platforms"):
        values: tuple[str, ...] = getattr(publish, key)
        if len(set(values)) != len(values):
            yield ("publish", key), "each may be named once only"
    if len(publish.storage) not in (1, len(publish.repositories)):
        yield ("publish", "storage"), "is neither one place for all repositories nor one for each of them, in the same order"
    if publish.resume_free < publish.min_free:
        yield ("publish", "resume_free"), "is less than 'min_free'"
    if publish.first_pause > publish.longest_pause:
        yield ("publish", "first_pause"), "is longer than 'longest_pause'"
    if publish.limits.file_bytes > publish.limits.expanded_bytes:
        yield ("publish", "limits", "file_bytes"), "is more than 'expanded_bytes'"
    if publish.in_flight < 2 * publish.chunk:
        yield ("publish", "in_flight"), "is less than twice 'chunk'"
    if config.memory.pulls_size < config.fetch.max_manifest:
        yield ("memory", "pulls_size"), "is less than the largest manifest, 'fetch.max_manifest'"
