"""Programs that agents use leave the sandbox unmodified, by proxy variables and by redirection, and nowhere else."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.egress import corpus
from tests.interop.egress.conftest import NODE, World
from tests.interop.egress.namespaces import INTERNET_V4, PROXY_PORT

HERE = Path(__file__).parent
PROXY = f"http://127.0.0.1:{PROXY_PORT}"
BY_VARIABLES = {
    "HTTP_PROXY": PROXY,
    "HTTPS_PROXY": PROXY,
    "http_proxy": PROXY,
    "https_proxy": PROXY,
    "NODE_USE_ENV_PROXY": "1",
}
PYTHON = [sys.executable, str(HERE / "fetch.py")]

#: How each client fetches a URL, and prints its status and body.
CLIENTS: dict[str, list[str]] = {
    "curl": ["curl", "-sS", "-m", "20", "-w", "%{stderr}%{http_code}"],
    "requests": [*PYTHON, "requests"],
    "httpx": [*PYTHON, "httpx"],
    "aiohttp": [*PYTHON, "aiohttp"],
    "node": [str(NODE), str(HERE / "fetch.mjs")],
}

ways = pytest.mark.parametrize("variables", [BY_VARIABLES, {}], ids=["proxy", "redirected"])
clients = pytest.mark.parametrize("client", CLIENTS)


@ways
@clients
@pytest.mark.parametrize("url", ["https://site.example.com/hello", "http://site.example.com/hello"])
def test_an_allowed_site_answers(world: World, client: str, url: str, variables: dict[str, str]):
    done = world.run([*CLIENTS[client], url], **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "greetings" in done.stdout
    assert "200" in done.stdout + done.stderr


@ways
@clients
@pytest.mark.parametrize("url", ["https://denied.example.net/hello", "http://denied.example.net/hello"])
def test_a_site_that_nobody_allowed_does_not(world: World, client: str, url: str, variables: dict[str, str]):
    before = len(world.records(decision="deny"))
    done = world.run([*CLIENTS[client], url], **variables)
    said = done.stdout + done.stderr
    assert "greetings" not in said
    # Node hides what a proxy answered.
    if client != "node" and (url.startswith("http:") or variables):
        assert "403" in said, said
    assert len(world.records(decision="deny")) > before


@ways
def test_git_clones_and_pip_installs(world: World, variables: dict[str, str], git: Path, package: str, tmp_path: Path):
    folder = Path(world.home) / f"clone-{tmp_path.name}"
    done = world.run(["git", "clone", "-q", f"https://site.example.com/{git.name}", str(folder)], **variables)
    assert done.returncode == 0, done.stderr
    assert (folder / "README").read_text() == "cloned\n"
    index = ["--index-url", "https://site.example.com/simple", "--disable-pip-version-check", "--no-cache-dir"]
    target = str(folder / "packages")
    done = world.run([sys.executable, "-m", "pip", "install", "-q", *index, "--target", target, package], **variables)
    assert done.returncode == 0, done.stderr
    assert list(Path(target).glob(f"{package}*"))


@pytest.fixture(scope="session")
def git(world: World) -> Path:
    """A repository that any file server serves."""
    work, served = world.folder / "work", world.www / "project.git"
    name = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (
        ["git", "init", "-q", str(work)],
        ["sh", "-c", f"echo cloned > {work}/README"],
        ["git", "-C", str(work), "add", "README"],
        ["git", "-C", str(work), *name, "commit", "-q", "-m", "Begin"],
        ["git", "clone", "-q", "--bare", str(work), str(served)],
        ["git", "-C", str(served), "update-server-info"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return served


@pytest.fixture(scope="session")
def package(world: World) -> str:
    """A package index with one wheel."""
    import zipfile

    name, version = "karsdemo", "1.0"
    wheel = f"{name}-{version}-py3-none-any.whl"
    folder = world.www / "simple" / name
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / wheel, "w") as made:
        made.writestr(f"{name}.py", "")
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return name


def refused(world: World, *arguments: str) -> str:
    """What curl says when it gets nothing."""
    done = world.run(["curl", "-sS", "-m", "5", *arguments])
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_the_guard_leaves_the_agent_no_other_way(world: World):
    # A port that is not redirected is refused at once, as is a redirected connection without a name.
    assert "Failed to connect" in refused(world, f"http://{INTERNET_V4[0]}:8080/")
    assert "unrecognized name" in refused(world, "-k", f"https://{INTERNET_V4[0]}/")


def test_a_redirected_hello_is_dialled_by_its_name_and_not_where_the_agent_sent_it(world: World):
    # The agent claims a name that is allowed, at an address of its own choice.
    lie = ["--resolve", f"site.example.com:443:{INTERNET_V4[1]}"]
    done = world.run(["curl", "-sS", "-m", "10", *lie, "https://site.example.com/hello"])
    assert done.stdout == "greetings\n", done.stderr
    (*_, last) = world.records(action="egress:tls:site.example.com:443")
    assert last["address"] == INTERNET_V4[0]


def test_a_name_that_leads_to_a_private_address_is_refused(world: World):
    assert "access denied" in refused(world, "https://rebound.example.com/")
    (*_, last) = world.records(action="egress:tls:rebound.example.com:443")
    assert (last["decision"], last["rule"]) == ("deny", "address-guard")


def test_port_80_is_allowed_only_where_the_list_says_so(world: World):
    done = world.run(["curl", "-sS", "-m", "10", "-i", "http://other.example.com/hello"])
    assert done.stdout.startswith("HTTP/1.1 403 Forbidden \u2014 host not in allowlist (kars egress policy)")
    assert "other.example.com on port 443 only" in done.stdout or "port" in done.stdout


def test_every_byte_of_a_redirected_tunnel_is_counted(world: World):
    (world.www / "large").write_bytes(bytes(3_000_000))
    done = world.run(["curl", "-sS", "-m", "20", "-o", "/dev/null", "https://site.example.com/large"])
    assert done.returncode == 0, done.stderr
    (*_, last) = world.records(action="egress:tls:site.example.com:443", end="complete")
    assert last["received_bytes"] > 3_000_000
    assert 100 < last["sent_bytes"] < 10_000


@ways
def test_a_site_with_ipv6_alone_is_reached(world: World, variables: dict[str, str]):
    done = world.run(["curl", "-sS", "-m", "10", "https://six.example.com/hello"], **variables)
    assert done.stdout == "greetings\n", done.stderr


def sent(world: World, data: list[bytes]) -> list[bytes]:
    """What the proxy says first to each of these, as the agent hears it."""
    file = world.home / "sent"
    file.write_text("\n".join(each.hex() for each in data))
    done = world.run([sys.executable, str(HERE / "send.py"), str(PROXY_PORT), str(file)])
    assert done.returncode == 0, done.stderr
    return [bytes.fromhex(line) for line in done.stdout.splitlines()]


def test_every_legitimate_address_is_dialled(world: World):
    rows, names = corpus.written(), corpus.names()
    heads = [b"CONNECT " + row.data + b" HTTP/1.1\r\n\r\n" if row.form == "connect" else row.data for row in rows]
    heads += [f"CONNECT {name}:443 HTTP/1.1\r\n\r\n".encode() for name in names]
    answers = sent(world, heads)
    # Where nobody listens on a port, the connection is refused over there, and not here.
    kept = [
        (head, answer[:80])
        for head, answer in zip(heads, answers, strict=True)
        if answer[9:12] not in {b"200", b"404", b"502"}
    ]
    assert not kept, f"of {len(heads)} cases these were kept back: {kept}"
    assert len(heads) > 55
    assert [answer[9:12] for answer in answers[len(rows) :]] == [b"200"] * len(names)
    for name, (wanted,) in names.items():
        record = next(iter(world.records(action=f"egress:connect:{name}:443")))
        assert corpus.address(record["address"]) == corpus.address(wanted)


@ways
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_both_versions_of_tls_pass(world: World, version: str, variables: dict[str, str]):
    only = [f"--tlsv{version}", "--tls-max", version]
    done = world.run(["curl", "-sS", "-m", "10", *only, "https://site.example.com/hello"], **variables)
    assert done.stdout == "greetings\n", done.stderr
