"""A registry for measurements: images of one random layer, counted requests, as cheap as a Python server can be.

    python -m tests.bench.proxy_upstream DIRECTORY [--images 6] [--layer-mb 200]

Prints a JSON line: its port, and for each tag the digests of manifest and layer. `GET /v2/_counts` tells and resets the counts;
`GET /v2/_rate/40` makes each transfer as slow as 40 MB a second, 0 as fast as it goes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from pathlib import Path

from tests.support.registry_client import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, digest_of

REPOSITORY = "bench/app"
_PIECE = 1 << 18


class Registry:
    """Serves the files of a directory, named by digest."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rate = 0.0
        self._tags: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def add(self, tag: str, layer_bytes: int) -> dict[str, str]:
        """Make an image; what the one who measures has to know of it."""
        layer = os.urandom(layer_bytes)
        root = {"type": "layers", "diff_ids": [digest_of(layer)]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": root})
        descriptors = [
            {"mediaType": media_type, "digest": self._keep(data), "size": len(data)}
            for media_type, data in ((OCI_CONFIG, config.encode()), (OCI_LAYER, layer))
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptors[0], "layers": descriptors[1:]}
        self._tags[tag] = self._keep(json.dumps({**document, "annotations": {"padding": "x" * 1500}}).encode())
        kept, layer_kept = (str(descriptor["digest"]) for descriptor in descriptors)
        return {"tag": tag, "manifest": self._tags[tag], "config": kept, "layer": layer_kept}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head.decode("latin-1"), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _keep(self, data: bytes) -> str:
        digest = digest_of(data)
        (self._directory / digest).write_bytes(data)
        return digest

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> None:
        method, path, _ = head.split(" ", 2)
        kind, reference = path.split("/")[-2:]
        if reference == "_counts" or kind == "_rate":
            body = json.dumps(self._counts).encode()
            self._counts.clear()
            self._rate = float(reference) * 1e6 if kind == "_rate" else self._rate
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return
        self._counts[f"{method} {kind}"] += 1
        digest = self._tags.get(reference, reference)
        file = self._directory / digest
        if not file.exists():
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        media_type = OCI_MANIFEST if kind == "manifests" else "application/octet-stream"
        fields = f"Content-Length: {file.stat().st_size}\r\nContent-Type: {media_type}\r\nDocker-Content-Digest: {digest}"
        writer.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode())
        if method == "GET":
            await self._send(file, writer)

    async def _send(self, file: Path, writer: asyncio.StreamWriter) -> None:
        began, sent = time.monotonic(), 0
        with file.open("rb") as content:
            while piece := content.read(_PIECE):
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
                if self._rate:
                    await asyncio.sleep(max(sent / self._rate - (time.monotonic() - began), 0))


async def _main(directory: Path, images: int, layer_bytes: int) -> None:
    registry = Registry(directory)
    made = [registry.add(f"image-{number}", layer_bytes) for number in range(images)]
    server = await asyncio.start_server(registry.serve, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "images": made}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--layer-mb", type=int, default=200)
    options = parser.parse_args()
    asyncio.run(_main(options.directory, options.images, options.layer_mb << 20))
