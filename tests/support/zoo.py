"""The real images, built once and kept between test runs outside of the tree, by the content of their recipe."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import sys
from pathlib import Path

from tests.support import debian_images
from tests.support.tool import as_root, run

_KEEP_UNUSED = 30 * 86400
"""Seconds after which what an older recipe made is removed."""


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "debark-tests"


def debian_layout(cache: Path | None = None) -> Path:
    """The OCI layout with the tags that debian_images lists, built if it is not there; safe to call from several processes."""
    cache = cache or cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.sha256(Path(debian_images.__file__).read_bytes())
    recipe.update(f"{platform.machine()} {debian_images.debian_sources()[0]}".encode())
    built = cache / f"debian-{recipe.hexdigest()[:16]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            unfinished = cache / "unfinished"
            run(as_root(["rm", "-rf", unfinished]))
            unfinished.mkdir()
            run(as_root([sys.executable, "-m", debian_images.__name__, unfinished]), seconds=1200)
            unfinished.rename(built)
        os.utime(built)
        for other in cache.glob("debian-*"):
            if other.stat().st_mtime < built.stat().st_mtime - _KEEP_UNUSED:
                run(as_root(["rm", "-rf", other]))
    return built / "debian"
