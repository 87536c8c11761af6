"""One request and its answer, as the access log and the metrics will see them: handlers fill in what they learn on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from mirror.fetch.result import CacheResult
from mirror.oci.codes import Subject
from mirror.proxy.routes import Route
from mirror.proxy.visitor import ANYBODY, Visitor
from mirror.report.accesslog import RequestKind


@dataclass(slots=True)
class Exchange:
    """Facts about a request under way."""

    request_id: str
    client: str = ""
    """The client's address; of the connection, until it is known better."""
    user: str = ""
    """Under which name the mirror knows the client; empty for anybody."""
    visitor: Visitor = ANYBODY
    """What the client gave to be used at the upstream."""
    kind: RequestKind = RequestKind.OTHER
    route: Route | None = None
    digest: str = ""
    media_type: str = ""
    cache: CacheResult | None = None
    age: float | None = None
    """Seconds since the upstream gave a stale answer."""
    state: str = ""
    hints: Mapping[str, str] | None = None
    """Headers of an error's answer that say where in /cvmfs the image is all the same."""
    sent: int | None = None
    """Bytes of the body that a handler sent by itself; None if the response knows."""

    @property
    def subject(self) -> Subject:
        """What an error would be about: the name, until that has been understood."""
        if self.route is None:
            return Subject.NAME
        return {RequestKind.MANIFEST: Subject.MANIFEST, RequestKind.BLOB: Subject.BLOB}.get(self.kind, Subject.NAME)


_KEY: Final = web.RequestKey("debark.exchange", Exchange)


def begin_exchange(request: web.BaseRequest, request_id: str) -> Exchange:
    """Attach a new exchange to the request."""
    exchange = Exchange(request_id)
    request[_KEY] = exchange
    return exchange


def exchange_of(request: web.BaseRequest) -> Exchange | None:
    """The exchange of a request; None if it has none."""
    return request.get(_KEY)


def current_exchange(request: web.BaseRequest) -> Exchange:
    """The exchange of a request that is being handled."""
    return request[_KEY]
