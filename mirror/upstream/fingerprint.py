"""Telling credentials apart without keeping them: by a hash with a key that is in memory only, and new with each start.

The processes of a server share it: the parent makes it, and workers are forked with it. It tells none of them anything of what
another one was given, since fingerprints leave no process.
"""

from __future__ import annotations

import hmac
import secrets

from mirror.upstream.model import Credential

_KEY = secrets.token_bytes(32)

NOBODY = b""
"""In place of the fingerprint of a credential where there is none."""


def fingerprint(credential: Credential | None) -> bytes:
    """The same for a user name and password as long as the server runs, another for all others; tells nothing of either."""
    if credential is None:
        return NOBODY
    kind = b"token" if credential.is_identity_token else b"password"
    parts = (kind, credential.username.encode("utf-8", "surrogatepass"), credential.password.encode("utf-8", "surrogatepass"))
    return hmac.digest(_KEY, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")
