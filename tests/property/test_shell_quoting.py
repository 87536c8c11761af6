"""Whatever text an image config has, a shell hands on the same."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirror.oci.manifest import ImageConfig, parse_config
from publisher.images.shell import environment_script, run_script
from tests.support.image_scripts import SHELLS, SHOW, ImageRoot, config

awkward = st.sampled_from("'\"\\$`!*?[]{}()<>|&;#~= \t\n\r-%^a0")
text = st.text(st.one_of(awkward, st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=30)
HOSTILE = [
    "", "-", "-n", "--", "-c", "$(touch owned)", "`touch owned`", "$HOME", "${IFS}", "'", "''\\''", '"', "\\", "\\n", "a\nb",
    "\n", "\r\n", "* ?", "~", "!!", "#no comment", "a;b", "a&b", "a|b", ">owned", "<(id)", "{a,b}", "$'x'", "%s%n", "\x1b[2J",
    "\x7f", "é", "\U0001f600", " ",
]  # fmt: skip
SHOW_VARIABLES = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(os.environb[n.encode()] for n in sys.argv[1:]))"


def output(shell: str, script: bytes, *arguments: str) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "script.sh"
        file.write_bytes(script)
        result = subprocess.run(
            [*shell.split(), file, *arguments], env={}, cwd=directory, capture_output=True, check=True, timeout=20
        )
        assert list(Path(directory).iterdir()) == [file], "no text is ever a command"
    assert result.stderr == b""
    return result.stdout.decode().split("\0")


def as_json(image: ImageConfig) -> ImageConfig:
    """The same config as it comes from a registry."""
    execution = {"Env": image.environment, "Entrypoint": image.entrypoint, "Cmd": image.command}
    return parse_config(json.dumps({"config": execution, "rootfs": {"type": "layers", "diff_ids": []}}).encode())


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=12, deadline=None)
@given(st.lists(text, max_size=5), st.lists(text, min_size=1, max_size=5), st.lists(text, max_size=3))
@example(HOSTILE, HOSTILE, [])
@example([], HOSTILE, HOSTILE)
@example(["-n"], ["-e"], [""])
def test_commands_are_exact(shell: str, entrypoint: list[str], command: list[str], arguments: list[str]) -> None:
    script = run_script(as_json(config(entrypoint=(sys.executable, "-c", SHOW, *entrypoint), command=tuple(command))))
    assert output(shell, script, *arguments)[:-1] == entrypoint + (arguments or command)


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=12, deadline=None)
@given(st.dictionaries(st.from_regex(r"\AV[A-Za-z0-9_]{0,8}\Z"), text, min_size=1, max_size=5))
@example({f"V{number}": value for number, value in enumerate(HOSTILE)})
def test_environments_are_exact(shell: str, variables: dict[str, str]) -> None:
    script = environment_script(as_json(config(tuple(f"{name}={value}" for name, value in variables.items()))))
    show = f"exec '{sys.executable}' -c '{SHOW_VARIABLES.replace(chr(39), chr(34))}' {' '.join(variables)}\n"
    assert output(shell, script + show.encode()) == list(variables.values())


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=12, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=6))
@example(
    [
        "=x",
        "==",
        "A B=1",
        "A\nB=1",
        "A-B=1",
        "1A=1",
        "$(touch owned)=1",
        "`touch owned`=1",
        "A;touch owned=1",
        "é=1",
        "A[0]=1",
        "A+=1",
    ]
)
@example(["UID=1", "EUID=1", "PPID=1", "SHELLOPTS=x", "BASHOPTS=x", "BASH_VERSINFO=x", "_=x", "IFS=x", "OPTIND=x", "LINENO=x"])
def test_no_entry_of_an_environment_stops_the_others(shell: str, lines: list[str]) -> None:
    if any("\0" in line for line in lines):
        return
    script = environment_script(config((*lines, "VLAST=reached")))
    result = output(shell, script + b'printf %s "$VLAST"\n')
    assert result == ["reached"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_whole_way_from_action_to_command(shell: str, tmp_path: Path) -> None:
    """run reads all of env/, then the runscript; nothing on the way touches arguments, environment or standard input."""
    show = (
        "import os, sys; sys.stdout.buffer.write(b'\\0'.join("
        "[*map(os.fsencode, sys.argv[1:]), os.environb[b'V'], sys.stdin.buffer.read()]))"
    )
    for value in HOSTILE[5:12]:
        image = config((f"V={value}", "PATH=/usr/bin:/bin"), (sys.executable, "-c", show, value), (value, "last"))
        root = ImageRoot(tmp_path / str(HOSTILE.index(value)), as_json(image))
        command = [*shell.split(), str(root.path("actions/run"))]
        result = subprocess.run(command, env={}, input=b"typed", capture_output=True, check=True, timeout=20)
        assert result.stdout.decode().split("\0") == [value, value, "last", value, "typed"]
