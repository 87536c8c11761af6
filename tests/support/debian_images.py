"""Recipe of real images: a Debian root file system, changed and packed by umoci and GNU tar.

    base     the root file system as mmdebstrap makes it, device nodes included; one layer
    other    base and a small layer of its own
    full     base; what `umoci repack` makes of real changes; an opaque directory; a whiteout; a layer in the POSIX form of GNU
             tar, which alone keeps nanoseconds; and a config with everything that starts a container

Run by root as `python -m tests.support.debian_images DIRECTORY`, it leaves the OCI layout DIRECTORY/debian with these tags.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

from tests.support.tool import ToolFailed, run

BIG_FILE_SIZE = 40 * 1024 * 1024
_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""security.capability of version 2: cap_net_raw, permitted and effective."""


def debian_sources() -> tuple[str, list[str]]:
    """The code name of this machine's Debian and the one-line apt sources that it is installed from. Raises ToolFailed."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    codename = release.get("VERSION_CODENAME", "").strip('"')
    form = "$(RELEASE)\tdeb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    targets = run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).stdout.splitlines()
    lines = sorted({line.split("\t")[1] for line in targets if line.startswith(f"{codename}\t") and line.endswith(" main")})
    if not codename or not lines:
        raise ToolFailed(f"apt knows no source of this machine's own release '{codename}': see /etc/apt/sources.list")
    return codename, lines


def build(directory: Path) -> None:
    """Make the layout below an empty directory."""
    layout, bundle = directory / "debian", directory / "bundle"
    _base(directory, layout)
    run(["umoci", "unpack", "--image", f"{layout}:base", bundle])
    _change(bundle / "rootfs")
    run(["umoci", "repack", "--image", f"{layout}:full", bundle])
    shutil.rmtree(bundle)
    _opaque(directory, layout)
    run(["umoci", "insert", "--image", f"{layout}:full", "--whiteout", "/opt/zoo/tree/gone"])
    _posix_layer(directory, layout)
    _configure(layout)
    note = directory / "note"
    note.write_text("an image that shares its first layer\n")
    run(["umoci", "insert", "--image", f"{layout}:base", "--tag", "other", note, "/opt/note"])
    note.unlink()
    run(["umoci", "gc", "--layout", layout])


def _base(directory: Path, layout: Path) -> None:
    codename, sources = debian_sources()
    listing, tar = directory / "sources.list", directory / "base.tar"
    listing.write_text("\n".join(sources) + "\n")
    run(["mmdebstrap", "--quiet", "--variant=minbase", codename, tar, listing], seconds=900)
    run(["umoci", "init", "--layout", layout])
    run(["umoci", "new", "--image", f"{layout}:base"])
    run(["umoci", "raw", "add-layer", "--image", f"{layout}:base", tar])
    tar.unlink()
    listing.unlink()


def _change(root: Path) -> None:
    """What a Dockerfile's RUN might do, and then some."""
    (root / "etc/issue").unlink()
    shutil.rmtree(root / "usr/share/doc/apt")
    (root / "etc/debian_version").unlink()
    (root / "etc/debian_version").mkdir()
    (root / "etc/debian_version/inside").write_text("a file became a directory\n")
    shutil.rmtree(root / "usr/share/doc/dpkg")
    (root / "usr/share/doc/dpkg").write_text("a directory became a file\n")
    shutil.rmtree(root / "usr/share/doc/tar")
    (root / "usr/share/doc/tar").symlink_to("../common-licenses")
    (root / "etc/issue.net").chmod(0o600)
    (root / "usr/bin/perlthanks").unlink()  # one of several names of one file
    (root / "usr/bin/perlthanks").write_text("#!/bin/sh\n")

    zoo = root / "opt/zoo"
    zoo.mkdir()
    _files(zoo)
    _names(os.fsencode(zoo))
    _special(zoo)
    for name in ("tree/kept", "tree/gone/deep", "opaque/below"):
        (zoo / name).mkdir(parents=True)
        (zoo / name / "file").write_text(name)


