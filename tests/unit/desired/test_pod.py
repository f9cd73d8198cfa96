"""The pod: its containers in their order, its confinement, its code."""

import pytest

from kars.desired import guard, router, runtime
from kars.desired.facts import Unplannable
from kars.desired.plan import plan
from tests.unit.desired.cases import CODE, everything, facts, least, platform, sandbox
from tests.unit.desired.looking import agent, container, env, mounts, of_kind, pod, volume
from tests.unit.desired.looking import router as router_of


def order(given):
    spec = pod(given)
    return [one["name"] for one in spec.get("initContainers", [])], [one["name"] for one in spec["containers"]]


def coded(code, **given):
    return facts(sandbox(kind="PydanticAi", runtime={"pydanticAi": {"agentCode": code}}), **given)


OCI = {"oci": {"image": "registry.example.com/code:3"}}


def test_the_router_starts_after_the_guard_and_before_the_agent():
    assert order(facts()) == (["egress-guard", "inference-router"], ["openclaw"])
    assert router_of(facts())["restartPolicy"] == "Always"
    assert router_of(facts())["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_where_there_are_no_sidecars_the_router_runs_beside_the_agent():
    given = facts(native_sidecars=False, sleep_actions=False)
    assert order(given) == (["egress-guard"], ["openclaw", "inference-router"])
    assert "restartPolicy" not in router_of(given) and "lifecycle" not in router_of(given)


def test_code_is_cloned_behind_the_guard_and_through_the_router_as_the_agents_user():
    given = coded(CODE)
    assert order(given) == (["egress-guard", "inference-router", "agent-code"], ["agent"])
    clone = container(given, "agent-code")
    assert clone["securityContext"]["runAsUser"] == guard.AGENT_UID
    assert env(clone)["https_proxy"] == "http://127.0.0.1:8444"
    assert env(clone)["GIT_ALLOW_PROTOCOL"] == "https"
    assert clone["args"] == ["https://git.example.com/a.git", "v1", "src/agent"]
    assert [mount["name"] for mount in clone["volumeMounts"]] == ["agent-code"]
    assert [m for m in agent(given)["volumeMounts"] if m["name"] == "agent-code"] == [
        {"name": "agent-code", "mountPath": "/sandbox/agent", "readOnly": True, "subPath": "tree/src/agent"}
    ]


@pytest.mark.parametrize("url", ["ssh://git@example.com/a.git", "git://example.com/a.git", "git@example.com:a.git"])
def test_what_no_proxy_carries_is_refused(url):
    with pytest.raises(Unplannable, match="https://"):
        plan(coded({"git": {"url": url}}))


def test_a_clone_that_the_router_could_not_see_is_refused():
    with pytest.raises(Unplannable, match="native sidecars"):
        plan(coded(CODE, native_sidecars=False))


def test_code_in_an_image_is_a_volume_where_the_cluster_has_such():
    given = coded(OCI, image_volumes=True)
    assert volume(given, "agent-code")["image"] == {
        "reference": "registry.example.com/code:3",
        "pullPolicy": "IfNotPresent",
    }
    assert "agent-code" not in order(given)[0]


def test_else_the_image_copies_itself_with_nothing_but_its_files():
    given = coded(OCI)
    copier = container(given, "agent-code")
    assert copier["image"] == "registry.example.com/code:3"
    assert "env" not in copier and copier["securityContext"]["runAsUser"] == guard.AGENT_UID
    assert order(given)[0][0] == "egress-guard"
    assert agent(given)["volumeMounts"][-1]["subPath"] == "tree"


@pytest.mark.parametrize(
    ("confinement", "profile"),
    [
        ({}, {"type": "Localhost", "localhostProfile": "profiles/kars-strict.json"}),
        ({"isolation": "strict"}, {"type": "Localhost", "localhostProfile": "profiles/kars-strict.json"}),
        ({"seccompProfile": "mine"}, {"type": "Localhost", "localhostProfile": "profiles/mine.json"}),
        ({"seccompProfile": "RuntimeDefault"}, {"type": "RuntimeDefault"}),
        ({"seccompProfile": ""}, {"type": "RuntimeDefault"}),
        ({"isolation": "standard"}, {"type": "RuntimeDefault"}),
        ({"isolation": "confidential", "seccompProfile": "mine"}, {"type": "RuntimeDefault"}),
    ],
)
def test_seccomp(confinement, profile):
    assert pod(facts(sandbox(sandbox=confinement)))["securityContext"]["seccompProfile"] == profile


def test_confidential_is_a_virtual_machine_of_its_own_pool():
    spec = pod(facts(sandbox(sandbox={"isolation": "confidential"})))
    assert spec["runtimeClassName"] == "kata-vm-isolation"
    assert spec["nodeSelector"] == {"kars.azure.com/pool": "sandbox-kata"}
    other = pod(facts())
    assert "runtimeClassName" not in other and other["nodeSelector"] == {"kars.azure.com/pool": "sandbox"}
    assert other["tolerations"] == [
        {"key": "kars.azure.com/sandbox", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    ]


def test_confinement_is_what_the_sandbox_says():
    loose = agent(facts(sandbox(sandbox={"readOnlyRootFilesystem": False, "allowPrivilegeEscalation": True})))[
        "securityContext"
    ]
    assert loose["readOnlyRootFilesystem"] is False and loose["allowPrivilegeEscalation"] is True
    strict = agent(facts())["securityContext"]
    assert strict["readOnlyRootFilesystem"] is True and strict["allowPrivilegeEscalation"] is False
    assert pod(facts())["securityContext"]["runAsUser"] == pod(facts())["securityContext"]["fsGroup"] == 1000
    assert router_of(facts())["securityContext"]["runAsUser"] == 1001


def test_a_sandbox_that_sleeps_keeps_everything_but_its_pod():
    assert of_kind(facts(sandbox(suspended=True)), "Deployment")["spec"]["replicas"] == 0
    assert len(plan(facts(sandbox(suspended=True)))) == len(plan(facts()))


def test_data_that_is_kept_goes_with_one_pod_at_a_time():
    given = everything()
    assert of_kind(given, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    claim = of_kind(given, "PersistentVolumeClaim", "everything-data")
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "10Gi"}},
        "storageClassName": "fast-ssd",
    }
    assert claim["metadata"]["annotations"]["kars.azure.com/reclaim"] == "Retain"
    assert "strategy" not in of_kind(facts(), "Deployment")["spec"]


