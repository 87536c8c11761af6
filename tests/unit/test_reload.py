"""What a running server can change of its settings, and who has to know."""

from typing import Any

import pytest

from mirror.config.models import Config
from mirror.reload import concern_publisher, needing_restart, with_fixed


def settings(**sections: Any) -> Config:
    return Config.model_validate(sections)


def test_sockets_and_data_stay_and_are_named() -> None:
    running = settings(server={"data": "/srv/old", "listen": "127.0.0.1:1", "grace": "5 s"})
    wanted = settings(server={"data": "/srv/new", "listen": "127.0.0.1:2", "grace": "7 s"})

    assert needing_restart(running, wanted) == ["server.listen", "server.data"]
    assert needing_restart(running, running) == []
    changed = with_fixed(running, wanted)
    assert (str(changed.data), changed.server.listen, changed.server.grace) == ("/srv/old", "127.0.0.1:1", 7)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"server": {"workers": 3}, "access": {"allow": ["10.0.0.0/8"]}}, False),
        ({"tags": {"ttl": 5}, "memory": {"tags": 500}}, False),
        ({"publish": {"batch": 7}}, True),
        ({"upstreams": {"hub.test": {}}}, True),
        ({"log": {"level": "debug"}}, True),
    ],
)
def test_the_publisher_is_left_alone_where_it_is_not_concerned(sections: dict[str, Any], *, expected: bool) -> None:
    assert concern_publisher(settings(), settings(**sections)) is expected
