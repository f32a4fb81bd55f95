"""What several files here share lies beside them: they import it by its plain name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
