"""``python -m de_core`` is ``diffuse``."""

import sys

from de_core.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
