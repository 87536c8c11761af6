"""What a fresh machine lacks is installed where that may be done without asking, and named where it may not."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

TOP = Path(__file__).parents[2]


def run(tmp_path: Path, script: str, *arguments: str, programs: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """With nothing on the PATH but these programs, which are shell scripts, and the shell itself."""
    places = tmp_path / "bin"
    places.mkdir()
    for name in ("bash", "env", "dirname", "sha256sum", "cat"):
        (places / name).symlink_to(f"/usr/bin/{name}")
    for name, text in programs.items():
        (places / name).write_text(f"#!/usr/bin/bash\n{text}\n")
        (places / name).chmod(0o755)
    environment = {"PATH": str(places), "HOME": str(tmp_path)}
    return subprocess.run([TOP / script, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_root_gets_the_packages(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run(tmp_path, "conf/debian-packages", "one", "two", programs={"id": "echo 0", "apt-get": f'echo "$@" >>{log}'})
    assert (done.returncode, done.stdout) == (0, "")
    assert log.read_text().splitlines()[-1].endswith("--no-install-recommends one two")


def test_others_get_the_line_to_type(tmp_path: Path) -> None:
    programs = {"id": "echo 1000", "sudo": "exit 1", "apt-get": "exit 99"}
    done = run(tmp_path, "conf/debian-packages", "one", "two", programs=programs)
    assert done.returncode == 1
    assert "sudo apt-get install one two" in done.stderr


def test_a_python_without_venv_asks_for_debians_package_and_an_old_one_for_another(tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "conf"
    copy.mkdir(parents=True)
    for name in ("install", "debian-packages"):
        (copy / name).write_bytes((TOP / "conf" / name).read_bytes())
        (copy / name).chmod(0o755)
    programs = {"id": "echo 1000", "sudo": "exit 1", "apt-get": "exit 99", "python3": '[[ "$*" != *ensurepip* ]]'}
    done = run(tmp_path, str(copy / "install"), programs=programs)
    assert done.returncode == 1
    assert "sudo apt-get install python3-venv" in done.stderr


def test_users_install_nothing_for_tests_and_tests_install_what_users_do() -> None:
    product, tests = (
        {line.split()[0] for line in (TOP / name).read_text().splitlines() if "==" in line and not line.startswith((" ", "#"))}
        for name in ("requirements.lock", "requirements-test.lock")
    )
    assert product < tests
    assert not [name for name in product if name.startswith(("pytest", "mypy", "ruff"))]
