"""Error codes of the registry API, in one table, and the JSON form in which clients read them.

Sources: OCI distribution specification 1.1, "Error Codes"; PAGINATION_NUMBER_INVALID, RANGE_INVALID, UNAVAILABLE and
UNKNOWN are the distribution project's; REQUEST_INVALID and UPSTREAM_INVALID are our own, in the form that the specification asks
of a code.
"""

from __future__ import annotations

import json
from enum import Enum, StrEnum
from typing import Any

from mirror.errors import (
    Denied,
    IntegrityError,
    InvalidInput,
    MirrorError,
    NotFound,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)


class ErrorCode(StrEnum):
    """What a client's program can tell errors apart by."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    DENIED = "DENIED"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    PAGINATION_NUMBER_INVALID = "PAGINATION_NUMBER_INVALID"
    RANGE_INVALID = "RANGE_INVALID"
    REQUEST_INVALID = "REQUEST_INVALID"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    UNAUTHORIZED = "UNAUTHORIZED"
    UNAVAILABLE = "UNAVAILABLE"
    UNKNOWN = "UNKNOWN"
    UNSUPPORTED = "UNSUPPORTED"
    UPSTREAM_INVALID = "UPSTREAM_INVALID"

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return _TABLE[self][0]

    @property
    def text(self) -> str:
        """What is said where nothing more exact is known."""
        return _TABLE[self][1]


class Subject(Enum):
    """What a request was about: the same failure has another code for another thing."""

    NAME = "name"
    MANIFEST = "manifest"
    BLOB = "blob"


_TABLE: dict[ErrorCode, tuple[int, str]] = {
    ErrorCode.BLOB_UNKNOWN: (404, "the upstream has no such blob in this repository"),
    ErrorCode.DENIED: (403, "access to this is denied"),
    ErrorCode.DIGEST_INVALID: (400, "this is not a digest"),
    ErrorCode.MANIFEST_INVALID: (400, "this is neither a tag nor a digest"),
    ErrorCode.MANIFEST_UNKNOWN: (404, "the upstream has no such manifest in this repository"),
    ErrorCode.NAME_INVALID: (400, "this is not a repository name"),
    ErrorCode.NAME_UNKNOWN: (404, "this repository is not known"),
    ErrorCode.PAGINATION_NUMBER_INVALID: (400, "this is not a number of tags"),
    ErrorCode.RANGE_INVALID: (416, "the blob has no such range of bytes"),
    ErrorCode.REQUEST_INVALID: (400, "this is no HTTP request that can be read"),
    ErrorCode.TOOMANYREQUESTS: (429, "too many requests"),
    ErrorCode.UNAUTHORIZED: (401, "authentication is required"),
    ErrorCode.UNAVAILABLE: (503, "the upstream cannot be reached now"),
    ErrorCode.UNKNOWN: (500, "the mirror failed in a way that it did not expect"),
    ErrorCode.UNSUPPORTED: (405, "this operation is not supported by a mirror"),
    ErrorCode.UPSTREAM_INVALID: (502, "what the upstream sent is not what its name promises"),
}

_SAME = {
    Unauthenticated: ErrorCode.UNAUTHORIZED,
    Denied: ErrorCode.DENIED,
    TooManyRequests: ErrorCode.TOOMANYREQUESTS,
    Unavailable: ErrorCode.UNAVAILABLE,
    IntegrityError: ErrorCode.UPSTREAM_INVALID,
}
"""Codes that are the same for every subject; the more exact error stands before the one that it is a kind of."""
_INVALID = {
    Subject.NAME: ErrorCode.NAME_INVALID,
    Subject.MANIFEST: ErrorCode.MANIFEST_INVALID,
    Subject.BLOB: ErrorCode.DIGEST_INVALID,
}
_NOT_FOUND = {
    Subject.NAME: ErrorCode.NAME_UNKNOWN,
    Subject.MANIFEST: ErrorCode.MANIFEST_UNKNOWN,
    Subject.BLOB: ErrorCode.BLOB_UNKNOWN,
}


def code_of(error: MirrorError, subject: Subject) -> ErrorCode:
    """The code for a failure of ours.

    An upstream that throttles the mirror is UNAVAILABLE (503), not TOOMANYREQUESTS: clients fall back at once from the former and
    wait half a minute per request on the latter. That one is for clients that ask too much of the mirror itself.
    """
    if isinstance(error, InvalidInput):
        return _INVALID[subject]
    if isinstance(error, NotFound):
        return _NOT_FOUND[subject]
    return next((code for kind, code in _SAME.items() if isinstance(error, kind)), ErrorCode.UNKNOWN)


def error_body(code: ErrorCode, message: str | None = None, detail: Any = None) -> bytes:
    """The JSON document of one error, in UTF-8; without a message the code's own text. `detail` may be anything JSON can hold."""
    error: dict[str, Any] = {"code": code.value, "message": code.text if message is None else message}
    if detail is not None:
        error["detail"] = detail
    return json.dumps({"errors": [error]}, ensure_ascii=False).encode()
