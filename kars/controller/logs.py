"""Structured logs: one JSON object a line on standard output, bearing what is being reconciled.

Loggers name an event as `room.verb` and give what is special about it as `extra`; nothing secret is ever among it.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

# Attributes of every LogRecord; what else a record has was given as `extra`.
USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# Longest text of one member: a line must fit what collects logs.
LONGEST = 8192
LEVELS = {"trace": logging.DEBUG, "debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING}
LEVELS |= {"warning": logging.WARNING, "error": logging.ERROR, "off": logging.CRITICAL + 1}

context: ContextVar[Mapping[str, str]] = ContextVar("context", default={})  # noqa: B039 - never changed in place


@contextmanager
def about(**members: str) -> Iterator[None]:
    """Have every line of this task bear these members."""
    token = context.set({**context.get(), **members})
    try:
        yield
    finally:
        context.reset(token)


class Lines(logging.Formatter):
    """Writes a record as one line of JSON: time, level, message, logger, then the context and what was given."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        members: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            "logger": record.name,
            **context.get(),
        }
        members |= {name: value for name, value in record.__dict__.items() if name not in USUAL}
        if record.exc_info and record.exc_info[0] is not None:
            members["trace"] = self.formatException(record.exc_info)
        return json.dumps({name: plain(value) for name, value in members.items()}, ensure_ascii=False)


def plain(value: object) -> object:
    """Return what JSON can say of a value, texts cut."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:LONGEST]


def level_of(text: str) -> int:
    """Read a level: a word, or a filter as `info,kars_controller=debug`, of which the controller's own part counts.

    ValueError for a word that is no level.
    """
    chosen = "info"
    for part in filter(None, (part.strip() for part in text.lower().split(","))):
        target, _, level = part.rpartition("=")
        if target in {"", "kars_controller", "kars"}:
            chosen = level
    return LEVELS[chosen] if chosen in LEVELS else wrong(chosen)


def wrong(level: str) -> int:
    """Refuse a word."""
    raise ValueError(f"{level!r} is no level; there are {', '.join(LEVELS)}")


def begin(level: str, stream: TextIO | None = None) -> None:
    """Send every log of this process to a stream (standard output), from a level on."""
    handler = logging.StreamHandler(sys.stdout if stream is None else stream)
    handler.setFormatter(Lines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("kars").setLevel(level_of(level))
