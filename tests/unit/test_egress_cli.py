"""`kars egress`, `kars policy learn|replay` and `kars why`, with the router and the core played."""

import json
import sys
import time
import types

import click
import pytest

from kars import cli
from kars.cli import moments, output
from kars.errors import PolicyError, UnavailableError, UsageError
from kars.policy import publish
from kars.router import own, tools

ROW = {"host": "a.example", "port": 443, "door": "connect", "method": "", "path": ""}
ROWS = [
    {**ROW, "count": 3, "first_seen": 1_700_000_000, "last_seen": 1_700_000_060},
    {**ROW, "host": "b.example", "port": 80, "door": "http", "method": "GET", "path": "/v1/*", "count": 9},
]
ANSWERS = {
    "GET /blocklist/status": {"enabled": True, "domain_count": 7, "learn_mode": True, "learned_domains": 2},
    "GET /egress/allowlist": {"count": 1, "domains": ["a.example"], "digest": "sha256:ab", "generation": 3},
    "GET /egress/learned": {"learn_mode": True, "count": 2, "domains": [], "connections": ROWS, "dropped": 0},
    "GET /internal/policy-status": {
        "schema_version": 1,
        "entries": [
            {
                "kind": "EgressAllowlist",
                "digest": "sha256:ab",
                "loaded_at": "2026-01-02T03:04:05.000Z",
                "last_error": "x",
            },
            {"kind": "InferencePolicy", "digest": "sha256:cd"},
        ],
    },
    "GET /internal/egress/blocked": {
        "total": 2,
        "count": 2,
        "entries": [
            {"host": "evil\u001b[2J.example", "port": 443, "source_sandbox": "s", "count": 2, "last_seen_unix": 9},
            {"host": "c.example", "port": 80, "source_sandbox": "s", "count": 1},
        ],
    },
    "GET /internal/egress/blocked/top": {"top": [{"host": "c.example", "count": 5}]},
    "POST /egress/learn": {"learn_mode": False},
    "POST /egress/learned/clear": {"status": "cleared", "learn_mode": True},
}


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = cli.main(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def router(monkeypatch):
    """Play the router; gives the calls that were made."""
    calls = []

    def probe(method, path, body, *, overrides=None):
        calls.append((method, path, body, overrides))
        answer = ANSWERS.get(f"{method} {path.partition('?')[0]}")
        return (404, b'{"error":"no such route"}') if answer is None else (200, json.dumps(answer).encode())

    monkeypatch.setattr(tools, "probe", probe)
    return calls


@pytest.mark.usefixtures("router")
class TestTables:
    def test_status_names_mode_lists_errors_and_counts(self, run):
        status, out, _ = run("egress", "status")
        assert status == 0
        for part in ("mode", "learn", "sha256:ab", "error: x", "approvals  none is mounted", "7 names", "2 hosts"):
            assert part in out, part
        assert "sha256:cd" not in out

    def test_status_as_json(self, run):
        shown = json.loads(run("egress", "status", "-o", "json")[1])
        assert (shown["kind"], shown["mode"], shown["blocked"]) == ("EgressStatus", "learn", 2)
        assert [bundle["kind"] for bundle in shown["bundles"]] == ["EgressAllowlist"]

    def test_what_an_agent_named_cannot_steer_the_terminal(self, run):
        out = run("egress", "blocked")[1]
        assert "\x1b" not in out
        assert "evil\\u{1b}[2J.example" in out

    def test_learned_takes_the_most_frequent_and_the_recent(self, run):
        assert "b.example" in run("egress", "learned", "--top", "1")[1].splitlines()[1]
        out = run("egress", "learned", "--since", "1700000000")[1]
        assert "a.example" in out
        assert "b.example" not in out

    def test_what_was_learned_can_be_saved_and_read_again(self, run, tmp_path):
        saved = tmp_path / "rows.json"
        saved.write_text(run("egress", "learned", "-o", "json")[1])
        assert [row.host for row in recorded_rows(saved)] == ["a.example", "b.example"]

    def test_the_allowlist_is_one_host_per_line(self, run):
        assert run("egress", "allowlist")[:2] == (0, "a.example\n")


def recorded_rows(path):
    from kars.policy import recorded

    return recorded.parse(path.read_bytes())


def test_blocked_asks_for_the_time_and_the_top_for_a_window(run, router):
    assert run("egress", "blocked", "--since", "1700000000")[0] == 0
    assert router[-1][1] == "/internal/egress/blocked?since=1700000000"
    _, out, _ = run("egress", "blocked", "--since", "10m", "--top", "3")
    assert router[-1][1] in {f"/internal/egress/blocked/top?window={n}s&n=3" for n in (600, 601)}
    assert "c.example      5" in out


def test_learn_and_clear_change_the_router(run, router):
    assert run("egress", "learn", "off")[:2] == (0, "mode  strict\n")
    assert router[-1][:3] == ("POST", "/egress/learn", b'{"enabled":false}')
    assert json.loads(run("egress", "clear", "-o", "json")[1])["mode"] == "learn"
    assert router[-1][:3] == ("POST", "/egress/learned/clear", None)


def test_watching_prints_what_is_new_or_grown_once_and_ends_clean_with_ctrl_c(run, router, monkeypatch):
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    status, out, _ = run("egress", "blocked", "--watch", "--every", "5", "-o", "json")
    assert (status, looks) == (0, [5, 5, 5])
    assert [json.loads(line)["host"] for line in out.splitlines()] == ["c.example", "evil\x1b[2J.example"]


@pytest.mark.parametrize(
    ("status", "body", "code", "hint"),
    [
        (401, b"unauthorized", 1, "ADMIN_TOKEN"),
        (403, b"", 1, "ROUTER_ADMIN_ALLOW_IPS"),
        (404, b"{}", 3, "older"),
        (503, b'{"error":{"message":"draining"}}', 1, "readyz"),
        (200, b"<html>", 1, ""),
    ],
)
def test_a_router_that_does_not_answer_is_told_with_what_to_do(run, monkeypatch, status, body, code, hint):
    monkeypatch.setattr(tools, "probe", lambda *_, **__: (status, body))
    got, out, err = run("egress", "allowlist")
    assert (got, out) == (code, "")
    assert hint in err


def test_a_router_that_is_not_there_is_told_with_what_to_do(run, monkeypatch):
    def probe(*_, **__):
        raise UnavailableError("probe 127.0.0.1:1: refused", hint="is the router running")

    monkeypatch.setattr(tools, "probe", probe)
    assert run("egress", "status")[0] == 1


@pytest.mark.parametrize(
    ("given", "address", "port"),
    [
        ("8443", "127.0.0.1", "8443"),
        ("localhost:9", "127.0.0.1", "9"),
        ("http://10.0.0.7:8443/", "10.0.0.7", "8443"),
        ("[::1]:8443", "::1", "8443"),
    ],
)
def test_another_router_is_named_by_port_or_address(run, router, given, address, port):
    assert run("egress", "allowlist", "--router", given)[0] == 0
    assert router[-1][3] == {"ROUTER_BIND": address, "ROUTER_PORT": port}


@pytest.mark.parametrize("given", ["https://10.0.0.7:8443", "router.example:8443", "0", "x", "127.0.0.1:99999"])
def test_what_is_no_routers_address_is_a_usage_error(given):
    with pytest.raises(UsageError):
        own.overrides(given)


def test_moments_are_read_in_every_form():
    now = int(time.time())
    read = lambda text: moments.Moment().convert(text, None, None)  # noqa: E731
    assert now - 601 <= read("10m") <= now
    assert read("-10m") - read("10m") in {0, 1}
    assert read("1700000000") == read("2023-11-14T22:13:20Z") == read("2023-11-14T22:13:20") == 1_700_000_000
    with pytest.raises(click.BadParameter):
        read("yesterday")


def test_a_table_is_aligned():
    lines = output.columns(("A", "N"), [("long cell", "1"), ("b", "22")], right=frozenset({"N"}))
    assert lines == ["A           N", "long cell   1", "b          22"]


@pytest.fixture
def proposer(monkeypatch):
    """Play the proposer and the compiler: one endpoint per host and port."""

    def propose(rows, *, collapse=False):
        endpoints = sorted({(row.host, row.port) for row in rows})
        if collapse:
            endpoints = [("example", 443)]
        listed = [{"host": host, "port": port} for host, port in endpoints]
        return json.dumps({"schemaVersion": 1, "endpoints": listed}, indent=2) + "\n"

    module = types.ModuleType("kars.policy.propose")
    module.propose = propose
    monkeypatch.setitem(sys.modules, "kars.policy.propose", module)
    compiled = types.SimpleNamespace(digest="sha256:ab", problems=[])

    def compile_bundle(kind, files):
        if any(b"broken" in data for _, data in files):
            raise PolicyError("broken")
        return compiled

    monkeypatch.setattr(publish, "compile_bundle", compile_bundle)
    return compiled


@pytest.mark.usefixtures("proposer", "router")
class TestLearn:
    def test_the_table_and_the_allowlist_are_shown(self, run):
        status, out, _ = run("policy", "learn")
        assert status == 0
        assert ["b.example", "80", "http", "GET", "/v1/*", "9", "-", "-"] in [line.split() for line in out.splitlines()]
        assert '"host": "b.example"' in out

    def test_it_is_written_alone_or_to_a_file_and_no_file_is_lost(self, run, tmp_path):
        target = tmp_path / "allowlist.json"
        alone = run("policy", "learn", "--write", "-")[1]
        assert run("policy", "learn", "--write", str(target))[0] == 0
        assert target.read_text() == alone
        status, _, err = run("policy", "learn", "--collapse", "--write", str(target))
        assert (status, target.read_text()) == (1, alone)
        assert "--force" in err
        assert run("policy", "learn", "--collapse", "--write", str(target), "--force")[0] == 0
        assert json.loads(target.read_text())["endpoints"] == [{"host": "example", "port": 443}]
        assert [path.name for path in tmp_path.iterdir()] == ["allowlist.json"]

    def test_a_difference_has_both_sides_and_an_unwritten_port_is_443(self, run, tmp_path):
        current = tmp_path / "allowlist.json"
        endpoints = [{"host": "a.example"}, {"host": "old.example", "port": 443}]
        current.write_text(json.dumps({"schemaVersion": 1, "endpoints": endpoints}))
        _, out, _ = run("policy", "learn", "--diff", str(current))
        changes = [line for line in out.splitlines() if line[:2] in {"+ ", "- "}]
        assert changes == [
            '- {"host": "old.example", "port": 443}',
            '+ {"host": "b.example", "port": 80}',
        ]
        shown = json.loads(run("policy", "learn", "--diff", str(current), "-o", "json")[1])
        assert shown["diff"]["removed"] == [{"host": "old.example", "port": 443}]

    def test_what_is_no_allowlist_cannot_be_compared(self, run, tmp_path):
        (tmp_path / "x.json").write_text("[]")
        assert run("policy", "learn", "--diff", str(tmp_path / "x.json"))[0] == 1

    def test_rows_come_from_standard_input(self, run, monkeypatch):
        data = types.SimpleNamespace(read=lambda most: json.dumps(ROWS).encode())
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=data))
        assert len(json.loads(run("policy", "learn", "--from", "-", "-o", "json")[1])["rows"]) == 2

    def test_sources_exclude_each_other(self, run, tmp_path):
        assert run("policy", "learn", "--from", "x", "--audit", str(tmp_path))[0] == 2

    def test_refused_connections_of_the_log_are_not_learned(self, run, tmp_path):
        records = [("allow", "allowlist.endpoints[0]", "a"), ("deny", "allowlist", "b")]
        (tmp_path / "1.jsonl").write_text(
            "".join(
                json.dumps({"action": f"egress:connect:{host}.example:443", "decision": said, "call": {"rule": rule}})
                + "\n"
                for said, rule, host in records
            ).replace('": "', '":"')
        )
        rows = json.loads(run("policy", "learn", "--audit", str(tmp_path), "-o", "json")[1])["rows"]
        assert [row["host"] for row in rows] == ["a.example"]


