"""Messages of errors: shown to people, so always text, and never without end."""

from __future__ import annotations

import json

from mirror.errors import Denied, MirrorError, Unavailable
from mirror.oci.codes import ErrorCode, error_body


def test_what_is_no_text_is_shown_as_a_question_mark() -> None:
    message = str(Denied("no \ud800 here, but höhle"))
    assert message == "no ? here, but höhle"
    assert json.loads(error_body(ErrorCode.DENIED, message))["errors"][0]["message"] == message


def test_a_message_has_an_end() -> None:
    assert len(str(MirrorError("x" * 3_000_000))) < 10_100


def test_further_facts_stay() -> None:
    error = Unavailable("later", 5.0)
    assert (str(error), error.retry_after) == ("later", 5.0)
