"""The least that unpacking must cost: inflate, find the files in the tar, deflate, SHA-1 and write each of them, no more.

No catalogs, no checks of hostile input, no digests of layers, no transaction, no sync. Same compressor, chunk size and cores as
the publisher, as few Python calls as possible. `python -m tests.bench.limit --compressor NAME --out DIR BLOB...` prints one JSON
line with the seconds that it took, and the CPU seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from isal import igzip

from publisher.objects.compress import compressor

_BLOCK = 512
_CHUNK = 8 << 20
_BATCH = 256 << 10
_AHEAD = 16
"""Batches under way per layer."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _files(tar: _Readable) -> Iterator[bytes]:
    """Content of regular files, large ones in chunks; the extended headers in between are skipped."""
    while (header := tar.read(_BLOCK)) and header[0]:
        field = header[124:136]
        size = int.from_bytes(field[1:], "big") if field[0] & 0x80 else int(field.split(b"\0")[0].strip() or b"0", 8)
        if header[156:157] in b"0\0":
            for offset in range(0, size, _CHUNK):
                yield tar.read(min(_CHUNK, size - offset))
        else:
            tar.read(size)
        tar.read(-size % _BLOCK)


def _store(pieces: list[bytes], compress: Callable[[bytes], bytes | bytearray], out: str) -> None:
    for piece in pieces:
        stored = compress(piece)
        name = hashlib.sha1(stored, usedforsecurity=False).hexdigest()
        try:
            descriptor = os.open(f"{out}/{name[:2]}/{name[2:]}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue
        os.write(descriptor, stored)
        os.close(descriptor)


def _layer(blob: Path, pool: ThreadPoolExecutor, compress: Callable[[bytes], bytes | bytearray], out: str) -> None:
    running: deque[Future[None]] = deque()
    batch: list[bytes] = []
    waiting = 0
    with blob.open("rb") as packed:
        compressed = packed.read(2) == b"\x1f\x8b"
        packed.seek(0)
        inflated = igzip.IGzipFile(fileobj=packed, mode="rb")  # type: ignore[no-untyped-call]
        with inflated if compressed else packed as tar:
            for piece in _files(tar):
                batch.append(piece)
                waiting += len(piece)
                if waiting >= _BATCH:
                    running.append(pool.submit(_store, batch, compress, out))
                    batch, waiting = [], 0
                if len(running) >= _AHEAD:
                    running.popleft().result()
    running.append(pool.submit(_store, batch, compress, out))
    for future in running:
        future.result()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--compressor", required=True)
    arguments.add_argument("--out", type=Path, required=True, help="a directory that does not exist yet")
    arguments.add_argument("blobs", type=Path, nargs="+")
    given = arguments.parse_args()
    for number in range(256):
        (given.out / f"{number:02x}").mkdir(parents=True)
    compress = compressor(given.compressor).compress
    cores = len(os.sched_getaffinity(0))
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with ThreadPoolExecutor(cores) as pool, ThreadPoolExecutor(len(given.blobs)) as layers:
        for done in [layers.submit(_layer, blob, pool, compress, str(given.out)) for blob in given.blobs]:
            done.result()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"seconds": seconds, "cpu": cpu}))


if __name__ == "__main__":
    main()
