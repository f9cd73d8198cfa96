"""The distribution API: what is believed of a registry, where credentials go, and what each failure is called."""

import asyncio
import base64
import json
import socket
from functools import partial

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from kars.artifacts import references, tokens
from kars.artifacts.refused import Refused
from kars.artifacts.registry import Guarded, Registry
from kars.artifacts.tokens import Basic, Challenge
from kars.errors import SettingsError
from kars.model.addresses import is_barred
from kars.model.common import OciArtifactRef
from tests.unit.artifacts.depot import INDEX, OCI, Depot, sha256
from tests.unit.artifacts.front import Front

TYPE = "application/vnd.kars.egress-allowlist.v1+yaml"


def drive(body, *, credentials=None):
    """Run a test's body with a front and a registry that may ask it."""

    async def run():
        async with Front() as front:
            registry = Registry(
                insecure_hosts=frozenset({front.host}), credentials={front.host: credentials} if credentials else {}
            )
            try:
                return await body(front, registry, references.repository(front.host, "team/list"))
            finally:
                await registry.close()

    return asyncio.run(run())


async def reason(work):
    try:
        await work
    except Refused as refused:
        return refused.reason
    return "nothing"


def test_reads_from_a_real_registry_what_was_pushed_to_it(depot):
    manifest = depot.artifact("team/real", b"body\n", TYPE, tag="v1")

    async def run():
        registry = Registry(insecure_hosts=frozenset({depot.host}))
        place = references.repository(depot.host, "team/real")
        try:
            by_digest = await registry.manifest(place, sha256(manifest))
            by_tag = await registry.manifest(place, "v1")
            assert by_digest.data == by_tag.data == manifest
            assert by_tag.digest == sha256(manifest)
            assert await registry.blob(place, sha256(b"body\n"), 100) == b"body\n"
            assert await registry.referrers(place, sha256(manifest)) == []
            assert await reason(registry.manifest(place, "v2")) == "NotFound"
            assert await reason(registry.blob(place, sha256(b"x"), 100)) == "NotFound"
            assert await reason(registry.blob(place, sha256(b"body\n"), 3)) == "CanonicalFormViolation"
            assert await reason(registry.manifest(references.repository(depot.host, "team/none"), "v1")) == "NotFound"
        finally:
            await registry.close()

    asyncio.run(run())


def test_a_real_registry_takes_the_user_and_the_password(tmp_path):
    # ann and secret, as htpasswd -B writes them.
    (tmp_path / "users").write_text("ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n")
    guarded = Depot(tmp_path, extra=f"auth:\n  htpasswd:\n    realm: x\n    path: {tmp_path / 'users'}\n")
    guarded.headers = {"Authorization": Basic("ann", "secret").header()}

    async def ask(credentials):
        registry = Registry(insecure_hosts=frozenset({guarded.host}), credentials=credentials)
        try:
            return (await registry.manifest(references.repository(guarded.host, "team/list"), "v1")).data
        finally:
            await registry.close()

    try:
        manifest = guarded.artifact("team/list", b"body\n", TYPE, tag="v1")
        assert asyncio.run(ask({guarded.host: Basic("ann", "secret")})) == manifest
        for credentials in ({}, {guarded.host: Basic("ann", "wrong")}):
            assert asyncio.run(reason(ask(credentials))) == "Unauthorized"
    finally:
        guarded.stop()


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, "Unauthorized"), (403, "Unauthorized"), (404, "NotFound"), (410, "NotFound"), (400, "InvalidRef"), (429, "Transient"), (500, "Transient"), (503, "Transient"), (204, "InvalidRef")],
)  # fmt: skip
def test_a_status_has_one_reason(status, expected):
    async def body(front, registry, place):
        front.hook = lambda request: web.Response(status=status, text="the secret of another service")
        with pytest.raises(Refused) as raised:
            await registry.manifest(place, "v1")
        assert raised.value.reason == expected
        assert raised.value.retryable is (expected == "Transient")
        assert "secret" not in str(raised.value)

    drive(body)


