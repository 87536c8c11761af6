"""What clients read of our errors."""

from __future__ import annotations

import json

import pytest

from mirror.errors import Denied, IntegrityError, InvalidInput, MirrorError, NotFound, StorageFull, Unavailable
from mirror.oci.codes import ErrorCode, Subject, code_of, error_body


def test_the_body_has_the_form_of_the_specification() -> None:
    document = json.loads(error_body(ErrorCode.MANIFEST_UNKNOWN, 'no "sid" hére', {"tag": "sid"}))

    assert document == {"errors": [{"code": "MANIFEST_UNKNOWN", "message": 'no "sid" hére', "detail": {"tag": "sid"}}]}


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_a_status_and_words(code: ErrorCode) -> None:
    assert 400 <= code.status < 600
    assert json.loads(error_body(code))["errors"][0]["message"] == code.text != ""


@pytest.mark.parametrize(
    ("error", "subject", "code", "status"),
    [
        (InvalidInput("x"), Subject.NAME, ErrorCode.NAME_INVALID, 400),
        (InvalidInput("x"), Subject.BLOB, ErrorCode.DIGEST_INVALID, 400),
        (NotFound("x"), Subject.MANIFEST, ErrorCode.MANIFEST_UNKNOWN, 404),
        (NotFound("x"), Subject.BLOB, ErrorCode.BLOB_UNKNOWN, 404),
        (NotFound("x"), Subject.NAME, ErrorCode.NAME_UNKNOWN, 404),
        (Denied("x"), Subject.BLOB, ErrorCode.DENIED, 403),
        (Unavailable("x", 3), Subject.MANIFEST, ErrorCode.UNAVAILABLE, 503),
        (StorageFull("x"), Subject.BLOB, ErrorCode.UNAVAILABLE, 503),
        (IntegrityError("x"), Subject.BLOB, ErrorCode.UPSTREAM_INVALID, 502),
        (MirrorError("x"), Subject.BLOB, ErrorCode.UNKNOWN, 500),
    ],
)
def test_our_failures_have_codes(error: MirrorError, subject: Subject, code: ErrorCode, status: int) -> None:
    assert code_of(error, subject) is code
    assert code.status == status
