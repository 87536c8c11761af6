"""What people see first has to work when it is copied."""

import json
import re
import tomllib
from pathlib import Path

from mirror.config import Config
from mirror.jobs.repositories import RepositoryFacts
from mirror.screen import start_screen

TOP = Path(__file__).parents[2]
URL = f"http://{Config().server.listen}"
FQRNS = Config().publish.repositories
FACTS = [RepositoryFacts(fqrn, 1, "", "", f"/cvmfs/{fqrn}", 0) for fqrn in FQRNS]


def screen(url: str = URL, facts: list[RepositoryFacts] = FACTS) -> str:
    return start_screen(url, Path("/data/log"), Path("/data/keys"), facts)


def test_it_says_the_same_as_the_readme() -> None:
    readme = (TOP / "README.md").read_text()
    commands = re.findall(r"^ +(?:apptainer|podman|skopeo|curl|for) .*$", screen(), re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        assert command.strip() in readme


def test_it_says_the_same_as_the_files_for_clients() -> None:
    text = screen()
    clients = TOP / "conf" / "clients"
    (mirrors,) = json.loads((clients / "daemon.json").read_text())["registry-mirrors"]
    assert f'"registry-mirrors": ["{mirrors}"]' in text
    registries = tomllib.loads((clients / "registries.conf").read_text())["registry"]
    (location,) = [entry["mirror"][0]["location"] for entry in registries if entry["prefix"] == "docker.io"]
    assert f'location = "{location}", insecure = true' in text
    hosts = tomllib.loads((clients / "containerd/docker.io/hosts.toml").read_text())["host"]
    assert all(f'[host."{host}"]' in text for host in hosts)


def test_a_mirror_behind_tls_is_named_by_its_own_url() -> None:
    text = screen("https://mirror.example.org")
    assert "apptainer pull docker://mirror.example.org/docker.io/" in text
    assert "tls-verify" not in text
    assert "127.0.0.1" not in text


def test_cvmfs_clients_may_have_an_address_of_their_own() -> None:
    text = start_screen("https://mirror.example.org", Path("log"), Path("keys"), FACTS, "http://stratum0.example.org")
    assert 'CVMFS_SERVER_URL="http://stratum0.example.org/cvmfs/@fqrn@"' in text
    assert "https://mirror.example.org/_debark/v1/repositories/$fqrn.pub" in text


def test_without_repositories_nothing_is_said_of_mounting() -> None:
    assert "CVMFS_" not in screen(facts=[])
