"""An image's `.singularity.d` on disk, run by a real shell: where a script says /.singularity.d, it means the directory here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from mirror.oci.manifest import ImageConfig
from mirror.oci.platform import Platform
from publisher.cvmfs.entry import Directory, Entry
from publisher.images.singularity import with_singularity_files
from publisher.objects.compress import compressor
from publisher.objects.pipeline import Pipeline, PipelineLimits
from tests.support.layers import content_of
from tests.support.memory_store import MemoryStore

SHELLS = [shell for shell in ("dash", "bash", "bash --posix", "busybox sh") if shutil.which(shell.split()[0])] or ["sh"]
"""What images have as /bin/sh, as command lines."""
SHOW = "import os, sys; sys.stdout.buffer.write(b'\\0'.join([*map(os.fsencode, sys.argv[1:]), b'']))"
"""Python code that writes its arguments, a zero byte behind each."""


def config(environment: tuple[str, ...] = (), entrypoint: tuple[str, ...] = (), command: tuple[str, ...] = ()) -> ImageConfig:
    return ImageConfig(Platform("linux", "amd64"), (), environment, entrypoint, command, {})


class ImageRoot:
    """The files of `.singularity.d`, and of /scif below it, for one image config."""

    def __init__(self, directory: Path, image: ImageConfig) -> None:
        self._directory = directory
        store, flat = MemoryStore(), Directory(Entry(mode=0o40755))
        with Pipeline(store, compressor("zlib-1"), PipelineLimits()) as pipeline:
            with_singularity_files(flat, image, pipeline)
        own = flat.children[b".singularity.d"]
        assert isinstance(own, Directory)
        for path, entry in own.walk():
            place = self.path(path.decode())
            if entry.is_directory:
                place.mkdir(parents=True, exist_ok=True)
            else:
                self.write(path.decode(), content_of(store, entry))

    def path(self, name: str) -> Path:
        return self._directory / ".singularity.d" / name

    def write(self, name: str, script: bytes) -> None:
        here = os.fsencode(self._directory)
        place = self.path(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        moved = script.replace(b"/.singularity.d", here + b"/.singularity.d")
        moved = moved.replace(b"/scif/apps", here + b"/.singularity.d/scif/apps")
        place.write_bytes(moved)
        place.chmod(0o755)

    def run(self, shell: str, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*shell.split(), self.path(name), *map(os.fsencode, arguments)],
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            check=False,
            timeout=20,
        )
