"""``diffuse data NAME``."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["Data"]


class Data:
    """Write a known data set as files, checked by rows, columns and content."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The arguments of ``diffuse data``."""
        parser.add_argument("name", metavar="NAME", help="adult, default, shoppers, magic, beijing or news")
        parser.add_argument("--out", metavar="DIR", default=".", help="the folder to write to (default: here)")

    def run(self, args: argparse.Namespace) -> int:
        """Obtain, check, write."""
        from de_plugins.tabular._datasets import obtain

        for place in obtain(args.name, Path(args.out)):
            print(place)
        return 0
