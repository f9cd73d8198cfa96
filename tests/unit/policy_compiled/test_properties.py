"""Whatever the model admits, the router takes as compiled, under the digest that was computed."""

import json
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from kars import _core
from kars.errors import ResourceError
from kars.model.decode import decode
from kars.model.egress import ApprovedHost
from kars.policy.compiled import egress, hosts, inference
from kars.policy.compiled.outcome import Given, Unfit
from tests.unit.policy_compiled.samples import make

NOW = datetime(2026, 7, 1, 9, tzinfo=UTC)
optional = lambda strategy: st.none() | strategy  # noqa: E731
tokens = optional(st.integers(0, 2**53 - 1) | st.integers(0, 50))
severity = optional(st.sampled_from(["Safe", "Low", "Medium", "High"]))
name = st.from_regex(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,5}", fullmatch=True)
model = st.fixed_dictionaries({"provider": name, "deployment": st.from_regex(r"[!-~]{1,6}", fullmatch=True)})
label = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)

specs = st.fixed_dictionaries(
    {
        "appliesTo": st.fixed_dictionaries(
            {},
            optional={
                "sandboxName": st.from_regex(r"[a-z0-9]([-a-z0-9]{0,56}[a-z0-9])?", fullmatch=True),
                "sandboxMatchLabels": st.dictionaries(label, label, max_size=4),
                "action": st.sampled_from(["chat", "responses", "image", "embeddings", "*"]),
            },
        )
    },
    optional={
        "tokenBudget": st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("perRequestTokens", "dailyTokens", "monthlyTokens"), tokens)
        ),
        "contentSafety": st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys(("hate", "selfHarm", "sexual", "violence"), severity),
                "requirePromptShields": optional(st.booleans()),
            },
        ),
        "modelPreference": st.fixed_dictionaries(
            {"primary": model}, optional={"fallback": st.lists(model, max_size=16)}
        ),
        "displayName": st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=256),
    },
)


@settings(deadline=None, max_examples=150)
@given(specs)
@example({"appliesTo": {}, "tokenBudget": {"perRequestTokens": 7, "dailyTokens": 0, "monthlyTokens": 7}})
@example({"appliesTo": {}, "displayName": '\u2028\u00ad"\\é💡'})
def test_the_router_takes_whatever_inference_policy_the_model_admits(spec):
    try:
        policy = make("InferencePolicy", spec)
    except ResourceError:
        assume(False)
    compiled = inference.render(policy, Given())
    body = compiled.objects[0]["data"][inference.FILE].encode()
    assert _core.Snapshot.compile("InferencePolicy", [(inference.FILE, body)]).digest == compiled.digest


label_text = st.from_regex(r"[a-z0-9_-]{1,5}", fullmatch=True)
host_text = st.one_of(
    st.from_regex(r"[*A-Za-z0-9_.:\[\]-]{1,40}", fullmatch=True),
    st.lists(
        st.sampled_from(["a", "B", "*", "1", "0x1f", "0x", "-", "", "_x", "255", "256", "010"]), min_size=1, max_size=5
    ).map(".".join),
    st.lists(label_text, min_size=1, max_size=4).map(".".join),
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"),
    st.ip_addresses(v=4).map(lambda ip: f"::ffff:{ip}"),
    st.integers(1, 64).map(lambda n: "a" * n),
    st.integers(240, 253).map(lambda n: ("a." * 127)[: n - 1] + "z"),
).filter(lambda text: 0 < len(text) <= 253)


def compiles(body):
    try:
        return _core.Snapshot.compile("EgressAllowlist", [(egress.FILE, body)])
    except _core.CoreError:
        return None


@settings(deadline=None, max_examples=500)
@given(host_text)
@example("0.0.0.0")
@example("224.0.0.1")
@example("255.255.255.255")
@example("::ffff:255.255.255.255")
@example("64:ff9b::a9fe:a9fe")
@example("::")
@example("::1")
@example("[fe80::1]")
@example("a.b.")
@example("*.a.b.")
@example("1.2.3.4.")
@example("*.*")
def test_a_host_is_left_out_exactly_when_the_router_would_refuse_it(text):
    host = text.strip().lower()
    alone = egress.compact({"schemaVersion": 1, "endpoints": [{"host": host, "port": 443}]})
    taken = compiles(alone) is not None
    if hosts.fault(host):
        # An IPv6 address that embeds an IPv4 one is left out in some forms that the router would take; nobody lists those.
        assert not taken or (":" in host and "." not in host), host
    else:
        assert taken, host


@settings(deadline=None, max_examples=500)
@given(
    st.integers(0, 2**128 - 1),
    st.sampled_from(
        [
            0,
            0xFFFF << 32,
            0x64FF9B << 96,
            0x2002 << 112,
            0x20010000 << 96,
            0xFE80 << 112,
            0x5EFE << 32,
            0xFFFF0000 << 32,
            0x0064FF9B0001 << 80,
        ]
    ),
)
def test_no_address_that_stays_makes_the_router_refuse_the_list(value, prefix):
    address = str(IPv6Address(value)) if not prefix else str(IPv6Address(prefix | (value & 0xFFFFFFFF)))
    if not hosts.fault(address):
        assert compiles(egress.allowlist([ApprovedHost(host=address)])) is not None, address


listed = st.lists(st.builds(ApprovedHost, host=host_text, port=optional(st.integers(1, 65535))), max_size=12)


@settings(deadline=None, max_examples=150)
@given(listed)
def test_the_router_takes_whatever_list_the_model_admits(endpoints):
    body = egress.allowlist(endpoints)
    snapshot = compiles(body)
    assert snapshot is not None and snapshot.digest == egress.allowlist_digest(body)
    again = json.loads(body)["endpoints"]
    assert again == sorted(again, key=lambda one: (one["host"], one["port"]))
    assert egress.allowlist([ApprovedHost(**one) for one in again]) == body


prose = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=512)


@settings(deadline=None, max_examples=150)
@given(
    listed.filter(bool),
    prose,
    optional(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=128)),
    st.integers(1, 604_800),
)
def test_the_router_takes_whatever_approval_the_model_admits(endpoints, reason, ticket, seconds):
    spec = {
        "sandbox": "demo",
        "hosts": [{"host": one.host, **({"port": one.port} if one.port else {})} for one in endpoints],
        "reason": reason,
        "ttl": "PT1H",
        **({"ticket": ticket} if ticket else {}),
    }
    approval = decode(
        {"apiVersion": "kars.azure.com/v1alpha1", "kind": "EgressApproval", "metadata": {"name": "one"}, "spec": spec}
    )
    try:
        body = egress.approval(approval, effective_at=NOW, expires_at=NOW + timedelta(seconds=seconds))
    except Unfit as unfit:
        assert unfit.reason == "SpecInvalid" and all(hosts.fault(one.host.lower()) for one in endpoints)
        return
    snapshot = _core.Snapshot.compile("EgressApproval", [(egress.approval_file("one"), body)])
    assert snapshot.problems == []
