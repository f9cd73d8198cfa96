"""From a reference to content: a real registry, real signatures, and each reason for a refusal."""

import asyncio
import base64
import json

import pytest
from aiohttp import web

from kars.artifacts import fetch
from kars.artifacts.contents import EGRESS, INFERENCE, Allowlist, write
from kars.artifacts.fetch import Artifacts, Refused
from kars.artifacts.signers import Key, SignerPolicy
from kars.model.inference import InferenceBundleRef
from kars.model.sandbox import AllowlistRef, Endpoint
from tests.unit.artifacts import world as sigstore
from tests.unit.artifacts.depot import INDEX, OCI, SIMPLE, artifact, described, referrer, sha256
from tests.unit.artifacts.front import Front
from tests.unit.artifacts.test_keyed import P256, pem
from tests.unit.artifacts.world import GITHUB, WORKFLOW

BODY = write(Allowlist((Endpoint(host="api.example.com", port=443),), 3))
SIGNERS = SignerPolicy((GITHUB,), (WORKFLOW,))
KEYED = SignerPolicy(keys=(Key("release", pem(P256)),))


def reference(host, repository, manifest, kind=AllowlistRef, media_type=EGRESS):
    return kind(registry=host, repository=repository, digest=sha256(manifest), artifact_type=media_type)


def keyed(manifest, repository):
    """A simple signing payload and its annotations."""
    payload = sigstore.simple(sha256(manifest), repository)
    signature = base64.b64encode(sigstore.sign(P256, payload)).decode()
    return payload, {"dev.cosignproject.cosign/signature": signature}


def run(body, *hosts, world=None):
    async def start():
        root = world.trusted_root() if world else None
        artifacts = Artifacts(trusted_root=root, insecure_hosts=frozenset(hosts))
        try:
            return await body(artifacts)
        finally:
            await artifacts.close()

    return asyncio.run(start())


def fetched(where, signers, world=None):
    return run(lambda artifacts: artifacts.fetch(where, EGRESS, signers), where.registry, world=world)


def fronted(body, world=None):
    async def start():
        async with Front() as front:
            root = world.trusted_root() if world else None
            artifacts = Artifacts(trusted_root=root, insecure_hosts=frozenset({front.host}))
            try:
                return await body(front, artifacts)
            finally:
                await artifacts.close()

    return asyncio.run(start())


async def refusal(work):
    try:
        await work
    except Refused as refused:
        return refused.reason
    return "nothing"


def publish(front, repository="team/list", *, body=BODY, media_type=EGRESS, world=None):
    """An artifact with a bundle by the referrers API (or a payload by key) at a front; the manifest."""
    manifest = artifact([body], media_type)
    front.manifest(repository, manifest)
    front.put(repository, body)
    if world is None:
        payload, annotations = keyed(manifest, f"{front.host}/{repository}")
        front.put(repository, payload)
        layers = {"schemaVersion": 2, "layers": [described(payload, SIMPLE, annotations=annotations)]}
        front.manifest(repository, json.dumps(layers).encode(), f"{sha256(manifest).replace(':', '-')}.sig")
    else:
        bundle = json.dumps(world.bundle(sha256(manifest))).encode()
        attached = referrer(manifest, bundle)
        front.put(repository, bundle)
        front.manifest(repository, attached)
        front.refer(repository, sha256(manifest), described(attached, OCI, artifactType=sigstore.BUNDLE))
    return manifest


def test_fetches_from_a_real_registry_what_each_kind_of_signature_covers(depot, world):
    def bundled(repository, manifest):
        depot.attach(repository, manifest, json.dumps(world.bundle(sha256(manifest))).encode())

    def older(repository, manifest):
        payload = sigstore.simple(sha256(manifest), f"{depot.host}/{repository}")
        depot.sign_simple(repository, manifest, [(payload, world.annotations(payload))])

    def by_key(repository, manifest):
        depot.sign_simple(repository, manifest, [keyed(manifest, f"{depot.host}/{repository}")])

    for name, sign, signers, identity in (
        ("bundle", bundled, SIGNERS, f"{WORKFLOW} ({GITHUB})"),
        ("older", older, SIGNERS, f"{WORKFLOW} ({GITHUB})"),
        ("keyed", by_key, KEYED, "key release"),
    ):
        repository = f"team/{name}"
        manifest = depot.artifact(repository, BODY, EGRESS)
        sign(repository, manifest)
        found = fetched(reference(depot.host, repository, manifest), signers, world)
        assert (found.media_type, found.body, found.digest, found.identity) == (
            EGRESS,
            BODY,
            sha256(manifest),
            identity,
        )
        assert found.content == Allowlist((Endpoint(host="api.example.com", port=443),), 3)


