"""The scripts of `.singularity.d`, run by real shells."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mirror.errors import InvalidInput
from publisher.images.shell import environment_script, run_script
from tests.support.image_scripts import SHELLS, SHOW, ImageRoot, config

PATH = "/usr/bin:/bin"
SHOW_ENVIRONMENT = "import os, sys; print(*(repr(os.environ.get(name)) for name in sys.argv[1:]))"


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def environment_of(root: ImageRoot, shell: str, *names: str, **given: str) -> list[str | None]:
    result = root.run(shell, "actions/exec", sys.executable, "-c", SHOW_ENVIRONMENT, *names, **given)
    assert result.returncode == 0, result.stderr
    assert result.stderr == b""
    return [None if word == "None" else word.strip("'\"") for word in result.stdout.decode().split()]


def arguments_of(root: ImageRoot, shell: str, *arguments: str, action: str = "actions/run", **given: str) -> list[str]:
    result = root.run(shell, action, *arguments, **given)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().split("\0")[:-1]


def test_the_callers_values_win_but_path_is_the_images(tmp_path: Path, shell: str) -> None:
    root = ImageRoot(tmp_path, config((f"PATH={PATH}", "LANG=C", "MODE=image", "EMPTY=", "NAMED", "OTHER")))
    given = {"LANG": "de_DE", "MODE": "", "NAMED": "kept", "PATH": "/nowhere:/usr/bin"}
    assert environment_of(root, shell, "PATH", "LANG", "MODE", "EMPTY", "NAMED", "OTHER", **given) == [
        PATH, "de_DE", "image", "", "kept", "",
    ]  # fmt: skip


def test_of_several_values_the_last_counts(tmp_path: Path, shell: str) -> None:
    assert environment_of(ImageRoot(tmp_path, config(("A=1", "B=2", "A=3"))), shell, "A", "B") == ["3", "2"]


def test_names_that_no_shell_can_have_do_no_harm(tmp_path: Path, shell: str) -> None:
    hostile = ("UID=0", "PPID=1", "a.b=1", "x;touch=1", "$(touch x)=1", "=1", "SHELLOPTS=x", "é=1", "A\nB=1", "GOOD=yes")
    assert environment_of(ImageRoot(tmp_path, config(hostile)), shell, "GOOD", "PATH")[0] == "yes"


def test_a_zero_byte_is_refused() -> None:
    with pytest.raises(InvalidInput, match="zero byte"):
        environment_script(config(("A=a\0b",)))
    with pytest.raises(InvalidInput, match="zero byte"):
        run_script(config(command=("a\0b",)))


def test_half_a_character_is_replaced() -> None:
    assert b"A='a?b'" in environment_script(config(("A=a\ud800b",)))


def test_libraries_of_the_host_come_last_and_once(tmp_path: Path, shell: str) -> None:
    root = ImageRoot(tmp_path, config(("LD_LIBRARY_PATH=/opt/lib",)))
    libs = str(root.path("libs"))
    assert environment_of(root, shell, "LD_LIBRARY_PATH") == [f"/opt/lib:{libs}"]
    assert environment_of(root, shell, "LD_LIBRARY_PATH", LD_LIBRARY_PATH=f"{libs}:/x") == [f"{libs}:/x"]
    assert environment_of(ImageRoot(tmp_path / "b", config()), shell, "LD_LIBRARY_PATH")[0] == str(
        tmp_path / "b/.singularity.d/libs"
    )


def test_the_runtimes_path_variables_are_honoured(tmp_path: Path, shell: str) -> None:
    root = ImageRoot(tmp_path, config((f"PATH={PATH}",)))
    assert environment_of(
        root, shell, "PATH", SING_USER_DEFINED_PREPEND_PATH="/first", SING_USER_DEFINED_APPEND_PATH="/last"
    ) == [f"/first:{PATH}:/last"]
    names = ("PATH", "SING_USER_DEFINED_PATH")
    assert environment_of(root, shell, *names, SING_USER_DEFINED_PATH="/usr/bin") == ["/usr/bin", None]


def test_entrypoint_and_command(tmp_path: Path, shell: str) -> None:
    show = (sys.executable, "-c", SHOW)
    both = ImageRoot(tmp_path / "both", config(entrypoint=(*show, "fixed"), command=("default", "x y")))
    assert arguments_of(both, shell) == ["fixed", "default", "x y"]
    assert arguments_of(both, shell, "own", "$HOME `id` \"'") == ["fixed", "own", "$HOME `id` \"'"]
    command = ImageRoot(tmp_path / "command", config(command=(*show, "default")))
    assert arguments_of(command, shell) == ["default"]
    assert arguments_of(command, shell, *show, "own") == ["own"]
    entrypoint = ImageRoot(tmp_path / "entrypoint", config(entrypoint=(*show, "fixed")))
    assert arguments_of(entrypoint, shell) == ["fixed"]
    assert arguments_of(entrypoint, shell, "") == ["fixed", ""]


def test_an_image_without_a_command_runs_its_arguments_or_a_shell(tmp_path: Path, shell: str) -> None:
    root = ImageRoot(tmp_path, config())
    assert arguments_of(root, shell, sys.executable, "-c", SHOW, "x") == ["x"]
    assert root.run(shell, "actions/run").returncode == 0


def test_exec_passes_arguments_and_status(tmp_path: Path, shell: str) -> None:
    root = ImageRoot(tmp_path, config())
    assert arguments_of(root, shell, sys.executable, "-c", SHOW, "a b", "", "*", action="actions/exec") == ["a b", "", "*"]
    assert root.run(shell, "actions/exec", "/bin/sh", "-c", "exit 7").returncode == 7


def test_the_shell_that_the_caller_wants(tmp_path: Path, shell: str) -> None:
    root = ImageRoot(tmp_path, config())
    wanted = root.run(shell, "actions/shell", "-c", SHOW, "x", SINGULARITY_SHELL=sys.executable)
    assert wanted.stdout == b"x\0"
    absent = root.run(shell, "actions/shell", "-c", "echo here", APPTAINER_SHELL="/nonexistent")
    assert absent.stdout == b"here\n"


def test_instances_start(tmp_path: Path, shell: str) -> None:
    root = ImageRoot(tmp_path, config())
    start = root.path("actions/start")
    start.write_bytes(start.read_bytes().replace(b"kill -CONT 1 ", b"kill -CONT $$ "))
    assert root.run(shell, "actions/start").returncode == 0
    root.write("startscript", b"#!/bin/sh\necho started $1\n")
    assert root.run(shell, "actions/start", "now").stdout == b"started now\n"


def test_tests_of_an_image(tmp_path: Path, shell: str) -> None:
    root = ImageRoot(tmp_path, config())
    assert root.run(shell, "actions/test").returncode == 0
    root.write("test", b"#!/bin/sh\nexit 3\n")
    assert root.run(shell, "actions/test").returncode == 3


@pytest.mark.parametrize("variable", ["SINGULARITY_APPNAME", "APPTAINER_APPNAME"])
def test_apps(tmp_path: Path, shell: str, variable: str) -> None:
    root = ImageRoot(tmp_path, config((f"PATH={PATH}",)))
    root.write("scif/apps/one/scif/runscript", b'#!/bin/sh\necho "$SCIF_APPNAME $FROM_APP $1 ${PATH%%:*}"\n')
    root.write("scif/apps/one/scif/test", b"#!/bin/sh\nexit 4\n")
    root.write("scif/apps/one/scif/env/10.sh", b"FROM_APP=env; export FROM_APP\n")
    root.path("scif/apps/one/bin").mkdir()
    result = root.run(shell, "actions/run", "arg", **{variable: "one"})
    assert result.stdout.decode() == f"one env arg {root.path('scif/apps/one/bin')}\n"
    assert root.run(shell, "actions/test", **{variable: "one"}).returncode == 4
    missing = root.run(shell, "actions/run", **{variable: "two"})
    assert (missing.returncode, missing.stdout) == (1, b"")
    assert b"no app 'two'" in missing.stderr
