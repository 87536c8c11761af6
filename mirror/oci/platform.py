"""What machines an image is for, in Go's words, and the ways of writing the same one.

Sources: OCI image specification 1.1, image-index.md ("platform"); the values of GOOS and GOARCH; for variants that mean the same
the rules of containerd's `platforms` package, by which docker and containerd choose images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mirror.errors import InvalidInput

UNKNOWN = "unknown"
"""Operating system and architecture of what is listed beside images without being one, such as BuildKit's attestations."""

_ARCHITECTURES = frozenset(
    ("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x")
)
_OTHER_NAMES = {
    "i386": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_SAME_AS_NONE = {("amd64", "v1"), ("arm64", "v8"), ("arm64", "8")}
_SYSTEM = re.compile(r"[a-z][a-z0-9]{0,15}", re.ASCII)
_VARIANT = re.compile(r"[a-z0-9]{1,16}(?:\.[0-9]{1,2})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Platform:
    """operating system / architecture [/ variant], in Go's words."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `linux/amd64` or `linux/arm64/v8`. Raises InvalidInput."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise InvalidInput(f"'{text[:200]}' is not a platform: expected os/architecture[/variant], such as linux/amd64")
        return cls(*parts)

    @property
    def normal(self) -> Platform:
        """The one way of writing it: `linux/arm64` for `linux/aarch64/v8`, `linux/arm/v7` for `linux/arm`."""
        system = self.os.lower()
        architecture, variant = self.architecture.lower(), self.variant.lower()
        if architecture in _OTHER_NAMES:
            architecture, implied = _OTHER_NAMES[architecture]
            variant = implied or variant
        if architecture == "arm":
            variant = f"v{variant}" if variant.isdigit() else variant or "v7"
        elif (architecture, variant) in _SAME_AS_NONE:
            variant = ""
        return Platform("darwin" if system == "macos" else system, architecture, variant)

    @property
    def is_known(self) -> bool:
        """Whether it is one that programs are made for, and so can be part of a path. Of the normal form only."""
        return (
            self.architecture in _ARCHITECTURES
            and self.os != UNKNOWN
            and _SYSTEM.fullmatch(self.os) is not None
            and (not self.variant or _VARIANT.fullmatch(self.variant) is not None)
        )

    @property
    def is_unknown(self) -> bool:
        """Whether it says of itself that it is for no machine at all."""
        return UNKNOWN in (self.os, self.architecture)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)
