"""Who asks for something of an upstream, as far as it matters there. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mirror.upstream.model import Credential


@dataclass(frozen=True, slots=True)
class Visitor:
    """One request's: what the client gave to be used at the upstream that the request names, for the repository that it names."""

    address: str = ""
    credential: Credential | None = None
    challenge: str | None = None
    """How to ask it for one (`WWW-Authenticate`); None if none would be taken."""


ANYBODY = Visitor()
