"""Every setting with its default and its bounds, one class a section of the file.

These are plain data for the edge of the program: whoever wires the rooms together turns them into the small dataclasses that the
rooms take. The publisher's settings (publish.py) are part of the whole, so that one check covers the file.
An empty text stands for "derived from other settings"; the property of the same meaning on `Config` has the derived value.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mirror.config.publish import PublishSettings
from mirror.config.section import DAY, GIB, HOUR, KIB, MIB, MINUTE, Section
from mirror.config.values import (
    Addresses,
    Count,
    DatabaseUrl,
    Duration,
    FilePath,
    Flag,
    HostPattern,
    HttpUrl,
    Listen,
    OptionalHttpUrl,
    RegistryName,
    RepositoryPath,
    RepositoryPrefix,
    Size,
    parse_listen,
)
from mirror.oci.reference import DOCKER_HUB, canonical_registry
from mirror.state.engine import sqlite_url
from mirror.upstream.presets import PRESETS

Table = dict[str, Any]

NO_FILE = "none"
"""In place of a log file's path: no file."""


def default_data_directory() -> Path:
    """`$XDG_DATA_HOME/debark`, or `~/.local/share/debark`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "debark"


class ServerSettings(Section):
    """[server]: where it listens and keeps its data, and what it takes from clients."""

    listen: Listen = "127.0.0.1:8585"
    data: FilePath = Field(default_factory=default_data_directory)
    public_url: OptionalHttpUrl = ""
    cvmfs_url: OptionalHttpUrl = ""
    workers: Count = Field(default=1, ge=0, le=64)
    max_requests: Count = Field(default=1000, ge=1, le=100_000)
    max_header: Size = Field(default=16 * KIB, ge=4 * KIB, le=MIB)
    keepalive: Duration = Field(default=75.0, ge=1, le=HOUR)
    grace: Duration = Field(default=30.0, ge=1, le=HOUR)
    reload_grace: Duration = Field(default=HOUR, ge=1, le=DAY)
    stop_delay: Duration = Field(default=0.0, ge=0, le=10 * MINUTE)
    tls_certificate: str = Field(default="", max_length=4000)
    tls_key: str = Field(default="", max_length=4000)
    slow_bytes: Size = Field(default=16 * MIB, ge=64 * KIB, le=GIB)
    slow_time: Duration = Field(default=15 * MINUTE, ge=1, le=DAY)


class StoreSettings(Section):
    """[store]: cached content on disk."""

    min_free: Size = Field(default=2 * GIB, ge=0, le=100 << 40)
    keep_parts: Duration = Field(default=7 * DAY, ge=HOUR, le=365 * DAY)
    max_size: Size = Field(default=0, ge=0, le=1 << 50)
    low_share: float = Field(default=0.9, ge=0.1, le=1.0)
    headroom: Size = Field(default=GIB, ge=0, le=100 << 40)
    live: Duration = Field(default=7 * DAY, ge=HOUR, le=365 * DAY)
    spared: Duration = Field(default=15 * MINUTE, ge=10 * MINUTE, le=30 * DAY)
    private_size: Size = Field(default=20 * GIB, ge=64 * MIB, le=1 << 50)


class FetchSettings(Section):
    """[fetch]: getting content from upstreams, for all of them together."""

    max_connections: Count = Field(default=256, ge=1, le=10_000)
    max_fills: Count = Field(default=1000, ge=1, le=100_000)
    max_blob: Size = Field(default=100 * GIB, ge=MIB, le=1 << 43)
    max_manifest: Size = Field(default=4 * MIB, ge=64 * KIB, le=64 * MIB)
    attempts: Count = Field(default=10, ge=1, le=100)
    longest_pause: Duration = Field(default=10.0, ge=0.1, le=10 * MINUTE)
    max_resumes: Count = Field(default=100, ge=0, le=10_000)
    disk_threads: Count = Field(default=8, ge=1, le=256)


class StateSettings(Section):
    """[state]: the SQL database of names and jobs."""

    url: DatabaseUrl = Field(default="", max_length=1000)
    password_file: str = Field(default="", max_length=4000)
    connections: Count = Field(default=5, ge=1, le=100)
    wait: Duration = Field(default=10.0, ge=0.1, le=5 * MINUTE)


class TagSettings(Section):
    """[tags]: how long the answer of an upstream for a tag, or a list of tags, is good."""

    ttl: Duration = Field(default=MINUTE, ge=0, le=30 * DAY)
    absent: Duration = Field(default=10.0, ge=0, le=HOUR)
    hold: Duration = Field(default=5.0, ge=0, le=HOUR)
    patience: Duration = Field(default=5.0, ge=0.1, le=5 * MINUTE)
    revalidate: Duration = Field(default=5.0, ge=0, le=HOUR)


class MemorySettings(Section):
    """[memory]: what is kept in memory in front of the state database, and what may wait there to be recorded."""

    tags: Count = Field(default=20_000, ge=100, le=10_000_000)
    links: Count = Field(default=50_000, ge=100, le=10_000_000)
    manifests: Count = Field(default=50_000, ge=100, le=10_000_000)
    manifests_size: Size = Field(default=64 * MIB, ge=8 * MIB, le=16 * GIB)
    pulls: Count = Field(default=10_000, ge=10, le=1_000_000)
    pulls_size: Size = Field(default=64 * MIB, ge=8 * MIB, le=4 * GIB)


class IssuerSettings(Section):
    """[access.issuers."NAME"]: who may vouch for users by tokens; the name is the token's `iss`."""

    audience: str = Field(min_length=1, max_length=1000)
    keys_file: str = Field(min_length=1, max_length=4000)


