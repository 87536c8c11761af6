"""`Authorization: Basic` (RFC 7617). Pure."""

from __future__ import annotations

import base64
import binascii


def read_basic(value: str) -> tuple[str, str]:
    """User and password; two empty texts for what is none."""
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password
