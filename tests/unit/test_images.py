"""What the Dockerfile, the Makefile and the chart say of the images, held against each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()


def copied() -> set[str]:
    """Return what comes from the repository into a build stage."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    return {source for line in lines for source in line.split()}


def test_everything_that_is_copied_is_here_and_nothing_else_is_sent_to_the_builder():
    ignored = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert copied() and all((REPOSITORY / source).exists() for source in copied())
    assert {"requirements/*.txt" if source.startswith("requirements/") else source for source in copied()} == allowed


def test_every_package_of_python_is_held_to_its_hash():
    installs = re.findall(r"pip install ([^&\n]+)", DOCKERFILE)
    assert installs and all("--require-hashes" in one or "--no-index" in one for one in installs)
    lists = {name for one in installs for name in re.findall(r"-r (\S+)", one)}
    assert lists == {"requirements/build.txt", "requirements/router.txt", "requirements/runtime.txt"}


def test_the_laptops_overlay_names_the_images_that_make_builds():
    overlay = yaml.safe_load((REPOSITORY / "charts/kars/values-local-dev.yaml").read_text())
    (images,) = re.findall(r"^IMAGES := (.+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    built = dict(image.split(":") for image in images.split())
    assert set(built) == set(re.findall(r"^FROM \S+ AS (router|controller|guard)$", DOCKERFILE, re.MULTILINE))
    for target, part in (("controller", "controller"), ("router", "inferenceRouter")):
        image = overlay[part]["image"]
        assert f"{image['repository']}:{image['tag']}" == f"{built[target]}:dev"
    assert overlay["sandbox"]["guard"]["image"] == overlay["sandbox"]["gitImage"] == f"{built['guard']}:dev"


def test_the_router_answers_to_the_name_that_the_ban_on_exec_lets_through():
    ban = (REPOSITORY / "charts/kars/templates/admission-exec-ban.yaml").read_text()
    path = re.findall(r"ln -s /opt/kars/bin/kars (\S+)", DOCKERFILE)
    assert path == ["usr/local/bin/kars-inference-router"] and f"'/{path[0]}'" in ban


# What the router's own process and the commands that people run in its container are made of.
OF_THE_ROUTER = """
import importlib, pathlib, sys
present = {line.split("==")[0] for line in pathlib.Path("requirements/router.txt").read_text().splitlines() if "==" in line}
names = {"aiohttp", "click", "cryptography", "granian", "kubernetes", "msgspec", "nacl", "prometheus_client", "sigstore"}
assert present < names | {"uvloop"}, present
sys.modules.update(dict.fromkeys(names - present))
rooms = ["kars/cli", "kars/local", "kars/policy", "kars/router", "kars/settings"]
files = [path for room in rooms for path in pathlib.Path(room).glob("*.py") if path.name != "__main__.py"]
modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
for name in sorted(modules - {"kars.cli.controller", "kars.cli.crds"}):
    importlib.import_module(name)
print(len(modules))
"""


def test_the_routers_image_has_every_package_that_the_router_imports():
    done = subprocess.run(
        [sys.executable, "-c", OF_THE_ROUTER], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


def versions(path):
    """Return the pinned packages of a list."""
    return set(re.findall(r"^(\S+)==(\S+)", path.read_text(), re.MULTILINE))


def test_the_routers_packages_are_of_the_runtimes_versions():
    lists = REPOSITORY / "requirements"
    assert versions(lists / "router.txt") < versions(lists / "runtime.txt")
