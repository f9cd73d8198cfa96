"""The CustomResourceDefinitions, as documents and as the YAML that the chart `kars-crds` ships."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kars.model import schema
from kars.model.base import GROUP, VERSION, Column, Resource
from kars.model.kinds import KINDS

HEADER = "# Made from kars/model by `make crds`; a change here would be lost.\n"


def definition(kind: type[Resource]) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    names = kind.NAMES
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "kars", "app.kubernetes.io/component": "crd"},
            # Uninstalling a chart must not delete every sandbox and policy of the cluster with the definitions.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if names.namespaced else "Cluster",
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": names.plural,
                "singular": kind.__name__.lower(),
                "shortNames": [names.short, *names.also],
                "categories": ["kars"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [printed(column) for column in names.columns],
                    "schema": {"openAPIV3Schema": schema.of(kind)},
                }
            ],
        },
    }


def printed(column: Column) -> dict[str, Any]:
    """Return a printer column as the API server takes it."""
    shown: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return shown | ({"priority": column.priority} if column.priority else {})


def to_yaml(documents: Iterable[dict[str, Any]]) -> str:
    """Write documents as YAML: the same bytes for the same documents."""
    import yaml

    class Plain(yaml.SafeDumper):
        """Writes what is there twice twice: not every reader takes anchors."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - PyYAML's signature
            return True

    return yaml.dump_all(documents, Dumper=Plain, sort_keys=False, width=120, allow_unicode=True, explicit_start=True)


def files() -> dict[str, str]:
    """Return the chart's templates: file name and content. Nothing in them is a template's action."""
    return {f"{kind.NAMES.plural}.yaml": HEADER + to_yaml([definition(kind)]) for kind in KINDS.values()}


def main(arguments: list[str]) -> int:
    """Write the files into a directory, and take away those of kinds that are no more."""
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    wanted = files()
    for old in directory.glob("*.yaml"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (directory / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