@pytest.fixture
def lists(tmp_path):
    """A candidate and what is in force: hosts, as the played core reads them."""
    for name, hosts in (("candidate", "a.example"), ("current", "b.example")):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "allowlist.json").write_text(hosts)
        (directory / "approval-x.json").write_text("")
    return tmp_path


@pytest.fixture
def core(monkeypatch):
    """Play the core's replay: a host is allowed when a file has it."""
    seen = []

    def replay(files, rows):
        seen.append([name for name, _ in files])
        text = b" ".join(data for _, data in files).decode()
        return [
            tools.Judged(
                row.host, row.port, row.door, row.method, row.path, row.count, row.host in text, "r", f"add {row.host}"
            )
            for row in rows
        ]

    monkeypatch.setattr(tools, "replay", replay)
    return seen


@pytest.mark.usefixtures("proposer", "router")
class TestReplay:
    def test_what_would_be_denied_is_status_4_with_rule_and_hint(self, run, lists, core):
        status, out, _ = run("policy", "replay", str(lists / "candidate" / "allowlist.json"))
        assert status == 4
        assert "denied" in out
        assert "add b.example" in out
        assert "2 recorded destinations: 1 would be denied, 0 would be allowed, 1 stay as they are." in out
        assert core == [["allowlist.json"]]

    def test_nothing_flips_is_status_0(self, run, lists, core):
        both = lists / "both.json"
        both.write_text("a.example b.example")
        status, out, _ = run("policy", "replay", str(both))
        assert (status, len(out.splitlines())) == (0, 1)

    def test_against_the_lists_in_force_flips_go_both_ways(self, run, lists, core):
        given = ("policy", "replay", str(lists / "candidate"), "--against", str(lists / "current"), "-o", "json")
        status, out, _ = run(*given)
        shown = json.loads(out)
        assert (status, shown["rows"], shown["denied"], shown["allowed"]) == (4, 2, 1, 1)
        assert {flip["row"]["host"]: flip["flip"] for flip in shown["flips"]} == {
            "a.example": "allowed",
            "b.example": "denied",
        }
        assert core == [["allowlist.json", "approval-x.json"]] * 2

    @pytest.mark.parametrize("extra", [["current"], []])
    def test_a_candidate_has_exactly_one_allowlist(self, run, lists, core, extra):
        if not extra:
            (lists / "candidate" / "allowlist.json").unlink()
        assert run("policy", "replay", *(str(lists / name) for name in ["candidate", *extra]))[0] == 2

    def test_a_bad_candidate_is_no_candidate(self, run, lists, core):
        (lists / "candidate" / "allowlist.json").write_text("broken")
        assert run("policy", "replay", str(lists / "candidate"))[0] == 1
        assert run("policy", "replay", str(lists / "nowhere"))[0] == 3
        assert core == []

    def test_approvals_that_are_passed_over_are_told(self, run, lists, core, proposer):
        proposer.problems.append("approval-x.json: bad")
        assert "approval-x.json: bad" in run("policy", "replay", str(lists / "candidate"))[2]


