"""Every mutant is rejected by the check that is meant for it, and every check rejects at least one."""

import pytest
from mutants import MUTANTS, results
from rights import RIGHT

from de_core.plugins import list_modalities
from de_core.testing.checks import CHECKS


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_is_rejected(mutant):
    found = results(mutant)[mutant.check]
    assert found.status == "failed", found.message
    assert found.message
    assert found.check.spec


def test_every_check_has_a_mutant():
    """``capabilities_checked`` is made of all others' results, and is no entry of CHECKS."""
    contrib = {"torus", "sphere", "counts"} <= {info.name for info in list_modalities()}
    if not contrib:
        pytest.skip("some mutants are of contrib's modalities, which are not installed")
    assert {mutant.check for mutant in MUTANTS} == {check.id for check in CHECKS} | {"capabilities_checked"}
    assert len(MUTANTS) >= 50


def test_names_are_of_one_mutant_and_right_modalities_are_there():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.right for mutant in MUTANTS} <= set(RIGHT)
