"""Runs `debark-publisher` verbs in this process, as an operator would type them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from publisher.cli import main


class Verbs:
    """Verbs on one data directory."""

    def __init__(self, data: Path, fqrn: str) -> None:
        self.data = data
        self.fqrn = fqrn

    def run(self, verb: str, *arguments: str | Path, code: int = 0, given: bytes | None = None) -> Result:
        """The verb's outcome; arguments that follow the repository's name come behind `--`-less positional ones as they are."""
        words = [verb, "--data", str(self.data), self.fqrn, *map(str, arguments)]
        result = CliRunner().invoke(main, words, input=given)
        assert result.exit_code == code, f"{' '.join(words)}\n{result.output}\n{result.exception!r}"
        return result

    def records(self, verb: str, *arguments: str | Path, code: int = 0, given: bytes | None = None) -> list[dict[str, Any]]:
        """What it prints with --json."""
        return [json.loads(line) for line in self.run(verb, "--json", *arguments, code=code, given=given).stdout.splitlines()]

    def names(self, path: str = "", *arguments: str) -> list[str]:
        """What `ls -R` shows below a path, without the markers of catalogs."""
        lines = self.run("ls", path, "-R", *arguments).stdout.splitlines()
        return sorted(line for line in lines if not line.endswith(".cvmfscatalog"))