@pytest.mark.usefixtures("proposer")
class TestValidate:
    def test_approvals_may_be_several_and_each_problem_is_told(self, run, lists, proposer):
        names = [str(lists / name / "approval-x.json") for name in ("candidate", "current")]
        status, out, _ = run("policy", "validate", *names)
        assert (status, "valid EgressApproval" in out) == (0, True)
        proposer.problems.append("approval-x.json: hosts: is empty")
        status, out, err = run("policy", "validate", *names)
        assert (status, out) == (1, "")
        assert "hosts: is empty" in err

    def test_an_allowlist_is_known_by_its_name_and_is_one_file(self, run, lists):
        name = str(lists / "current" / "allowlist.json")
        assert "valid EgressAllowlist" in run("policy", "validate", name)[1]
        assert run("policy", "validate", name, name)[0] == 2
        assert json.loads(run("policy", "digest", name, "-o", "json")[1])["policyKind"] == "EgressAllowlist"


ID = "3f9c1a2b4d5e6f70"
POLICY_TEXT = '{"models": {"deny": ["m"]},\n "tokenBudget": {"perRequestTokens": 10}}'


@pytest.fixture
def why(run, tmp_path, monkeypatch, proposer):
    """Write one record and ask why."""
    mounts = tmp_path / "mounts"
    mounts.mkdir()
    audit = tmp_path / "audit"
    audit.mkdir()

    def why(action, decision, *arguments, **call):
        call = {"at": "2026-01-02T03:04:05.678Z", "decision_id": ID, **call}
        record = {"sandbox": "s", "ts": "2026-01-02T03:04:05Z", "action": action, "decision": decision, "call": call}
        (audit / "2026-01-02.jsonl").write_text(json.dumps(record, separators=(",", ":")) + "\n")
        return run("why", ID.upper(), "--audit", str(audit), "--policy", str(mounts), *arguments)

    why.mounts = mounts
    return why


