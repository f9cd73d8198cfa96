"""The tables of the NetworkPolicy: which rule, and when."""

import ipaddress

import pytest

from kars.desired.facts import ModelFacts, Unplannable
from kars.model.sandbox import Endpoint
from tests.unit.desired.cases import everything, facts, platform, sandbox
from tests.unit.desired.looking import of_kind

SANDBOXES = {"namespaceSelector": {"matchLabels": {"kars.azure.com/role": "sandbox"}}}
SYSTEM = {
    "namespaceSelector": {"matchLabels": {"app.kubernetes.io/name": "kars", "app.kubernetes.io/component": "system"}}
}


def named(name):
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def rules(given, direction="egress"):
    """Rules as pairs of peers and `protocol/port`."""
    spec = of_kind(given, "NetworkPolicy")["spec"]
    peers = "to" if direction == "egress" else "from"
    return [
        (rule[peers], [f"{port['protocol']}/{port.get('port', '*')}" for port in rule["ports"]])
        for rule in spec[direction]
    ]


def cidrs(peers):
    return [peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer]


def reaches(given, address, port, protocol="TCP"):
    """Whether an address outside the cluster may be reached, as a CNI would decide."""
    target = ipaddress.ip_address(address)
    for peers, ports in rules(given):
        if f"{protocol}/{port}" not in ports:
            continue
        for peer in peers:
            block = peer.get("ipBlock")
            if (
                block
                and target in ipaddress.ip_network(block["cidr"])
                and not any(target in ipaddress.ip_network(one) for one in block.get("except", []))
            ):
                return True
    return False


def test_it_is_one_policy_for_the_sandboxes_pods_in_both_directions():
    policy = of_kind(facts(), "NetworkPolicy")
    assert policy["metadata"]["name"] == "sandbox-policy"
    assert policy["spec"]["podSelector"] == {"matchLabels": {"kars.azure.com/component": "sandbox"}}
    assert policy["spec"]["policyTypes"] == ["Egress", "Ingress"]


def test_the_least_of_what_may_leave():
    given = facts(platform=platform(spawn=False))
    dns, https, peers, mesh, sidecar = rules(given)
    assert dns == ([named("kube-system")], ["UDP/53", "TCP/53"])
    assert https[1] == ["TCP/443"] and cidrs(https[0]) == ["0.0.0.0/0", "::/0"]
    assert peers == ([SANDBOXES], ["TCP/8443"])
    assert mesh == ([named("agentmesh")], ["TCP/8765", "TCP/8080", "TCP/8083", "TCP/8082"])
    assert sidecar == ([SYSTEM], ["TCP/5000"])


