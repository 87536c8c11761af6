"""Questions and answers between the parent and one worker, over a pair of sockets: a line of JSON each, either side may ask.

The channel is also how one sees that the other has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any

import structlog

from mirror.errors import MirrorError, Unavailable

log = structlog.get_logger()

Answer = Callable[[Any], Awaitable[Any]]
"""From what came with a question to the answer; both are JSON."""

_LONGEST_LINE = 64 << 20


class Ended(Unavailable):
    """The other process has ended, or closed its end."""

    def __init__(self) -> None:
        super().__init__("the other process has ended")


class Channel:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: Mapping[str, Answer]) -> None:
        self._reader = reader
        self._writer = writer
        self.answers = dict(answers)
        """To what the other side may ask, by the question's name."""
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def over(cls, end: socket.socket, answers: Mapping[str, Answer]) -> Channel:
        """answers: to what the other side may ask. Owns the socket."""
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=_LONGEST_LINE)
        return cls(reader, writer, answers)

    async def ask(self, question: str, argument: Any = None, *, seconds: float) -> Any:
        """The other side's answer. Raises Unavailable if it has died, or does not answer within so many seconds."""
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._listening.done():
            raise Ended
        self._asked[number] = answer
        try:
            async with asyncio.timeout(seconds):
                await self._send({"ask": question, "id": number, "with": argument})
                return await answer
        except TimeoutError as error:
            raise Unavailable(f"no answer within {seconds:g} s") from error
        finally:
            del self._asked[number]

    async def closed(self) -> None:
        """Return when the other side has died, or closed its end."""
        await asyncio.wait([self._listening])

    async def close(self) -> None:
        """Close this end."""
        self._listening.cancel()
        for task in self._answering:
            task.cancel()
        await asyncio.gather(self._listening, *self._answering, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                message = json.loads(line)
                if "ask" in message:
                    task = asyncio.create_task(self._answer(message))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                elif (asked := self._asked.get(message["id"])) is not None and not asked.done():
                    if "failed" in message:
                        asked.set_exception(Unavailable(message["failed"]))
                    else:
                        asked.set_result(message["answer"])
        except (OSError, ValueError):
            log.debug("channel_broken", exc_info=True)
        finally:
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_exception(Ended())

    async def _answer(self, message: Mapping[str, Any]) -> None:
        try:
            result: dict[str, Any] = {"answer": await self.answers[message["ask"]](message["with"])}
        except MirrorError as error:
            result = {"failed": str(error)}
        except Exception:
            log.exception("question_not_answered", question=message["ask"])
            result = {"failed": f"'{message['ask']}' failed; the log says why"}
        with contextlib.suppress(Unavailable):
            await self._send({"id": message["id"], **result})

    async def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            await self._writer.drain()
        except OSError as error:
            raise Ended from error
