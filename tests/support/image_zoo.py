"""Images that real tools make of the same files: buildah, umoci and skopeo."""

from __future__ import annotations

import tarfile
from pathlib import Path

from tests.support.clients import Skopeo
from tests.support.tool import as_root, run

BASE = "base"
CHANGED = "changed"
_CONTAINERFILE = """\
FROM scratch
COPY tool data /opt/app/
ADD added.tar /opt/
COPY --chown=12:34 --chmod=2750 tree /opt/app/owned/
COPY other /opt/app/data
ENV PATH=/opt/app
ENTRYPOINT ["tool"]
"""


def build(directory: Path) -> Path:
    """An OCI layout: `base` as buildah makes it of four instructions, `changed` with what umoci puts on top of it."""
    context, layout = directory / "context", directory / "layout"
    (context / "tree" / "deep").mkdir(parents=True)
    (context / "Containerfile").write_text(_CONTAINERFILE)
    (context / "tool").write_text("#!/bin/sh\necho tool\n")
    (context / "tool").chmod(0o4755)
    (context / "data").write_bytes(bytes(range(256)) * 400)
    (context / "other").write_text("what a later layer makes of it\n")
    (context / "tree" / "file").write_text("in a tree\n")
    (context / "tree" / "deep" / "link").symlink_to("../file")
    with tarfile.open(context / "added.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(context / "tree", "unpacked")
    stores: list[str | Path] = ["--root", directory / "store", "--runroot", directory / "run", "--storage-driver", "vfs"]
    buildah: list[str | Path] = ["buildah", *stores]
    run(as_root([*buildah, "bud", "--quiet", "--layers", "--isolation", "chroot", "--format", "oci", "--tag", "zoo", context]))
    run(as_root([*buildah, "push", "--quiet", "zoo", f"oci:{layout}:{BASE}"]))
    run(as_root(["rm", "-rf", directory / "store", directory / "run"]))
    note = directory / "note"
    note.write_text("umoci was here\n")
    run(as_root(["umoci", "insert", "--image", f"{layout}:{BASE}", "--tag", CHANGED, note, "/opt/app/owned/note"]))
    run(as_root(["umoci", "insert", "--image", f"{layout}:{CHANGED}", "--whiteout", "/opt/unpacked/file"]))
    run(as_root(["umoci", "insert", "--image", f"{layout}:{CHANGED}", "--opaque", context / "tree", "/opt/app/owned/deep"]))
    return layout


def label(layout: Path, tag: str, name: str) -> None:
    """The same image with a config, and so a root file system, of its own, as tag `name`."""
    run(as_root(["umoci", "config", "--image", f"{layout}:{tag}", "--tag", name, "--config.label", f"form={name}"]))


def push_compressed(skopeo: Skopeo, layout: Path, tag: str, name: str, scratch: Path) -> None:
    """Push the image with its layers compressed with zstd."""
    plain, packed = scratch / "plain", scratch / "packed"
    skopeo.convert(f"oci:{layout}:{tag}", f"dir:{plain}", "--dest-decompress")
    skopeo.convert(f"dir:{plain}", f"dir:{packed}", "--dest-compress", "--dest-compress-format", "zstd")
    skopeo.convert(f"dir:{packed}", f"docker://{name}", "--preserve-digests", "--dest-tls-verify=false")
