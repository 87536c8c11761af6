"""Keeps tokens, passwords and keys out of logs (design, section 8, rule 7). Pure.

The rule of the project is not to log secrets at all; this is the net below it, for text that others made: exceptions of
libraries, URLs of redirects, headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

HIDDEN = "[hidden]"

_SECRET_KEY = re.compile(
    r"(?:^|[_-])(?:(?:proxy[_-])?authorization|pass(?:word|wd)?|secret|(?:identity)?token|cookie|private[_-]?key|masterkey)$",
    re.IGNORECASE,
)
_PATTERNS = (
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"\bgAAAA[A-Za-z0-9_-]{40,}={0,2}"), HIDDEN),
    (re.compile(r"(://)[^/@\s\"']+@"), rf"\1{HIDDEN}@"),
    (
        re.compile(
            r"([?&](?:[a-z0-9_-]*token|sig|[a-z-]*signature|[a-z-]*credential|password|key-pair-id|policy)=)[^&\s\"'>]+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            r"(\b(?:[a-z]+_)?(?:password|passwd|secret|(?:identity)?token)[\"']?\s*[=:]\s*)[\"']?[^\s\"',;&}]+", re.IGNORECASE
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
)
_DEEPEST = 6


def redact(value: Any, depth: int = 0) -> Any:
    """The value with every secret replaced that is known by its key or by its form; foreign objects become text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {str(key): HIDDEN if _SECRET_KEY.search(str(key)) else redact(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [redact(item, depth + 1) for item in value]
    return redact_text(value if isinstance(value, str) else str(value))


def redact_text(text: str) -> str:
    """The text with tokens, passwords in URLs, signatures of URLs and private keys replaced."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """`redact` as a structlog processor; keys that begin with an underscore are the logging machinery's own."""
    for key, value in event.items():
        if not key.startswith("_"):
            event[key] = HIDDEN if _SECRET_KEY.search(key) else redact(value)
    return event
