"""One access record and one count for each answered request, when its last byte has left (or its client)."""

from __future__ import annotations

import logging
import time

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from mirror.metrics import Metrics
from mirror.proxy.exchange import Exchange, exchange_of
from mirror.report.accesslog import AccessRecord
from mirror.report.writer import AccessLog


def access_logger(access_log: AccessLog | None, metrics: Metrics) -> type[AbstractAccessLogger]:
    """The class that aiohttp makes its access logger of; access_log: None if it is switched off."""

    class AccessLogger(AbstractAccessLogger):
        """Called by the server for each answered request; `seconds` is from its arrival to its last byte."""

        def __init__(self, logger: logging.Logger, log_format: str) -> None:
            super().__init__(logger, log_format)

        def log(self, request: web.BaseRequest, response: web.StreamResponse, seconds: float) -> None:
            exchange = exchange_of(request) or Exchange("")
            record = _record(request, response, seconds, exchange)
            metrics.request(
                kind=record.kind.value, status=record.status, cache=record.cache or "", size=record.size, seconds=seconds
            )
            if record.age is not None:
                metrics.stale_answer(record.age)
            if access_log is not None:
                access_log.write(record)

    return AccessLogger


def _record(request: web.BaseRequest, response: web.StreamResponse, seconds: float, exchange: Exchange) -> AccessRecord:
    route = exchange.route
    return AccessRecord(
        time=time.time() - seconds,
        client=exchange.client or request.remote or "",
        user=exchange.user,
        method=request.method,
        path=request.path,
        kind=exchange.kind,
        status=response.status,
        size=exchange.sent if exchange.sent is not None else _body_bytes(request, response),
        seconds=seconds,
        upstream=route.name.registry if route else "",
        repository=route.name.repository if route else "",
        reference=str(route.reference) if route and route.reference else "",
        digest=exchange.digest,
        media_type=exchange.media_type,
        cache=exchange.cache,
        age=exchange.age,
        state=exchange.state,
        agent=request.headers.get("User-Agent", ""),
        request_id=exchange.request_id,
    )


def _body_bytes(request: web.BaseRequest, response: web.StreamResponse) -> int:
    """What the server sent by itself; its own count includes the headers."""
    has_body = request.method != "HEAD" and response.status not in {204, 304}
    return (response.content_length or 0) if has_body else 0
