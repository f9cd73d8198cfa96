"""The agent's code, brought to /sandbox/agent before the agent starts.

From an image it is a volume, where the cluster has images as volumes; else a container of that image copies itself, for
which it needs `sh` and `cp`. From Git it is cloned by a container of the agent's user, behind the guard and through the
router, so that the clone obeys the egress policy: in strict mode the host must be in the allowlist. That needs the
router to run before it, so a native sidecar, and https, which a proxy can carry.
"""

from __future__ import annotations

from kars.desired import agent, names, runtime
from kars.desired.facts import Facts, Unplannable
from kars.desired.guard import AGENT_UID
from kars.desired.runtime import Program
from kars.kube.types import Object
from kars.model.common import AgentCode, GitSource

VOLUME = names.CODE
WORK_PATH = "/code"
TREE = "tree"
# What an agent's code may take on the node's disk.
LARGEST_CODE = "2Gi"

# The arguments come apart from the text, so that nothing in them is the shell's. No hook, no submodule, no other
# protocol and no configuration takes part. The router is up, but what lies before the repository may not be yet.
CLONE = """\
set -eu
url=$1 ref=$2 path=$3 left=5
until rm -rf tree && git init -q tree && git -C tree fetch -q --depth 1 -- "$url" "$ref"; do
  left=$((left - 1))
  [ "$left" -gt 0 ] || exit 1
  sleep 2
done
git -C tree -c core.hooksPath=/dev/null -c advice.detachedHead=false checkout -q FETCH_HEAD
rm -rf tree/.git
[ -d "tree/$path" ] || {
  echo "agent-code: there is no directory $path at that ref" >&2
  exit 1
}
"""

# Everything that is not the system's own; a file that this user may not read is not the agent's either.
COPY = """\
set -u
rm -rf tree
mkdir tree || exit 1
for one in /* /.[!.]*; do
  case $one in
    /code | /proc | /sys | /dev | /etc | /run | /var | /tmp | /root) continue ;;
  esac
  [ ! -e "$one" ] || cp -R "$one" tree/ 2>/dev/null
done
[ "$(ls -A tree)" ] || {
  echo "agent-code: the image has no files for the agent" >&2
  exit 1
}
"""


def is_volume(facts: Facts, code: AgentCode) -> bool:
    """Whether the code is an image that is mounted as it is."""
    return code.oci is not None and facts.image_volumes


def volume(facts: Facts, code: AgentCode) -> Object:
    """Return the volume that holds the code."""
    if code.oci is not None and facts.image_volumes:
        image = runtime.pinned(facts, code.oci.image)
        return {"name": VOLUME, "image": {"reference": image, "pullPolicy": runtime.pull_policy(facts, image)}}
    return {"name": VOLUME, "emptyDir": {"sizeLimit": LARGEST_CODE}}


def mount(facts: Facts, code: AgentCode) -> Object:
    """Return the agent's mount: read-only, so that the agent cannot change what it is."""
    result: Object = {"name": VOLUME, "mountPath": agent.CODE_PATH, "readOnly": True}
    if not is_volume(facts, code):
        path = (code.git.path or "").strip("/") if code.git is not None else ""
        result["subPath"] = f"{TREE}/{path}" if path not in {"", "."} else TREE
    return result


def container(facts: Facts, program: Program) -> Object | None:
    """Return the container that brings the code, where one has to; Unplannable where none can."""
    code = program.code
    if code is None or is_volume(facts, code):
        return None
    if code.oci is not None:
        image = runtime.pinned(facts, code.oci.image)
        return confined(facts, image, COPY, [])
    if code.git is None:  # the schema does not let it pass
        return None
    refuse_other_transports(facts, code.git)
    image = runtime.pinned(facts, facts.platform.git_image or facts.platform.sandbox_image)
    arguments = [code.git.url, code.git.ref or "HEAD", (code.git.path or "").strip("/") or "."]
    environment = {
        **agent.proxies(facts),
        "HOME": WORK_PATH,
        "GIT_ALLOW_PROTOCOL": "https",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
    result = confined(facts, image, CLONE, arguments)
    result["env"] = [{"name": name, "value": value} for name, value in environment.items()]
    return result


def refuse_other_transports(facts: Facts, git: GitSource) -> None:
    """Raise where the clone could not go through the router."""
    if not git.url.startswith("https://"):
        raise Unplannable("SpecInvalid", "agentCode.git.url: only https:// goes through the router's egress proxy")
    if not facts.native_sidecars:
        raise Unplannable("SpecInvalid", "agentCode.git needs native sidecars: Kubernetes 1.29 or newer")


def confined(facts: Facts, image: str, text: str, arguments: list[str]) -> Object:
    """Return a container that runs a shell text as the agent's user, and may write the code's volume alone."""
    return {
        "name": names.CODE,
        "image": image,
        "imagePullPolicy": runtime.pull_policy(facts, image),
        "command": ["sh", "-c", text, names.CODE],
        "workingDir": WORK_PATH,
        # $(NAME) in an argument would be replaced by a variable.
        **({"args": [one.replace("$(", "$$(") for one in arguments]} if arguments else {}),
        "securityContext": {
            "runAsUser": AGENT_UID,
            "runAsNonRoot": True,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        },
        "volumeMounts": [{"name": VOLUME, "mountPath": WORK_PATH}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
