"""How long `debark serve` takes from its start to the first answer, with an empty store and with a full one.

    python -m tests.bench.start [--blobs 1000000] [--workers 1] [--rounds 5] [--directory DIR]

The store gets so many blobs of one byte each under digests that they do not have (nobody reads them), in hard links to one file
where the file system allows it. Both servers publish nothing, and take turns in each round. Prints medians: seconds to the first
answer of /v2/, CPU seconds of all processes until then, and their proportional memory (PSS) a second later.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.registry_client import RegistryClient

_SETTINGS = "[server]\nworkers = {workers}\n[store]\nmin_free = 0\n[publish]\nenabled = false\n"
_LINKS = 30_000
"""Names that one file may have; file systems allow 65,000 (ext4) and more."""
_PATIENCE_SECONDS = 60.0
_QUIET_SECONDS = 1.0


@dataclass(frozen=True)
class Start:
    answer: float
    cpu: float
    memory: float


def fill(data: Path, blobs: int) -> None:
    """Give the store so many blobs; what is there from an earlier run stays."""
    mark = data / f"filled-{blobs}"
    if mark.exists():
        return
    luck = random.Random(1)
    shelves = [data / "blobs" / "sha256" / f"{number:02x}" for number in range(256)]
    for shelf in shelves:
        shelf.mkdir(parents=True, exist_ok=True)
    source = data / "source"
    for number in range(blobs):
        name = f"{luck.getrandbits(256):064x}"
        path = shelves[int(name[:2], 16)] / name
        if number % _LINKS == 0:
            source.unlink(missing_ok=True)
            source.write_bytes(b"x")
        os.link(source, path)
    mark.touch()


def start(data: Path, settings: Path) -> Start:
    """Start, wait for the first answer, and stop."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "debark"), "serve", "--data", str(data), "--config", str(settings)]
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--listen", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    try:
        client = RegistryClient(f"127.0.0.1:{port}")
        while not _answers(client):
            if time.perf_counter() - began > _PATIENCE_SECONDS:
                raise TimeoutError(f"no answer from {command}")
        answer = time.perf_counter() - began
        cpu = sum(map(_cpu_seconds, _family(process.pid)))
        time.sleep(_QUIET_SECONDS)
        memory = sum(map(_memory_mb, _family(process.pid)))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE_SECONDS)
    return Start(answer, cpu, memory)


def _answers(client: RegistryClient) -> bool:
    try:
        return client.get("/v2/").status == 200
    except ConnectionRefusedError:
        time.sleep(0.002)
        return False


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    """Proportional set size: what processes share is counted once in all."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no memory of process {pid}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blobs", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="Where the stores are kept for the next run; a temporary one without it.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory: Path = options.directory or Path(temporary)
        settings = directory / "debark.toml"
        directory.mkdir(parents=True, exist_ok=True)
        settings.write_text(_SETTINGS.format(workers=options.workers))
        stores = {"empty": directory / "empty", f"{options.blobs} blobs": directory / "full"}
        fill(directory / "full", options.blobs)
        found: dict[str, list[Start]] = {name: [] for name in stores}
        for _ in range(options.rounds):
            for name, data in stores.items():
                found[name].append(start(data, settings))
    for name, starts in found.items():
        answer, cpu, memory = (
            statistics.median(getattr(one, figure) for one in starts) for figure in ("answer", "cpu", "memory")
        )
        print(f"{name:>16}: first answer after {answer:.2f} s, CPU {cpu:.2f} s, memory {memory:.0f} MB")


if __name__ == "__main__":
    main()
