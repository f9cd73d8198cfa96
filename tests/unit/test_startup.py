"""What a start may import: every module is time and memory in each pod."""

import json
import subprocess
import sys

# The core is replaced by one that stops at once, so that what remains is exactly what the Python side imports.
CORE = """
import sys, types
core = types.ModuleType("kars._core")
class CoreError(Exception):
    kind = "config"
class Engine:
    def __init__(self, environment): pass
    def policy_dirs(self): return {"InferencePolicy": "/nonexistent"}
    def clear(self, kind): pass
    def start(self): pass
    def drain(self, grace): pass
    def wait(self, timeout): return "stopped"
class Snapshot: pass
core.CoreError, core.Engine, core.Snapshot = CoreError, Engine, Snapshot
core.settings_table = lambda: [("ROUTER_PORT", "8443", "Listeners", "Port")]
import kars
sys.modules["kars._core"] = kars._core = core
"""

REPORT = "\nimport sys; sys.stderr.write('\\n' + ' '.join(sys.modules))"


def modules(code):
    """Run code in a fresh interpreter; the modules it ends with."""
    done = subprocess.run([sys.executable, "-c", code + REPORT], capture_output=True, text=True, check=True, timeout=30)
    return set(done.stderr.splitlines()[-1].split())


def test_the_sidecar_imports_nothing_beyond_a_bare_interpreter_and_its_own_few_modules():
    bare = modules("import types")
    start = modules(CORE + "from kars.cli import main; assert main(['router', '--port', '0']) == 0")
    assert start - bare - {"__future__"} == {
        "kars",
        "kars._core",
        "kars.cli",
        "kars.errors",
        "kars.policy",
        "kars.policy.kinds",
        "kars.policy.load",
        "kars.policy.publish",
        "kars.router",
        "kars.router.flags",
        "kars.router.process",
        "kars.settings",
    }


def test_the_overview_of_commands_needs_click_and_no_command():
    loaded = modules(CORE + "from kars.cli import main; assert main(['--help']) == 0")
    assert not loaded & {"asyncio", "granian", "kubernetes", "msgspec", "pydantic", "uvloop", "kars.router.tools"}
    assert not any(name.startswith("kars.cli.") and name != "kars.cli.app" for name in loaded)


def test_help_of_the_router_lists_the_cores_own_table():
    code = CORE + "from kars.cli import main; sys.exit(main(['router', '--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "ROUTER_PORT [8443]" in done.stdout
    assert "--api-key-file FILE" in done.stdout


def test_a_settings_error_at_start_is_two_lines_and_status_2():
    code = CORE.replace(
        "def __init__(self, environment): pass", "def __init__(self, e): raise CoreError('ROUTER_PORT=x')"
    )
    code += "from kars.cli import main; sys.exit(main(['router']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == "error: ROUTER_PORT=x"
    assert done.stderr.splitlines()[1].startswith("hint: ")


def test_sigterm_drains_with_the_configured_grace_and_a_second_signal_ends_at_once():
    code = CORE.replace("def drain(self, grace): pass", "def drain(self, grace): drained.append(grace)").replace(
        "def wait(self, timeout): return 'stopped'", ""
    )
    code += """
import json, os, signal
drained = []
def wait(self, timeout):
    if len(drained) == 2:
        return "stopped"
    os.kill(os.getpid(), signal.SIGTERM if not drained else signal.SIGINT)
Engine.wait = wait
from kars.cli import main
status = main(["router"])
print(json.dumps([status, drained]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, [None, 0.0]]
