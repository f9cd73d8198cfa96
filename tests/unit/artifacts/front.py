"""A registry that does as a test says: the referrers API, challenges, redirects, wrong bytes."""

import asyncio
import json

from aiohttp import web

from tests.unit.artifacts.depot import INDEX, OCI, sha256


class Front:
    """Holds manifests, blobs and referrers; `hook(request)` may answer first. `seen` has every request."""

    def __init__(self, tls=None):
        self.tls = tls
        self.stored = {}
        self.types = {}
        self.referrers = {}
        self.seen = []
        self.hook = lambda request: None

    def put(self, repository, data, *names, kind="blobs", media_type=OCI):
        for name in (sha256(data), *names):
            self.stored[f"/v2/{repository}/{kind}/{name}"] = data
            self.types[f"/v2/{repository}/{kind}/{name}"] = media_type
        return sha256(data)

    def manifest(self, repository, data, *names, media_type=OCI):
        return self.put(repository, data, *names, kind="manifests", media_type=media_type)

    def refer(self, repository, subject, *descriptors):
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(descriptors)}).encode()
        self.put(repository, body, subject, kind="referrers", media_type=INDEX)

    async def answer(self, request):
        self.seen.append(request)
        hooked = self.hook(request)
        if asyncio.iscoroutine(hooked):
            hooked = await hooked
        if hooked is not None:
            return hooked
        data = self.stored.get(request.path)
        if data is None:
            return web.Response(status=404)
        return web.Response(body=data, headers={"Content-Type": self.types[request.path]})

    async def __aenter__(self):
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.answer)
        self.runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.tls).start()
        self.host = f"127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    @property
    def paths(self):
        return [request.path for request in self.seen]
