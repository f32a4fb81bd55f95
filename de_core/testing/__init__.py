"""What a plugin's own tests are built from. Importing this package needs neither pytest nor hypothesis.

from de_core.testing import OracleDenoiser           an exact network for a data law with finite support
from de_core.testing import FiniteProduct            exact expectations on a product of finite spaces
from de_core.testing.strategies import modalities    hypothesis strategies
"""

from de_core.testing.finite import FiniteProduct, RateGenerator
from de_core.testing.oracle import OracleDenoiser

__all__ = ["FiniteProduct", "OracleDenoiser", "RateGenerator"]
