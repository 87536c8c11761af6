"""The defaults of the settings are those of the rooms that they are for: one truth, checked where both halves may be imported."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from mirror.config import Config
from mirror.config.values import DURATION
from mirror.config.wiring import eviction_policy, manifest_limits, mirrors, upstreams
from mirror.fetch.filler import FetchLimits
from mirror.fetch.manifests import ManifestLimits
from mirror.jobs.retry import RetryPolicy
from mirror.proxy.blob_response import SendLimits
from mirror.proxy.public import PublicLimits
from mirror.proxy.rights import RightsLimits
from mirror.state.engine import DatabaseSettings
from mirror.store.eviction import EvictionPolicy
from mirror.upstream.credential_helper import HelperLimits
from mirror.upstream.model import Upstream
from mirror.upstream.presets import PRESETS
from publisher.catalog_memory import DEFAULT_BYTES
from publisher.cvmfs.cuts import CutLimits, GrowthLimits
from publisher.gc.policy import CollectionLimits, CollectionPolicy
from publisher.gc_settings import collection_limits
from publisher.images.place import PlacePolicy
from publisher.layer_settings import layer_limits, layer_policy, permission_policy
from publisher.layers.limits import LayerLimits
from publisher.layers.permissions import PermissionPolicy
from publisher.layers.policy import LayerPolicy
from publisher.objects.compress import DEFAULT_COMPRESSOR, compressor
from publisher.objects.pipeline import PipelineLimits
from publisher.proof import ProofSettings
from publisher.spool import RepositorySettings

CONFIG = Config()


def values(item: Any) -> dict[str, Any]:
    return {field.name: getattr(item, field.name) for field in fields(item)}


def test_layer_limits() -> None:
    assert layer_limits(CONFIG.publish) == LayerLimits()


def test_what_is_kept_of_layers() -> None:
    assert layer_policy(CONFIG.publish) == LayerPolicy()
    other = Config.model_validate({"publish": {"setuid": "drop", "capabilities": "keep"}})
    assert layer_policy(other.publish) == LayerPolicy(setuid=False, capabilities=True)


def test_what_consumers_are_given() -> None:
    assert permission_policy(CONFIG.publish) == PermissionPolicy()
    assert CONFIG.publish.whiteouts == RepositorySettings(CONFIG.publish.compressor).whiteouts
    assert CONFIG.publish.podman_store == PlacePolicy().podman_store
    for text, added in {"image": (False, False), "u+rwX": (True, False), "a+rX": (True, True)}.items():
        policy = permission_policy(Config.model_validate({"publish": {"permissions": text}}).publish)
        assert (policy.owner_access, policy.world_readable) == added
    for form in ("overlayfs", "files"):
        publish = Config.model_validate({"publish": {"whiteouts": form}}).publish
        assert RepositorySettings(publish.compressor, publish.ttl, publish.whiteouts).whiteouts == form


def test_publishing() -> None:
    publish = CONFIG.publish
    assert publish.compressor == DEFAULT_COMPRESSOR
    limits = PipelineLimits()
    assert (publish.chunk, publish.in_flight, publish.known_files) == (limits.chunk_size, limits.bytes_in_flight, limits.known)
    patience = {name: value for name, value in values(RetryPolicy()).items() if name != "jitter"}
    assert patience == {name: getattr(publish, name) for name in patience}


def test_proof() -> None:
    assert CONFIG.publish.proof == ProofSettings().part


def test_every_compressor_that_the_settings_take_exists() -> None:
    for name in [f"zlib-{level}" for level in range(1, 10)] + [f"libdeflate-{level}" for level in range(1, 13)]:
        settings = Config.model_validate({"publish": {"compressor": name}})
        assert compressor(settings.publish.compressor).name == name


def test_fetching_and_state() -> None:
    limits = FetchLimits()
    assert (CONFIG.fetch.max_fills, CONFIG.fetch.max_blob) == (limits.max_fills, limits.max_blob_bytes)
    assert CONFIG.fetch.disk_threads == limits.disk_threads
    assert CONFIG.fetch.attempts == limits.download.resume.attempts
    assert CONFIG.fetch.longest_pause == limits.download.resume.longest_delay
    assert CONFIG.fetch.max_resumes == limits.download.max_resumes
    database = DatabaseSettings("sqlite://")
    assert (CONFIG.state.connections, CONFIG.state.wait) == (database.connections, database.wait_seconds)


def test_eviction() -> None:
    policy = EvictionPolicy(floor_bytes=CONFIG.publish.resume_free)
    assert eviction_policy(CONFIG) == policy
    store = {"max_size": "1 TiB", "min_free": "9 GiB", "headroom": 1}
    changed = eviction_policy(Config.model_validate({"store": store, "publish": {"enabled": False}}))
    assert (changed.max_bytes, changed.floor_bytes, changed.headroom_bytes) == (1 << 40, 9 << 30, 1)


def test_manifests_and_slow_clients() -> None:
    assert manifest_limits(CONFIG) == ManifestLimits()
    other = Config.model_validate({"tags": {"hold": "1 min", "ttl": 0}, "memory": {"manifests": 100, "manifests_size": "8 MiB"}})
    assert manifest_limits(other) == ManifestLimits(0, 60, 8 << 20, 100)
    assert (CONFIG.server.slow_bytes, CONFIG.server.slow_time) == (SendLimits().slice_bytes, SendLimits().slice_seconds)


def test_catalogs_and_collections() -> None:
    publish = CONFIG.publish
    assert publish.catalog_entries == CutLimits().most
    assert publish.growing_catalog_entries == GrowthLimits().entries
    assert publish.catalog_memory == DEFAULT_BYTES
    assert publish.gc.grace == CollectionPolicy().grace
    assert collection_limits(publish.gc) == CollectionLimits()
    other = Config.model_validate({"publish": {"gc": {"memory": "1 MiB", "threads": 2, "batch": 3, "lock_wait": 4}}})
    assert collection_limits(other.publish.gc) == CollectionLimits(1 << 20, 2, 3, 4)


def test_upstreams() -> None:
    assert CONFIG.upstreams.keys() == PRESETS.keys()
    for name, settings in CONFIG.upstreams.items():
        room = Upstream(name, settings.url, settings.trusted_hosts)
        assert room == PRESETS[name]
        assert (settings.connect_timeout, settings.read_timeout) == (room.connect_timeout, room.read_timeout)
        assert (settings.max_transfers, settings.max_requests) == (room.max_transfers, room.max_requests)
        assert upstreams(CONFIG)[name] == room  # bounds, breaker and reserve


def test_mirrors_of_an_upstream_have_its_bounds_but_neither_its_account_nor_its_trust(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    entries = ["https://one.example.org/", {"url": "http://two:5000", "prefix": "hub", "trusted_hosts": ["s3"]}]
    table = {"mirrors": entries, "username": "site", "password_file": str(password), "breaker_pause": 3, "read_timeout": 9}
    config = Config.model_validate({"upstreams": {"docker.io": table}})
    known = upstreams(config)["docker.io"]
    assert known.credential is not None
    (one, no_prefix), (two, prefix) = mirrors(config, known)
    assert (one.name, one.base_url, one.trusted_hosts) == ("docker.io@one.example.org", "https://one.example.org", ())
    assert (two.name, two.base_url, two.trusted_hosts) == ("docker.io@two:5000", "http://two:5000", ("s3",))
    assert (no_prefix, prefix) == ("", "hub")
    for mirror in (one, two):
        assert (mirror.credential, mirror.breaker.pause, mirror.read_timeout) == (None, 3, 9)


def test_credentials() -> None:
    settings, limits, rights, public = CONFIG.upstreams["docker.io"], HelperLimits(), RightsLimits(), PublicLimits()
    assert (settings.credential_time, settings.helper_time) == (limits.lifetime, limits.timeout)
    access = CONFIG.access
    assert (access.rights, access.rights_kept, access.wrong_passwords) == (rights.fresh, rights.kept, rights.wrong)
    assert (access.public, access.public_kept) == (public.fresh, public.kept)
    assert (CONFIG.tags.hold, CONFIG.tags.patience) == (public.hold, public.patience)


def test_durations_are_shown_as_they_are_read() -> None:
    for amount in (0, 0.1, 1, 59, 60, 90, 3600, 86400, 2.5):
        assert DURATION.read(DURATION.show(amount)) == amount