def test_layers_are_joined_in_order(depot):
    parts = [b'{"displayName":', b'"two layers"}']
    manifest = depot.artifact("team/parts", b"", INFERENCE, layers=parts)
    depot.sign_simple("team/parts", manifest, [keyed(manifest, f"{depot.host}/team/parts")])
    where = reference(depot.host, "team/parts", manifest, InferenceBundleRef, INFERENCE)
    assert run(lambda a: a.fetch(where, INFERENCE, KEYED), depot.host).content == {"displayName": "two layers"}


def test_what_nobody_signed_is_refused_and_so_is_what_is_not_there(depot):
    manifest = depot.artifact("team/unsigned", BODY, EGRESS)

    async def body(artifacts):
        where = reference(depot.host, "team/unsigned", manifest)
        assert await refusal(artifacts.fetch(where, EGRESS, KEYED)) == "SignatureVerifyFailed"
        assert await refusal(artifacts.fetch(where, EGRESS, SignerPolicy())) == "SignerPolicyMissing"
        assert await refusal(artifacts.fetch(where, EGRESS, SignerPolicy((GITHUB,)))) == "SignerPolicyMissing"
        assert await refusal(artifacts.fetch(where, INFERENCE, KEYED)) == "InvalidRef"
        gone = reference(depot.host, "team/unsigned", b"nothing")
        assert await refusal(artifacts.fetch(gone, EGRESS, KEYED)) == "NotFound"

    run(body, depot.host)


def test_content_in_another_form_is_refused_only_after_its_signature_held(depot):
    manifest = depot.artifact("team/form", BODY + b"# late\n", EGRESS)
    where = reference(depot.host, "team/form", manifest)
    assert run(lambda a: refusal(a.fetch(where, EGRESS, KEYED)), depot.host) == "SignatureVerifyFailed"
    depot.sign_simple("team/form", manifest, [keyed(manifest, f"{depot.host}/team/form")])
    assert run(lambda a: refusal(a.fetch(where, EGRESS, KEYED)), depot.host) == "CanonicalFormViolation"


def test_swapped_bytes_are_a_digest_mismatch(world):
    async def body(front, artifacts):
        manifest = publish(front, world=world)
        where = reference(front.host, "team/list", manifest)
        front.stored[f"/v2/team/list/blobs/{sha256(BODY)}"] = BODY.replace(b"api.", b"evl.")
        assert await refusal(artifacts.fetch(where, EGRESS, SIGNERS)) == "DigestMismatch"
        front.put("team/list", BODY)
        front.stored[f"/v2/team/list/manifests/{sha256(manifest)}"] = artifact([b"other"], EGRESS)
        assert await refusal(artifacts.fetch(where, EGRESS, SIGNERS)) == "DigestMismatch"
        front.manifest("team/list", manifest)
        assert (await artifacts.fetch(where, EGRESS, SIGNERS)).body == BODY

    fronted(body, world)


def test_a_manifest_of_another_kind_is_an_invalid_reference():
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2}

    async def body(front, artifacts):
        for document in (
            b"no manifest",
            artifact([BODY], INFERENCE),
            artifact([], EGRESS),
            artifact([BODY] * 17, EGRESS),
            json.dumps({"mediaType": INDEX, "manifests": []}).encode(),
            json.dumps({"config": empty, "layers": [described(BODY, "text/plain")]}).encode(),
            json.dumps({"artifactType": EGRESS, "layers": [{"digest": "sha512:" + "a" * 128, "size": 1}]}).encode(),
        ):
            front.manifest("team/list", document)
            assert (
                await refusal(artifacts.fetch(reference(front.host, "team/list", document), EGRESS, KEYED))
                == "InvalidRef"
            )
        large = json.dumps({"artifactType": EGRESS, "layers": [{"digest": sha256(b""), "size": 10**9}]}).encode()
        front.manifest("team/list", large)
        assert (
            await refusal(artifacts.fetch(reference(front.host, "team/list", large), EGRESS, KEYED))
            == "CanonicalFormViolation"
        )

    fronted(body)