class AccessSettings(Section):
    """[access]: who may use this mirror."""

    allow: tuple[Addresses, ...] = Field(default=(), max_length=1000)
    trusted_proxies: tuple[Addresses, ...] = Field(default=(), max_length=1000)
    users_file: str = Field(default="", max_length=4000)
    issuers: dict[str, IssuerSettings] = Field(default={}, max_length=100)
    public: Duration = Field(default=10 * MINUTE, ge=1, le=DAY)
    public_kept: Duration = Field(default=DAY, ge=1, le=30 * DAY)
    rights: Duration = Field(default=MINUTE, ge=1, le=HOUR)
    rights_kept: Duration = Field(default=HOUR, ge=1, le=DAY)
    token_time: Duration = Field(default=5 * MINUTE, ge=MINUTE, le=HOUR)
    wrong_passwords: Count = Field(default=20, ge=1, le=100_000)
    requests: Count = Field(default=1000, ge=1, le=100_000)
    rate: float = Field(default=50_000.0, ge=0.01, le=1_000_000)
    burst: Count = Field(default=100_000, ge=1, le=1_000_000)


class NamespaceSettings(Section):
    """[upstreams."NAME".namespaces."PATH"]: another account, for the repositories below a path of the registry."""

    username: str = Field(min_length=1, max_length=255)
    password_file: str = Field(min_length=1, max_length=4000)


class MirrorSettings(Section):
    """An entry of [upstreams."NAME"] mirrors; where nothing but the URL is to be said, it may be that alone."""

    url: HttpUrl
    prefix: RepositoryPrefix = ""
    trusted_hosts: tuple[HostPattern, ...] = Field(default=(), max_length=64)
    allow_private_addresses: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _only_url(cls, given: Any) -> Any:
        return {"url": given} if isinstance(given, str) else given


class UpstreamSettings(Section):
    """[upstreams."NAME"]: one registry that is mirrored."""

    enabled: Flag = True
    url: HttpUrl
    aliases: tuple[RegistryName, ...] = Field(default=(), max_length=32)
    hosts: tuple[RegistryName, ...] = Field(default=(), max_length=32)
    trusted_hosts: tuple[HostPattern, ...] = Field(default=(), max_length=64)
    allow_private_addresses: Flag = False
    username: str = Field(default="", max_length=255)
    password_file: str = Field(default="", max_length=4000)
    docker_config: str = Field(default="", max_length=4000)
    credential_helper: str = Field(default="", max_length=4000)
    credential_time: Duration = Field(default=10 * MINUTE, ge=1, le=DAY)
    helper_time: Duration = Field(default=10.0, ge=0.1, le=5 * MINUTE)
    namespaces: dict[RepositoryPath, NamespaceSettings] = Field(default={}, max_length=1000)
    private: Literal["refuse", "serve", "client"] = "refuse"
    mirrors: tuple[MirrorSettings, ...] = Field(default=(), max_length=8)
    redirect_blobs: Literal["never", "full", "always"] = "never"
    max_transfers: Count = Field(default=16, ge=1, le=1000)
    max_requests: Count = Field(default=32, ge=1, le=1000)
    attempts: Count = Field(default=3, ge=1, le=20)
    connect_timeout: Duration = Field(default=5.0, ge=0.1, le=5 * MINUTE)
    read_timeout: Duration = Field(default=30.0, ge=1, le=HOUR)
    breaker_failures: Count = Field(default=5, ge=1, le=1000)
    breaker_pause: Duration = Field(default=2.0, ge=0.1, le=HOUR)
    breaker_longest_pause: Duration = Field(default=MINUTE, ge=0.1, le=DAY)
    longest_retry_after: Duration = Field(default=15 * MINUTE, ge=0, le=DAY)
    reserve: float = Field(default=0.2, ge=0.0, le=1.0)


