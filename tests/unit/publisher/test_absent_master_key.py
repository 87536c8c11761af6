"""Whitelists are signed ahead of their end; where the master key is kept on another machine, everybody is warned in time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mirror.data import DataDirectory
from publisher.keys import KeyFiles
from publisher.objects.local import LocalObjectStore
from publisher.objects.pipeline import PipelineLimits
from publisher.spool import RepositorySettings
from publisher.storage import Storage
from publisher.stratum0 import open_or_create, renew_whitelist
from tests.support.repositories import Clock, new_repository

FQRN = "away.example.org"
LIFETIME = timedelta(days=30)
DAY = 86_400.0


def _open(data: DataDirectory) -> list[str]:
    """Warnings at a start."""
    storage = Storage(LocalObjectStore(data.cvmfs / FQRN), "", 1)
    settings = RepositorySettings("zlib-6")
    with capture_logs() as logs:
        stratum0 = open_or_create(FQRN, storage, data, settings, PipelineLimits(), whitelist_lifetime=LIFETIME)
        stratum0.pipeline.close()
    return [entry["event"] for entry in logs if entry["log_level"] == "warning"]


def test_an_absent_master_key_is_warned_about_at_each_start(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    assert _open(data) == []
    KeyFiles(data.keys, FQRN).master.unlink()
    assert _open(data) == ["master_key_elsewhere"]


@pytest.mark.parametrize("is_here", [True, False])
def test_a_whitelist_is_seen_to_once_a_third_of_its_life_is_over(tmp_path: Path, is_here: bool) -> None:
    """Where its key is it is signed, for its whole life from then on; elsewhere days are told, at every look."""
    repository, _ = new_repository(tmp_path)
    if not is_here:
        repository.keys = replace(repository.keys, master=None)
    clock, before = repository.clock, repository.whitelist()
    assert isinstance(clock, Clock)
    clock.now += 9 * DAY
    with capture_logs() as logs:
        assert not renew_whitelist(repository, LIFETIME)
    assert logs == []
    clock.now += 1.1 * DAY
    with capture_logs() as logs:
        assert [renew_whitelist(repository, LIFETIME) for _ in range(2)] == [is_here, False]
    if is_here:
        assert repository.whitelist().expires > before.expires + timedelta(days=9)
    else:
        assert [(entry["event"], entry["log_level"], entry["days_left"]) for entry in logs] == [
            ("whitelist_expires", "warning", 19)
        ] * 2
        assert repository.whitelist() == before
