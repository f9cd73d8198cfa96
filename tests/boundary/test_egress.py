"""The egress lists, from their files to what people see of them."""

import json
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kars import _core
from kars.errors import PolicyError
from kars.local import follow, tour, trail
from kars.policy import kinds, publish, recorded
from kars.policy.propose import proposal
from kars.policy.recorded import Row
from kars.router import tools

NAMES = [Row("b.example", 443), Row("a.example", 443), Row("c.example", 80, "http", "GET", "/v1/things/*")]


class Hello(BaseHTTPRequestHandler):
    """Answers every GET."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    """A destination on loopback; gives its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def allowing(*endpoints):
    return {"schemaVersion": 1, "endpoints": [{"host": host, "port": port} for host, port in endpoints]}


def approving(port, *, sandbox="boundary", hours=1):
    now = datetime.now(UTC)
    return {
        "schemaVersion": 1,
        "approvalName": "x",
        "sandbox": sandbox,
        "hosts": [{"host": "127.0.0.1", "port": port}],
        "reason": "a test",
        "effectiveAt": (now - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expiresAt": (now + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


@pytest.fixture
def one(router, site):
    """A router whose allowlist has the site."""
    made = router(policy={})
    made.site = f"http://127.0.0.1:{site}/"
    made.write_egress("allowlist.json", allowing(("127.0.0.1", site)))
    made.until(lambda: made.policy_status("EgressAllowlist"))
    return made


def test_what_is_listed_leaves_and_what_is_not_is_explained(one):
    assert one.through(one.site)[::2] == (200, "hello")
    status, headers, body = one.through("http://example.com/")
    assert status == 403
    assert headers["x-kars-decision-id"] in body
    assert '{"host":"example.com","port":80}' in body


def test_a_bad_allowlist_keeps_the_one_in_force_and_a_missing_one_lets_nothing_out(one):
    digest = one.policy_status("EgressAllowlist")["digest"]
    one.write_egress("allowlist.json", '{"schemaVersion":1,"endpoints":[{"host":"a b"}]}')
    one.until(lambda: one.policy_status("EgressAllowlist")["last_error"])
    assert "endpoints[0]" in one.policy_status("EgressAllowlist")["last_error"]
    assert one.policy_status("EgressAllowlist")["digest"] == digest
    assert one.through(one.site)[0] == 200
    one.write_egress("allowlist.json", None)
    one.until(lambda: one.policy_status("EgressAllowlist") is None)
    assert one.through(one.site)[0] == 403


def test_an_approval_adds_and_a_bad_one_beside_it_is_told_and_takes_nothing_away(one, site):
    one.write_egress("allowlist.json", allowing())
    one.until(lambda: one.through(one.site)[0] == 403)
    one.write_egress("approval-bad.json", '{"schemaVersion":1}')
    one.write_egress("approval-other.json", approving(site, sandbox="other"))
    one.write_egress("approval-good.json", approving(site))
    one.until(lambda: one.through(one.site)[0] == 200)
    error = one.policy_status("EgressApproval")["last_error"]
    assert "approval-bad.json" in error
    assert "other" in error
    one.write_egress("approval-good.json", None)
    one.until(lambda: one.through(one.site)[0] == 403)
    one.write_egress("approval-bad.json", None)
    one.write_egress("approval-other.json", None)
    one.until(lambda: one.policy_status("EgressApproval")["last_error"] is None)


def test_an_approval_that_is_over_or_stands_without_an_allowlist_lets_nothing_out(one, site):
    one.write_egress("approval-over.json", approving(site, hours=-1))
    one.write_egress("allowlist.json", allowing())
    one.until(lambda: one.through(one.site)[0] == 403)
    one.write_egress("approval-live.json", approving(site))
    one.until(lambda: one.through(one.site)[0] == 200)
    one.write_egress("allowlist.json", None)
    one.until(lambda: one.through(one.site)[0] == 403)


def test_the_allowlist_counts_from_the_first_connection_after_a_start(router, site):
    made = router(policy={})
    made.write_egress("allowlist.json", allowing(("127.0.0.1", site)))
    made.write_egress("approval-x.json", approving(site))
    made.stop()
    made.start()
    assert made.through(f"http://127.0.0.1:{site}/")[0] == 200
    assert made.policy_status("EgressApproval")["digest"] != made.policy_status("EgressAllowlist")["digest"]


def test_why_explains_a_refusal_by_its_id_and_what_would_allow_it(one, tmp_path):
    decision = one.through("http://example.com/")[1]["x-kars-decision-id"]
    one.stop()
    done = one.cli("why", decision)
    assert done.returncode == 0, done.stderr
    for part in ("example.com:80 (GET)", "deny", "that policy is mounted", '{"host":"example.com","port":80}'):
        assert part in done.stdout, part
    one.write_egress("allowlist.json", allowing(("example.com", 80)))
    shown = json.loads(one.cli("why", decision, "-o", "json").stdout)
    assert shown["change"] == "none is needed: allowlist.endpoints[0] allows it now"
    assert shown["record"]["call"]["decision_id"] == decision
    assert one.cli("why", "0" * 16).returncode == 3


def test_why_explains_a_model_call(router):
    made = router(policy={"models": {"deny": ["m"]}})
    made.call("POST", "/v1/chat/completions", b'{"model":"m","messages":[{"role":"user","content":"x"}]}')
    made.stop()
    records = [json.loads(line) for path in made.audit.glob("*.jsonl") for line in path.read_text().splitlines()]
    decision = next(record["call"]["decision_id"] for record in records if record["decision"] == "deny")
    done = made.cli("why", decision)
    assert done.returncode == 0, done.stderr
    assert "models.deny[0]" in done.stdout
    assert 'inference-policy.json:1: "m"' in done.stdout


def test_learning_is_switched_shown_saved_and_forgotten_with_the_token_alone(one, tmp_path):
    done = one.cli("egress", "learn", "on")
    assert (done.returncode, done.stdout) == (0, "mode  learn\n"), done.stderr
    assert one.through(one.site)[0] == 200
    done = one.cli("egress", "learned", "-o", "json")
    (row,) = json.loads(done.stdout)["connections"]
    assert (row["host"], row["door"], row["method"], row["count"]) == ("127.0.0.1", "http", "GET", 1)
    saved = tmp_path / "rows.json"
    saved.write_text(done.stdout)
    assert [row.host for row in recorded.parse(saved.read_bytes())] == ["127.0.0.1"]
    one.until(lambda: recorded.parse((one.state / "egress-learned.jsonl").read_bytes()))
    done = one.cli("policy", "learn", "--from", str(one.state / "egress-learned.jsonl"))
    assert "left out: " in done.stderr
    assert '"endpoints": []' in done.stdout
    token = one.environment.pop("ADMIN_TOKEN")
    for words in (("learn", "off"), ("clear",)):
        done = one.cli("egress", *words)
        assert (done.returncode, "ADMIN_TOKEN" in done.stderr) == (1, True)
    one.environment["ADMIN_TOKEN"] = token
    assert one.cli("egress", "clear").returncode == 0
    assert json.loads(one.cli("egress", "learned", "-o", "json").stdout)["count"] == 0


def test_the_tables_show_what_is_refused_and_what_is_in_force(one):
    one.through("http://example.com/")
    one.through("http://example.com/")
    done = one.cli("egress", "blocked", "--since", "1h")
    assert ["example.com", "80", "boundary", "2"] in [line.split()[:4] for line in done.stdout.splitlines()], (
        done.stderr
    )
    assert "example.com      2" in one.cli("egress", "blocked", "--top", "5", "--since", "1h").stdout
    assert one.cli("egress", "allowlist").stdout == "127.0.0.1\n"
    done = one.cli("egress", "status")
    assert "mode       strict" in done.stdout, done.stderr
    assert one.policy_status("EgressAllowlist")["digest"] in done.stdout
    done = one.cli("egress", "status", "--router", str(one.port))
    assert done.returncode == 0
    assert one.cli("egress", "status", "--router", "1").returncode == 1


def test_a_candidate_is_replayed_on_what_was_recorded(one, tmp_path):
    one.through(one.site)
    one.through("http://example.com/")
    one.stop()
    empty, wide = tmp_path / "empty.json", tmp_path / "wide.json"
    empty.write_text(json.dumps(allowing()))
    wide.write_text(json.dumps(allowing(("127.0.0.1", int(one.site.split(":")[-1].strip("/"))), ("example.com", 80))))
    done = one.cli("policy", "replay", str(empty), "--audit", str(one.audit), "-o", "json")
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["rows"], shown["denied"], shown["allowed"]) == (4, 2, 1, 0)
    assert shown["flips"][0]["row"]["host"] == "127.0.0.1"
    assert shown["flips"][0]["hint"]
    done = one.cli("policy", "replay", str(wide), "--audit", str(one.audit), "--against", str(one.egress))
    assert done.returncode == 0, done.stderr
    assert "0 would be denied, 1 would be allowed, 1 stay" in done.stdout


@pytest.mark.parametrize("collapse", [False, True])
def test_what_is_proposed_allows_all_that_was_recorded_and_nothing_beside(tmp_path, collapse):
    text = proposal(NAMES, collapse=collapse).text
    files = [("allowlist.json", text.encode())]
    assert publish.compile_bundle(kinds.ALLOWLIST, files).digest.startswith("sha256:")
    assert [row.allowed for row in tools.replay(files, NAMES)] == [True] * 3
    beside = [Row("a.example", 8443), Row("d.example"), Row("c.example", 80, "http", "POST", "/v1/things/1")]
    verdicts = tools.replay(files, beside)
    assert [row.allowed for row in verdicts] == [False] * 3
    assert all(row.rule and row.hint for row in verdicts)


def test_a_replay_needs_a_valid_allowlist():
    with pytest.raises(PolicyError):
        tools.replay([("allowlist.json", b"nonsense")], [])
    with pytest.raises(PolicyError):
        tools.replay([], [])


def test_policy_validate_knows_the_egress_files(router, tmp_path):
    made = router(policy={})
    good, bad, approval = (tmp_path / name for name in ("allowlist.json", "allowlist-bad.json", "approval-x.json"))
    good.write_text(json.dumps(allowing(("a.example", 443))))
    bad.write_text('{"schemaVersion":1,"endpoints":[{"host":"a.example","prot":443}]}')
    approval.write_text(json.dumps(approving(443)))
    made.write_egress("allowlist.json", good.read_text())
    made.until(lambda: made.policy_status("EgressAllowlist"))
    assert made.cli("policy", "digest", str(good)).stdout.strip() == made.policy_status("EgressAllowlist")["digest"]
    assert made.cli("policy", "validate", str(good)).returncode == 0
    assert made.cli("policy", "validate", str(approval)).returncode == 0
    done = made.cli("policy", "validate", str(bad))
    assert (done.returncode, "endpoints[0].prot" in done.stderr) == (1, True), done.stderr
    (tmp_path / "approval-y.json").write_text("{}")
    done = made.cli("policy", "validate", str(approval), str(tmp_path / "approval-y.json"))
    assert (done.returncode, "approval-y.json" in done.stderr) == (1, True)


def test_a_snapshot_tells_which_approvals_it_passes_over():
    files = [("approval-a.json", json.dumps(approving(443)).encode()), ("approval-b.json", b"{}")]
    snapshot = _core.Snapshot.compile("EgressApproval", files)
    assert ["approval-b.json" in problem for problem in snapshot.problems] == [True]
    assert _core.Snapshot.compile("EgressApproval", []).problems == []


def test_the_demo_lets_its_model_server_be_reached_through_the_proxy_and_nothing_unlisted(tmp_path):
    port, egress, metrics, model = tour.choose(24443, 24444)
    with tour.Tour(port=port, egress_port=egress, model_port=model, metrics_port=metrics, state=tmp_path) as running:
        running.start()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": running.proxy()}))
        with opener.open(f"http://127.0.0.1:{model}/v1/models", timeout=10) as answer:
            assert json.load(answer)["object"] == "list"
        with pytest.raises(urllib.error.HTTPError) as refused:
            opener.open("http://example.com/", timeout=10)
        with refused.value as error:
            assert (error.code, "to allow it: " in error.read().decode()) == (403, True)
    lines = [follow.line(record, colour=False) for record in trail.records(tmp_path / "audit", holding=b'"egress:')]
    assert len(lines) == 2
    assert "bytes" in lines[0]
    assert "deny" in lines[1]
