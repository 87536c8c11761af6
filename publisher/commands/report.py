"""What verbs print: sentences and progress bars on a terminal, one structured line a result elsewhere, or JSON lines."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Update(Protocol):
    """To be told of progress."""

    def __call__(self, done: int, total: int | None, what: str | None = None) -> None:
        """How much is done, of how much if that is known, and what it is that is done now if that is another thing."""


_PLAIN = re.compile(r"[^\s\"=\x00-\x1f\x7f-\x9f]+")


class Report:
    """One verb's output. Results go to standard output, all else to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._is_terminal = sys.stdout.isatty()

    @property
    def shows_progress(self) -> bool:
        """Whether `progress` shows a bar, which other output would tear."""
        return Console(stderr=True).is_terminal and not self.as_json

    def result(self, sentence: str, **fields: object) -> None:
        """One result: a sentence for people, the same as fields for programs."""
        if self.as_json:
            click.echo(json.dumps(fields))
        elif self._is_terminal:
            click.echo(sentence)
        else:
            click.echo(" ".join(f"{name}={_value(value)}" for name, value in fields.items()))

    def line(self, text: str, **fields: object) -> None:
        """One result that has the same form for people and in pipes, such as a name in a listing."""
        click.echo(json.dumps(fields) if self.as_json else text)

    def table(self, **fields: object) -> None:
        """One result of many fields, for people one a line."""
        width = max(map(len, fields))
        self.result("\n".join(f"{name:{width}}  {_shown(value)}" for name, value in fields.items()), **fields)

    def warn(self, text: str) -> None:
        """Something that must not be overlooked."""
        click.secho(f"WARNING: {text}", err=True, fg="yellow", bold=True)

    @contextmanager
    def progress(self, what: str, *, is_bytes: bool = False) -> Iterator[Update]:
        """A progress bar on a terminal for as long as the block takes; nothing elsewhere."""
        console = Console(stderr=True)
        if not self.shows_progress:
            yield _ignore
            return
        amount = TextColumn("{task.fields[amount]}") if is_bytes else MofNCompleteColumn()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), amount, TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=None, amount="")

            def update(done: int, total: int | None, what: str | None = None) -> None:
                bar.update(task, completed=done, total=total, amount=size(done), description=what)

            yield update


def size(amount: int) -> str:
    """Bytes for people."""
    value = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _ignore(done: int, total: int | None, what: str | None = None) -> None:
    """For where nobody looks."""


def _value(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return _value(",".join(map(str, value)))
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return "none" if value is None else ("yes" if value else "no") if isinstance(value, bool) else str(value)
