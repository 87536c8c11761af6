"""From settings to the small dataclasses that the rooms take. Whoever starts a process calls these; no room does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import make_url

from mirror.config.credentials import credentials
from mirror.config.load import read_secret
from mirror.config.models import Config, UpstreamSettings
from mirror.fetch.download import LONG_TRANSFERS, DownloadPolicy
from mirror.fetch.filler import FetchLimits
from mirror.fetch.manifests import ManifestLimits
from mirror.jobs.retry import RetryPolicy as PublishRetryPolicy
from mirror.logs import LogOptions
from mirror.oci.platform import Platform
from mirror.state.engine import DatabaseSettings
from mirror.store.eviction import EvictionPolicy
from mirror.upstream.model import BreakerPolicy, Upstream
from mirror.upstream.policy import SHORT_REQUESTS, RetryPolicy


def upstreams(config: Config, *, anonymous: bool = False) -> dict[str, Upstream]:
    """The upstreams that are switched on, by name. anonymous: without credentials, whose files are then not read.

    Raises InvalidInput for a file of credentials that cannot be used.
    """
    return {
        name: Upstream(
            name=name,
            base_url=settings.url,
            trusted_hosts=settings.trusted_hosts,
            credential=None if anonymous else credentials(name, settings),
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            max_transfers=settings.max_transfers,
            max_requests=settings.max_requests,
            max_manifest_bytes=config.fetch.max_manifest,
            allow_private_addresses=settings.allow_private_addresses,
            breaker=BreakerPolicy(
                settings.breaker_failures,
                settings.breaker_pause,
                settings.breaker_longest_pause,
                settings.longest_retry_after,
            ),
            reserve=settings.reserve,
        )
        for name, settings in config.active_upstreams.items()
    }


def mirrors(config: Config, upstream: Upstream) -> list[tuple[Upstream, str]]:
    """Mirrors of an upstream in the order in which they are asked, with what is in front of repository names there."""
    return [
        (
            replace(
                upstream,
                name=f"{upstream.name}@{urlsplit(mirror.url).netloc}",
                base_url=mirror.url,
                trusted_hosts=mirror.trusted_hosts,
                credential=None,
                allow_private_addresses=mirror.allow_private_addresses,
            ),
            mirror.prefix,
        )
        for mirror in config.upstreams[upstream.name].mirrors
    ]


def upstream_retry(settings: UpstreamSettings) -> RetryPolicy:
    """How often a short request to this upstream is tried."""
    return replace(SHORT_REQUESTS, attempts=settings.attempts)


def upstream_names(config: Config) -> dict[str, str]:
    """Every name and alias, canonical and in lower case, to the name of the upstream that it leads to."""
    names = {name: name for name in config.active_upstreams}
    for name, settings in config.active_upstreams.items():
        names |= dict.fromkeys(settings.aliases, name)
    return names


def server_names(config: Config) -> dict[str, str]:
    """Names of this server to the upstreams that are the default ones under them."""
    return {host: name for name, settings in config.active_upstreams.items() for host in settings.hosts}


def fetch_limits(config: Config) -> FetchLimits:
    """Bounds of fetching blobs."""
    fetch = config.fetch
    return FetchLimits(
        max_fills=fetch.max_fills,
        max_blob_bytes=fetch.max_blob,
        disk_threads=fetch.disk_threads,
        download=DownloadPolicy(
            resume=replace(LONG_TRANSFERS, attempts=fetch.attempts, longest_delay=fetch.longest_pause),
            max_resumes=fetch.max_resumes,
        ),
    )


def eviction_policy(config: Config) -> EvictionPolicy:
    """Bounds of eviction. Publishing has its room before the cache: it stops with less than it wants to go on."""
    store, publish = config.store, config.publish
    return EvictionPolicy(
        max_bytes=store.max_size or None,
        low_share=store.low_share,
        floor_bytes=max(store.min_free, publish.resume_free) if publish.enabled else store.min_free,
        headroom_bytes=store.headroom,
        spared_seconds=store.spared,
    )


def manifest_limits(config: Config) -> ManifestLimits:
    """Bounds of fetching manifests."""
    return ManifestLimits(
        tag_seconds=config.tags.ttl,
        hold_seconds=config.tags.hold,
        absent_seconds=config.tags.absent,
        patience_seconds=config.tags.patience,
        revalidate_seconds=config.tags.revalidate,
        memory_bytes=config.memory.manifests_size,
        max_remembered=config.memory.manifests,
        max_manifest_bytes=config.fetch.max_manifest,
    )


def database(config: Config) -> DatabaseSettings:
    """Where the state is. Raises ConfigError for a password file that cannot be read."""
    state = config.state
    url = config.state_url
    if state.password_file:
        password = read_secret(Path(state.password_file))
        url = make_url(url).set(password=password).render_as_string(hide_password=False)
    return DatabaseSettings(url, connections=state.connections, wait_seconds=state.wait)


def publish_retry(config: Config) -> PublishRetryPolicy:
    """Patience with images whose publishing fails."""
    publish = config.publish
    return PublishRetryPolicy(
        first_pause=publish.first_pause,
        longest_pause=publish.longest_pause,
        attempts=publish.attempts,
        deaths=publish.deaths,
        refused_pause=publish.refused_pause,
    )


def platforms(config: Config) -> tuple[Platform, ...]:
    """Platforms to publish of an index, the most wanted first."""
    return tuple(Platform.parse(text) for text in config.publish.platforms)


def log_options(config: Config, worker: int | None = None) -> LogOptions:
    """Logging of one of the mirror's processes. worker: its number, if it is a worker."""
    return LogOptions(level=config.log.level, form=config.log.format, file=config.log_file, worker=worker)
