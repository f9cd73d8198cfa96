"""The texts that bring the agent's code, run by a real shell."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kars.desired import checkout
from tests.unit.desired.cases import CODE, facts, sandbox
from tests.unit.desired.looking import container, env

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    settings = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    alone = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *settings, *arguments], cwd=folder, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A repository with a tag, a branch, and a hook and a link that mean no good."""
    folder = tmp_path / "repository"
    (folder / "src" / "agent").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "src" / "agent" / "main.py").write_text("first\n")
    (folder / "out").symlink_to("/etc")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    git(folder, "tag", "v1")
    (folder / "src" / "agent" / "main.py").write_text("second\n")
    git(folder, "commit", "-qam", "second")
    return folder


@pytest.fixture
def clone(tmp_path):
    """Runs the text as its container does, with transports of the test's own, and without its waiting."""
    given = facts(sandbox(kind="PydanticAi", runtime={"pydanticAi": {"agentCode": CODE}}))
    planned = container(given, "agent-code")
    work, tools = tmp_path / "code", tmp_path / "tools"
    work.mkdir()
    tools.mkdir()
    (tools / "sleep").write_text("#!/bin/sh\nexit 0\n")
    (tools / "sleep").chmod(0o755)

    def run(*arguments, **more):
        variables = {**env(planned), "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(work), **more}
        command = [*planned["command"], *arguments]
        return subprocess.run(command, cwd=work, env=variables, capture_output=True, text=True), work / "tree"

    return run


@needs_git
@pytest.mark.parametrize(("ref", "content"), [("v1", "first\n"), ("main", "second\n"), ("HEAD", "second\n")])
def test_a_repository_is_brought_at_its_ref_without_its_history(repository, clone, ref, content):
    done, tree = clone(f"file://{repository}", ref, "src/agent", GIT_ALLOW_PROTOCOL="file")
    assert done.returncode == 0, done.stderr
    assert (tree / "src" / "agent" / "main.py").read_text() == content
    assert not (tree / ".git").exists()


@needs_git
def test_a_commit_is_a_ref_too_and_a_second_start_begins_anew(repository, clone):
    first = git(repository, "rev-parse", "v1")
    for _ in range(2):
        done, tree = clone(f"file://{repository}", first, ".", GIT_ALLOW_PROTOCOL="file")
        assert done.returncode == 0, done.stderr
        assert (tree / "src" / "agent" / "main.py").read_text() == "first\n"


@needs_git
def test_a_directory_that_is_not_there_is_an_error_that_names_it(repository, clone):
    done, _ = clone(f"file://{repository}", "v1", "nowhere", GIT_ALLOW_PROTOCOL="file")
    assert done.returncode == 1
    assert "no directory nowhere" in done.stderr


@needs_git
@pytest.mark.parametrize("url", ["file:///etc", "ext::sh -c 'touch owned'", "--upload-pack=touch owned", "/etc"])
def test_no_other_transport_takes_part(clone, url):
    done, tree = clone(url, "v1", ".")
    assert done.returncode == 1
    assert not (tree.parent / "owned").exists()


def libraries(program):
    found = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", found)


@pytest.mark.skipif(os.geteuid() != 0, reason="a root of its own needs root")
def test_an_image_copies_its_own_files_and_not_the_systems(tmp_path):
    root = tmp_path / "root"
    for name in ("app/lib", "etc", "root", "proc", "code", "tmp", "dev"):
        (root / name).mkdir(parents=True)
    for name in ("sh", "cp", "rm", "mkdir", "ls"):
        program = shutil.which(name)
        for path in (program, *libraries(program)):
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target, follow_symlinks=True)
    (root / "main.py").write_text("code\n")
    (root / ".hidden").write_text("too\n")
    (root / "app" / "lib" / "x.py").write_text("more\n")
    (root / "app" / "unreadable").write_text("-")
    (root / "app" / "unreadable").chmod(0)
    (root / "etc" / "passwd").write_text("system\n")
    (root / "dev" / "null").touch()
    (root / "dev" / "null").chmod(0o666)
    (root / "code").chmod(0o777)
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o711)
    text = ["/bin/sh" if (root / "bin" / "sh").exists() else shutil.which("sh"), "-c", f"cd /code && {checkout.COPY}"]
    done = subprocess.run(
        [shutil.which("chroot") or "chroot", "--userspec=1000:1000", str(root), *text],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    tree = root / "code" / "tree"
    assert (tree / "main.py").read_text() == "code\n"
    assert (tree / ".hidden").exists() and (tree / "app" / "lib" / "x.py").exists()
    assert not (tree / "etc").exists() and not (tree / "code").exists() and not (tree / "app" / "unreadable").exists()


def test_the_texts_are_ones_that_a_plain_shell_takes():
    for text in (checkout.CLONE, checkout.COPY):
        assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0
    assert Path("/code") == Path(checkout.WORK_PATH)
