"""Where repositories are, from the settings to what clients are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mirror.config.load import load
from mirror.config.mistakes import ConfigError
from mirror.config.models import Config
from mirror.data import DataDirectory
from mirror.errors import InvalidInput
from mirror.jobs.repositories import RepositoryFacts
from mirror.screen import start_screen
from publisher.objects.local import LocalObjectStore
from publisher.objects.pipeline import PipelineLimits
from publisher.objects.s3 import S3Limits, S3ObjectStore
from publisher.storage import Storage, open_storage, pipeline_limits

FIRST, SECOND = "a.example.org", "b.example.org"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


def opened(tmp_path: Path, fqrn: str = FIRST, environment: dict[str, str] | None = None, **publish: Any) -> Storage:
    config = Config.model_validate({"publish": {"repositories": [FIRST, SECOND], **publish}})
    return open_storage(fqrn, config, DataDirectory(tmp_path), KEYS if environment is None else environment)


def test_without_a_setting_it_is_the_data_directory(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    assert isinstance(storage.store, LocalObjectStore)
    assert (tmp_path / "cvmfs" / FIRST / "data" / "00").is_dir()
    assert storage.url == f"/cvmfs/{FIRST}"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, f"https://s3.us-east-1.amazonaws.com/bucket/cvmfs/{FIRST}"),
        ({"region": "eu-west-3", "path_style": False}, f"https://bucket.s3.eu-west-3.amazonaws.com/cvmfs/{FIRST}"),
        ({"endpoint": "http://s3.example.org:9000/"}, f"http://s3.example.org:9000/bucket/cvmfs/{FIRST}"),
        ({"public_url": "http://stratum0.example.org/cvmfs/"}, f"http://stratum0.example.org/cvmfs/{FIRST}"),
    ],
)
def test_where_clients_find_a_bucket(settings: dict[str, Any], url: str, tmp_path: Path) -> None:
    storage = opened(tmp_path, storage="s3://bucket/cvmfs/", s3=settings)
    assert isinstance(storage.store, S3ObjectStore)
    assert storage.url == url
    assert storage.concurrency == 32


def test_each_repository_may_have_a_place_of_its_own(tmp_path: Path) -> None:
    places = ["s3://bucket", ""]
    assert isinstance(opened(tmp_path, FIRST, storage=places).store, S3ObjectStore)
    assert isinstance(opened(tmp_path, SECOND, storage=places).store, LocalObjectStore)


def test_keys_are_needed_and_a_file_goes_before_the_environment(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="AWS_ACCESS_KEY_ID"):
        opened(tmp_path, environment={}, storage="s3://bucket")
    file = tmp_path / "debark.toml"
    file.write_text('[publish]\nstorage = "s3://bucket"\n[publish.s3]\ncredentials_file = "s3-keys"\n')
    config = load(file)
    with pytest.raises(InvalidInput, match=str(tmp_path / "s3-keys")):
        open_storage(config.publish.repositories[0], config, DataDirectory(tmp_path), KEYS)


@pytest.mark.parametrize("wrong", ["bucket", "s3://", "s3:///x", "s3://bucket/../x", "https://bucket", ["s3://b", "", ""]])
def test_places_that_cannot_be(wrong: Any, tmp_path: Path) -> None:
    file = tmp_path / "debark.toml"
    file.write_text(f"[publish]\nstorage = {wrong!r}\n")
    with pytest.raises(ConfigError, match="storage"):
        load(file)


def test_a_far_storage_is_given_more_objects_at_the_same_time(tmp_path: Path) -> None:
    publish = Config().publish
    near, far = opened(tmp_path), opened(tmp_path, storage="s3://bucket", s3={"connections": 50})
    assert pipeline_limits(publish, near) == PipelineLimits()
    assert (pipeline_limits(publish, far).threads, pipeline_limits(publish, far).small_threads) == (50, 50)
    assert pipeline_limits(Config.model_validate({"publish": {"threads": 3}}).publish, far).threads == 3


def test_the_defaults_are_the_stores_own() -> None:
    settings, limits = Config().publish.s3, S3Limits()
    assert {name: getattr(settings, name) for name in S3Limits.__slots__} == {
        name: getattr(limits, name) for name in S3Limits.__slots__
    }


def screen(*url_paths: str) -> str:
    facts = [RepositoryFacts(fqrn, 1, "", "", path, 0) for fqrn, path in zip((FIRST, SECOND), url_paths, strict=False)]
    return start_screen("http://127.0.0.1:8585", Path("log"), Path("keys"), facts)


def test_the_start_screen_says_where_to_mount_from() -> None:
    assert 'CVMFS_SERVER_URL="http://127.0.0.1:8585/cvmfs/@fqrn@"\n' in screen(f"/cvmfs/{FIRST}", f"/cvmfs/{SECOND}")
    elsewhere = "http://stratum0.example.org/x"
    assert f'CVMFS_SERVER_URL="{elsewhere}/@fqrn@"\n' in screen(f"{elsewhere}/{FIRST}", f"{elsewhere}/{SECOND}")
    both = screen(f"{elsewhere}/{FIRST}", f"/cvmfs/{SECOND}")
    assert f'CVMFS_SERVER_URL="{elsewhere}/@fqrn@"  (of {FIRST})' in both
    assert f'CVMFS_SERVER_URL="http://127.0.0.1:8585/cvmfs/@fqrn@"  (of {SECOND})' in both
