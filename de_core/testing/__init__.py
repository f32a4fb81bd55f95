"""What a plugin's own tests are built from. Importing this package needs neither pytest nor hypothesis.

from de_core.testing import check_modality           the conformance kit: every law, one report
from de_core.testing import ModalityConformance      the same under pytest: subclass it
from de_core.testing import OracleDenoiser           an exact network for a data law with finite support
from de_core.testing import FiniteProduct            exact expectations on a product of finite spaces
from de_core.testing.strategies import modalities    hypothesis strategies
"""

from de_core.testing.conformance import ModalityConformance, check_modality, check_named
from de_core.testing.finite import FiniteProduct, RateGenerator
from de_core.testing.oracle import OracleDenoiser
from de_core.testing.report import Check, Report, Result

__all__ = [
    "Check",
    "FiniteProduct",
    "ModalityConformance",
    "OracleDenoiser",
    "RateGenerator",
    "Report",
    "Result",
    "check_modality",
    "check_named",
]
