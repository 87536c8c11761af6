"""The CVMFS repositories over HTTP, as a stratum 0 web server gives them: plain files, nothing listed, a missing file is a 404.

Headers are those of the stock server (repository format, section 2): named files may be kept for 61 seconds (squid's default
ignores 60 and less), objects for three days; their names are their hashes, so they never change.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import aiofiles.os
import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from mirror.proxy.exchange import current_exchange
from mirror.report.accesslog import RequestKind

log = structlog.get_logger()

_NAMED_FILE = re.compile(r"\.cvmfs[a-z_.]+", re.ASCII)
_OBJECT = re.compile(r"data/[0-9a-f]{2}/[0-9a-f]{38}(?:-rmd160|-shake128)?[A-Z]?", re.ASCII)
_FQRN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", re.ASCII)

_NAMED_HEADERS = {"Content-Type": "application/x-cvmfs", "Cache-Control": "max-age=61"}
_OBJECT_HEADERS = {"Content-Type": "application/octet-stream", "Cache-Control": "max-age=259200"}


class _File(web.FileResponse):
    """A file that the handler sends, so that it counts as under way and can be timed; the server would do it afterwards."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send it, the first time."""
        return None if self.prepared else await super().prepare(request)


class CvmfsFiles:
    """Handler for `/cvmfs/{fqrn}/{path}`."""

    def __init__(self, root: Path, *, send_seconds: float = 900.0) -> None:
        """root: the directory that holds one directory a repository. send_seconds: within which a client must take a file."""
        self._root = root
        self._send_seconds = send_seconds

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET and HEAD of one file."""
        current_exchange(request).kind = RequestKind.CVMFS
        fqrn, path = request.match_info["fqrn"], request.match_info["path"]
        if _OBJECT.fullmatch(path):
            headers = _OBJECT_HEADERS
        elif _NAMED_FILE.fullmatch(path):
            headers = _NAMED_HEADERS
        else:
            raise web.HTTPNotFound(text="no such file in a CVMFS repository\n")
        file = self._root / fqrn / path
        if not _FQRN.fullmatch(fqrn) or not await aiofiles.os.path.isfile(file):
            raise web.HTTPNotFound(text=f"/cvmfs/{fqrn}/{path} does not exist\n")
        response = _File(file, headers=headers)
        try:
            async with asyncio.timeout(self._send_seconds):
                await response.prepare(request)
        except ConnectionError:
            log.info("client_left", path=request.path)
        except TimeoutError:
            log.info("client_too_slow", path=request.path)
            if request.transport is not None:
                request.transport.abort()
        return response
