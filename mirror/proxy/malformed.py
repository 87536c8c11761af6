"""Requests that are no HTTP: the server itself answers them with 400, before any handler; here they are made one line of the log.

Anybody can send them, so they are no error of the mirror's, and fill no log with tracebacks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp.http_exceptions import HttpProcessingError

_LONGEST = 200
"""Characters of the reason, which quotes the request."""


@contextmanager
def noted_briefly() -> Iterator[None]:
    """As long as the block lasts, what the server's logger says of malformed requests is one line of information."""
    logger = logging.getLogger("aiohttp.server")
    logger.addFilter(_shorten)
    try:
        yield
    finally:
        logger.removeFilter(_shorten)


def _shorten(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        reason = " ".join(error.message.split())[:_LONGEST]
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args, record.exc_info = f"request_malformed: {reason}", None, None
    return record.levelno >= logging.getLogger().level
