"""Running the real tools that the tests are made of."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


class ToolFailed(Exception):
    """A tool said no; the message has its command line and what it printed."""


def run(
    argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path = TOP, seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run to the end; output that is no UTF-8 comes as surrogates. Raises ToolFailed unless it exits with 0."""
    done = subprocess.run(
        argv, env=env, cwd=cwd, timeout=seconds, capture_output=True, encoding="utf-8", errors="surrogateescape", check=False
    )
    if done.returncode != 0:
        command = " ".join(str(word) for word in argv)
        raise ToolFailed(f"{command}\nexit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done


def as_root(argv: Sequence[str | Path]) -> list[str | Path]:
    """The same command run by root: owners and devices of an unpacked image are real only then."""
    return list(argv) if os.geteuid() == 0 else ["sudo", "--non-interactive", *argv]