def test_needs_replace_the_defaults_wholesale():
    assert agent(facts())["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    assert agent(facts(sandbox(resources={"limits": {"cpu": "3"}})))["resources"] == {"limits": {"cpu": "3"}}


@pytest.mark.parametrize("paths", [["/data", "/data/"], ["/sandbox/", "/tmp", "/data"]])
def test_a_writable_path_is_mounted_once_however_it_is_written(paths):
    found = mounts(agent(facts(sandbox(sandbox={"writablePaths": paths}))))
    assert set(found) == {"/sandbox", "/tmp", "/data", "/etc/agt/policies"}


@pytest.mark.parametrize("path", ["/", "/var/run/secrets/x", "/sandbox/agent/data"])
def test_a_writable_path_cannot_lie_over_what_the_controller_mounts(path):
    code = {"pydanticAi": {"agentCode": CODE}}
    given = {"sandbox": {"writablePaths": [path]}}
    if path == "/":
        given = {"sandbox": {"writablePaths": ["/."]}}
    with pytest.raises(Unplannable, match="writablePaths"):
        plan(facts(sandbox(kind="PydanticAi", runtime=code, **given)))


def test_openclaws_configuration_is_a_file_and_another_one_is_another_pod():
    def annotation(config):
        given = facts(sandbox(runtime={"openclaw": {"config": config}}))
        return of_kind(given, "Deployment")["spec"]["template"]["metadata"]["annotations"].get(
            "kars.azure.com/openclaw-config-digest"
        )

    assert annotation({"a": 1}) != annotation({"a": 2})
    assert annotation({}) is None


def test_probes_ask_the_router_over_http_and_need_no_shell():
    one = router_of(facts())
    assert [one[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")] == [
        "/healthz",
        "/healthz",
        "/readyz",
    ]
    assert {one[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")} == {"inference"}
    for kind in ("OpenClaw", "Hermes", "BYO", "LangGraph"):
        assert not [key for key in agent(least(kind)) if key.endswith("Probe")]


def test_the_drain_fits_in_the_pods_grace_with_room_for_the_agent():
    assert pod(facts())["terminationGracePeriodSeconds"] == 60
    drain = int(env(router_of(facts()))["SHUTDOWN_TIMEOUT_SECS"])
    assert drain + router.LINGER < 60 / 2
    assert env(router_of(facts(platform=platform(termination_grace=10))))["SHUTDOWN_TIMEOUT_SECS"] == "5"
    assert router_of(facts())["lifecycle"] == {"preStop": {"sleep": {"seconds": router.LINGER}}}


def test_ports():
    def ports(one):
        return {port["name"]: port["containerPort"] for port in one.get("ports", [])}

    assert ports(router_of(facts())) == {"inference": 8443, "metrics": 9090}
    assert ports(agent(least("OpenClaw"))) == {"gateway": 18789}
    assert ports(agent(least("Hermes"))) == {"gateway": 18789, "dashboard": 9119}
    assert ports(agent(least("BYO"))) == {}
    service = {port["name"]: port["port"] for port in of_kind(least("Hermes"), "Service")["spec"]["ports"]}
    assert service == {"inference": 8443, "gateway": 18789, "dashboard": 9119}
    assert [port["name"] for port in of_kind(least("OpenClaw"), "Service")["spec"]["ports"]] == ["inference"]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("x:latest", "Always"), ("x", "Always"), ("localhost:5000/x", "Always"), ("x:1", "IfNotPresent"),
        ("localhost:5000/x:1.2", "IfNotPresent"), ("x@sha256:" + "a" * 64, "IfNotPresent"), ("x:latest@sha256:" + "a" * 64, "IfNotPresent"),
    ],
)  # fmt: skip
def test_pull_policy(image, policy):
    assert runtime.pull_policy(facts(), image) == policy
    assert runtime.pull_policy(facts(platform=platform(dev_profile=True)), image) == "IfNotPresent"


def test_each_image_has_a_policy_of_its_own():
    given = facts(platform=platform(guard_image="guard:1", sandbox_image="x:latest", router_image="router:2"))
    assert container(given, "egress-guard")["imagePullPolicy"] == "IfNotPresent"
    assert container(given, "egress-guard")["image"] == "guard:1"
    assert agent(given)["imagePullPolicy"] == "Always"
    assert router_of(given)["imagePullPolicy"] == "IfNotPresent"


def test_images_are_pinned_where_signatures_are_required():
    pins = {
        "karsacr.azurecr.io/kars-inference-router:latest": "r@sha256:" + "a" * 64,
        "karsacr.azurecr.io/openclaw-sandbox:latest": "s@sha256:" + "b" * 64,
    }
    given = facts(pinned=pins)
    assert {router_of(given)["image"], agent(given)["image"], container(given, "egress-guard")["image"]} == set(
        pins.values()
    )


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("OpenClaw", "openclaw-sandbox"), ("OpenAIAgents", "openai-agents"), ("MicrosoftAgentFramework", "maf-python"), ("LangGraph", "langgraph"),
        ("Anthropic", "anthropic"), ("PydanticAi", "pydantic-ai"), ("Hermes", "hermes"),
    ],
)  # fmt: skip
def test_the_image_of_a_kind(kind, image):
    assert image in agent(least(kind))["image"]
    assert agent(least(kind))["name"] == ("openclaw" if kind == "OpenClaw" else "agent")


