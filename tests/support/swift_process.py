"""`python -m tests.support.swift_process DIRECTORY SECRET`: OpenStack Swift with its S3 interface, on loopback, in one process.

The account, container and object servers and the proxies are Swift's own applications under its own web server, as sites run
them; here with one disk, one copy of everything, no memcached, and pages of 20 objects. One proxy has the S3 interface, for the
user `test:tester`; the other one lets anybody do anything: it stands for the web server that clients read from. Once they answer,
DIRECTORY/ports has the numbers of both. All end with standard input.
"""

from __future__ import annotations

import sys
from pathlib import Path

import eventlet  # type: ignore[import-untyped]

eventlet.monkey_patch()

import logging  # noqa: E402 (what comes now is to use eventlet's threads and sockets)

from eventlet import wsgi  # noqa: E402
from swift.common.ring import RingBuilder  # type: ignore[import-untyped]  # noqa: E402
from swift.common.utils import set_swift_dir  # type: ignore[import-untyped]  # noqa: E402
from swift.common.wsgi import loadapp  # type: ignore[import-untyped]  # noqa: E402

_POLICY = """
[swift-hash]
swift_hash_path_suffix = tests
[storage-policy:0]
name = one
default = yes
"""
_STORAGE = """
[DEFAULT]
swift_dir = {directory}
devices = {directory}
mount_check = false
log_address = {directory}/none
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """
[DEFAULT]
swift_dir = {directory}
log_address = {directory}/none
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats {filters} proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
max_bucket_listing = 20
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
"""
_WITHOUT_SETTINGS = ("catch_errors", "gatekeeper", "listing_formats", "copy", "slo", "dlo", "versioned_writes")
_S3 = "s3api tempauth copy slo dlo versioned_writes"
_WEB = "copy slo dlo versioned_writes"


def main() -> None:
    directory, secret = Path(sys.argv[1]), sys.argv[2]
    (directory / "disk").mkdir(parents=True)
    (directory / "swift.conf").write_text(_POLICY)
    set_swift_dir(str(directory))
    for kind in ("account", "container", "object"):
        port = _serve(directory, kind, _STORAGE.format(directory=directory, kind=kind))
        ring = RingBuilder(4, 1, 1)
        ring.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "disk", "weight": 1})
        ring.rebalance()
        ring.get_ring().save(str(directory / f"{kind}.ring.gz"))
    proxy = _PROXY + "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in _WITHOUT_SETTINGS)
    s3 = _serve(directory, "s3", proxy.format(directory=directory, secret=secret, filters=_S3))
    web = _serve(directory, "web", proxy.format(directory=directory, secret=secret, filters=_WEB))
    unfinished = directory / "ports.new"
    unfinished.write_text(f"{s3} {web}")
    unfinished.rename(directory / "ports")
    eventlet.tpool.execute(sys.stdin.read)


def _serve(directory: Path, kind: str, configuration: str) -> int:
    """Start one of the servers; its port."""
    file = directory / f"{kind}.conf"
    file.write_text(configuration)
    listening = eventlet.listen(("127.0.0.1", 0))
    quiet = logging.getLogger("quiet")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    application = loadapp(str(file))
    eventlet.spawn(wsgi.server, listening, application, log=quiet, log_output=False)
    port: int = listening.getsockname()[1]
    return port


if __name__ == "__main__":
    main()
