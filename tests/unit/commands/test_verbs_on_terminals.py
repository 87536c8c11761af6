"""What verbs show: bars and sentences on a terminal, one structured line a result elsewhere, or JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.golden import FQRN, server_repository
from tests.support.tool import TOP
from tests.unit.commands.test_verbs import tar

_VERBS = """
import json, sys
from publisher.cli import main

data, verbs = sys.argv[1], json.loads(sys.argv[2])
for verb, *arguments in verbs:
    print(f"<{verb}>", flush=True)
    main([verb, "--data", data, *arguments], standalone_mode=False)
"""
_LONG = {
    "import": ("copying objects",),
    "ingest": ("unpacking", "publishing"),
    "check": ("checking",),
    "gc": ("collecting", "writing the reference log"),
}


def _verbs(directory: Path, *options: str) -> list[list[str]]:
    server = server_repository(directory)
    archive = directory / "archive.tar"
    archive.write_bytes(tar(**{f"file{number}": f"content {number}" for number in range(300)}))
    return [
        ["import", FQRN, "--copy", *server.places, *options],
        ["ingest", FQRN, "-t", str(archive), "-b", "files", "-c", *options],
        ["check", FQRN, "--content", *options],
        ["tag", FQRN, "-r", "first", *options],
        ["gc", FQRN, "--grace", "0", "--alone", *options],
    ]


def _command(directory: Path, verbs: list[list[str]]) -> list[str]:
    return [sys.executable, "-c", _VERBS, str(directory / "data"), json.dumps(verbs)]


def _by_verb(output: str) -> dict[str, str]:
    parts = [part.partition(">") for part in output.split("<")[1:]]
    return {verb: shown for verb, _, shown in parts}


def _in_a_terminal(command: list[str]) -> str:
    main, terminal = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "CI"}}
    environment |= {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, cwd=TOP, env=environment, stdin=terminal, stdout=terminal, stderr=terminal) as child:
        os.close(terminal)
        shown = b""
        while part := _read(main):
            shown += part
        os.close(main)
    assert child.returncode == 0, shown.decode()
    return shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # nobody holds the terminal's other end any more
        return b""


def test_bars_and_sentences_on_a_terminal(tmp_path: Path) -> None:
    shown = _by_verb(_in_a_terminal(_command(tmp_path, _verbs(tmp_path))))
    for verb, bars in _LONG.items():
        for bar in bars:
            assert bar in shown[verb], (verb, shown[verb])
        assert "━" in shown[verb]
        assert "fqrn=" not in shown[verb]
    for verb, sentence in {
        "import": f"took over {FQRN} at revision 4\r\n",
        "ingest": f"{FQRN} is at revision 5: 300 entries unpacked",
        "check": f"{FQRN}, revision 5: no problem in ",
        "gc": f"{FQRN}: deleted ",
    }.items():
        last = shown[verb].rpartition("\x1b[2K")[2]
        assert last.startswith(sentence), (verb, last)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_one_line_a_result_elsewhere(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = subprocess.run(_command(tmp_path, _verbs(tmp_path, *options)), cwd=TOP, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    results = {verb: shown.strip().splitlines() for verb, shown in _by_verb(done.stdout).items()}
    assert set(map(len, results.values())) == {1}
    for verb in _LONG:
        (line,) = results[verb]
        fields = json.loads(line) if options else dict(part.split("=", 1) for part in line.split(" "))
        assert fields["fqrn"] == FQRN
        assert int(fields["revision"]) == (4 if verb == "import" else 5)
