"""House rules that no linter knows."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "kars").rglob("*.py"))


def imports_core(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name == "kars._core" for alias in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and (
            node.module == "kars._core"
            or (node.module == "kars" and any(alias.name == "_core" for alias in node.names))
        ):
            return True
    return False


def test_only_the_router_and_the_policy_room_touch_the_native_module():
    users = {str(path.relative_to(ROOT)) for path in SOURCES if imports_core(ast.parse(path.read_text()))}
    allowed = re.compile(r"kars/(router/\w+|policy/(publish|propose))\.py")
    assert users
    assert all(allowed.fullmatch(user) for user in users), users


def test_only_settings_reads_the_environment():
    readers = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}
    }
    assert readers == {"kars/settings/__init__.py"}


def requirements(path):
    return sorted(line for line in path.read_text().splitlines() if line and not line.startswith("#"))


def test_the_package_and_the_runtime_list_need_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    assert sorted(project["dependencies"] + extras) == requirements(ROOT / "requirements" / "runtime.in")


def test_every_requirement_is_pinned_and_hashed_and_no_list_names_an_index():
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert "://" not in text, path
        assert not re.search(r"^-+(i|index-url|extra-index-url|find-links|trusted-host)\b", text, re.MULTILINE), path
        for block in re.split(r"\n(?=\S)", text):
            if not block.startswith("#"):
                assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", block), block
                assert "--hash=sha256:" in block, block


def test_the_versions_of_both_languages_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    assert project["version"] == workspace["package"]["version"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_documents_link_to_files_that_exist():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_help_lists_the_targets_that_people_start_from():
    text = (ROOT / "Makefile").read_text()
    described = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert {"setup", "build", "dev", "run", "test", "lint", "fmt", "bench", "fuzz", "docs", "clean"} <= described
