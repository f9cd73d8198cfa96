"""The router's command line: a few flags, each another name for a variable. A flag wins over the environment.

This is read before the data plane serves, so it imports nothing: the sidecar's start pays for every module.
"""

from __future__ import annotations

from kars.errors import NotFoundError, SettingsError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Flag, what it takes, help. `variables` below says which variables each one sets.
FLAGS = (
    ("--port", "PORT", "Port of the inference API; 0 picks a free one (ROUTER_PORT)."),
    ("--upstream", "URL", "Model server: an OpenAI-compatible /v1, an Azure endpoint, or api.anthropic.com."),
    ("--api-key-file", "FILE", "File with the key of --upstream; never shown, and never in a process list."),
    ("--policy", "DIR", "Directory with inference-policy.json (INFERENCE_POLICY_DIR)."),
    ("--audit", "DIR", "Directory of the audit log (KARS_AUDIT_DIR)."),
    ("--egress-port", "PORT", "Port of the egress proxy; 'off' for none, 0 picks a free one (FORWARD_PROXY_PORT)."),
    ("--egress-policy", "DIR", "Directory with allowlist.json (EGRESS_ALLOWLIST_DIR)."),
    ("--egress-mode", "MODE", "strict: only what the policy allows; learn: record and let pass (EGRESS_MODE)."),
)

DIRECT = {
    "--port": "ROUTER_PORT",
    "--policy": "INFERENCE_POLICY_DIR",
    "--audit": "KARS_AUDIT_DIR",
    "--egress-port": "FORWARD_PROXY_PORT",
    "--egress-policy": "EGRESS_ALLOWLIST_DIR",
    "--egress-mode": "EGRESS_MODE",
}

# Part of the host, the variable of the endpoint, the variable of its key; the last row is everything else.
UPSTREAMS = (
    (".azure.com", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"),
    (".anthropic.com", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
    ("", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
)

# Keys are at most a few KiB; a larger file is not a key.
KEY_BYTES = 16 * 1024


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """Turn `--flag value` and `--flag=value` into variables; a `UsageError` names what is not understood."""
    return variables(pairs(arguments))


def pairs(arguments: Sequence[str]) -> dict[str, str]:
    """Split the arguments into flag and value; a flag twice is an error rather than a silent choice."""
    known = [flag for flag, _, _ in FLAGS]
    given: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        flag, joined, value = argument.partition("=")
        if flag not in known:
            raise UsageError(f"no such option: {flag}", hint="`kars router --help` lists the options")
        if flag in given:
            raise UsageError(f"{flag} is given twice")
        if not joined:
            value = next(rest, "")
        if not value or (not joined and value.startswith("--")):
            raise UsageError(f"{flag} takes a value")
        given[flag] = value
    return given


def variables(given: dict[str, str]) -> dict[str, str]:
    """Map flags to variables."""
    out = {DIRECT[flag]: value for flag, value in given.items() if flag in DIRECT}
    upstream = given.get("--upstream")
    key_file = given.get("--api-key-file")
    if upstream is None:
        if key_file is not None:
            raise UsageError("--api-key-file goes with --upstream", hint="or set OPENAI_API_KEY and its like")
        return out
    host = upstream.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0]
    endpoint, key = next((e, k) for part, e, k in UPSTREAMS if host.endswith(part))
    out[endpoint] = upstream
    if key_file is not None:
        out[key] = read_key(key_file)
    return out


def read_key(path: str) -> str:
    """Read a key from its file, without the line end; the text of an error never holds a part of it."""
    try:
        with open(path, "rb") as file:
            data = file.read(KEY_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"--api-key-file {path}: no such file") from error
    except OSError as error:
        raise SettingsError(f"--api-key-file {path}: {error.strerror}") from error
    key = data.strip()
    if not key or len(data) > KEY_BYTES or not key.isascii() or any(byte < 33 for byte in key):
        raise SettingsError(f"--api-key-file {path}: not one line of printable text")
    return key.decode("ascii")
