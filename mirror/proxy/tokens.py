"""Bearer tokens (JWT, RFC 7519) of issuers that the operator named, whose public keys are in a file: nobody is asked.

A token is right if one of the issuer's keys has signed it, for this mirror (`aud`), and its time is not over (`exp`, `nbf`).
Keys are a JWK set (RFC 7517), as issuers publish them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import jwt
import structlog

from mirror.errors import InvalidInput
from mirror.watched_file import WatchedFile

log = structlog.get_logger()

_ALGORITHMS = frozenset({"ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"})
"""Signatures only: with a shared secret whoever can read the file could issue tokens."""
_CLAIMS = ["exp", "iss", "aud", "sub"]
_LONGEST = 16_384


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who may vouch for users."""

    name: str
    """As in the token's `iss`."""
    audience: str
    """What the token's `aud` must name: this mirror."""
    keys: Path


class TokenVerifier:
    """Tells who a token belongs to."""

    def __init__(self, issuers: Iterable[Issuer], *, leeway: float = 30.0, timer: Callable[[], float] = time.monotonic) -> None:
        """leeway: seconds that clocks may differ. Raises InvalidInput if an issuer's keys cannot be read."""
        self._leeway = leeway
        self._issuers = {issuer.name: (issuer, WatchedFile(issuer.keys, read_keys, timer=timer)) for issuer in issuers}

    def user(self, token: str) -> str | None:
        """The token's `sub`; None if the token is not right."""
        if len(token) > _LONGEST:
            return None
        try:
            stated = jwt.decode(token, options={"verify_signature": False}).get("iss")
            key_id = jwt.get_unverified_header(token).get("kid")
            issuer, keys = self._issuers[str(stated)]
            return self._subject(token, issuer, [key for key in keys.current() if key_id in (None, key.key_id)])
        except (jwt.PyJWTError, KeyError, ValueError) as error:
            log.info("token_refused", reason=str(error)[:200])
            return None

    def _subject(self, token: str, issuer: Issuer, keys: Iterable[jwt.PyJWK]) -> str | None:
        for key in keys:
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[str(key.algorithm_name)],
                    audience=issuer.audience,
                    issuer=issuer.name,
                    leeway=self._leeway,
                    options={"require": _CLAIMS},
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                continue
            return str(claims["sub"]) or None
        return None


def read_keys(path: Path) -> list[jwt.PyJWK]:
    """The public keys of a JWK set. Raises InvalidInput."""
    try:
        found = jwt.PyJWKSet.from_dict(json.loads(path.read_text(encoding="utf-8"))).keys
    except (OSError, ValueError, AttributeError, TypeError, jwt.PyJWTError) as error:
        raise InvalidInput(f"{path} is no set of public keys (JWKS): {error}") from error
    usable = [key for key in found if key.algorithm_name in _ALGORITHMS]
    if not usable:
        raise InvalidInput(f"{path} has no key for signatures that anybody may check ({', '.join(sorted(_ALGORITHMS))})")
    return usable
