"""Credentials from a program, as Docker's credential helpers give them.

Source: docker-credential-helpers, "Development": the program is called with the argument `get` and the server's name on its
standard input; it answers {"ServerURL", "Username", "Secret"}, where the user name `<token>` says that the secret is an identity
token. With another exit status than 0 its output is an error message.
The program is one that the operator named; it is run by exec, without a shell, and nothing of what it prints is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from mirror.oci.reference import DOCKER_HUB
from mirror.upstream.credentials import as_credential
from mirror.upstream.flight import SingleFlight
from mirror.upstream.model import Credential, Failure, UpstreamUnavailable

log = structlog.get_logger()

_MOST_BYTES = 64 * 1024
_END_SECONDS = 5.0
_NOT_FOUND = "credentials not found"
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
"""Seconds between two calls of a helper that fails; they double."""


@dataclass(frozen=True, slots=True)
class HelperLimits:
    """Times in seconds."""

    lifetime: float = 600.0
    """For which an answer is used; a new one is got in the last fifth of it, in the background."""
    timeout: float = 10.0
    """For which the program may run."""


class CredentialHelper:
    """Asks one program for one upstream's credential; a `CredentialSource`."""

    def __init__(
        self, program: str, upstream: str, limits: HelperLimits | None = None, *, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """program: its path."""
        self._program = program
        self._upstream = upstream
        self._limits = limits or HelperLimits()
        self._timer = timer
        self._known: Credential | None = None
        self._good_until = self._renew_from = 0.0
        self._failures = 0
        self._rest_until = 0.0
        self._problem: UpstreamUnavailable | None = None
        self._flight: SingleFlight[str, None] = SingleFlight()
        self._renewals: set[asyncio.Task[None]] = set()

    async def credential_for(self, repository: str) -> Credential | None:  # noqa: ARG002 - the same for all of them
        """See CredentialSource. While the program fails, what it said last counts, if it said anything."""
        now = self._timer()
        if now < self._good_until:
            if now >= self._renew_from and not self._is_resting(now):
                self._renew()
            return self._known
        if not self._is_resting(now):
            await self._flight.run("", self._refresh)
        if self._problem is not None and self._known is None:
            raise UpstreamUnavailable(str(self._problem), self._problem.failure)
        return self._known

    def _is_resting(self, now: float) -> bool:
        return now < self._rest_until

    def _renew(self) -> None:
        if not self._flight.is_under_way(""):
            task = asyncio.create_task(self._refresh_once())
            self._renewals.add(task)
            task.add_done_callback(self._renewals.discard)

    async def _refresh_once(self) -> None:
        await self._flight.run("", self._refresh)

    async def _refresh(self) -> None:
        """Never fails: what went wrong is noted."""
        try:
            credential = await self._ask()
        except UpstreamUnavailable as error:
            self._failures += 1
            self._rest_until = self._timer() + min(_FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10), _LONGEST_PAUSE)
            self._problem = error
            log.error("credential_helper_failed", upstream=self._upstream, reason=str(error))  # noqa: TRY400 - no bug
            return
        now = self._timer()
        self._known, self._problem, self._failures = credential, None, 0
        self._good_until = now + self._limits.lifetime
        self._renew_from = now + self._limits.lifetime * 0.8

    async def _ask(self) -> Credential | None:
        """None if the program has no credential for this upstream. Raises UpstreamUnavailable."""
        server = "https://index.docker.io/v1/" if self._upstream == DOCKER_HUB else self._upstream
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                "get",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise self._broken(f"cannot be run: {error.strerror}") from error
        has_ended = False
        try:
            async with asyncio.timeout(self._limits.timeout):
                output = await _exchange(process, f"{server}\n".encode())
                if len(output) > _MOST_BYTES:
                    raise self._broken(f"answers with more than {_MOST_BYTES} bytes")
                status = await process.wait()
                has_ended = True
        except TimeoutError as error:
            raise self._broken(f"does not answer within {self._limits.timeout:g} s") from error
        finally:
            if not has_ended:
                await _end(process)
        if status != 0:
            if _NOT_FOUND in output.decode(errors="replace").lower():
                return None
            raise self._broken(f"ends with exit status {status}")
        return self._read(output)

    def _read(self, output: bytes) -> Credential:
        try:
            document: Any = json.loads(output)
        except (ValueError, RecursionError) as error:
            raise self._broken("answers with something that is not JSON") from error
        found = (document.get("Username"), document.get("Secret")) if isinstance(document, dict) else (None, None)
        username, secret = found
        if not isinstance(username, str) or not isinstance(secret, str) or not username or not secret:
            raise self._broken("answers without a user name and a secret")
        return as_credential(username, secret)

    def _broken(self, does: str) -> UpstreamUnavailable:
        return UpstreamUnavailable(
            f"the credential helper {self._program} of upstream {self._upstream} {does}", Failure.UNREACHABLE
        )


async def _exchange(process: asyncio.subprocess.Process, question: bytes) -> bytes:
    """What the program prints; one byte more than is wanted of it, if there is more."""
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise RuntimeError("the process was started without pipes")
    with contextlib.suppress(ConnectionError):  # It may answer without reading the question.
        stdin.write(question)
        await stdin.drain()
    stdin.close()
    output = b""
    while len(output) <= _MOST_BYTES and (piece := await stdout.read(_MOST_BYTES + 1 - len(output))):
        output += piece
    return output


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the program and all that it has started; only then its output ends, and the pipe can be closed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            while process.stdout is not None and await process.stdout.read(_MOST_BYTES):
                continue
            await process.wait()
