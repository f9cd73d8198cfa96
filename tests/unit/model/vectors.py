"""The sample resources of tests/vectors/crs."""

import copy
from pathlib import Path

import yaml

DIRECTORY = Path(__file__).parents[2] / "vectors" / "crs"
VALID = {file.stem: list(yaml.safe_load_all(file.read_text())) for file in sorted((DIRECTORY / "valid").glob("*.yaml"))}
INVALID = yaml.safe_load((DIRECTORY / "invalid.yaml").read_text())


def least(kind):
    """The first valid sample of a kind."""
    found = next(document for documents in VALID.values() for document in documents if document["kind"] == kind)
    return copy.deepcopy(found)


def changed(document, changes):
    """The document with values set at dotted paths; None takes the member away."""
    document = copy.deepcopy(document)
    for path, value in changes.items():
        # Labels' keys have dots, but no case changes one.
        *parents, name = path.split(".")
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
    return document
