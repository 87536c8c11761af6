"""What containers/storage makes of a repository's podmanStore: an extracted copy, looked at by buildah and skopeo.

Run by root as `python -m tests.support.container_store STORAGE FQRN PUBLIC_KEY WORKDIR NAME...` it prints one JSON object: images
as buildah lists them, the manifest of each name by skopeo in base64, and of each name the file system that the kernel's overlayfs
makes of its layers. `look` is the way to call it from a test.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from publisher.cvmfs.reader import RepositoryReader
from publisher.keys import load_public_key
from publisher.objects.local import LocalObjectStore
from tests.support.extracted import extract
from tests.support.tool import as_root, run
from tests.support.unpacked import Found, walk

NO_OVERLAY = "no-overlay"
"""What stands for the file systems where the kernel has no overlayfs over this machine's file system."""

_CONFIGURATION = """\
[storage]
driver = "overlay"
graphroot = "{work}/graph"
runroot = "{work}/run"
[storage.options]
additionalimagestores = ["{work}/copy/podmanStore"]
"""


@dataclass(frozen=True)
class Seen:
    """images: names by the first digits of an image id. manifests: bytes by name. roots: objects by name; None where overlayfs
    cannot be tried.
    """

    images: dict[str, list[str]]
    manifests: dict[str, bytes]
    roots: dict[str, list[Found]] | None


def look(storage: Path, fqrn: str, public_key: Path, work: Path, names: Sequence[str]) -> Seen:
    """Raises ToolFailed."""
    done = run(as_root([sys.executable, "-m", __name__, storage, fqrn, public_key, work, *names]))
    found: dict[str, Any] = json.loads(done.stdout)
    return Seen(
        {image["id"]: image["names"] for image in found["images"]},
        {name: base64.b64decode(text) for name, text in found["manifests"].items()},
        None
        if found["roots"] == NO_OVERLAY
        else {name: [Found(**item) for item in items] for name, items in found["roots"].items()},
    )


def _main(storage: Path, fqrn: str, public_key: Path, work: Path, names: Sequence[str]) -> None:
    reader = RepositoryReader(LocalObjectStore(storage), fqrn, load_public_key(public_key.read_bytes()))
    extract(reader, work / "copy", b"podmanStore", b".layers")
    configuration = work / "storage.conf"
    configuration.write_text(_CONFIGURATION.format(work=work))
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(configuration)}
    found: dict[str, object] = {}
    try:
        listing = run(["buildah", "images", "--json"], env=environment)
    except Exception as error:
        if "not supported over" not in str(error):
            raise
        print(json.dumps({"images": [], "manifests": {}, "roots": NO_OVERLAY}))
        return
    found["images"] = json.loads(listing.stdout)
    found["manifests"] = {name: _manifest(name, environment) for name in names}
    found["roots"] = {name: _root(name, environment) for name in names}
    shutil.rmtree(work / "copy")
    print(json.dumps(found))


def _manifest(name: str, environment: dict[str, str]) -> str:
    command = ["skopeo", "inspect", "--raw", f"containers-storage:{name}"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    return base64.b64encode(done.stdout).decode()


def _root(name: str, environment: dict[str, str]) -> list[dict[str, Any]]:
    container = run(["buildah", "from", "--pull-never", name], env=environment).stdout.strip()
    try:
        mounted = run(["buildah", "mount", container], env=environment).stdout.strip()
        return [asdict(_as_users_see(found)) for found in walk(Path(mounted))]
    finally:
        run(["buildah", "commit", "--quiet", container, f"localhost/{container}"], env=environment)  # compares layers
        run(["buildah", "rm", container], env=environment)


def _as_users_see(found: Found) -> Found:
    """Without the marks for unprivileged overlays, which a privileged one shows."""
    xattrs = {name: value for name, value in found.xattrs.items() if not name.startswith("user.overlay.")}
    return replace(found, xattrs=xattrs)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