def test_the_referrers_api_is_asked_and_only_bundles_about_the_subject_count(world):
    async def body(front, artifacts):
        manifest = publish(front, world=world)
        digest = sha256(manifest)
        assert (await artifacts.fetch(reference(front.host, "team/list", manifest), EGRESS, SIGNERS)).identity
        assert f"/v2/team/list/referrers/{digest}" in front.paths
        # A referrer that is about another manifest, though the registry lists it here.
        other = artifact([BODY, b""], EGRESS)
        front.put("team/list", b"")
        front.manifest("team/list", other)
        bundle = json.dumps(world.bundle(sha256(other))).encode()
        wrong = referrer(manifest, bundle)
        front.put("team/list", bundle)
        front.manifest("team/list", wrong)
        front.refer("team/list", sha256(other), described(wrong, OCI, artifactType=sigstore.BUNDLE))
        assert (
            await refusal(artifacts.fetch(reference(front.host, "team/list", other), EGRESS, SIGNERS))
            == "SignatureVerifyFailed"
        )

    fronted(body, world)


def test_a_signature_that_cannot_be_read_does_not_hide_one_that_can(world):
    async def body(front, artifacts):
        manifest = publish(front, world=world)
        listed = json.loads(front.stored[f"/v2/team/list/referrers/{sha256(manifest)}"])["manifests"]
        gone = described(b"gone", OCI, artifactType=sigstore.BUNDLE)
        nonsense = described(b"nonsense", OCI, artifactType=sigstore.BUNDLE)
        front.manifest("team/list", b"nonsense")
        front.refer("team/list", sha256(manifest), gone, nonsense, *listed)
        assert (await artifacts.fetch(reference(front.host, "team/list", manifest), EGRESS, SIGNERS)).identity

    fronted(body, world)


def test_a_fault_while_signatures_are_read_is_transient_and_not_a_verdict():
    async def body(front, artifacts):
        manifest = publish(front)
        front.hook = lambda request: web.Response(status=503) if request.path.endswith(".sig") else None
        where = reference(front.host, "team/list", manifest)
        assert await refusal(artifacts.fetch(where, EGRESS, KEYED)) == "Transient"
        front.hook = lambda request: None
        assert (await artifacts.fetch(where, EGRESS, KEYED)).identity == "key release"

    fronted(body)


def test_callers_of_one_artifact_share_one_fetch_and_a_cancelled_one_leaves_it_to_the_others():
    async def body(front, artifacts):
        manifest = publish(front)
        where = reference(front.host, "team/list", manifest)
        callers = [asyncio.create_task(artifacts.fetch(where, EGRESS, KEYED)) for _ in range(10)]
        await asyncio.sleep(0)
        callers[0].cancel()
        found = await asyncio.gather(*callers[1:])
        assert len({id(one) for one in found}) == 1
        assert front.paths.count(f"/v2/team/list/manifests/{sha256(manifest)}") == 1
        assert await artifacts.fetch(where, EGRESS, KEYED) is found[0]
        assert front.paths.count(f"/v2/team/list/manifests/{sha256(manifest)}") == 1

    fronted(body)


def test_a_registry_that_is_slow_holds_nobody_and_its_answer_still_counts(monkeypatch):
    """A reconcile waits in one of few workers, and whoever may write a resource names the registry."""
    monkeypatch.setattr(fetch, "PATIENCE", 0.05)

    async def body(artifacts):
        answered = asyncio.Event()

        async def slow():
            await answered.wait()
            return "found"

        for _ in range(2):
            assert await refusal(artifacts.once(("one",), slow, 60)) == "Transient"
        assert len(artifacts.flights) == 1
        answered.set()
        await asyncio.sleep(0.01)
        assert artifacts.recall(("one",)) == "found"
        assert not artifacts.flights

    run(body)


def test_a_fetch_ends_and_only_so_many_wait_for_their_turn(monkeypatch):
    monkeypatch.setattr(fetch, "LONGEST_FETCH", 0.1)
    monkeypatch.setattr(fetch, "MOST_FLIGHTS", 2)

    async def body(artifacts):
        callers = [
            asyncio.create_task(refusal(artifacts.once((number,), lambda: asyncio.sleep(3600), 60)))
            for number in range(3)
        ]
        assert await asyncio.wait_for(asyncio.gather(*callers), 5) == ["Transient"] * 3
        assert not artifacts.flights

    run(body)


