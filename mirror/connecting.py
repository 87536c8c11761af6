"""Why a request of ours got no answer, in words. Pure."""

from __future__ import annotations

import os
import ssl

import aiohttp


def trouble(error: BaseException) -> str:
    """What to tell people: aiohttp's own words are for who knows its settings."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        found = error.certificate_error
        detail = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else str(found)
        return f"the certificate of {error.host}:{error.port} is not trusted: {detail}"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        known = cause.errno is not None and cause.errno > 0 and not isinstance(cause, ssl.SSLError)
        return f"{error.host}:{error.port}: {os.strerror(cause.errno) if known else cause.strerror or cause}"  # type: ignore[arg-type]
    return str(error) or type(error).__name__
