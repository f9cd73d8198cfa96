"""The seccomp profile: what agents need works under it in a real kernel, what leads out of a sandbox does not."""

import json
import platform
import shutil
import subprocess
import sys

import pytest

from tests.chart import confined
from tests.chart.rendered import CHART

PROFILE = CHART / "files" / "kars-strict.json"
PROGRAM = json.loads(PROFILE.read_text())

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not confined.NUMBERS.exists(), reason="the filter is made for x86-64"
)


def run(*command, check=True):
    done = subprocess.run(
        [sys.executable, confined.__file__, str(PROFILE), *command], capture_output=True, text=True, timeout=40
    )
    assert done.returncode == 0 or not check, f"{done.stdout}{done.stderr}"
    return done


def python(code):
    return run(sys.executable, "-c", code).stdout


def test_a_python_agent_works():
    said = python(
        """
import asyncio, hashlib, json, multiprocessing, os, select, signal, socket, sqlite3, ssl, subprocess, sys
import tempfile, threading, urllib.request, mmap, shutil, time, pty, fcntl
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

async def serve():
    server = await asyncio.start_server(lambda r, w: (w.write(b"hi"), w.close()), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b"hi"
    child = await asyncio.create_subprocess_exec("sh", "-c", "ls / | head -1", stdout=subprocess.PIPE)
    assert (await child.communicate())[0]
    server.close()
asyncio.run(serve())
with ThreadPoolExecutor(4) as pool:
    assert sum(pool.map(len, ["a"] * 9)) == 9
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    assert list(pool.map(abs, [-1, 2])) == [1, 2]
with tempfile.TemporaryDirectory() as folder:
    base = sqlite3.connect(folder + "/a.db"); base.execute("pragma journal_mode=wal"); base.execute("create table t(a)")
    base.execute("insert into t values (1)"); base.commit(); base.close()
    open(folder + "/b", "w").write("x" * 9999)
    shutil.copy(folder + "/b", folder + "/c"); os.rename(folder + "/c", folder + "/d"); os.symlink("d", folder + "/e")
    os.chmod(folder + "/d", 0o600); os.utime(folder + "/d"); os.truncate(folder + "/d", 5)
    with open(folder + "/b", "r+b") as file: mmap.mmap(file.fileno(), 0).flush(); fcntl.flock(file, fcntl.LOCK_EX)
ssl.create_default_context(); os.urandom(8); os.getloadavg(); os.sched_getaffinity(0); os.memfd_create("a")
socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close(); pair = socket.socketpair(); pair[0].send(b"x")
socket.getaddrinfo("localhost", 80); signal.setitimer(signal.ITIMER_REAL, 5); signal.alarm(0)
select.epoll().close(); os.eventfd(0); os.pidfd_open(os.getpid()); pty.openpty()
assert subprocess.run(["sh", "-c", "echo $((1+1)) | cat; id -u; uname; date"], capture_output=True).returncode == 0
print("well")
"""
    )
    assert said == "well\n"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_a_node_agent_works():
    script = """
const fs = require('fs'), http = require('http'), cp = require('child_process'), os = require('os');
const { Worker } = require('worker_threads'), crypto = require('crypto'), dns = require('dns');
const server = http.createServer((_, answer) => answer.end('hi')).listen(0, '127.0.0.1', async () => {
  const text = await (await fetch(`http://127.0.0.1:${server.address().port}`)).text();
  await new Promise(done => new Worker('1', { eval: true }).on('exit', done));
  const folder = fs.mkdtempSync(os.tmpdir() + '/kars-');
  await fs.promises.writeFile(folder + '/a', 'x'.repeat(1e6)); await fs.promises.copyFile(folder + '/a', folder + '/b');
  fs.watch(folder).close(); fs.rmSync(folder, { recursive: true });
  crypto.pbkdf2Sync('a', 'b', 10, 16, 'sha256'); await dns.promises.lookup('localhost'); os.cpus(); os.networkInterfaces();
  console.log(text, cp.execSync('echo there').toString().trim()); server.close();
});"""
    assert run("node", "-e", script).stdout == "hi there\n"


# Arguments that are harmless where they work; -1 is no file, no address, no process.
@pytest.mark.parametrize("name", sorted(PROGRAM["syscalls"][-1]["names"]))
def test_what_leads_out_of_a_sandbox_is_refused(name):
    number = confined.numbers().get(name)
    if number is None:
        pytest.skip("not of this architecture")
    said = python(
        f"import ctypes; libc = ctypes.CDLL(None, use_errno=True);"
        f"print(libc.syscall({number}, -1, -1, -1, -1, -1, -1), ctypes.get_errno())"
    )
    assert said == "-1 1\n", "EPERM"


def test_no_namespace_is_made_by_clone_and_no_filter_sees_through_clone3():
    user = 0x10000000  # CLONE_NEWUSER
    said = python(
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True);"
        f"print(libc.syscall({confined.numbers()['clone']}, {user} | 17, 0, 0, 0, 0), ctypes.get_errno());"
        f"print(libc.syscall({confined.numbers()['clone3']}, 0, 0), ctypes.get_errno())"
    )
    # ENOSYS, on which the C library tries clone.
    assert said == "-1 38\n-1 38\n"


def test_sockets_are_local_or_of_the_internet():
    said = python(
        """
import socket
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK, socket.AF_ALG):
    try: socket.socket(family, socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_SEQPACKET if family == socket.AF_ALG else socket.SOCK_STREAM).close(); print("yes")
    except OSError as error: print(error.errno)
"""
    )
    assert said.split() == ["yes"] * 4 + ["38"] * 3


def test_the_profile_is_one_that_container_runtimes_read():
    assert PROGRAM["defaultAction"] == "SCMP_ACT_ERRNO"
    assert set(PROGRAM["architectures"]) == {"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"}
    allowed, refused = PROGRAM["syscalls"][0]["names"], PROGRAM["syscalls"][-1]["names"]
    assert allowed == sorted(set(allowed)) and refused == sorted(set(refused))
    assert not set(allowed) & set(refused)
    for rule in PROGRAM["syscalls"]:
        assert set(rule) <= {"names", "action", "errnoRet", "args"}
