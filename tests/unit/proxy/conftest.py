"""The mirror as one server, for tests that ask it over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.mirror_server import MirrorServer, mirror_server


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[MirrorServer]:
    """In front of an open hub, with the smallest settings."""
    async with mirror_server(tmp_path) as started:
        yield started
