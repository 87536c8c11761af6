"""Structured logs: JSON lines to a file or standard error, readable lines on a terminal, rendered off the event loop.

Callers hand an event to a bounded queue and go on; a thread of its own renders and writes it. When the queue is full, because a
disk stalls, events are dropped and counted rather than waited for. `request_id`, `digest` and `job_id` come from context
variables (`structlog.contextvars.bound_contextvars`). What libraries log through the standard library takes the same way.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from mirror.redaction import redact_event

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "pretty", "json"]

REQUEST_ID: ContextVar[str] = ContextVar(f"{structlog.contextvars.STRUCTLOG_KEY_PREFIX}request_id")
"""Set to the id of the request that is being answered; the library's own way of setting it is ten times slower."""

_NOISY = ("aiohttp.access", "asyncio", "aiosqlite", "sqlalchemy.engine", "alembic")
"""Loggers of libraries whose information is our debugging."""

_CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "?")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """level: the least that is logged. form: of standard error; `auto` is pretty on a terminal, else JSON.

    file: JSON lines are appended here, and standard error gets warnings and errors only; None: standard error gets all.
    queue: events that may wait for the writing thread. worker: number of this worker process, which each event then carries.
    """

    level: Level = "info"
    form: Format = "auto"
    file: Path | None = None
    queue: int = 10_000
    worker: int | None = None


class Logs:
    """Logging of this process, from construction to `close`. Raises OSError if the file cannot be opened."""

    def __init__(self, options: LogOptions, stream: TextIO | None = None, on_drop: Callable[[], None] | None = None) -> None:
        """Take over the process's logging. stream: in place of standard error; on_drop: called for each event that is lost."""
        level = logging.getLevelNamesMapping()[options.level.upper()]
        self._losses = _Losses(on_drop)
        handlers = _handlers(options, stream if stream is not None else sys.stderr, self._losses)
        events: queue.Queue[logging.LogRecord] = queue.Queue(options.queue)
        self._listener = _Listener(events, *handlers)
        self._handlers = handlers
        self._root = logging.getLogger()
        self._previous = (self._root.handlers[:], self._root.level)
        self._root.handlers[:] = [_Entry(events, self._losses)]
        self._root.setLevel(level)
        for name in _NOISY:
            logging.getLogger(name).setLevel(max(level, logging.WARNING) if level > logging.DEBUG else logging.DEBUG)
        worker = {} if options.worker is None else {"worker": options.worker}
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                lambda _logger, _method, event: {**event, **worker},
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                _capture_exception,
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=False,
        )
        self._listener.start()

    @property
    def dropped(self) -> int:
        """Events lost so far: the queue was full, or the file could not be written."""
        return self._losses.count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, then give the logging back as it was found."""
        self._listener.stop()
        for handler in self._handlers:
            handler.close()
        handlers, level = self._previous
        self._root.handlers[:] = handlers
        self._root.setLevel(level)
        structlog.reset_defaults()


class _Losses:
    """Counts events that could not be queued or written."""

    def __init__(self, on_drop: Callable[[], None] | None) -> None:
        self.count = 0
        self._on_drop = on_drop

    def add(self) -> None:
        self.count += 1
        if self._on_drop is not None:
            self._on_drop()


class _Entry(QueueHandler):
    """Puts records into the queue as they are; rendering is the other thread's."""

    def __init__(self, events: queue.Queue[logging.LogRecord], losses: _Losses) -> None:
        super().__init__(events)
        self._losses = losses

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self._losses.add()


class _Listener(QueueListener):
    """Writes what waits before it ends, also when the queue is full."""

    def __init__(self, events: queue.Queue[Any], *handlers: logging.Handler) -> None:
        super().__init__(events, *handlers, respect_handler_level=True)
        self._events = events

    def enqueue_sentinel(self) -> None:
        self._events.put(None)


class _Console(logging.StreamHandler[TextIO]):
    """Standard error; a closed terminal must not end the mirror."""

    def __init__(self, stream: TextIO, losses: _Losses) -> None:
        super().__init__(stream)
        self._losses = losses

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 (the standard library's name and signature)
        self._losses.add()


class _File(WatchedFileHandler):
    """Looks before each line whether the file was moved away, and opens a new one then: logrotate needs to send no signal.

    Several processes write one file, so each line goes out in one piece.
    """

    def __init__(self, path: Path, losses: _Losses) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._losses = losses

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.reopenIfNeeded()
            line = f"{self.format(record)}{self.terminator}".encode(self.encoding or "utf-8", self.errors or "strict")
            if self.stream is None or os.write(self.stream.fileno(), line) < len(line):
                self.handleError(record)
        except Exception:  # noqa: BLE001 - as the standard library has it: logging harms nobody
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 (the standard library's name and signature)
        self._losses.add()


def _capture_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take hold of the exception being handled while it is; the writing thread knows nothing of it."""
    if event.get("exc_info") is True:
        event["exc_info"] = sys.exc_info()
    return event


def _describe_foreign(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Time and logger of what a library logged."""
    record: logging.LogRecord = event["_record"]
    event["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    event["logger"] = record.name
    return event


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """When, how bad and what come first, for people who read the raw lines."""
    return {key: event.pop(key) for key in ("time", "level", "event") if key in event} | dict(event)


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Without control characters, so that nothing from outside can steer the terminal."""
    return {key: value.translate(_CONTROLS) if isinstance(value, str) else value for key, value in event.items()}


def _handlers(options: LogOptions, stream: TextIO, losses: _Losses) -> tuple[logging.Handler, ...]:
    pretty = options.form == "pretty" or (options.form == "auto" and stream.isatty())
    console = _Console(stream, losses)
    console.setFormatter(_formatter(pretty=pretty, colors=pretty and stream.isatty()))
    if options.file is None:
        return (console,)
    console.setLevel(logging.WARNING)
    file = _File(options.file, losses)
    file.setFormatter(_formatter(pretty=False, colors=False))
    return (console, file)


def _formatter(*, pretty: bool, colors: bool) -> logging.Formatter:
    render: tuple[Processor, ...] = (structlog.processors.JSONRenderer(),)
    if pretty:
        render = (_printable, structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time"))
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=(structlog.stdlib.add_log_level, _describe_foreign),
        processors=[
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            redact_event,
            _in_order,
            *render,
        ],
    )
