"""One mirror for each module, in front of the session's hub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.debark_process import DebarkProcess
from tests.support.hub import Hub


@pytest.fixture(scope="module")
def debark(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebarkProcess]:
    """Fresh at the module's first test; the hub is its upstream `hub.test`."""
    with DebarkProcess(tmp_path_factory.mktemp("debark"), {"hub.test": hub.url}) as started:
        yield started
