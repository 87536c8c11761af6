"""Whatever text an image config has, a shell hands on the same."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.images.shell import environment_script, run_script
from tests.support.image_scripts import SHELLS, SHOW, config

awkward = st.sampled_from("'\"\\$`!*?[]{}()<>|&;#~= \t\n\r-%^a0")
text = st.text(st.one_of(awkward, st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=30)
SHOW_VARIABLES = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(os.environb[n.encode()] for n in sys.argv[1:]))"


def output(shell: str, script: bytes, *arguments: str) -> list[str]:
    with tempfile.NamedTemporaryFile(suffix=".sh") as file:
        file.write(script)
        file.flush()
        result = subprocess.run([shell, file.name, *arguments], env={}, capture_output=True, check=True, timeout=20)
    assert result.stderr == b""
    return result.stdout.decode().split("\0")


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=60, deadline=None)
@given(st.lists(text, max_size=5), st.lists(text, min_size=1, max_size=5), st.lists(text, max_size=3))
def test_commands_are_exact(shell: str, entrypoint: list[str], command: list[str], arguments: list[str]) -> None:
    script = run_script(config(entrypoint=(sys.executable, "-c", SHOW, *entrypoint), command=tuple(command)))
    assert output(shell, script, *arguments)[:-1] == entrypoint + (arguments or command)


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.from_regex(r"\AV[A-Za-z0-9_]{0,8}\Z"), text, min_size=1, max_size=5))
def test_environments_are_exact(shell: str, variables: dict[str, str]) -> None:
    script = environment_script(config(tuple(f"{name}={value}" for name, value in variables.items())))
    show = f"exec '{sys.executable}' -c '{SHOW_VARIABLES.replace(chr(39), chr(34))}' {' '.join(variables)}\n"
    assert output(shell, script + show.encode()) == list(variables.values())