class LogSettings(Section):
    """[log]: what happened, for the operator; and the access log, for the accounts."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "pretty", "json"] = "auto"
    file: str = Field(default="", max_length=4000)
    access_file: str = Field(default="", max_length=4000)


class MetricsSettings(Section):
    """[metrics]: counters for Prometheus."""

    enabled: Flag = True


class PlaceSettings(Section):
    """[redirect.places."NAME"]: a web server or bucket that holds CVMFS repositories."""

    url: HttpUrl
    clients: tuple[Addresses, ...] = Field(default=(), max_length=1000)


class RedirectSettings(Section):
    """[redirect]: where clients are sent for blobs that CVMFS repositories hold."""

    places: dict[str, PlaceSettings] = Field(default={}, max_length=100)
    direct: tuple[str, ...] = Field(default=(), max_length=100)
    smallest: Size = Field(default=MIB, ge=0, le=1 << 40)
    fresh: Duration = Field(default=5.0, ge=1, le=10 * MINUTE)
    again: Duration = Field(default=MINUTE, ge=1, le=DAY)
    believed: Duration = Field(default=10 * MINUTE, ge=1, le=DAY)
    patience: Duration = Field(default=1.0, ge=0.01, le=MINUTE)
    timeout: Duration = Field(default=5.0, ge=0.1, le=5 * MINUTE)
    remembered: Count = Field(default=50_000, ge=100, le=10_000_000)


def _preset_tables() -> Table:
    """The well-known registries, as if the operator had written them."""
    return {name: {"url": preset.base_url, "trusted_hosts": list(preset.trusted_hosts)} for name, preset in PRESETS.items()}


def _laid_over(preset: Table, name: str, given: Any) -> Any:
    """A table of the operator's with what it leaves out; hosts that a preset trusts are those of the preset's URL only."""
    if not isinstance(given, dict):
        return given
    return {"url": f"https://{name}"} | ({} if "url" in given else preset) | given


class Config(Section):
    """The whole file."""

    default_upstream: RegistryName = DOCKER_HUB
    server: ServerSettings = Field(default_factory=ServerSettings)
    store: StoreSettings = StoreSettings()
    fetch: FetchSettings = FetchSettings()
    state: StateSettings = StateSettings()
    access: AccessSettings = AccessSettings()
    tags: TagSettings = TagSettings()
    memory: MemorySettings = MemorySettings()
    upstreams: dict[RegistryName, UpstreamSettings] = Field(default={}, validate_default=True, max_length=1000)
    publish: PublishSettings = PublishSettings()
    redirect: RedirectSettings = RedirectSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()

    @field_validator("upstreams", mode="before")
    @classmethod
    def _with_presets(cls, given: Any) -> Any:
        """The operator's tables laid over the presets'; an upstream without a URL is found at https://NAME."""
        if not isinstance(given, dict):
            return given
        merged = _preset_tables()
        for name, table in given.items():
            canonical = canonical_registry(name)
            merged[canonical] = _laid_over(merged.get(canonical, {}), canonical, table)
        return merged

    @property
    def active_upstreams(self) -> dict[str, UpstreamSettings]:
        """The upstreams that are switched on, by their canonical names."""
        return {name: upstream for name, upstream in self.upstreams.items() if upstream.enabled}

    @property
    def passing_upstreams(self) -> tuple[str, ...]:
        """Those towards which clients' own credentials are used."""
        return tuple(name for name, upstream in self.active_upstreams.items() if upstream.private == "client")

    @property
    def data(self) -> Path:
        """The data directory; all that debark writes is below it."""
        return self.server.data

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return parse_listen(self.server.listen)

    @property
    def workers(self) -> int:
        """Processes that answer."""
        return self.server.workers or len(os.sched_getaffinity(0))

    @property
    def public_url(self) -> str:
        """Where clients find this mirror; without a setting, as it listens, with loopback for "every address"."""
        host, port = self.address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (read here, not bound)
        scheme = "https" if self.server.tls_certificate else "http"
        return self.server.public_url or f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def state_url(self) -> str:
        """URL of the state database, without its password."""
        return self.state.url or sqlite_url(self.data / "state.sqlite")

    @property
    def log_file(self) -> Path | None:
        """The log of the mirror; None if it goes to standard error only."""
        return _file(self.log.file, self.data / "log" / "debark.log")

    @property
    def access_log(self) -> Path | None:
        """The access log; None if it is switched off."""
        return _file(self.log.access_file, self.data / "log" / "access.jsonl")


def _file(setting: str, default: Path) -> Path | None:
    return None if setting == NO_FILE else Path(setting) if setting else default
