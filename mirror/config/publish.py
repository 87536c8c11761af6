"""[publish] and the tables below it: what the publisher may do. Limits and names, never keys."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from mirror.config.section import DAY, GIB, HOUR, KIB, MIB, MINUTE, Section
from mirror.config.values import (
    Compressor,
    Count,
    Duration,
    Flag,
    Fqrn,
    HttpUrl,
    OptionalHttpUrl,
    PlatformName,
    Size,
    StoragePlace,
    WholeSeconds,
)


class LayerLimits(Section):
    """[publish.limits]: what a layer may be to be unpacked; whatever passes a limit is refused with the limit in the reason."""

    entries: Count = Field(default=1_000_000, ge=1000, le=100_000_000)
    expanded_bytes: Size = Field(default=64 * GIB, ge=MIB, le=1 << 43)
    file_bytes: Size = Field(default=32 * GIB, ge=MIB, le=1 << 43)
    name_bytes: Size = Field(default=255, ge=16, le=255)
    path_bytes: Size = Field(default=4095, ge=255, le=4095)
    depth: Count = Field(default=128, ge=8, le=256)
    ratio: Count = Field(default=250, ge=2, le=100_000)
    ratio_from: Size = Field(default=256 * MIB, ge=0, le=1 << 43)
    header_bytes: Size = Field(default=MIB, ge=4 * KIB, le=64 * MIB)
    window_bytes: Size = Field(default=128 * MIB, ge=MIB, le=2 * GIB)


class S3Settings(Section):
    """[publish.s3]: the service that has the buckets of `storage`."""

    endpoint: OptionalHttpUrl = ""
    region: str = Field(default="us-east-1", min_length=1, max_length=64)
    path_style: Flag = True
    public_url: OptionalHttpUrl = ""
    credentials_file: str = Field(default="", max_length=4000)
    profile: str = Field(default="default", min_length=1, max_length=255)
    create_only: Flag = True
    connections: Count = Field(default=32, ge=1, le=1000)
    connect_timeout: Duration = Field(default=5.0, ge=0.1, le=5 * MINUTE)
    timeout: Duration = Field(default=2 * MINUTE, ge=1, le=HOUR)
    attempts: Count = Field(default=8, ge=1, le=100)
    longest_pause: Duration = Field(default=15.0, ge=0.1, le=10 * MINUTE)


class CollectionSettings(Section):
    """[publish.gc]: `debark-publisher gc`."""

    grace: Duration = Field(default=DAY, ge=2 * HOUR, le=365 * DAY)
    memory: Size = Field(default=32 * MIB, ge=MIB, le=16 * GIB)
    threads: Count = Field(default=4, ge=1, le=256)
    batch: Count = Field(default=2000, ge=1, le=1_000_000)
    lock_wait: Duration = Field(default=MINUTE, ge=0, le=HOUR)
    lock_hold: Duration = Field(default=0.25, ge=0.01, le=MINUTE)
    lock_pause: Duration = Field(default=0.05, ge=0, le=MINUTE)


class PublishSettings(Section):
    """[publish]: what is unpacked, into which CVMFS repositories, and how."""

    enabled: Flag = True
    supervised: Flag = True
    hint_artifacts: Flag = True
    platforms: tuple[PlatformName, ...] = Field(default=("linux/amd64",), min_length=1, max_length=16)
    repositories: tuple[Fqrn, ...] = Field(
        default=("unpacked-1.debark.local", "unpacked-2.debark.local"), min_length=1, max_length=16
    )
    storage: tuple[StoragePlace, ...] = Field(default=("",), min_length=1, max_length=16)
    ttl: WholeSeconds = Field(default=60, ge=1, le=DAY)
    whitelist_lifetime: Duration = Field(default=30 * DAY, ge=DAY, le=365 * DAY)
    compressor: Compressor = "libdeflate-5"
    whiteouts: Literal["overlayfs", "files"] = "overlayfs"
    permissions: Literal["image", "u+rwX", "a+rX"] = "u+rwX"
    podman_store: Flag = False
    packed_layers: Flag = False
    packed_largest: Size = Field(default=16 * GIB, ge=MIB, le=1 << 40)
    setuid: Literal["keep", "drop"] = "keep"
    capabilities: Literal["keep", "drop"] = "drop"
    foreign_layers: Literal["refuse", "fetch"] = "refuse"
    threads: Count = Field(default=0, ge=0, le=256)
    images: Count = Field(default=4, ge=1, le=256)
    batch: Count = Field(default=20, ge=1, le=1000)
    chunk: Size = Field(default=8 * MIB, ge=MIB, le=64 * MIB)
    in_flight: Size = Field(default=64 * MIB, ge=16 * MIB, le=4 * GIB)
    known_files: Count = Field(default=1_000_000, ge=0, le=100_000_000)
    catalog_entries: Count = Field(default=200_000, ge=1000, le=10_000_000)
    growing_catalog_entries: Count = Field(default=5_000, ge=100, le=10_000_000)
    catalog_memory: Size = Field(default=64 * MIB, ge=0, le=16 * GIB)
    announce: tuple[HttpUrl, ...] = Field(default=(), max_length=64)
    lease: Duration = Field(default=MINUTE, ge=1, le=HOUR)
    attempts: Count = Field(default=40, ge=1, le=1000)
    deaths: Count = Field(default=3, ge=1, le=100)
    first_pause: Duration = Field(default=15.0, ge=0.1, le=HOUR)
    longest_pause: Duration = Field(default=6 * HOUR, ge=1, le=30 * DAY)
    refused_pause: Duration = Field(default=DAY, ge=MINUTE, le=365 * DAY)
    policy_file: str = Field(default="", max_length=4000)
    proof: Size = Field(default=64 * KIB, ge=KIB, le=64 * MIB)
    min_free: Size = Field(default=3 * GIB, ge=0, le=100 << 40)
    resume_free: Size = Field(default=4 * GIB, ge=0, le=100 << 40)
    s3: S3Settings = S3Settings()
    gc: CollectionSettings = CollectionSettings()
    limits: LayerLimits = LayerLimits()

    @field_validator("storage", mode="before")
    @classmethod
    def _one_for_all(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    def storage_of(self, fqrn: str) -> str:
        """Where one of the repositories is; empty for the data directory."""
        return self.storage[0] if len(self.storage) == 1 else self.storage[self.repositories.index(fqrn)]