def _files(zoo: Path) -> None:
    (zoo / "empty").touch()
    noise = random.Random(1)
    with (zoo / "big").open("wb") as big:
        for _ in range(BIG_FILE_SIZE // 2**20):
            big.write(noise.randbytes(2**19) + b"0123456789abcdef" * 2**15)
    attributes = {"set-user-id": 0o6755, "unreadable": 0, "write-only": 0o200}
    for name, mode in attributes.items():
        (zoo / name).write_text(name)
        os.chown(zoo / name, 1234, 5678)
        (zoo / name).chmod(mode)
    (zoo / "large-ids").touch()
    os.chown(zoo / "large-ids", 3_000_000_000, 2**31)
    for name, mode in {"closed": 0o000, "sticky": 0o1777, "set-group-id": 0o2770}.items():
        (zoo / name).mkdir()
        (zoo / name).chmod(mode)
    for name, seconds in {"before-1970": -315_360_000, "after-2242": 2**33}.items():
        (zoo / name).touch()
        os.utime(zoo / name, (seconds, seconds))
    (zoo / "one").write_text("one file of three names\n")
    (zoo / "links").mkdir()
    for name in ("two", "links/three", "links/four"):
        (zoo / name).hardlink_to(zoo / "one")
    for name, target in {"variable": "$(X)/$(HOME)", "absolute": "/etc/passwd", "dangling": "../../../nowhere"}.items():
        (zoo / name).symlink_to(target)


def _names(zoo: bytes) -> None:
    names = (
        b"na\xc3\xafve \xe6\x96\x87\xe4\xbb\xb6",
        b"no-utf8-\xff\xfe",
        b"n" * 255,
        b"new\nline",
        b" blank",
        b"$(X)",
        b"back\\slash",
    )
    for name in names:
        with open(zoo + b"/" + name, "wb") as file:  # noqa: PTH123 - pathlib has no paths of bytes
            file.write(name)
    os.symlink("/ziel/für/é".encode(), zoo + b"/non-ascii-target")  # noqa: PTH211 - as above
    os.symlink(b"t" * 1000, zoo + b"/long-target")  # noqa: PTH211


def _special(zoo: Path) -> None:
    os.mkfifo(zoo / "fifo", 0o640)
    os.mknod(zoo / "character-device", 0o20644, os.makedev(1, 3))
    os.mknod(zoo / "block-device", 0o60644, os.makedev(7, 0))
    (zoo / "attributes").touch()
    os.setxattr(zoo / "attributes", "user.binary", bytes(range(255)))
    os.setxattr(zoo / "attributes", "user.text", b"value")
    os.setxattr(zoo / "attributes", "security.capability", _CAPABILITY)


def _opaque(directory: Path, layout: Path) -> None:
    content = directory / "opaque"
    (content / "new").mkdir(parents=True)
    (content / "new" / "file").write_text("nothing of below is left\n")
    (content / "below").mkdir()
    run(["umoci", "insert", "--image", f"{layout}:full", "--opaque", content, "/opt/zoo/opaque"])
    shutil.rmtree(content)


def _posix_layer(directory: Path, layout: Path) -> None:
    source, tar = directory / "posix", directory / "posix.tar"
    deep = source / "opt/zoo/posix"
    deep.mkdir(parents=True)
    for number in range(20):
        (deep / f"file-{number}").write_text(str(number))
        os.utime(deep / f"file-{number}", ns=(0, 1_700_000_000_000_000_001 + number * 123_456_789))
    (deep / "linked").hardlink_to(deep / "file-7")
    os.setxattr(deep / "file-3", "user.from", b"GNU tar")
    for path in (deep, *deep.parents):
        os.utime(path, ns=(0, 1_699_999_999_987_654_321))
        if path == source:
            break
    pax = ["--format=posix", "--pax-option=delete=atime,delete=ctime", "--xattrs", "--xattrs-include=user.*"]
    run(["tar", *pax, "--sort=name", "--owner=0", "--group=0", "-C", source, "-cf", tar, "."])
    run(["umoci", "raw", "add-layer", "--image", f"{layout}:full", tar])
    shutil.rmtree(source)
    tar.unlink()


def _configure(layout: Path) -> None:
    settings = {
        "env": ["PATH=/usr/bin:/bin", "QUOTED=a \"b\" 'c' $HOME `d` \\e", "EMPTY="],
        "entrypoint": ["/bin/sh", "-c"],
        "cmd": ['echo "it\'s" $0'],
        "label": ["org.opencontainers.image.title=zoo"],
        "workingdir": ["/opt/zoo"],
    }
    options = [word for name, values in settings.items() for value in values for word in (f"--config.{name}", value)]
    run(["umoci", "config", "--image", f"{layout}:full", *options])


if __name__ == "__main__":
    build(Path(sys.argv[1]))
