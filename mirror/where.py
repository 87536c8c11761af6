"""`debark where`: the /cvmfs path of an image, for people and for job scripts."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
import click
from rich.console import Console
from rich.status import Status

from mirror.connecting import trouble
from mirror.errors import InvalidInput, MirrorError, NotFound, Unavailable
from mirror.jobs.model import State
from mirror.jobs.notes import Notes

EXIT_UNREACHABLE = 1
EXIT_NOT_YET = 3
EXIT_NEVER = 4
EXIT_UNKNOWN = 5

_POLL_SECONDS = 0.5


@click.command()
@click.argument("reference")
@click.option(
    "--server",
    envvar="DEBARK_SERVER",
    default="http://127.0.0.1:8585",
    show_default=True,
    help="Address of the mirror; also from the environment variable DEBARK_SERVER.",
)
@click.option(
    "--platform",
    help="Of which platform, such as linux/arm64, arm64 or the output of `uname -m`; default: that of the path without one.",
)
@click.option("--wait", is_flag=True, help="Wait until the image is published, or until it is clear that it will not be.")
@click.option("--timeout", type=click.FloatRange(min=0), default=3600.0, show_default=True, help="Seconds to wait at the most.")
@click.option("--json", "as_json", is_flag=True, help="Print everything that the mirror knows of the image as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error what of the image was left out or changed, by rule.")
def where(reference: str, server: str, platform: str | None, wait: bool, timeout: float, *, as_json: bool, verbose: bool) -> None:
    """Print the /cvmfs path of the image REFERENCE (such as docker://docker.io/library/debian:12).

    Exit codes: 0 published; 3 not yet; 4 refused, failed, expired or no image at all; 5 never pulled through this mirror;
    1 mirror not reached.
    """
    try:
        image = asyncio.run(_ask(_Question(server.rstrip("/"), reference, platform), timeout if wait else 0.0))
    except NotFound as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_UNKNOWN)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    except MirrorError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_UNREACHABLE)
    state = State(image["state"])
    if as_json:
        click.echo(json.dumps(image, indent=2))
    elif image["path"] is not None:
        click.echo(image["path"])
        if verbose:
            click.echo(Notes.of(image.get("notes")).words() or "nothing of the image was left out or changed", err=True)
    else:
        click.echo(_describe(image))
    if image["path"] is None:
        sys.exit(EXIT_NEVER if state.is_final or state is State.FAILED else EXIT_NOT_YET)


@dataclass(frozen=True, slots=True)
class _Question:
    """server: URL of the mirror, without a slash at its end. platform: None for the path without one."""

    server: str
    reference: str
    platform: str | None

    @property
    def parameters(self) -> dict[str, str]:
        return {"ref": self.reference} | ({"platform": self.platform} if self.platform else {})


async def _ask(question: _Question, patience: float) -> dict[str, Any]:
    """The last answer: the first one with a path or a final state, or the one at hand when patience (seconds) runs out.

    A mirror that has answered once may be away for a while.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    progress = _Progress(question.reference)
    has_answered = False
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        try:
            while True:
                try:
                    image = await _fetch(session, question)
                except (NotFound, Unavailable) as error:
                    has_answered |= isinstance(error, NotFound)
                    if loop.time() >= deadline or not has_answered:
                        raise
                    progress.show(str(error))
                else:
                    has_answered = True
                    if _is_final(image) or loop.time() >= deadline:
                        return image
                    progress.show(_describe(image))
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            progress.close()


def _is_final(image: dict[str, Any]) -> bool:
    """Whether nothing more happens unless the image is pulled again."""
    state = State(image["state"])
    return image["path"] is not None or state.is_final or (state is State.FAILED and image["next_try"] is None)


async def _fetch(session: aiohttp.ClientSession, question: _Question) -> dict[str, Any]:
    server = question.server
    try:
        async with session.get(f"{server}/_debark/v1/images", params=question.parameters) as response:
            document: Any = await response.json()
    except aiohttp.ClientConnectorCertificateError as error:
        mend = "if its authority is your own, have SSL_CERT_FILE name the authority's file"
        raise Unavailable(f"no answer from the mirror at {server} ({trouble(error)}); {mend}") from error
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        mend = "name it with --server or DEBARK_SERVER"
        raise Unavailable(f"no answer from the mirror at {server} ({trouble(error)}); {mend}") from error
    if response.status == HTTPStatus.OK and isinstance(document, dict) and "state" in document:
        return document
    try:
        message = str(document["errors"][0]["message"])
    except (LookupError, TypeError) as error:
        raise Unavailable(f"what answers at {server} (status {response.status}) is no debark") from error
    if response.status == HTTPStatus.NOT_FOUND:
        raise NotFound(message)
    if response.status == HTTPStatus.BAD_REQUEST:
        raise InvalidInput(message)
    raise Unavailable(f"the mirror at {server} answers: {message}")


def _describe(image: dict[str, Any]) -> str:
    reason = f": {image['reason']}" if image["reason"] else ""
    return f"{image['image']} {image['state']}{reason}"


class _Progress:
    """A spinner on a terminal; elsewhere one line on standard error whenever the text changes."""

    def __init__(self, reference: str) -> None:
        self._console = Console(stderr=True)
        self._status: Status | None = self._console.status(reference) if self._console.is_terminal else None
        self._shown = ""

    def show(self, text: str) -> None:
        if text == self._shown:
            return
        self._shown = text
        if self._status is None:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            self._status.update(text)
            self._status.start()

    def close(self) -> None:
        if self._status is not None:
            self._status.stop()