def test_a_refused_connection_is_explained_by_the_lists_mounted_now(why, core):
    (why.mounts / "allowlist.json").write_text("[]")
    status, out, _ = why("egress:connect:a.example:443", "deny", rule="allowlist", status=403, policy="sha256:00")
    assert status == 0
    for part in ("a tunnel (CONNECT) to a.example:443", "deny", "another policy is mounted", "add a.example", ID):
        assert part in out, part


def test_a_connection_that_the_lists_allow_by_now_says_so(why, core):
    (why.mounts / "allowlist.json").write_text("a.example")
    _, out, _ = why("egress:http:a.example:80:GET", "deny", rule="allowlist", policy="sha256:ab")
    assert "none is needed" in out
    assert "that policy is mounted" in out
    assert "a plain HTTP request to a.example:80 (GET)" in out


def test_without_a_mount_the_advice_is_to_mount_one(why, core):
    assert "EGRESS_ALLOWLIST_DIR" in why("egress:connect:a.example:443", "deny", rule="allowlist")[1]
    assert core == []


@pytest.mark.parametrize(
    ("rule", "advice"),
    [
        ("blocklist.evil.example", "BLOCKLIST_ENABLED"),
        ("address-guard", '"addresses"'),
        ("egress-fronting", "EGRESS_FRONTING"),
        ("EGRESS_MAX_CONNECTIONS", "again"),
        ("host", "grammar"),
    ],
)
def test_what_no_list_refused_has_advice_of_its_own(why, core, rule, advice):
    (why.mounts / "allowlist.json").write_text("a.example")
    assert advice in why("egress:tls:a.example:443", "deny", rule=rule)[1]
    assert core == []