def test_bytes_with_another_digest_are_refused():
    async def body(front, registry, place):
        front.stored[f"/v2/team/list/manifests/{sha256(b'a')}"] = b"b"
        front.stored[f"/v2/team/list/blobs/{sha256(b'a')}"] = b"b"
        front.types = dict.fromkeys(front.stored, OCI)
        assert await reason(registry.manifest(place, sha256(b"a"))) == "DigestMismatch"
        assert await reason(registry.blob(place, sha256(b"a"), 10)) == "DigestMismatch"
        assert await reason(registry.blob(place, "sha512:" + "a" * 128, 10)) == "InvalidRef"

    drive(body)


def test_bodies_are_bounded_whether_or_not_they_say_their_length():
    async def body(front, registry, place):
        async def endless(request):
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(bytes(65536))
            except ConnectionError:
                return response

        front.hook = endless
        assert await reason(registry.blob(place, sha256(b"a"), 1 << 20)) == "CanonicalFormViolation"
        front.hook = lambda request: web.Response(body=bytes(1001))
        assert await reason(registry.blob(place, sha256(b"a"), 1000)) == "CanonicalFormViolation"
        front.hook = lambda request: web.Response(body=b"x", headers={"Content-Encoding": "gzip"})
        assert await reason(registry.blob(place, sha256(b"a"), 1000)) == "InvalidRef"

    drive(body)


def test_a_fault_is_tried_once_more():
    async def body(front, registry, place):
        data = b'{"schemaVersion":2}'
        front.manifest("team/list", data)
        faults = iter([web.Response(status=502)])
        front.hook = lambda request: next(faults, None)
        assert (await registry.manifest(place, sha256(data))).data == data
        assert len(front.seen) == 2

        def cut(request):
            request.transport.abort()

        front.hook = cut
        assert await reason(registry.manifest(place, sha256(data))) == "Transient"

    drive(body)


def test_a_registry_that_is_not_there_is_transient():
    async def run():
        registry = Registry(insecure_hosts=frozenset({"127.0.0.1:1"}))
        try:
            assert await reason(registry.manifest(references.repository("127.0.0.1:1", "a"), "v1")) == "Transient"
        finally:
            await registry.close()

    asyncio.run(run())


def test_without_leave_a_registry_is_asked_by_tls_only():
    async def body(front, registry, place):
        registry.insecure_hosts = frozenset()
        assert await reason(registry.manifest(place, "v1")) == "Transient"
        assert front.seen == []
        assert registry.url(place, "x").scheme == "https"

    drive(body)


def ticket(front, *, users=None, token="t0"):
    """A token service at /token, and a registry that wants its tokens."""

    def hook(request):
        if request.path == "/token":
            if users is not None and request.headers.get("Authorization") != users:
                return web.Response(status=401)
            return web.json_response({"token": token, "expires_in": 300})
        if request.headers.get("Authorization") == f"Bearer {token}":
            return None
        realm = f'Bearer realm="http://{front.host}/token",service="registry",scope="repository:all:push,delete"'
        return web.Response(status=401, headers={"WWW-Authenticate": realm})

    return hook


def test_an_anonymous_token_is_fetched_once_and_for_pulling_only():
    async def body(front, registry, place):
        data = b'{"schemaVersion":2}'
        front.manifest("team/list", data)
        front.hook = ticket(front)
        assert (await registry.manifest(place, sha256(data))).data == data
        assert (await registry.manifest(place, sha256(data))).data == data
        asked = [request for request in front.seen if request.path == "/token"]
        assert len(asked) == 1
        assert dict(asked[0].query) == {"scope": "repository:team/list:pull", "service": "registry"}
        assert "Authorization" not in asked[0].headers
        assert len(front.seen) == 4

    drive(body)


def test_a_token_that_is_not_taken_any_more_is_fetched_anew():
    async def body(front, registry, place):
        data = b'{"schemaVersion":2}'
        front.manifest("team/list", data)
        front.hook = ticket(front)
        await registry.manifest(place, sha256(data))
        front.hook = ticket(front, token="t1")
        assert (await registry.manifest(place, sha256(data))).data == data

    drive(body)


