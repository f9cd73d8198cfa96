"""An API server that plays a script over real HTTP: every test says how it answers, and sees what was asked."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from kars.kube.client import Client


@dataclass
class Asked:
    method: str
    path: str
    query: dict
    headers: dict
    body: object


@dataclass
class Scripted:
    """Answers with what `answer(asked)` returns or awaits: (status, body[, headers]) or a function of the request."""

    answer: object
    folder: Path
    asked: list = field(default_factory=list)
    url: str = ""
    user: dict = field(default_factory=lambda: {"token": "secret-token"})

    async def handle(self, request):
        raw = await request.read()
        body = json.loads(raw) if raw else None
        asked = Asked(request.method, request.path, dict(request.query), dict(request.headers), body)
        self.asked.append(asked)
        made = self.answer(asked)
        if asyncio.iscoroutine(made):
            made = await made
        if callable(made):
            return await made(request)
        status, body, *headers = made
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(status=status, body=data, content_type="application/json", headers=dict(*headers))

    @property
    def kubeconfig(self):
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps(config(self.url, self.user)))
        return str(path)

    def count(self, method):
        return sum(one.method == method for one in self.asked)


def config(server, user, name="test", **cluster):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, **cluster}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }


@asynccontextmanager
async def serve(answer, folder, **settings):
    """Run a script; yields it with its address."""
    scripted = Scripted(answer, folder, **settings)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", scripted.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield scripted
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connected(answer, folder, *, timeout=5.0, **settings):
    """Run a script with a client in front of it."""
    async with (
        serve(answer, folder, **settings) as scripted,
        await Client.connect(kubeconfig=scripted.kubeconfig, timeout=timeout) as client,
    ):
        yield client, scripted


def script(*answers):
    """Answer in this order; the last answer stays."""
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


def status(code, reason="", message="said the server", **more):
    return {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message, **more}


def config_map(name="c", version="1", namespace="n", **metadata):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": version, **metadata},
    }


def streamed(*chunks, cut=False, hold=0.0):
    """Answer with a stream of chunks; `cut` breaks the connection, `hold` stays silent for so many seconds."""

    async def answer(request):
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if hold:
            await asyncio.sleep(hold)
        if cut:
            request.transport.abort()
        return response

    return answer


def line(event, value):
    return json.dumps({"type": event, "object": value}).encode() + b"\n"


async def broken(request):
    """Answer nothing and close the connection."""
    request.transport.abort()
    return web.Response()


async def silent(request):
    """Take the request and never answer."""
    await asyncio.sleep(30)
    return web.Response()
