"""Fixtures that several rooms share, and the rule that nothing is skipped where it counts."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.clients import Skopeo
from tests.support.hub import Hub
from tests.support.s3_server import S3Server
from tests.support.zoo import debian_layout

# No test has a clock in it: a machine that is busy with other things is no finding.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one: a machine that lacks something must not look like a success."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CI skips nothing: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole module."""
    report = yield
    if os.environ.get("CI") and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, and CI skips nothing: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A real registry for everybody: push under a repository of your own, and do not stop it."""
    with Hub(tmp_path_factory.mktemp("hub")) as started:
        yield started


@pytest.fixture(scope="session")
def debian(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of the real images, which the hub has as `library/debian` with tags `base`, `other` and `full`."""
    layout = debian_layout()
    skopeo = Skopeo(tmp_path_factory.mktemp("pusher"))
    for tag in ("base", "other", "full"):
        skopeo.push(layout, tag, f"{hub.address}/library/debian:{tag}")
    return layout


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for everybody: use a prefix of your own, and do not stop it."""
    with S3Server(tmp_path_factory.mktemp("s3") / "swift") as started:
        yield started


@pytest.fixture
def skopeo(tmp_path: Path) -> Skopeo:
    """An unchanged client with nothing configured."""
    return Skopeo(tmp_path / "skopeo")