def test_credentials_go_to_the_token_service_or_the_registry_and_nowhere_else():
    basic = Basic("ann", "secret")

    async def bearer(front, registry, place):
        data = b'{"schemaVersion":2}'
        front.manifest("team/list", data)
        front.hook = ticket(front, users=basic.header())
        assert (await registry.manifest(place, sha256(data))).data == data
        assert [request.headers.get("Authorization") for request in front.seen] == [None, basic.header(), "Bearer t0"]

    async def plain(front, registry, place):
        def hook(request):
            if request.headers.get("Authorization") != basic.header():
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            if "elsewhere" in request.path:
                raise AssertionError
            return web.Response(status=307, headers={"Location": f"http://{other.host}/elsewhere"})

        async with Front() as other:
            other.hook = lambda request: web.Response(body=b"body")
            front.hook = hook
            assert await registry.blob(place, sha256(b"body"), 10) == b"body"
            assert "Authorization" not in other.seen[0].headers

    drive(bearer, credentials=basic)
    drive(plain, credentials=basic)
    assert "secret" not in repr(basic)


def test_wrong_credentials_and_wrong_token_services_are_unauthorized():
    async def wrong(front, registry, place):
        front.hook = ticket(front, users="Basic other")
        assert await reason(registry.manifest(place, "v1")) == "Unauthorized"

    async def nothing(front, registry, place):
        def hook(request):
            if request.path == "/token":
                return answer()
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{front.host}/token"'})

        front.hook = hook
        for document in ({}, {"token": 5}, {"token": "a b"}, {"token": "x" * 40_000}, []):
            answer = partial(web.json_response, document)
            assert await reason(registry.manifest(place, "v1")) == "Unauthorized"
        answer = partial(web.Response, status=500)
        assert await reason(registry.manifest(place, "v1")) == "Transient"

    async def no_user(front, registry, place):
        for header in ("Basic", "Negotiate", "Bearer", 'Bearer service="x"', 'Bearer realm="' + "a" * 5000 + '"'):
            front.hook = lambda request, header=header: web.Response(status=401, headers={"WWW-Authenticate": header})
            assert await reason(registry.manifest(place, "v1")) == "Unauthorized"

    for body in (wrong, nothing, no_user):
        drive(body)


