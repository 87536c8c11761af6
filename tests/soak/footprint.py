"""What a server process holds: descriptors, threads, memory, and files of transfers under way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Footprint:
    """Of a process and all that it started, together."""

    processes: int
    descriptors: int
    threads: int
    megabytes: int
    """Resident, what processes share counted once for each."""
    parts: int

    def __str__(self) -> str:
        names = ("processes", "descriptors", "threads", "megabytes", "parts")
        return ", ".join(f"{name} {getattr(self, name)}" for name in names)


def footprint(pid: int, data: Path) -> Footprint:
    """pid: of `debark serve`, data: its data directory."""
    pids = family(pid)
    return Footprint(
        processes=len(pids),
        descriptors=sum(_entries(Path(f"/proc/{one}/fd")) for one in pids),
        threads=sum(_entries(Path(f"/proc/{one}/task")) for one in pids),
        megabytes=sum(_resident(one) for one in pids) // (1 << 20),
        parts=sum(1 for path in (data / "parts").rglob("*") if path.is_file()),
    )


def family(pid: int) -> list[int]:
    """A process and all its descendants that are alive."""
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def leaves(pid: int) -> list[int]:
    """Descendants that have none of their own: the worker processes, where there are such."""
    return [one for one in family(pid)[1:] if family(one) == [one]]


def _entries(directory: Path) -> int:
    try:
        return sum(1 for _ in directory.iterdir())
    except OSError:
        return 0


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))
