"""Values as people write them in the file: sizes, durations, addresses, URLs.

A size is a number of bytes, or text such as "2 GiB"; a duration is a number of seconds, or text such as "15 min". Both come out
as plain numbers. Every reader raises ValueError with what is allowed; the loader adds where it stood.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from mirror.errors import InvalidInput
from mirror.oci.platform import Platform
from mirror.oci.reference import canonical_registry, check_repository

_QUANTITY = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([A-Za-z]+)\s*", re.ASCII)
_LISTEN = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})", re.ASCII)
_FQRN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,58}[a-z0-9])?", re.ASCII)
_HOST_PATTERN = re.compile(r"[A-Za-z0-9*.-]{1,253}(?::[0-9]{1,5})?", re.ASCII)
_URL_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@|[?&]password=", re.IGNORECASE)
_COMPRESSION_LEVELS = {"zlib": 9, "libdeflate": 12}
_STORAGE = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9](?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}){0,16}", re.ASCII)
_PREFIX = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*){0,15}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Unit:
    """Mark of a quantity's type: how its amounts are read and shown."""

    name: str
    plural: str
    factors: tuple[tuple[str, int], ...]
    """Suffix and factor, the base unit first, then upwards."""

    def show(self, amount: float) -> str:
        """The amount as text, in the largest unit that holds it exactly, such as `2 GiB`; reading it gives the amount again."""
        for suffix, factor in reversed(self.factors):
            if amount and amount % factor == 0:
                return f"{int(amount // factor)} {suffix}"
        return f"{amount} {self.factors[0][0]}"

    def read(self, given: Any) -> Any:
        """A number as it is; text with a unit as a number of the base unit. Raises ValueError."""
        if isinstance(given, int | float) and not isinstance(given, bool):
            return given
        match = _QUANTITY.fullmatch(given) if isinstance(given, str) else None
        factor = dict(self.factors).get(match[2]) if match else None
        if match is None or factor is None:
            units = ", ".join(suffix for suffix, _ in self.factors)
            raise ValueError(f"a {self.name}: a number of {self.plural}, or text with one of the units {units}")
        amount = float(match[1]) * factor
        return int(amount) if amount.is_integer() else amount


SIZE = Unit("size", "bytes", (("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)))
DURATION = Unit("duration", "seconds", (("s", 1), ("min", 60), ("h", 3600), ("d", 86400)))


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[IPv6 address]:port`. Raises ValueError."""
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError("an address to listen on: host:port, such as 127.0.0.1:8585, 0.0.0.0:8585 or [::1]:8585")
    return match["v6"] or match["host"], int(match["port"])


def _listen(text: str) -> str:
    parse_listen(text)
    return text


def _addresses(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError("an IP address or a range of them, such as 10.0.0.0/8 or 2001:db8::/32") from error
    return text


def _http_url(text: str) -> str:
    """An http or https URL of a host: credentials, query and fragment have no place in it."""
    problem = "a URL such as https://registry.example.org, without user, query and fragment"
    try:
        parts = urlsplit(text)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ValueError(problem) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine or not text.isascii() or " " in text:
        raise ValueError(problem)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(problem)
    return text.rstrip("/")


def _optional_http_url(text: str) -> str:
    return _http_url(text) if text else text


def check_host(text: str) -> str:
    """A host name or address, with or without port, in lower case. Raises ValueError."""
    if not _HOST.fullmatch(text):
        raise ValueError("a host name with or without port, such as registry.example.org or 127.0.0.1:5000")
    return text.lower()


def _fqrn(text: str) -> str:
    if not _FQRN.fullmatch(text) or "." not in text or ".." in text:
        raise ValueError("a fully qualified CVMFS repository name such as unpacked-1.example.org, 60 characters at most")
    return text


def _registry(text: str) -> str:
    return canonical_registry(check_host(text))


def _repository_path(text: str) -> str:
    try:
        return check_repository(text)
    except InvalidInput as error:
        raise ValueError("the beginning of repository names, such as our-team or our-team/internal") from error


def _host_pattern(text: str) -> str:
    if not _HOST_PATTERN.fullmatch(text):
        raise ValueError("a host name, with * for any characters and a port if it matters, such as *.cdn.example.org")
    return text.lower()


def _prefix(text: str) -> str:
    if text and not _PREFIX.fullmatch(text):
        raise ValueError("the beginning of repository names, such as docker.io or proxies/hub, without a slash at its ends")
    return text


def _platform(text: str) -> str:
    try:
        return str(Platform.parse(text))
    except InvalidInput as error:
        raise ValueError("a platform: os/architecture[/variant], such as linux/amd64") from error


def _compressor(text: str) -> str:
    family, _, level = text.rpartition("-")
    if not level.isascii() or not level.isdigit() or not 1 <= int(level[:3]) <= _COMPRESSION_LEVELS.get(family, 0):
        raise ValueError("a compressor and its level: zlib-1 to zlib-9, or libdeflate-1 to libdeflate-12")
    return text


def _database_url(text: str) -> str:
    """Checked as far as it concerns secrets; what the database layer can open, it says itself."""
    if text and "://" not in text:
        raise ValueError("a database URL such as postgresql://debark@db.example.org/debark")
    if _URL_PASSWORD.search(text):
        raise ValueError("a database URL without a password; put the password into a file and name it with 'password_file'")
    return text


def _storage(text: str) -> str:
    text = text.rstrip("/")
    if text and not _STORAGE.fullmatch(text):
        raise ValueError('a bucket, with or without a prefix, such as s3://bucket/cvmfs, or "" for the data directory')
    return text


def _expand(path: Path) -> Path:
    return path.expanduser()


Size = Annotated[int, BeforeValidator(SIZE.read), Strict(), SIZE]
Duration = Annotated[float, BeforeValidator(DURATION.read), DURATION]
WholeSeconds = Annotated[int, BeforeValidator(DURATION.read), Strict(), DURATION]
Count = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
Addresses = Annotated[str, AfterValidator(_addresses)]
Listen = Annotated[str, AfterValidator(_listen)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
OptionalHttpUrl = Annotated[str, AfterValidator(_optional_http_url)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
RegistryName = Annotated[str, AfterValidator(_registry)]
RepositoryPath = Annotated[str, AfterValidator(_repository_path)]
HostPattern = Annotated[str, AfterValidator(_host_pattern)]
RepositoryPrefix = Annotated[str, Field(max_length=200), AfterValidator(_prefix)]
Fqrn = Annotated[str, AfterValidator(_fqrn)]
PlatformName = Annotated[str, AfterValidator(_platform)]
StoragePlace = Annotated[str, AfterValidator(_storage)]
Compressor = Annotated[str, AfterValidator(_compressor)]
FilePath = Annotated[Path, AfterValidator(_expand)]
