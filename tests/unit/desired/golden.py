"""Snapshots of plans: `python -m tests.unit.desired.golden` writes them, a test holds the code to them.

Whoever changes one reads the difference line by line: it is what happens to every sandbox of every installation at the
next upgrade.
"""

from pathlib import Path

import yaml

from kars.desired.plan import plan
from tests.unit.desired.cases import cases

FOLDER = Path(__file__).parent / "golden"


class Dumper(yaml.SafeDumper):
    """Writes texts of more than one line as blocks, and nothing by reference."""

    def ignore_aliases(self, data):
        return True


def text(dumper, value):
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Dumper.add_representer(str, text)


def render(facts) -> str:
    """A plan as YAML documents."""
    return yaml.dump_all(plan(facts), Dumper=Dumper, sort_keys=False, width=120, allow_unicode=True)


def main() -> None:
    """Writes all of them, and takes away what no case makes any more."""
    made = {f"{name}.yaml": render(facts) for name, facts in cases().items()}
    for path in FOLDER.glob("*.yaml"):
        if path.name not in made:
            path.unlink()
    for name, content in made.items():
        (FOLDER / name).write_text(content)


if __name__ == "__main__":
    main()
