"""Plans as they were read and approved, line by line."""

import pytest

from tests.unit.desired.cases import cases
from tests.unit.desired.golden import FOLDER, render

CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_the_one_that_was_approved(name):
    assert render(CASES[name]) == (FOLDER / f"{name}.yaml").read_text(), (
        "read the difference, then `python -m tests.unit.desired.golden`"
    )


def test_no_snapshot_is_left_without_its_case():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(CASES)
