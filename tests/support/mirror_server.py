"""The wired mirror on a loopback port, in front of a registry that misbehaves; its state is real SQL, no publisher runs."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from mirror.app import open_mirror
from mirror.config.models import Config
from mirror.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.proxy.access_log import access_logger
from mirror.report.writer import AccessLog
from tests.support.faulty_registry import FaultyRegistry

HUB = "hub.test"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """Of the first error."""
        code: str = json.loads(self.body)["errors"][0]["code"]
        return code

    @property
    def message(self) -> str:
        """Of the first error."""
        message: str = json.loads(self.body)["errors"][0]["message"]
        return message


@dataclass
class MirrorServer:
    hub: FaultyRegistry
    data: Path
    port: int
    metrics: Metrics
    session: aiohttp.ClientSession
    access_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ask(self, method: str, path: str, **headers: str) -> Answer:
        """path: as it goes over the wire. headers: with `_` for `-`."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        url = URL(f"{self.url}{path}", encoded=True)
        async with self.session.request(method, url, headers=fields, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, **headers)

    async def head(self, path: str, **headers: str) -> Answer:
        return await self.ask("HEAD", path, **headers)

    def access_lines(self) -> list[dict[str, Any]]:
        """To be called after the server has stopped: only then everything is written."""
        return [json.loads(line) for line in self.access_file.read_text().splitlines()]

    def counted(self, name: str, **labels: str) -> float:
        """The value of one counter now."""
        text, _ = self.metrics.render()
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0.0


@asynccontextmanager
async def mirror_server(
    root: Path,
    *,
    upstream: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    upstreams: Mapping[str, Any] | None = None,
    metrics: Metrics | None = None,
) -> AsyncIterator[MirrorServer]:
    """upstream: settings of `hub.test`, the default upstream. settings: further sections of the configuration.

    upstreams: settings of further upstreams, by name.
    """
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(FaultyRegistry())
        table = {"url": hub.url, "attempts": 1, "connect_timeout": 2, "read_timeout": 2, **(upstream or {})}
        sections = {"store": {"min_free": 0}, "tags": {"ttl": 0, "absent": 0}, **(settings or {})}
        tables = {HUB: table, **(upstreams or {})}
        server = {"data": root / "data", **sections.pop("server", {})}
        config = Config.model_validate({"default_upstream": HUB, "server": server, "upstreams": tables, **sections})
        counted = metrics or Metrics(process=False)
        access_file = root / "access.jsonl"
        access_log = AccessLog(access_file)
        stack.callback(access_log.close)
        mirror = await stack.enter_async_context(open_mirror(config, counted))
        runner = await mirror.open_runner(access_log_class=access_logger(access_log, counted), shutdown_timeout=0.2)
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        stack.enter_context(_nothing_unhandled())
        yield MirrorServer(hub, config.data, runner.addresses[0][1], counted, session, access_file)
        hub.release.set()


class _Collector(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.errors: list[BaseException | str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append((record.exc_info and record.exc_info[1]) or record.getMessage())


@contextmanager
def _nothing_unhandled() -> Iterator[None]:
    """What the server itself has to report is a bug of the application."""
    handler = _Collector(logging.ERROR)
    logger = logging.getLogger("aiohttp.server")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert not [error for error in handler.errors if not isinstance(error, HttpProcessingError)]


@dataclass(frozen=True)
class Image:
    """An image that a hub has; its layer is bytes, no archive."""

    raw: bytes
    digest: Digest
    config: Digest
    layer: Digest


def add_image(hub: FaultyRegistry, repository: str, tag: str, layer: bytes) -> Image:
    """Give the hub an image of one layer."""
    config = b'{"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}'
    named = [(CONFIG_TYPE, config), (LAYER_TYPE, layer)]
    first, second = (
        {"mediaType": media_type, "digest": str(hub.add_blob(data)), "size": len(data)} for media_type, data in named
    )
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": first, "layers": [second]}
    raw = json.dumps(document, indent=3).encode()
    return Image(raw, hub.add_manifest(repository, tag, raw), Digest.of(config), Digest.of(layer))
