"""The kit over the right modalities: none may fail."""

import pytest
from rights import RIGHT

from de_core.plugins import list_modalities
from de_core.testing import check_modality


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_modality_passes(name):
    right = RIGHT[name]
    if right.plugin not in {info.name for info in list_modalities()}:
        pytest.skip(f"no plugin '{right.plugin}' is installed")
    report = check_modality(right.modality(), right.data())
    assert report.ok, report.to_text()