def test_typescript_has_an_image_of_its_own():
    given = facts(sandbox(kind="LangGraph", runtime={"langGraph": {"language": "typescript"}}))
    assert agent(given)["image"].endswith("kars-runtime-langgraph-ts:latest")


def test_an_image_of_ones_own_has_its_command():
    byo = {"image": "x:1", "contractVersion": "v1", "command": ["/bin/agent"], "args": ["--serve"]}
    one = agent(facts(sandbox(kind="BYO", runtime={"byo": byo})))
    assert (one["image"], one["command"], one["args"]) == ("x:1", ["/bin/agent"], ["--serve"])
    assert agent(facts(sandbox(kind="Hermes", runtime={"hermes": {"entrypoint": ["a", "b"]}})))["command"] == ["a", "b"]


def test_a_kind_without_an_adapter_says_so():
    with pytest.raises(Unplannable) as caught:
        plan(facts(sandbox(kind="SemanticKernel")))
    assert caught.value.reason == "AdapterMissing"


def added(text):
    """The rules of a guard's text in their order, by table and what is done."""
    return [line.strip() for line in text.splitlines() if line.strip().startswith("add ")]


def test_the_guards_order():
    lines = added(guard.script())
    held, *agents = [line for line in lines if '"$agent"' in line and " filter " in line]
    assert '-p tcp --sport "$port" -j DROP' in held
    assert [
        "-o lo" in agents[0],
        "$loopback" in agents[1],
        "udp --dport 53" in agents[2],
        "tcp --dport 53" in agents[3],
    ] == [True] * 4
    assert "ESTABLISHED" in agents[4] and agents[-1].endswith("-j DROP")
    assert [line for line in lines if " nat " in line][-1].endswith('-j REDIRECT --to-port "$proxy"')


def test_the_sres_exception_stands_before_the_end_of_the_filter_and_before_the_redirect():
    lines = added(guard.script(sre=True))
    accept = next(i for i, line in enumerate(lines) if "KUBERNETES_SERVICE_HOST" in line and "ACCEPT" in line)
    ends = ("REJECT", '"$agent" -j DROP')
    closed = next(i for i, line in enumerate(lines) if any(end in line for end in ends))
    back = next(i for i, line in enumerate(lines) if "KUBERNETES_SERVICE_HOST" in line and "RETURN" in line)
    redirect = next(i for i, line in enumerate(lines) if "REDIRECT" in line)
    assert accept < closed and back < redirect
    assert not [line for line in added(guard.script()) if "KUBERNETES_SERVICE_HOST" in line]


def test_the_sres_agent_goes_straight_to_the_api_server():
    given = facts(sandbox("sre", kind="Hermes"), sre=True)
    assert env(agent(given))["NO_PROXY"].endswith("10.96.0.1,kubernetes.default.svc")
    assert mounts(agent(given))[router.TOKEN_PATH] == "api-token"
    assert "KARS_NAMESPACE" not in env(router_of(given))


def test_the_guard_holds_every_port_of_the_routers_for_the_router():
    assert guard.ROUTER_PORTS == (router.PORT, guard.PROXY_PORT, router.METRICS_PORT)
    assert "for port in 8443 8444 9090; do" in guard.script()