def test_a_refusal_is_not_remembered():
    async def body(front, artifacts):
        manifest = artifact([BODY], EGRESS)
        where = reference(front.host, "team/list", manifest)
        assert await refusal(artifacts.fetch(where, EGRESS, KEYED)) == "NotFound"
        publish(front)
        assert (await artifacts.fetch(where, EGRESS, KEYED)).body == BODY

    fronted(body)


def test_a_signer_who_is_taken_out_of_the_policy_counts_no_more_at_once():
    async def body(front, artifacts):
        manifest = publish(front)
        where = reference(front.host, "team/list", manifest)
        assert (await artifacts.fetch(where, EGRESS, KEYED)).identity == "key release"
        revoked = SignerPolicy(keys=(Key("release", pem(sigstore.new_key())),))
        assert await refusal(artifacts.fetch(where, EGRESS, revoked)) == "SignatureVerifyFailed"
        narrowed = SignerPolicy(keys=(Key("release", pem(P256), ("registry.example/*",)),))
        assert await refusal(artifacts.fetch(where, EGRESS, narrowed)) == "IdentityMismatch"

    fronted(body)


def test_what_is_remembered_ends_and_is_bounded(monkeypatch):
    monkeypatch.setattr(fetch, "CACHE_ENTRIES", 2)

    async def body(front, artifacts):
        places = []
        for number in range(3):
            manifest = publish(front, f"team/list{number}")
            places.append(reference(front.host, f"team/list{number}", manifest))
            await artifacts.fetch(places[-1], EGRESS, KEYED)
        assert len(artifacts.cache) == 2
        assert artifacts.bytes == sum(fetch.weight(found) for _, found in artifacts.cache.values())
        before = len(front.seen)
        await artifacts.fetch(places[2], EGRESS, KEYED)
        assert len(front.seen) == before
        for key, (_, found) in list(artifacts.cache.items()):
            artifacts.cache[key] = (0.0, found)
        await artifacts.fetch(places[2], EGRESS, KEYED)
        assert len(front.seen) > before
        monkeypatch.setattr(fetch, "CACHE_BYTES", 100)
        await artifacts.fetch(places[1], EGRESS, KEYED)
        assert len(artifacts.cache) == artifacts.bytes == 0

    fronted(body)


def test_close_ends_what_is_under_way():
    async def body(front, artifacts):
        stuck = asyncio.Event()

        async def wait(request):
            await stuck.wait()

        front.hook = wait
        caller = asyncio.create_task(artifacts.fetch(reference(front.host, "team/list", b"x"), EGRESS, KEYED))
        while not front.seen:
            await asyncio.sleep(0.01)
        await artifacts.close()
        with pytest.raises(asyncio.CancelledError):
            await caller
        stuck.set()

    fronted(body)


def test_an_image_is_pinned_by_the_digest_of_what_its_tag_names(depot, world):
    platform = depot.artifact("team/app", b"layer", "application/vnd.oci.image.layer.v1.tar")
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [described(platform, OCI)]}).encode()
    depot.manifest("team/app", index, "v1", INDEX)
    depot.attach("team/app", index, json.dumps(world.bundle(sha256(index))).encode())

    async def body(artifacts):
        pinned = f"{depot.host}/team/app@{sha256(index)}"
        for text in (f"{depot.host}/team/app:v1", pinned, f"{depot.host}/team/app:other@{sha256(index)}"):
            assert await artifacts.check_image(text, SIGNERS) == (pinned, f"{WORKFLOW} ({GITHUB})")
        # The index is what is signed: a platform's manifest by itself is not.
        alone = f"{depot.host}/team/app@{sha256(platform)}"
        assert await refusal(artifacts.check_image(alone, SIGNERS)) == "SignatureVerifyFailed"
        assert await refusal(artifacts.check_image(f"{depot.host}/team/app:v2", SIGNERS)) == "NotFound"
        assert await refusal(artifacts.check_image("A B", SIGNERS)) == "InvalidRef"
        assert await refusal(artifacts.check_image(pinned, SignerPolicy())) == "SignerPolicyMissing"
        stranger = SignerPolicy(("https://issuer.example",), (WORKFLOW,))
        assert await refusal(artifacts.check_image(pinned, stranger)) == "IdentityMismatch"

    run(body, depot.host, world=world)
