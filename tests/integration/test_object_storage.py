"""A stratum 0 in object storage: published there, read from where its settings say that clients find it."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mirror.errors import NotFound
from publisher.check import check
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.reader import RepositoryReader
from tests.support.clients import Skopeo
from tests.support.debark_process import IMPATIENT, DebarkProcess
from tests.support.hub import Hub
from tests.support.published import follow, inside, public_key
from tests.support.s3_server import BUCKET, CREDENTIALS, S3Server
from tests.support.small_images import tiny

SETTINGS = """
storage = "s3://{bucket}/sites/here"
[publish.s3]
endpoint = "{endpoint}"
credentials_file = "s3-keys"
public_url = "{public_url}/sites/here"
"""
KEYS = f"[default]\naws_access_key_id = {CREDENTIALS.access_key}\naws_secret_access_key = {CREDENTIALS.secret_key}\n"


class Web:
    """A repository as anybody gets it over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, content: ContentHash, kind: ObjectKind) -> bytes:
        return self.read_file(content.object_path(kind))

    def read_file(self, name: str) -> bytes:
        try:
            with urllib.request.urlopen(f"{self._url}/{name}", timeout=10) as answer:
                data: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise NotFound(f"{name}: {error.code}") from error
        return data

    def pieces(self, content: ContentHash, kind: ObjectKind) -> Iterator[bytes]:
        yield self.get(content, kind)


def test_an_image_is_published_in_a_bucket(hub: Hub, s3_server: S3Server, skopeo: Skopeo, tmp_path: Path) -> None:
    settings = IMPATIENT + SETTINGS.format(bucket=BUCKET, endpoint=s3_server.endpoint, public_url=s3_server.public_url)
    debark = DebarkProcess(tmp_path / "debark", {"hub.test": hub.url}, settings)
    (tmp_path / "debark" / "s3-keys").write_text(KEYS)
    tiny("in a bucket").push(hub.client(), "storage/s3", "1")
    with debark:
        skopeo.pull(f"{debark.address}/hub.test/storage/s3:1", "s3")
        image = debark.wait_for("hub.test/storage/s3:1")
        (url,) = (found["server_url"] for found in debark.repositories() if found["fqrn"] == image["fqrn"])
        assert url == f"{s3_server.public_url}/sites/here/{image['fqrn']}"
        assert f'CVMFS_SERVER_URL="{s3_server.public_url}/sites/here/@fqrn@"' in debark.output()
        reader = RepositoryReader(Web(url), image["fqrn"], public_key(debark, image["fqrn"]))
        assert reader.read(follow(reader, inside(image)) + b"/etc/motd") == b"in a bucket"
        assert [str(problem) for problem in check(reader, data=True)] == []
    assert not (debark.data / "cvmfs").exists()
    assert CREDENTIALS.secret_key not in debark.output() + "".join(log.read_text() for log in (debark.data / "log").iterdir())
