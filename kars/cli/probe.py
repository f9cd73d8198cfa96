"""`kars probe`: a client for a container without shell or curl."""

from __future__ import annotations

import sys

import click

EPILOG = """\b
Examples:
  kars probe
  kars probe /readyz
  kars probe PUT /admin/model '{"model": "gpt-4.1-mini"}'
"""

METHODS = ("GET", "POST", "PUT", "DELETE")


@click.command(epilog=EPILOG)
@click.argument("words", nargs=-1, metavar="[METHOD] [PATH] [JSON]")
def probe(words: tuple[str, ...]) -> int:
    """Call this sandbox's own router.

    METHOD is GET unless given (POST with a body), PATH is /healthz unless given. The admin token goes along where this
    user may read it. Prints the body; the exit status is 0 for a 2xx, else 1.
    """
    from kars.router import tools

    method, path, body = request(words)
    status, answer = tools.probe(method, path, body)
    sys.stdout.buffer.write(answer if not answer or answer.endswith(b"\n") else answer + b"\n")
    sys.stdout.buffer.flush()
    if 200 <= status < 300:
        return 0
    click.echo(f"{method} {path}: HTTP {status}", err=True)
    return 1


def request(words: tuple[str, ...]) -> tuple[str, str, bytes | None]:
    """Read `[METHOD] [PATH] [JSON]`."""
    rest = list(words)
    method = rest.pop(0).upper() if rest and rest[0].upper() in METHODS else ""
    path = rest.pop(0) if rest else "/healthz"
    if not path.startswith("/"):
        raise click.UsageError(f"PATH starts with a slash: {path}")
    body = rest.pop(0).encode() if rest else None
    if rest:
        raise click.UsageError(f"one argument too many: {rest[0]}")
    return method or ("GET" if body is None else "POST"), path, body
