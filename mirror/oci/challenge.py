"""What a server asks for in `WWW-Authenticate`.

Sources: RFC 9110, sections 11.2 and 11.6.1 (challenges, several of them in one field line or in many); the distribution project's
token authentication specification (`Bearer` with realm, service and scope). The header comes from a foreign server, so reading it
never fails: what cannot be understood is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

MAX_HEADER_LENGTH = 8192
"""Characters of one field line that are looked at."""

_SEPARATORS = re.compile(r"[ \t,]*")
_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?=[ \t,]|$)")
_PARAMETER = re.compile(r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"=][^\s,"]*))""", re.DOTALL)
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: its scheme and the names of its parameters in lower case, the values unquoted."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BearerChallenge:
    """Where to get a token (realm, a URL as the server wrote it), and for what."""

    realm: str
    service: str | None
    scope: str | None


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """Read all `WWW-Authenticate` field lines of one response, in order. Never raises."""
    return tuple(challenge for value in values for challenge in _parse_line(value[:MAX_HEADER_LENGTH]))


def find_bearer(challenges: Iterable[Challenge]) -> BearerChallenge | None:
    """The first usable Bearer challenge: one that has a realm."""
    for challenge in challenges:
        realm = challenge.parameters.get("realm")
        if challenge.scheme == "bearer" and realm:
            return BearerChallenge(realm, challenge.parameters.get("service"), challenge.parameters.get("scope"))
    return None


def accepts_basic(challenges: Iterable[Challenge]) -> bool:
    """Whether user name and password may be sent as they are (RFC 7617)."""
    return any(challenge.scheme == "basic" for challenge in challenges)


def _parse_line(line: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while True:
        separators = _SEPARATORS.match(line, position)
        position = separators.end() if separators else position
        if position >= len(line):
            break
        parameter = _PARAMETER.match(line, position)
        if parameter and found:
            quoted, plain = parameter.group(2), parameter.group(3)
            value = plain if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
            found[-1][1].setdefault(parameter.group(1).lower(), value)
            position = parameter.end()
            continue
        scheme = None if parameter else _SCHEME.match(line, position)
        if scheme:
            found.append((scheme.group().lower(), {}))
            token68 = _TOKEN68.match(line, scheme.end())
            position = token68.end() if token68 else scheme.end()
            continue
        comma = line.find(",", position)
        if comma < 0:
            break
        position = comma + 1
    return [Challenge(scheme_name, MappingProxyType(parameters)) for scheme_name, parameters in found]
