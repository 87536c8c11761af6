"""Keys to an S3 service: from a file in the form that Amazon's own tools read, or from the environment."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mirror.errors import InvalidInput

_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """An access key. What is secret of it is in no representation."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def from_file(path: Path, profile: str) -> S3Credentials:
    """The profile of a credentials file. Raises InvalidInput; no message repeats anything of the file.

    The file has a section `[profile]` with the lines `aws_access_key_id = ...`, `aws_secret_access_key = ...` and, where it is
    needed, `aws_session_token = ...`.
    """
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        with path.open("rb") as file:
            parser.read_string(file.read(_LARGEST).decode())
    except OSError as error:
        raise InvalidInput(f"the credentials file {path} cannot be read: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError):
        raise InvalidInput(f"the credentials file {path} is not of the form '[{profile}]', 'aws_access_key_id = ...'") from None
    if not parser.has_section(profile):
        raise InvalidInput(f"the credentials file {path} has no section [{profile}]; name another one with 'profile'")
    section = parser[profile]
    return _credentials(section, ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"), f"{path} [{profile}]")


def from_environment(environment: Mapping[str, str]) -> S3Credentials:
    """The keys that AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN hold. Raises InvalidInput."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return _credentials(environment, names, "the environment, and no 'credentials_file' is named;")


def _credentials(source: Mapping[str, str], names: tuple[str, str, str], place: str) -> S3Credentials:
    access_key, secret_key, token = (source.get(name, "") for name in names)
    if not access_key or not secret_key:
        raise InvalidInput(f"the S3 storage needs an access key: {names[0]} and {names[1]} are not both in {place}".rstrip(";"))
    return S3Credentials(access_key, secret_key, token)