def test_an_allowed_connection_tells_bytes_address_and_end(why):
    call = {"rule": "allowlist.endpoints[0]", "sent_bytes": 10, "received_bytes": 20, "address": "192.0.2.1"}
    _, out, _ = why("egress:connect:a.example:443", "allow", **call, end="complete", latency_us=1500)
    for part in ("10 bytes", "20 bytes", "192.0.2.1", "complete", "1.5 ms"):
        assert part in out, part
    assert "change" not in out


def test_a_model_call_is_explained_with_the_place_of_its_rule(why):
    (why.mounts / "inference-policy.json").write_text(POLICY_TEXT)
    call = {"rule": "tokenBudget.perRequestTokens", "policy": "sha256:ab", "status": 429, "model": "m"}
    _, out, _ = why("inference:chat_completions:m", "deny", **call)
    for part in ("chat completions of model m", "inference-policy.json:2: 10", "fewer output tokens", "429"):
        assert part in out, part


def test_the_explanation_as_json_has_the_record_itself(why):
    status, out, _ = why("admin:egress-learn", "deny", "-o", "json", rule="admin-token", status=401)
    shown = json.loads(out)
    assert (status, shown["kind"], shown["id"], shown["asked"]) == (0, "Decision", ID, "admin:egress-learn")
    assert shown["record"]["call"]["status"] == 401


def test_a_decision_that_is_not_recorded_is_status_3_with_advice(why, run, tmp_path):
    why("a", "allow")
    status, out, err = run("why", "0" * 16, "--audit", str(tmp_path / "audit"))
    assert (status, out) == (3, "")
    assert "when they end" in err


@pytest.mark.parametrize("given", ["xyz", "3f9c", ID + "0", "../../etc/passwd"])
def test_what_is_no_decision_id_is_a_usage_error(run, given):
    assert run("why", given)[0] == 2


def test_the_audit_directory_is_the_routers_own_setting(run, monkeypatch, tmp_path):
    monkeypatch.setattr(tools, "setting", lambda name: str(tmp_path / name))
    assert str(tmp_path / "KARS_AUDIT_DIR") in run("why", ID)[2]
