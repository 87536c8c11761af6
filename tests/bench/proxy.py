"""What does the mirror cost as a cache, next to others on the same cores in the same run?

    python -m tests.bench.proxy [--rounds 3] [--layer-mb 200] [--rate-mb 40] [--seconds 3]

A registry of our own (tests/bench/proxy_upstream.py) counts what it is asked. In front of it: `debark serve`, once with a
publisher (so manifests carry hints) and once without (so nobody else fetches), nginx as a cache if it is installed, and a bare
aiohttp handler that answers with as many bytes as a manifest has. Each round measures in turn:

    fill      CPU seconds a GB of a blob that nobody waits for, against the limit: receive, SHA-256, write, fsync in a plain loop
    cold      16 and 64 clients that ask for one blob at once, against one client of the upstream itself, which gives so many
              bytes a second: first and last byte
    manifest  a warm tag on 64 connections: CPU microseconds a request, 99th percentile; with two workers as well: where load and
              server share two cores, it is the CPU a request that shows whether a second worker costs anything
    config    the same of a small blob
    blob      a warm blob, 64 clients, three times: CPU seconds a GB, bytes a second
    slow      500 clients that stop reading: memory of each, manifests meanwhile
    idle      2000 connections that wait for their next request: memory of each

Medians are printed, ratios, and how many cores the rest of the machine kept busy: without that no figure can be judged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import proxy_load
from tests.bench.proxy_upstream import REPOSITORY
from tests.support.registry_client import RegistryClient

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_START_SECONDS = 60
_BARE = """
import sys
from aiohttp import web
async def handle(_): return web.Response(body=bytes(2000), headers={"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
application = web.Application()
application.router.add_get("/v2/{path:.+}", handle)
web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""
_NGINX = """
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log {directory}/access.log; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  proxy_cache_path {directory}/cache keys_zone=all:10m max_size=20g inactive=1d use_temp_path=off;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_max_temp_file_size 8192m;
      proxy_cache all; proxy_cache_lock on; proxy_cache_lock_timeout 60s; proxy_cache_lock_age 60s; proxy_cache_valid 200 1h;
    }}
  }}
}}
"""

Figures = dict[str, list[float]]


@dataclass(frozen=True)
class Target:
    """A server that is measured; a repository's path differs from one to the other."""

    name: str
    pid: int
    port: int
    repository: str

    def manifest(self, tag: str) -> str:
        return f"/v2/{self.repository}/manifests/{tag}"

    def layer(self, digest: str) -> str:
        return f"/v2/{self.repository}/blobs/{digest}"

    def cpu(self) -> float:
        """CPU seconds so far of the processes that answer."""
        return sum(_process_cpu(pid) for pid in self._answering())

    def memory(self) -> int:
        """Bytes of the processes that answer that are in memory."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE for pid in self._answering())

    def _answering(self) -> list[int]:
        """All of its processes; of debark the workers, which are named by number: neither who keeps them nor the publisher."""
        names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in _tree(self.pid)}
        return [pid for pid, name in names.items() if name.startswith("debark-")] or list(names)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _tree(int(child))


def _process_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _machine_cpu() -> float:
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS


@contextmanager
def _process(command: list[str], output: Path) -> Iterator[subprocess.Popen[str]]:
    with output.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _wait_for(port: int, path: str) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        try:
            if RegistryClient(f"127.0.0.1:{port}").get(path).status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"nothing answers on port {port}")


def _debark(stack: ExitStack, directory: Path, upstream: int, *, publish: bool, workers: int = 1) -> Target:
    port, data = _free_port(), _data(directory, publish=publish, workers=workers)
    settings = data.with_suffix(".toml")
    settings.write_text(f"[publish]\nenabled = {str(publish).lower()}\n")
    command = [str(Path(sys.executable).parent / "debark"), "serve", "--config", str(settings), "--data", str(data)]
    command += ["--listen", f"127.0.0.1:{port}", f"--upstream=hub.test=http://127.0.0.1:{upstream}", f"--workers={workers}"]
    process = stack.enter_context(_process(command, data.with_suffix(".err")))
    _wait_for(port, "/healthz")
    name = "debark" if workers == 1 else f"debark, {workers} workers"
    return Target(name, process.pid, port, f"hub.test/{REPOSITORY}")


def _data(directory: Path, *, publish: bool, workers: int = 1) -> Path:
    return directory / f"{'publishing' if publish else 'caching'}-{workers}"


def _peers(stack: ExitStack, directory: Path, upstream: int) -> Iterator[Target]:
    port = _free_port()
    bare = stack.enter_context(_process([sys.executable, "-c", _BARE, str(port)], directory / "bare.err"))
    _wait_for(port, "/v2/any")
    yield Target("bare aiohttp", bare.pid, port, REPOSITORY)
    if shutil.which("nginx"):
        port, place = _free_port(), directory / "nginx"
        place.mkdir()
        (place / "nginx.conf").write_text(_NGINX.format(directory=place, port=port, upstream=upstream))
        nginx = stack.enter_context(_process(["nginx", "-c", str(place / "nginx.conf")], directory / "nginx.err"))
        _wait_for(port, f"/v2/{REPOSITORY}/manifests/image-0")
        yield Target("nginx", nginx.pid, port, REPOSITORY)


def _limit(upstream: int, layer: str, directory: Path) -> float:
    """CPU seconds a GB of the least that a fill is: receive, hash, write, sync."""
    before, hasher, buffer, size = time.process_time(), hashlib.sha256(), memoryview(bytearray(1 << 20)), 0
    file = os.open(directory / f"limit-{layer}", os.O_CREAT | os.O_WRONLY)
    with socket.create_connection(("127.0.0.1", upstream)) as one:
        one.sendall(f"GET /v2/{REPOSITORY}/blobs/{layer} HTTP/1.1\r\n\r\n".encode())
        head = one.recv(65536)
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        piece: bytes | memoryview = head.partition(b"\r\n\r\n")[2]
        while True:
            hasher.update(piece)
            size += os.write(file, piece)
            if size == length:
                break
            piece = buffer[: one.recv_into(buffer)]
    os.fsync(file)
    os.close(file)
    assert f"sha256:{hasher.hexdigest()}" == layer
    return (time.process_time() - before) / size * 1e9


def _fill(mirror: Target, data: Path, image: dict[str, str]) -> float:
    """CPU seconds a GB of bringing a layer in."""
    client, layer = RegistryClient(f"127.0.0.1:{mirror.port}"), image["layer"]
    client.get(mirror.manifest(image["tag"]))
    before = mirror.cpu()
    client.get(mirror.layer(layer), {"Range": "bytes=0-0"})
    name = layer.removeprefix("sha256:")
    stored = data / "blobs" / "sha256" / name[:2] / name
    while not stored.exists():
        time.sleep(0.01)
    return (mirror.cpu() - before) / stored.stat().st_size * 1e9


def _cold(figures: Figures, mirror: Target, upstream: Target, image: dict[str, str], clients: int, rate: float) -> None:
    control = RegistryClient(f"127.0.0.1:{upstream.port}")
    control.get(f"/v2/_rate/{rate}")
    RegistryClient(f"127.0.0.1:{mirror.port}").get(mirror.manifest(image["tag"]))
    alone = proxy_load.blobs(upstream.port, upstream.layer(image["layer"]), 1)
    _counts(upstream)
    shared = proxy_load.blobs(mirror.port, mirror.layer(image["layer"]), clients)
    figures[f"cold, {clients} clients: upstream GETs of the blob"].append(_counts(upstream).get("GET blobs", 0))
    figures[f"cold, {clients} clients: last first byte, ms behind the upstream's"].append(
        1e3 * (max(shared.first) - alone.first[0])
    )
    figures[f"cold, {clients} clients: last client / upstream's own time"].append(shared.seconds / alone.seconds)
    figures["failed requests"].append(shared.failed)
    control.get("/v2/_rate/0")


def _counts(upstream: Target) -> dict[str, int]:
    counts: dict[str, int] = RegistryClient(f"127.0.0.1:{upstream.port}").get("/v2/_counts").json()
    return counts


def _small(figures: Figures, what: str, targets: list[tuple[Target, str]], seconds: float) -> None:
    for target, path in targets:
        before = target.cpu()
        load = proxy_load.manifests(target.port, path, 64, seconds)
        figures[f"{what}, {target.name}: CPU us a request"].append((target.cpu() - before) / load.requests * 1e6)
        figures[f"{what}, {target.name}: p99 ms"].append(1e3 * load.share(0.99))
        figures["failed requests"].append(load.failed)


def _warm_blobs(figures: Figures, targets: list[Target], layer: str) -> None:
    for target in targets:
        before = target.cpu()
        load = proxy_load.blobs(target.port, target.layer(layer), 64)
        figures[f"blob, {target.name}: CPU s a GB"].append((target.cpu() - before) / load.size * 1e9)
        figures[f"blob, {target.name}: MB/s"].append(load.size / load.seconds / 1e6)
        figures["failed requests"].append(load.failed)


def _crowds(figures: Figures, mirror: Target, layer: str) -> None:
    before = mirror.memory()
    with proxy_load.slow_readers(mirror.port, mirror.layer(layer), 500):
        load = proxy_load.manifests(mirror.port, mirror.manifest("image-0"), 1, 2)
        figures["slow, 500 readers: KB of memory each"].append((mirror.memory() - before) / 500 / 1e3)
        figures["slow, 500 readers: manifest p99 ms meanwhile"].append(1e3 * load.share(0.99))
    before = mirror.memory()
    with proxy_load.idle(mirror.port, 2000):
        figures["idle, 2000 connections: KB of memory each"].append((mirror.memory() - before) / 2000 / 1e3)


def _measure(directory: Path, rounds: int, options: argparse.Namespace) -> Figures:
    figures: Figures = defaultdict(list)
    with ExitStack() as stack:
        command = [
            sys.executable,
            "-m",
            "tests.bench.proxy_upstream",
            str(directory / "upstream"),
            "--images",
            str(3 * rounds + 1),
        ]
        command += ["--layer-mb", str(options.layer_mb)]
        (directory / "upstream").mkdir()
        process = stack.enter_context(_process(command, directory / "upstream.err"))
        assert process.stdout is not None
        made: dict[str, Any] = json.loads(process.stdout.readline())
        upstream = Target("upstream", process.pid, made["port"], REPOSITORY)
        mirror = _debark(stack, directory, upstream.port, publish=True)
        pair = _debark(stack, directory, upstream.port, publish=True, workers=2)
        quiet = _debark(stack, directory, upstream.port, publish=False)
        peers = list(_peers(stack, directory, upstream.port))
        warm, *cold = made["images"]
        caches = [mirror, *(peer for peer in peers if peer.name == "nginx")]
        for cache in [*caches, pair]:
            client = RegistryClient(f"127.0.0.1:{cache.port}")
            for path in (cache.manifest(warm["tag"]), cache.layer(warm["config"]), cache.layer(warm["layer"])):
                client.get(path)
        for number in range(rounds):
            busy, own, began = _machine_cpu(), _own_cpu([upstream, mirror, pair, quiet, *peers]), time.monotonic()
            filled, few, many = cold[3 * number : 3 * number + 3]
            figures["fill, limit: CPU s a GB"].append(_limit(upstream.port, filled["layer"], directory))
            figures["fill, debark: CPU s a GB"].append(_fill(quiet, _data(directory, publish=False), filled))
            _cold(figures, quiet, upstream, few, 16, options.rate_mb)
            _cold(figures, quiet, upstream, many, 64, options.rate_mb)
            order: Callable[[list[Target]], list[Target]] = list if number % 2 == 0 else lambda targets: targets[::-1]
            manifests = [(target, target.manifest("image-0")) for target in order([mirror, pair, *peers])]
            _small(figures, "manifest", manifests, options.seconds)
            _small(figures, "config", [(cache, cache.layer(warm["config"])) for cache in order(caches)], options.seconds)
            for _ in range(3):
                _warm_blobs(figures, order(caches), warm["layer"])
            _crowds(figures, mirror, warm["layer"])
            spent = _machine_cpu() - busy - (_own_cpu([upstream, mirror, pair, quiet, *peers]) - own)
            figures["cores that others kept busy"].append(spent / (time.monotonic() - began))
    return figures


def _own_cpu(targets: list[Target]) -> float:
    return time.process_time() + sum(target.cpu() for target in targets)


def _ratios(figures: Figures) -> Iterator[tuple[str, float]]:
    for name, other in (
        ("fill, debark: CPU s a GB", "fill, limit: CPU s a GB"),
        ("manifest, debark: CPU us a request", "manifest, bare aiohttp: CPU us a request"),
        ("manifest, debark, 2 workers: CPU us a request", "manifest, debark: CPU us a request"),
        ("config, debark: CPU us a request", "config, nginx: CPU us a request"),
        ("blob, debark: CPU s a GB", "blob, nginx: CPU s a GB"),
        ("blob, debark: MB/s", "blob, nginx: MB/s"),
    ):
        if figures.get(other):
            yield f"{name} / {other}", statistics.median(figures[name]) / statistics.median(figures[other])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layer-mb", type=int, default=200)
    parser.add_argument("--rate-mb", type=float, default=40, help="a second, of each transfer in the cold rows; 0: all it can")
    parser.add_argument("--seconds", type=float, default=3, help="of each load of manifests")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="debark-bench-") as directory:
        # Workers of an nginx that root starts are somebody else.
        Path(directory).chmod(0o755)
        figures = _measure(Path(directory), options.rounds, options)
    for name, values in figures.items():
        shown = "  ".join(f"{value:.2f}" for value in values)
        print(f"{statistics.median(values):10.2f}  {name}   ({shown})")
    for name, ratio in _ratios(figures):
        print(f"{ratio:10.2f}  {name}")


if __name__ == "__main__":
    main()
