"""Bounds of the server, as each of its workers has to keep them."""

import pytest

from mirror.config.models import Config
from mirror.workers.shares import worker_share
from mirror.workers.worker import Start

CONFIG = Config.model_validate(
    {
        "server": {"max_requests": 1000, "data": "/srv/debark"},
        "fetch": {"max_connections": 256, "max_fills": 2},
        "access": {"requests": 10, "rate": 9, "burst": 7, "wrong_passwords": 20},
        "state": {"connections": 5},
        "upstreams": {"hub.test": {"max_transfers": 16}, "quay.io": {"max_transfers": 1}},
    }
)


def test_one_worker_has_all() -> None:
    assert worker_share(CONFIG, 1) == CONFIG


def test_three_workers_have_a_third_and_at_least_one() -> None:
    share = worker_share(CONFIG, 3)

    assert (share.server.max_requests, share.fetch.max_connections, share.fetch.max_fills) == (334, 86, 1)
    assert (share.access.requests, share.access.rate, share.access.burst) == (4, 3, 3)
    assert share.access.wrong_passwords == 7
    assert share.state.connections == 2
    assert share.upstreams["hub.test"].max_transfers == 6
    assert share.upstreams["quay.io"].max_transfers == 1
    assert share.memory == CONFIG.memory


@pytest.mark.parametrize(("bound", "kept"), [(20, 3), (2, 2)])
def test_who_mistypes_a_password_is_not_shut_out_by_one_of_many_workers(bound: int, kept: int) -> None:
    config = CONFIG.model_copy(update={"access": CONFIG.access.model_copy(update={"wrong_passwords": bound})})
    assert worker_share(config, 64).access.wrong_passwords == kept


def test_settings_reach_a_worker_as_they_are() -> None:
    told = Start(CONFIG, 2, 3, 7)

    assert Start.from_json(told.as_json()) == told