@pytest.mark.parametrize(
    "location",
    ["http://192.0.2.1/x", "http://example.com/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "https://user:pass@example.com/", "//192.0.2.1/x", "http://["],
)  # fmt: skip
def test_redirects_and_realms_lead_to_https_or_loopback_only(location):
    async def body(front, registry, place):
        front.hook = lambda request: web.Response(status=302, headers={"Location": location})
        assert await reason(registry.blob(place, sha256(b"a"), 10)) == "InvalidRef"
        realm = f'Bearer realm="{location}"'
        front.hook = lambda request: web.Response(status=401, headers={"WWW-Authenticate": realm})
        assert await reason(registry.blob(place, sha256(b"a"), 10)) == "Unauthorized"

    drive(body)


def test_a_secure_registry_does_not_lead_to_this_machine_without_tls():
    async def body(front, registry, place):
        registry.insecure_hosts = frozenset()
        with pytest.raises(Refused):
            registry.redirected(registry.url(place, "x"), "http://127.0.0.1/x", place)
        assert registry.redirected(registry.url(place, "x"), "https://cdn.example/x", place).host == "cdn.example"

    drive(body)


@pytest.mark.parametrize(
    ("location", "passes"),
    [
        ("http://registry.test:5000/token", True),
        ("/v2/elsewhere", True),
        ("https://registry.test:5000/token", True),
        ("https://auth.example/token", True),
        ("http://registry.test/token", False),
        ("http://registry.test:5001/token", False),
        ("http://auth.example/token", False),
        ("http://127.0.0.1:5000/token", False),
        ("http://localhost/token", False),
    ],
)
def test_a_registry_without_tls_leads_to_itself_or_to_https_and_so_do_its_credentials(location, passes):
    registry = Registry(insecure_hosts=frozenset({"registry.test:5000"}))
    place = references.repository("registry.test:5000", "team/list")
    for said in ({}, {"reason": "Unauthorized"}):
        if passes:
            assert registry.redirected(registry.url(place, "x"), location, place, **said)
            continue
        with pytest.raises(Refused) as raised:
            registry.redirected(registry.url(place, "x"), location, place, **said)
        assert raised.value.reason == said.get("reason", "InvalidRef")


def test_a_registrys_password_goes_nowhere_when_its_realm_is_another_host_without_tls():
    async def body(front, registry, place):
        async with Front() as thief:
            realm = f'Bearer realm="http://{thief.host}/token"'
            front.hook = lambda request: web.Response(status=401, headers={"WWW-Authenticate": realm})
            # The name is the front's, as in-cluster names are a registry's.
            place = references.repository(f"registry.test:{front.host.rpartition(':')[2]}", "team/list")
            registry.insecure_hosts = frozenset({place.host})
            registry.credentials = {place.host: Basic("ann", "secret")}
            registry.opened().connector._resolver = Here()
            assert await reason(registry.manifest(place, "v1")) == "Unauthorized"
            assert len(front.seen) == 1 and thief.seen == []
            # Its own realm has it, at its own host.
            front.hook = ticket(front, users=registry.credentials[place.host].header())
            assert await reason(registry.manifest(place, "v1")) != "Transient"

    drive(body)


class Here(Guarded):
    """Every name is this machine's."""

    async def resolve(self, host, port=0, family=0):
        return await super().resolve("127.0.0.1", port, socket.AF_INET)


NEVER = ["169.254.169.254", "169.254.1.1", "[fe80::1]", "[febf::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "168.63.129.16", "100.100.100.200", "0.0.0.0", "224.0.0.1"]  # fmt: skip
# Resolvers read these as 169.254.169.254, without asking anybody.
DISGUISED = ["0xa9fea9fe", "2852039166", "0251.0376.0251.0376"]


@pytest.mark.parametrize("host", [*NEVER, *DISGUISED])
def test_metadata_and_link_local_addresses_are_no_registry_whatever_they_are_called(host):
    async def body(front, registry, place):
        for port in ("", ":5000"):
            for insecure in (frozenset(), frozenset({host + port})):
                registry.insecure_hosts = insecure
                barred = references.repository(host + port, "team/list")
                with pytest.raises(Refused, match="never asked") as raised:
                    await registry.manifest(barred, "v1")
                assert raised.value.reason == "InvalidRef"
        assert await reason(registry.post(URL(f"https://{host}/token"), {}, place)) == "InvalidRef"

    drive(body)


@pytest.mark.parametrize("host", [*NEVER, *DISGUISED])
def test_no_redirect_and_no_realm_leads_to_metadata_or_link_local_addresses(host):
    async def body(front, registry, place):
        front.hook = lambda request: web.Response(status=302, headers={"Location": f"https://{host}/x"})
        assert await reason(registry.blob(place, sha256(b"a"), 10)) == "InvalidRef"
        realm = f'Bearer realm="https://{host}/token"'
        front.hook = lambda request: web.Response(status=401, headers={"WWW-Authenticate": realm})
        assert await reason(registry.manifest(place, "v1")) in {"Unauthorized", "InvalidRef"}
        assert len(front.seen) == 2

    drive(body)


@pytest.mark.parametrize("host", ["10.1.2.3", "172.16.0.1", "192.168.1.1", "[fd12::1]", "100.64.0.1", "127.0.0.1"])
def test_a_registry_may_be_on_a_private_network(host):
    assert not is_barred(host)
    registry = Registry()
    place = references.repository("registry.test", "team/list")
    assert registry.redirected(registry.url(place, "x"), f"https://{host}/x", place).host == host.strip("[]")


def test_redirects_do_not_go_round_for_ever():
    async def body(front, registry, place):
        front.hook = lambda request: web.Response(status=302, headers={"Location": request.path})
        assert await reason(registry.blob(place, sha256(b"a"), 10)) == "Transient"
        assert len(front.seen) == 4

    drive(body)


def test_referrers_come_by_pages_and_the_tag_where_there_is_no_api():
    one, two = ({"mediaType": OCI, "digest": sha256(name), "size": 1, "artifactType": "x"} for name in (b"1", b"2"))

    async def pages(front, registry, place):
        def hook(request):
            more = "last" not in request.query
            link = {"Link": f'</v2/team/list/referrers/{subject}?last=1>; rel="next"'} if more else {}
            body = json.dumps({"manifests": [one if more else two]})
            return web.Response(text=body, content_type=INDEX, headers=link)

        subject = sha256(b"subject")
        front.hook = hook
        assert [found.digest for found in await registry.referrers(place, subject)] == [one["digest"], two["digest"]]
        assert len(front.seen) == 2

    async def endless(front, registry, place):
        subject = sha256(b"subject")
        link = {"Link": f'</v2/team/list/referrers/{subject}?last=1>; rel="next"'}
        front.hook = lambda request: web.Response(text='{"manifests":[]}', headers=link)
        assert await registry.referrers(place, subject) == []
        assert len(front.seen) == 4

    async def tag(front, registry, place):
        subject = sha256(b"subject")
        body = json.dumps({"manifests": [one]}).encode()
        front.manifest("team/list", body, subject.replace(":", "-"), media_type=INDEX)
        assert [found.digest for found in await registry.referrers(place, subject)] == [one["digest"]]
        assert await registry.referrers(place, sha256(b"other")) == []

    for body in (pages, endless, tag):
        drive(body)


def ref(**members):
    values = {"registry": "registry.example", "repository": "a/b", "digest": sha256(b""), **members}
    return OciArtifactRef(**values)


@pytest.mark.parametrize(
    "registry", ["", "a b", "a/b", "user@host", "a:b", "http://a", "-a", "a:123456", "[::1", "a?x", "a#x"]
)
def test_a_registry_is_a_host(registry):
    with pytest.raises(Refused) as raised:
        references.artifact(ref(registry=registry), TYPE)
    assert raised.value.reason == "InvalidRef"


@pytest.mark.parametrize("members", [{"repository": name} for name in ("", "A", "a b", "a//b", "/a", "a/", "../a", "a/./b", "a%2fb", "a?b", "a" * 256)] + [{"digest": text} for text in ("", "sha256:", "sha256:" + "A" * 64, "sha512:" + "a" * 128, sha256(b"") + "\n")])  # fmt: skip
def test_a_repository_and_a_digest_are_what_registries_have(members):
    with pytest.raises(Refused) as raised:
        references.artifact(ref(**members), TYPE)
    assert raised.value.reason == "InvalidRef"


def test_images_are_named_as_pods_name_them():
    digest = sha256(b"")
    for text, place, tag in (
        ("busybox", "docker.io/library/busybox", "latest"),
        ("busybox:1", "docker.io/library/busybox", "1"),
        ("team/app:1", "docker.io/team/app", "1"),
        ("index.docker.io/team/app", "docker.io/team/app", "latest"),
        ("localhost/app:1", "localhost/app", "1"),
        ("registry:5000/app", "registry:5000/app", "latest"),
        ("registry.example/a/b:v1.2", "registry.example/a/b", "v1.2"),
        (f"registry.example/a/b:v1@{digest}", "registry.example/a/b", "v1"),
    ):
        found = references.image(text)
        assert (str(found.repository), found.tag) == (place, tag)
        assert found.digest == (digest if "@" in text else "")
    for text in ("", ":", "@", "a@sha256:x", "A/b", "a:b c", "https://a.example/b", "a.example/b:" + "x" * 129):
        with pytest.raises(Refused):
            references.image(text)


@given(st.text(max_size=60))
def test_no_text_makes_an_image_of_anything_but_checked_parts(text):
    try:
        found = references.image(text)
    except Refused:
        return
    assert references.repository(found.repository.host, found.repository.name) == found.repository


@given(st.text(max_size=80))
def test_no_header_makes_a_challenge_without_a_realm(header):
    found = tokens.challenge(header)
    assert found is None or found.scheme == "basic" or found.realm


def test_challenges_are_read_in_any_case_and_order():
    assert tokens.challenge('bearer service="s", realm="https://a/t"') == Challenge("bearer", "https://a/t", "s")
    assert tokens.challenge("BASIC realm=x") == Challenge("basic")


def test_a_docker_config_gives_users_by_host():
    auth = base64.b64encode(b"ann:se:cret").decode()
    document = {
        "auths": {"https://index.docker.io/v1/": {"auth": auth}, "r.example:5000": {"username": "bob", "password": "x"}}
    }
    found = tokens.docker_config(json.dumps(document).encode())
    assert {host: (basic.user, basic.password) for host, basic in found.items()} == {
        "docker.io": ("ann", "se:cret"),
        "r.example:5000": ("bob", "x"),
    }
    assert tokens.docker_config(b"{}") == {}
    for text in (b"", b"[]", b'{"auths":[]}', b'{"auths":{"a":{}}}', b'{"auths":{"a":{"auth":"hunter2"}}}', b'{"auths":{"a b":{"auth":"YTpi"}}}'):  # fmt: skip
        with pytest.raises(SettingsError) as raised:
            tokens.docker_config(text)
        assert "hunter2" not in str(raised.value)
