"""Moments on the command line: `10m`, `-10m`, Unix seconds or RFC 3339."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Moment(click.ParamType[int]):
    """Unix seconds."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read one."""
        if isinstance(value, int):
            return value
        text = str(value)
        ago = re.fullmatch(r"-?(\d{1,9})([smhd])", text)
        if ago:
            return max(0, int(time.time()) - int(ago[1]) * UNITS[ago[2]])
        if re.fullmatch(r"\d{1,12}", text):
            return int(text)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text}: not 10m, Unix seconds or a time such as 2026-01-31T12:00:00Z", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


option = click.option(
    "--since",
    type=Moment(),
    default=0,
    help="Only what was seen since: 10m, 2h, Unix seconds, RFC 3339.",
    metavar="WHEN",
)
