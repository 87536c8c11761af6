"""What conf/ gives to be copied fits the code: addresses, names, headers, commands."""

import json
import re
import tomllib
from pathlib import Path

import click

from mirror.cli import EXIT_BAD_SETTINGS, main
from mirror.config import Config

CONF = Path(__file__).parents[3] / "conf"
CONFIG = Config()
ADDRESS = CONFIG.server.listen


def test_client_snippets_lead_to_the_default_address() -> None:
    registries = tomllib.loads((CONF / "clients/registries.conf").read_text())["registry"]
    assert {entry["prefix"]: entry["mirror"][0]["location"] for entry in registries} == {
        name: f"{ADDRESS}/{name}" for name in ("docker.io", "quay.io", "ghcr.io")
    }
    assert {entry["prefix"] for entry in registries} <= CONFIG.active_upstreams.keys()
    assert json.loads((CONF / "clients/daemon.json").read_text())["registry-mirrors"] == [f"http://{ADDRESS}"]
    for name in ("docker.io", "_default"):
        hosts = tomllib.loads((CONF / f"clients/containerd/{name}/hosts.toml").read_text())
        assert hosts["host"] == {f"http://{ADDRESS}": {"capabilities": ["pull", "resolve"]}}


def test_the_service_uses_commands_and_options_that_exist() -> None:
    unit = (CONF / "systemd/debark.service").read_text()
    commands = re.findall(r"^Exec\w+=\S+/debark (.+)$", unit, re.MULTILINE)
    assert len(commands) == 3
    for line in commands:
        words = line.split()
        command: click.Command = main
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_the_service_is_not_started_again_and_again_for_mistakes_in_its_file() -> None:
    unit = (CONF / "systemd/debark.service").read_text()
    assert f"RestartPreventExitStatus={EXIT_BAD_SETTINGS}\n" in unit


def test_rotation_covers_the_logs() -> None:
    text = (CONF / "logrotate/debark").read_text()
    for file in (CONFIG.access_log, CONFIG.log_file):
        assert file is not None
        assert f"/var/lib/debark/log/{file.name}" in text