@pytest.mark.parametrize(
    ("address", "open_"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("10.0.0.1", False), ("172.20.0.1", False), ("192.168.1.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("fd00::1", False), ("fe80::1", False),
    ],
)  # fmt: skip
def test_https_reaches_the_internet_and_nothing_private_of_either_family(address, open_):
    assert reaches(facts(platform=platform(spawn=False)), address, 443) == open_


def test_name_servers_outside_kube_system_are_those_that_are_configured():
    assert cidrs(rules(facts())[0][0]) == []
    given = facts(platform=platform(dns_addresses=("10.0.0.10", "fd00::a")))
    assert cidrs(rules(given)[0][0]) == ["10.0.0.10/32", "fd00::a/128"]


@pytest.mark.parametrize("configured", [{}, {"imds_client_id": "x"}, {"workload_identity_client_id": "x"}])
def test_the_metadata_service_is_open_only_where_it_is_used(configured):
    assert reaches(facts(platform=platform(**configured)), "169.254.169.254", 80) == bool(configured)


def endpoints(*pairs):
    return tuple(Endpoint(host=host, port=port) for host, port in pairs)


def test_an_endpoint_by_name_opens_its_port_to_public_addresses_only():
    given = facts(endpoints=endpoints(("db.example.com", 5432), ("other.example.com", 5432)))
    assert reaches(given, "93.184.216.34", 5432) and reaches(given, "2606:2800:220:1::1", 5432)
    assert (
        not reaches(given, "10.0.0.1", 5432)
        and not reaches(given, "169.254.169.254", 5432)
        and not reaches(given, "fd00::1", 5432)
    )
    assert len(rules(given)) == len(rules(facts())) + 1


def test_an_endpoint_by_address_opens_that_address_and_no_other():
    given = facts(endpoints=endpoints(("10.1.2.3", 5432), ("fd00::7", None), ("[fd00::8]", 9000)))
    assert reaches(given, "10.1.2.3", 5432) and not reaches(given, "10.1.2.4", 5432)
    assert reaches(given, "fd00::7", 443) and reaches(given, "fd00::8", 9000) and not reaches(given, "fd00::8", 443)


@pytest.mark.parametrize("host", ["169.254.169.254", "fe80::1", "[fd00:ec2::254]", "::ffff:169.254.169.254"])
def test_no_endpoint_opens_what_the_router_never_dials(host):
    assert rules(facts(endpoints=endpoints((host, 80)))) == rules(facts())


def test_an_address_in_the_other_familys_clothes_is_itself():
    given = facts(endpoints=endpoints(("::ffff:10.1.2.3", 443)))
    assert reaches(given, "10.1.2.3", 443)


def test_an_endpoint_that_is_open_already_adds_no_rule():
    given = facts(endpoints=endpoints(("github.com", None), ("*.example.org", 443), ("93.184.216.34", 443)))
    assert rules(given) == rules(facts())


def test_private_endpoints_of_model_servers_are_open_where_they_are_configured():
    given = facts(platform=platform(private_networks=("10.200.0.0/16",)))
    assert (
        reaches(given, "10.200.3.4", 443)
        and not reaches(given, "10.201.0.1", 443)
        and not reaches(given, "10.200.3.4", 80)
    )


@pytest.mark.parametrize(
    ("url", "peers", "ports"),
    [
        ("http://vllm.models.svc:8000/v1", [named("models")], ["TCP/*"]),
        ("http://vllm.models.svc.cluster.local./v1", [named("models")], ["TCP/*"]),
        ("http://10.9.8.7:8000/v1", [{"ipBlock": {"cidr": "10.9.8.7/32"}}], ["TCP/8000"]),
    ],
)
def test_a_model_server_in_the_cluster_is_reached(url, peers, ports):
    assert (peers, ports) in rules(facts(model=ModelFacts(deployment="m", endpoint=url)))


@pytest.mark.parametrize("tail", ["", ":8000/v1", ".cluster.local/", ".cluster.local.:443/v1", ".example.com"])
@pytest.mark.parametrize(
    "namespace",
    ["kube-system", "kube-public", "kube-node-lease", "KUBE-SYSTEM", "kars-system", "kars-demo", "kars-other", "agentmesh", "operators", "", "*"],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_model_server_opens_a_namespace_of_the_control_plane_or_of_another_sandbox(scheme, namespace, tail):
    url = f"{scheme}://x.{namespace}.svc{tail}"
    by_policy = facts(model=ModelFacts(deployment="m", endpoint=url), platform=platform(namespace="operators"))
    by_platform = facts(platform=platform(namespace="operators", foundry_endpoint=url))
    by_router = facts(platform=platform(namespace="operators", router_env={"OPENAI_BASE_URL": url}))
    for given in (by_policy, by_platform, by_router):
        with pytest.raises(Unplannable, match="model server x") as refused:
            rules(given)
        assert refused.value.reason == "SpecInvalid"


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "2852039166", "[::ffff:a9fe:a9fe]"]
)
def test_no_model_server_opens_the_metadata_service(host):
    with pytest.raises(Unplannable, match="never opened"):
        rules(facts(model=ModelFacts(deployment="m", endpoint=f"http://{host}/latest")))


def test_a_model_server_on_another_port_opens_it_to_public_addresses_only():
    given = facts(model=ModelFacts(deployment="m", endpoint="https://models.example.com:8443/v1"))
    assert reaches(given, "93.184.216.34", 8443) and not reaches(given, "10.0.0.1", 8443)


def test_the_api_server_is_for_the_sre_and_for_routers_that_spawn():
    server = {"api_server": ("10.96.0.1", 443), "api_endpoints": (("192.168.0.2", 6443), ("fd00::2", 6443))}
    for given in (facts(**server), facts(sandbox("sre", kind="Hermes"), sre=True, **server)):
        assert (
            reaches(given, "10.96.0.1", 443) and reaches(given, "192.168.0.2", 6443) and reaches(given, "fd00::2", 6443)
        )
    shut = facts(platform=platform(spawn=False), **server)
    assert not reaches(shut, "10.96.0.1", 443) and not reaches(shut, "192.168.0.2", 6443)


def test_what_may_come():
    peers, operator = rules(facts(), "ingress")
    assert peers == ([SANDBOXES], ["TCP/8443", "TCP/18789", "TCP/18791"])
    assert operator == ([SYSTEM], ["TCP/8443"])
    assert rules(facts(sandbox(governance={"enabled": False}), tools=None), "ingress") == [operator]


def test_metrics_are_scraped_from_the_namespace_that_is_configured():
    assert rules(everything(), "ingress")[-1] == ([named("monitoring")], ["TCP/9090"])
