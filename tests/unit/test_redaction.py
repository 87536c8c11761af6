"""No token, password or key survives in a log event, whatever its way into it."""

import pytest

from mirror.redaction import HIDDEN, redact, redact_text

SECRET = "s3cr3tValue123"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization='Basic {SECRET}=='",
        f"GET https://auth.example.org/token?scope=x&access_token={SECRET}&service=y",
        f"redirected to https://bucket.example.org/blob?X-Amz-Algorithm=A&X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}",
        f"https://cdn.example.org/x?sig={SECRET}&se=2026",
        f"https://cdn.example.org/x?Signature={SECRET}&Key-Pair-Id={SECRET}&Policy={SECRET}",
        f"postgresql+asyncpg://debark:{SECRET}@db/debark",
        f'{{"token": "{SECRET}", "expires_in": 300}}',
        f"login failed for me, password={SECRET}",
        f"grant_type=refresh_token&refresh_token={SECRET}&scope=x",
        f'{{"auths": {{"ghcr.io": {{"identitytoken": "{SECRET}"}}}}}}',
        f'{{"Username": "<token>", "Secret": "{SECRET}"}}',
        f"gAAAAABn{SECRET}{'x' * 80}==",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
        f"eyJhbGciOiJSUzI1NiJ9.{SECRET}.{SECRET}",
    ],
)
def test_secrets_are_known_by_their_form(text: str) -> None:
    assert SECRET not in redact_text(text)
    assert HIDDEN in redact_text(text)


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "Proxy-Authorization",
        "password",
        "db_password",
        "token",
        "access_token",
        "Cookie",
        "secret",
        "identitytoken",
    ],
)
def test_secrets_are_known_by_their_key_at_any_depth(key: str) -> None:
    assert SECRET not in str(redact({key: SECRET}))
    assert SECRET not in str(redact({"request": {"headers": [{key: SECRET}]}}))


def test_what_is_no_secret_stays() -> None:
    event = {
        "event": "token_fetched",
        "password_file": "/etc/debark/hub.password",
        "url": "https://hub.example.org/v2/library/debian/manifests/12?ns=docker.io",
        "digest": "sha256:" + "ab" * 32,
        "sizes": [1, 2.5, None, True],
        "tokens_left": 5,
    }
    assert redact(event) == event


def test_deep_and_foreign_values_end_as_text() -> None:
    loop: dict[str, object] = {}
    loop["self"] = loop
    assert isinstance(redact(loop), dict)
    assert redact(RuntimeError(f"Bearer {SECRET}")) == f"Bearer {HIDDEN}"
