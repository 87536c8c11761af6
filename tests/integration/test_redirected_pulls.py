"""Pulls whose layers come from a replica of the repository, with a real client, publisher, replication and web server."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.clients import Skopeo
from tests.support.debark_process import IMPATIENT, PROGRAMS, DebarkProcess
from tests.support.hub import Hub
from tests.support.published import problems
from tests.support.s3_server import BUCKET, CREDENTIALS, S3Server
from tests.support.small_images import Image, Layer, file

SETTINGS = """packed_layers = true
repositories = ["layers.debark.example"]
[redirect]
smallest = 0
fresh = 1
again = 1
[redirect.places.one]
url = "{url}"
"""
FQRN = "layers.debark.example"
IN_A_BUCKET = """packed_layers = true
repositories = ["layers.debark.example"]
storage = "s3://{bucket}/redirected"
[publish.s3]
endpoint = "{endpoint}"
credentials_file = "s3-keys"
public_url = "{public_url}/redirected"
[redirect]
smallest = 0
[redirect.places.bucket]
url = "{public_url}/redirected"
"""
KEYS = f"[default]\naws_access_key_id = {CREDENTIALS.access_key}\naws_secret_access_key = {CREDENTIALS.secret_key}\n"


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def web_server(directory: Path) -> Iterator[str]:
    """URL of a web server for the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def image(text: bytes) -> Image:
    content = b"".join(hashlib.sha256(text + b"%d" % number).digest() for number in range(100_000))
    return Image((Layer.of(file("data", content)), Layer.of(file("own", text))))


def cache_words(debark: DebarkProcess) -> Counter[str]:
    """How often blobs were answered in which way so far."""
    return Counter(record["cache"] for record in debark.access_records() if record["kind"] == "blob")


def replicate(debark: DebarkProcess, storage: Path) -> None:
    verb = [PROGRAMS / "debark-publisher", "replicate", "--data", debark.data, FQRN]
    source = [f"http://{debark.address}/cvmfs/{FQRN}", "--storage", storage]
    subprocess.run([*map(str, verb), *map(str, source)], check=True, capture_output=True, timeout=120)


def test_layers_come_from_a_replica_as_soon_as_it_has_the_revision_and_no_sooner(
    hub: Hub, tmp_path: Path, skopeo: Skopeo
) -> None:
    with web_server(tmp_path / "stratum1") as url:
        debark = DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}, IMPATIENT + SETTINGS.format(url=f"{url}/cvmfs"))
        replica = tmp_path / "stratum1" / "cvmfs" / FQRN
        with debark:
            for number, tag in enumerate((b"first", b"second")):
                pushed = image(tag)
                pushed.push(hub.client(), "redirected/app", tag.decode())
                name = f"{debark.address}/hub.test/redirected/app:{tag.decode()}"
                skopeo.pull(name, "cold")
                debark.wait_for(f"hub.test/redirected/app:{tag.decode()}")
                before = cache_words(debark)
                assert skopeo.pull(name, f"lagging-{number}").differences(hub, "redirected/app", tag.decode()) == []
                assert (cache_words(debark) - before)["redirected"] == 0, "the replica lags behind"
                replicate(debark, replica)
                before = cache_words(debark)
                # Twice the time that an answer of the replica is good.
                threading.Event().wait(2.0)
                assert skopeo.pull(name, f"replicated-{number}").differences(hub, "redirected/app", tag.decode()) == []
                gained = cache_words(debark) - before
                assert gained == {"redirected": len(pushed.layers), "hit": 1}, "all but the config"
                # What the cache has dropped is not fetched from the hub again.
                digests = [hashlib.sha256(layer.packed).hexdigest() for layer in pushed.layers]
                for digest in digests:
                    (debark.data / "blobs" / "sha256" / digest[:2] / digest).unlink()
                paths = [f"/v2/redirected/app/blobs/sha256:{digest}" for digest in digests]
                fetched = [hub.requests("GET", path) for path in paths]
                copy = skopeo.pull(name, f"evicted-{number}")
                assert [hub.requests("GET", path) for path in paths] == fetched
                assert copy.differences(hub, "redirected/app", tag.decode()) == []
            report = debark.run("report", str(debark.data / "log" / "access.jsonl"))
            assert "redirected" in report.stdout
            assert problems(debark, FQRN) == []


def test_the_mirrors_own_web_server_is_a_place_if_it_is_named(hub: Hub, tmp_path: Path, skopeo: Skopeo) -> None:
    directory = tmp_path / "debark"
    pushed = image(b"own")
    pushed.push(hub.client(), "redirected/own", "1")
    debark = DebarkProcess(directory, {"hub.test": hub.url}, IMPATIENT)
    with debark:
        address = debark.address
    (directory / "debark.toml").write_text(IMPATIENT + SETTINGS.format(url=f"http://{address}/cvmfs"))
    with debark:
        skopeo.pull(f"{address}/hub.test/redirected/own:1", "cold")
        debark.wait_for("hub.test/redirected/own:1")
        # The mirror looks once a second at what was published.
        threading.Event().wait(1.5)
        assert skopeo.pull(f"{address}/hub.test/redirected/own:1", "own").differences(hub, "redirected/own", "1") == []
        assert cache_words(debark)["redirected"] == len(pushed.layers)
        served = [record for record in debark.access_records() if record["kind"] == "cvmfs" and record["method"] == "GET"]
        largest = max(len(layer.packed) for layer in pushed.layers)
        assert any(record["bytes"] == largest for record in served)


def test_a_bucket_that_holds_the_repository_is_a_place(hub: Hub, s3_server: S3Server, tmp_path: Path, skopeo: Skopeo) -> None:
    pushed = image(b"bucket")
    pushed.push(hub.client(), "redirected/bucket", "1")
    settings = IN_A_BUCKET.format(bucket=BUCKET, endpoint=s3_server.endpoint, public_url=s3_server.public_url)
    debark = DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}, IMPATIENT + settings)
    (tmp_path / "debark" / "s3-keys").write_text(KEYS)
    with debark:
        name = f"{debark.address}/hub.test/redirected/bucket:1"
        skopeo.pull(name, "cold")
        debark.wait_for("hub.test/redirected/bucket:1")
        # The mirror looks once a second at what was published.
        threading.Event().wait(1.5)
        assert skopeo.pull(name, "bucket").differences(hub, "redirected/bucket", "1") == []
        assert cache_words(debark)["redirected"] == len(pushed.layers)
