"""Access logs as files: plain or gzip, one after the other, bad lines counted and left out."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mirror.errors import InvalidInput, Unavailable
from mirror.report.accesslog import LONGEST_LINE, AccessRecord, parse_line

_GZIP_MAGIC = b"\x1f\x8b"
_KEPT_COMPLAINTS = 5


@dataclass(slots=True)
class BadLines:
    """How many lines could not be read, and the first few reasons."""

    count: int = 0
    first: tuple[str, ...] = ()

    def add(self, where: str, problem: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.first) < _KEPT_COMPLAINTS:
            self.first += (f"{where}: {problem}",)


def read_logs(paths: Iterable[Path], bad: BadLines) -> Iterator[AccessRecord]:
    """Every record of these files, in their order; what cannot be read is added to `bad`.

    Memory is bounded by the longest line that debark writes. Raises Unavailable for a file that cannot be opened.
    """
    for path in paths:
        yield from _read(path, bad)


def _read(path: Path, bad: BadLines) -> Iterator[AccessRecord]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(_lines(file), start=1):
                try:
                    yield parse_line(line)
                except InvalidInput as error:
                    bad.add(f"{path}:{number}", str(error))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        bad.add(f"{path}:{number + 1}", f"the gzip file is damaged: {error}")
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def _open(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    """The file, unpacked on the fly if it is gzip by its content, whatever its name says."""
    with path.open("rb") as file:
        if file.peek(2)[:2] == _GZIP_MAGIC:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
        else:
            yield file


def _lines(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    """Lines that are not empty; one that is too long comes cut, so that it fails as one bad line."""
    while line := file.readline(LONGEST_LINE):
        whole = line
        while not whole.endswith(b"\n") and len(whole) == LONGEST_LINE:
            whole = file.readline(LONGEST_LINE)
        if line.strip():
            yield line
