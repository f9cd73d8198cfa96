"""`kars demo`: see the whole of it work in one terminal."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from kars import settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from kars.local.tour import Tour

EPILOG = """\b
Examples:
  kars demo
  kars demo --port 9000
  kars demo --state ./demo      # keep the policy, the audit log and the budgets
"""

TRY = """\
Try, in another terminal:

  # a chat call, and the same as a stream
  curl -s {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model":"demo","messages":[{{"role":"user","content":"hello"}}]}}'
  curl -sN {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model":"demo","stream":true,"messages":[{{"role":"user","content":"hello"}}]}}'

  # the unmodified SDKs
  python -c "from openai import OpenAI; c = OpenAI(base_url='{url}/v1', api_key='any'); \\
print(c.chat.completions.create(model='demo', messages=[dict(role='user', content='hi')]).choices[0].message.content)"
  python -c "from anthropic import Anthropic; c = Anthropic(base_url='{url}', api_key='any'); \\
print(c.messages.create(model='demo', max_tokens=64, messages=[dict(role='user', content='hi')]).content[0].text)"

  # a call that the policy refuses (4096 output tokens per request)
  curl -s {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model":"demo","max_tokens":100000,"messages":[{{"role":"user","content":"hello"}}]}}'

  # the only way out: what the allowlist does not name is refused and explained; the model server is named
  curl -sS -x {proxy} https://example.com/
  curl -sS -x {proxy} http://example.com/
  curl -s -x {proxy} {model}/v1/models
  ADMIN_TOKEN={token} ROUTER_PORT={port} {kars} egress blocked
  {kars} why --audit {audit} --policy {egress} ID     # the decision id that a refusal names

  # what was counted, what was decided, and whether the record is whole
  curl -s {metrics}/metrics | grep ^kars_
  curl -s {url}/statusz -H 'authorization: Bearer {token}'
  {kars} audit verify {audit}

  # change the policy while it runs: it is in force at once
  $EDITOR {policy}
  $EDITOR {allowlist}
"""


@click.command(epilog=EPILOG)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the router; else 8443 or the next free one.")
@click.option("--egress-port", type=click.IntRange(1, 65535), help="Port of the egress proxy; else 8444 or the next.")
@click.option("--state", type=click.Path(path_type=Path), help="Directory to keep the state in; else a temporary one.")
def demo(port: int | None, egress_port: int | None, state: Path | None) -> None:
    """Run a demo model server and a router in front of it, and show the calls.

    Everything listens on 127.0.0.1 only and ends with Ctrl-C.
    """
    from kars.local import tour

    chosen, egress, metrics, model = tour.choose(port, egress_port)
    for what, asked, got in (("router", port or 8443, chosen), ("egress proxy", egress_port or 8444, egress)):
        if got != asked:
            click.echo(f"Port {asked} is taken; the {what} listens on {got}.", err=True)
    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with tour.Tour(port=chosen, egress_port=egress, model_port=model, metrics_port=metrics, state=state) as running:
            running.start()
            introduce(running)
            running.watch(click.echo, colour=settings.colours(sys.stdout))
    except KeyboardInterrupt:
        click.echo("\nStopped.", err=True)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Let SIGTERM end the demo the way Ctrl-C does, and SIGINT too where a shell started us with it ignored."""
    raise KeyboardInterrupt


def introduce(running: Tour) -> None:
    """Say what runs where and what to try."""
    click.echo(f"router        {running.url()}  (OpenAI at /v1, Anthropic at /v1/messages)")
    click.echo(f"egress proxy  {running.proxy()}  (CONNECT, plain HTTP; strict)")
    click.echo(f"metrics       http://127.0.0.1:{running.metrics_port}/metrics")
    click.echo(f"model server  http://127.0.0.1:{running.model_port}")
    click.echo(f"state         {running.state}\n")
    click.echo(
        TRY.format(
            url=running.url(),
            token=running.token,
            metrics=f"http://127.0.0.1:{running.metrics_port}",
            kars=sys.argv[0],
            audit=running.audit,
            proxy=running.proxy(),
            model=f"http://127.0.0.1:{running.model_port}",
            port=running.port,
            egress=running.allowlist.parent,
            policy=running.policy,
            allowlist=running.allowlist,
        )
    )
    click.echo("Calls, as the audit log records them (Ctrl-C ends):")
