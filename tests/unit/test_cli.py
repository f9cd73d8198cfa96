"""The command line, up to where the core begins."""

import json

import msgspec
import pytest

from kars import cli
from kars.cli import app, probe
from kars.errors import DeniedError, NotFoundError, UsageError
from kars.router import tools


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = cli.main(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_the_overview_says_of_each_command_what_the_command_says_of_itself():
    for name, (_, summary) in app.COMMANDS.items():
        command = app.cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.help is not None
        assert command.help.splitlines()[0].rstrip(".") == summary.rstrip("."), name


def test_every_command_shows_examples(run):
    for name in app.COMMANDS:
        arguments = {"audit": ["audit", "verify"], "policy": ["policy", "validate"]}.get(name, [name])
        status, out, _ = run(*arguments, "--help")
        assert status == 0
        assert "Examples:" in out, name


def test_help_needs_no_command(run):
    status, out, _ = run("--help")
    assert status == 0
    assert all(name in out for name in app.COMMANDS)


def test_an_unknown_command_is_a_usage_error(run):
    status, out, err = run("frobnicate")
    assert (status, out) == (2, "")
    assert "frobnicate" in err


@pytest.mark.parametrize(
    ("error", "status"),
    [(UsageError("u", hint="h"), 2), (NotFoundError("n", hint="h"), 3), (DeniedError("d", hint="h"), 4)],
)
def test_an_error_is_one_line_a_hint_and_its_exit_status(run, monkeypatch, error, status):
    def fail(*_):
        raise error

    monkeypatch.setattr(tools, "version", fail)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0")
    assert run("version") == (status, "", f"error: {error}\nhint: h\n")


def test_ctrl_c_is_status_130(run, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tools, "version", fail)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0")
    assert run("version")[0] == 130


def test_versions_as_json(run, monkeypatch):
    monkeypatch.setattr(tools, "version", lambda: "9.9")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1")
    status, out, _ = run("version", "-o", "json")
    shown = json.loads(out)
    assert status == 0
    assert (shown["apiVersion"], shown["kind"], shown["core"]) == ("cli.kars/v1", "Version", "9.9")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ("GET", "/healthz", None)),
        (("/readyz",), ("GET", "/readyz", None)),
        (("get", "/x"), ("GET", "/x", None)),
        (("/x", "{}"), ("POST", "/x", b"{}")),
        (("PUT", "/x", "{}"), ("PUT", "/x", b"{}")),
    ],
)
def test_probe_reads_method_path_and_body(words, expected):
    assert probe.request(words) == expected


@pytest.mark.parametrize("words", [("x",), ("GET", "/x", "{}", "more")])
def test_probe_refuses_what_it_does_not_understand(run, words):
    assert run("probe", *words)[0] == 2


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (204, 0), (404, 1), (503, 1)])
def test_probe_exits_by_the_status(run, monkeypatch, status, expected):
    monkeypatch.setattr(tools, "probe", lambda method, path, body, **_: (status, b"body"))
    code, out, err = run("probe", "/readyz")
    assert (code, out) == (expected, "body\n")
    assert (str(status) in err) == (expected == 1)


WHOLE = tools.AuditReport(
    files=1,
    records=3,
    lost=0,
    first_seq=0,
    last_seq=2,
    first_ts="2026-11-21T17:40:01Z",
    last_ts="2026-11-21T17:40:03Z",
    head="ab12",
    broken=None,
)
BROKEN = msgspec.structs.replace(WHOLE, broken=tools.Break(file="a.jsonl", line=2, what="hash differs"))


def test_a_whole_audit_log_is_status_0(run, monkeypatch):
    monkeypatch.setattr(tools, "verify_audit", lambda directory: WHOLE)
    status, out, err = run("audit", "verify", "/a")
    assert (status, err) == (0, "")
    assert "records    3\n" in out
    assert "chain      OK\n" in out


def test_a_broken_audit_log_is_status_1_with_the_place_and_what_to_do(run, monkeypatch):
    monkeypatch.setattr(tools, "verify_audit", lambda directory: BROKEN)
    status, out, err = run("audit", "verify", "/a")
    assert status == 1
    assert "a.jsonl:2: hash differs" in out
    assert "Copy the whole directory aside" in err


def test_the_audit_report_as_json(run, monkeypatch):
    monkeypatch.setattr(tools, "verify_audit", lambda directory: BROKEN)
    status, out, _ = run("audit", "verify", "/a", "-o", "json")
    shown = json.loads(out)
    assert status == 1
    assert (shown["kind"], shown["ok"], shown["broken"]["line"]) == ("AuditReport", False, 2)


def test_an_audit_directory_that_is_absent_is_status_3(run, tmp_path):
    assert run("audit", "verify", str(tmp_path / "none"))[0] == 3


def test_a_policy_file_that_is_absent_is_status_3(run, tmp_path):
    assert run("policy", "digest", str(tmp_path / "none.json"))[0] == 3
