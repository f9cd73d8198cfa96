"""The router's flags become variables."""

import pytest

from kars.errors import KarsError, NotFoundError, SettingsError, UsageError
from kars.router import flags


def test_flags_map_to_variables():
    given = ["--port", "9000", "--policy=/p", "--audit", "/a", "--upstream", "http://127.0.0.1:11434/v1"]
    given += ["--egress-port", "off", "--egress-policy", "/e", "--egress-mode=strict"]
    assert flags.parse(given) == {
        "ROUTER_PORT": "9000",
        "INFERENCE_POLICY_DIR": "/p",
        "KARS_AUDIT_DIR": "/a",
        "FORWARD_PROXY_PORT": "off",
        "EGRESS_ALLOWLIST_DIR": "/e",
        "EGRESS_MODE": "strict",
        "OPENAI_BASE_URL": "http://127.0.0.1:11434/v1",
    }


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("https://api.openai.com/v1", "OPENAI_BASE_URL"),
        ("http://localhost:8000/v1", "OPENAI_BASE_URL"),
        ("https://api.anthropic.com", "ANTHROPIC_BASE_URL"),
        ("https://acct.openai.azure.com", "AZURE_OPENAI_ENDPOINT"),
        ("https://acct.services.ai.azure.com/api/projects/p", "AZURE_OPENAI_ENDPOINT"),
        ("http://evil.example/.anthropic.com", "OPENAI_BASE_URL"),
        ("http://user@api.anthropic.com:443/x", "ANTHROPIC_BASE_URL"),
    ],
)
def test_the_host_of_the_upstream_picks_the_variable(url, variable):
    assert flags.parse(["--upstream", url]) == {variable: url}


def test_the_key_file_sets_the_key_beside_its_endpoint(tmp_path):
    key = tmp_path / "key"
    key.write_text("sk-1234\n")
    parsed = flags.parse(["--upstream", "https://api.anthropic.com", "--api-key-file", str(key)])
    assert parsed["ANTHROPIC_API_KEY"] == "sk-1234"


@pytest.mark.parametrize("content", ["", "\n", "two lines\nof text", "sch\u00f6n", "a b", "x" * 20000])
def test_a_key_file_without_a_key_is_refused_and_its_content_is_not_shown(tmp_path, content):
    key = tmp_path / "key"
    key.write_text(content)
    with pytest.raises(SettingsError) as caught:
        flags.parse(["--upstream", "http://x/v1", "--api-key-file", str(key)])
    assert str(key) in str(caught.value)
    assert not content.strip() or content.strip() not in str(caught.value)


def test_a_key_file_that_is_absent_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        flags.parse(["--upstream", "http://x/v1", "--api-key-file", str(tmp_path / "none")])


@pytest.mark.parametrize(
    "given", [["--nope"], ["--port"], ["--port="], ["--port", "--audit"], ["serve"], ["--port", "1", "--port", "2"]]
)
def test_what_is_not_understood_is_a_usage_error(given):
    with pytest.raises(UsageError):
        flags.parse(given)


def test_a_key_without_an_upstream_is_a_usage_error():
    with pytest.raises(KarsError, match="--upstream"):
        flags.parse(["--api-key-file", "x"])


def test_every_flag_is_mapped():
    assert {flag for flag, _, _ in flags.FLAGS} == {*flags.DIRECT, "--upstream", "--api-key-file"}
