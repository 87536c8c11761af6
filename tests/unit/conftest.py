"""Fixtures of several rooms' tests."""

from __future__ import annotations

import pytest

from mirror.upstream import blob_body


@pytest.fixture(params=["through aiohttp", "from the connection"])
def every_way_of_reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs of upstreams are read in both ways, however small they are."""
    monkeypatch.setattr(blob_body, "LARGE_BYTES", 1 if request.param == "from the connection" else 1 << 40)
