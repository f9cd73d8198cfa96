"""Rows of recorded connections, and the audit log read back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars.errors import FailureError, NotFoundError
from kars.local import trail
from kars.policy import place, recorded
from kars.policy.recorded import Row

ROW = {"host": "a.example", "port": 443, "door": "connect", "method": "", "path": "", "count": 3}
TIMES = {"first_seen": 1_700_000_000, "last_seen": 1_700_000_100}


def line(**changes):
    return json.dumps({**ROW, **TIMES, **changes}).encode()


@pytest.mark.parametrize(
    "data",
    [
        line(),
        b"[" + line() + b"]",
        line() + b"\n",
        b'{"learn_mode":true,"count":1,"domains":["a.example"],"connections":[' + line() + b'],"dropped":0,"new":1}',
    ],
)
def test_rows_are_read_from_every_form_they_are_saved_in(data):
    assert recorded.parse(data) == [Row("a.example", 443, "connect", "", "", 3, 1_700_000_000, 1_700_000_100)]


def test_of_lines_about_one_destination_the_last_counts_and_a_torn_one_is_left_out():
    data = b"\n".join([line(count=1), line(host="b.example"), line(count=9), b'{"host":"c.exa'])
    assert [(row.host, row.count) for row in recorded.parse(data)] == [("a.example", 9), ("b.example", 3)]


def test_an_older_router_tells_hosts_only():
    assert recorded.parse(b'{"learn_mode":true,"count":1,"domains":["a.example"]}') == [Row("a.example")]


def test_nothing_is_no_row():
    assert recorded.parse(b" \n") == recorded.parse(b'{"domains":[]}') == []


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (line() + b"\nnonsense\n" + line() + b"\n", "line 2"),
        (b'[{"port":1}]', "row 0"),
        (b'{"connections":[{"host":3}]}', "host"),
        (line(port="x") + b"\n" + line(), "line 1"),
    ],
)
def test_what_is_no_row_is_told_with_its_place(data, place):
    with pytest.raises(FailureError, match=place):
        recorded.parse(data)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data):
    try:
        assert isinstance(recorded.parse(data), list)
    except FailureError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("egress:connect:a.example:443", ("connect", "a.example", 443, "")),
        ("egress:http:a.example:80:GET", ("http", "a.example", 80, "GET")),
        ("egress:tls:[2001:db8::1]:443", ("tls", "2001:db8::1", 443, "")),
        ("egress:http:[2001:db8::1]:80:M-SEARCH", ("http", "2001:db8::1", 80, "M-SEARCH")),
        ("egress:fetch:a.example:8080", ("fetch", "a.example", 8080, "")),
        ("egress:tls:<no-hello>:443", ("tls", "<no-hello>", 443, "")),
        ("egress:connect:", None),
        ("egress:connect:a.example", None),
        ("egress:connect:a.example:0", None),
        ("egress:connect:a.example:70000", None),
        ("egress:connect::443", None),
        ("egress:smoke:a.example:443", None),
        ("inference:chat_completions:m", None),
        ("admin:egress-learn", None),
        ("", None),
    ],
)
def test_an_audit_action_is_taken_apart(action, expected):
    assert recorded.destination(action) == expected


def audited(action, decision="allow", rule="allowlist.endpoints[0]", ts="2026-01-02T03:04:05Z", **call):
    return {"action": action, "decision": decision, "ts": ts, "sandbox": "s", "call": {"rule": rule, **call}}


def test_audit_records_are_counted_by_destination_and_decision():
    rows = recorded.of_audit(
        [
            audited("egress:connect:a.example:443"),
            audited("egress:connect:a.example:443", ts="2026-01-02T03:05:05Z"),
            audited("egress:connect:a.example:443", "deny", "allowlist"),
            audited("inference:chat_completions:m"),
            {"action": "egress:connect:b.example:443", "call": 3},
        ]
    )
    assert [(row.host, row.allowed, row.count) for row in rows] == [("a.example", False, 1), ("a.example", True, 2)]
    assert rows[1].last_seen - rows[1].first_seen == 60


def test_a_tunnel_that_is_recorded_while_it_lives_is_one_connection():
    said = [("open", "1"), ("open", "2"), ("complete", "3"), ("complete", "1")]
    rows = recorded.of_audit(
        audited("egress:connect:a.example:443", end=end, decision_id=number) for end, number in said
    )
    assert [row.count for row in rows] == [3]


@pytest.mark.parametrize(
    "rule", ["blocklist.example", "address-guard", "egress-fronting", "EGRESS_MAX_CONNECTIONS", ""]
)
def test_what_no_list_refused_is_no_row_because_no_list_can_change_it(rule):
    assert recorded.of_audit([audited("egress:connect:a.example:443", "deny", rule)]) == []


def test_more_destinations_than_anybody_reads_are_an_error_and_not_memory(monkeypatch):
    monkeypatch.setattr(recorded, "MAX_ROWS", 2)
    with pytest.raises(FailureError, match="more than 2"):
        recorded.of_audit(audited(f"egress:connect:h{number}.example:443") for number in range(3))


def record(number, **more):
    call = {"at": "2026-01-02T03:04:05.678Z", "decision_id": f"{number:016x}", **more}
    return json.dumps({"seq": number, "action": "a", "decision": "allow", "call": call}, separators=(",", ":"))


@pytest.fixture
def log(tmp_path):
    """Two days of records: 0 to 99 and 100 to 199."""
    for day, numbers in (("2026-01-01", range(100)), ("2026-01-02", range(100, 200))):
        (tmp_path / f"{day}.jsonl").write_text("".join(record(number) + "\n" for number in numbers))
    return tmp_path


@pytest.mark.parametrize("block", [1, 7, 100, 4096, 1 << 20])
@pytest.mark.parametrize("number", [0, 1, 57, 99, 100, 199])
def test_a_decision_is_found_wherever_the_blocks_cut(log, monkeypatch, block, number):
    monkeypatch.setattr(trail, "BLOCK_BYTES", block)
    path, found = trail.find(log, f"{number:016x}")
    assert found["seq"] == number
    assert path.name == ("2026-01-01.jsonl" if number < 100 else "2026-01-02.jsonl")


def test_an_id_that_a_record_only_mentions_is_not_found(log):
    with (log / "2026-01-02.jsonl").open("a") as file:
        file.write(json.dumps({"rule": f'"decision_id":"{7:016x}"', "call": {"decision_id": "x"}}) + "\n")
    assert trail.find(log, f"{7:016x}")[0].name == "2026-01-01.jsonl"
    assert trail.find(log, "f" * 16) is None


def test_a_torn_last_line_is_no_record(log):
    with (log / "2026-01-02.jsonl").open("a") as file:
        file.write(record(300)[:-4])
    assert trail.find(log, f"{300:016x}") is None
    assert trail.find(log, f"{199:016x}") is not None


def test_a_line_longer_than_any_record_is_passed_over(log, monkeypatch):
    monkeypatch.setattr(trail, "BLOCK_BYTES", 64)
    monkeypatch.setattr(trail, "LINE_BYTES", 256)
    with (log / "2026-01-02.jsonl").open("a") as file:
        file.write("x" * 5000 + "\n" + record(300) + "\n")
    assert trail.find(log, f"{300:016x}") is not None
    assert trail.find(log, f"{150:016x}") is not None
    assert [found["seq"] for found in trail.records(log, holding=b'"seq":300')] == [300]


def test_records_are_read_oldest_first_and_only_those_that_are_asked_for(log):
    assert [found["seq"] for found in trail.records(log, holding=b'"seq":1')] == [1, *range(10, 20), *range(100, 200)]


def test_a_log_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        trail.find(tmp_path / "none", "0" * 16)


POLICY = """{
  "models": {"allow": ["gpt*", "claude-*"],
    "deny": [
      "x", "y"]},
  "endpoints": [
    {"host": "a"},
    {"host": "b", "port": 8443}
  ], "n": null
}"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("models.allow[1]", (2, "claude-*")),
        ("models.deny[1]", (4, "y")),
        ("endpoints[1]", (7, {"host": "b", "port": 8443})),
        ("endpoints[1].port", (7, 8443)),
        ("n", (8, None)),
        ("endpoints[2]", None),
        ("models.nothing", None),
        ("models[0]", None),
        ("models.allow.x", None),
        ("nothing", None),
    ],
)
def test_a_rule_is_found_in_its_file(path, expected):
    assert place.locate(POLICY, path) == expected


@given(st.text(max_size=60), st.text(max_size=20))
def test_no_text_breaks_the_search_for_a_rule(text, path):
    place.locate(text, path)


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.lists(st.integers() | st.text(max_size=3)), max_size=4))
def test_the_search_agrees_with_a_parser(value):
    for indent in (None, 2):
        text = json.dumps(value, indent=indent)
        for name, items in value.items():
            if place.steps(name) != [name]:
                continue
            for number, item in enumerate(items):
                assert place.locate(text, f"{name}[{number}]")[1] == item
