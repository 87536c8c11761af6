"""A publisher whose master key is kept on another machine works, and says at each start until when."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from structlog.testing import capture_logs

from mirror.data import DataDirectory
from publisher.keys import KeyFiles
from publisher.objects.local import LocalObjectStore
from publisher.objects.pipeline import PipelineLimits
from publisher.spool import RepositorySettings
from publisher.storage import Storage
from publisher.stratum0 import open_or_create

FQRN = "away.example.org"


def _open(data: DataDirectory) -> list[str]:
    """Warnings at a start."""
    storage = Storage(LocalObjectStore(data.cvmfs / FQRN), "", 1)
    settings = RepositorySettings("zlib-6")
    with capture_logs() as logs:
        stratum0 = open_or_create(FQRN, storage, data, settings, PipelineLimits(), whitelist_lifetime=timedelta(days=30))
        stratum0.pipeline.close()
    return [entry["event"] for entry in logs if entry["log_level"] == "warning"]


def test_an_absent_master_key_is_warned_about_at_each_start(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    assert _open(data) == []
    KeyFiles(data.keys, FQRN).master.unlink()
    assert _open(data) == ["master_key_elsewhere"]
