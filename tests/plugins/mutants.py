"""All broken modalities, and the table of what rejects them: ``make mutants``, or

python tests/plugins/mutants.py [--all]

runs for each mutant the check that is meant to reject it; with ``--all`` every check, so that the table names all that
do.
"""

from __future__ import annotations

import argparse
import sys

import mutants_chains
import mutants_gaussian
import mutants_simplex
import mutants_terms
import mutants_times
import torch
from mutant import Mutant
from rights import RIGHT

from de_core.testing import check_modality
from de_core.testing.report import Result

__all__ = ["MUTANTS", "results"]

MUTANTS: tuple[Mutant, ...] = (
    *mutants_gaussian.MUTANTS,
    *mutants_chains.MUTANTS,
    *mutants_simplex.MUTANTS,
    *mutants_times.MUTANTS,
    *mutants_terms.MUTANTS,
)


def results(mutant: Mutant, *, everything: bool = False) -> dict[str, Result]:
    """Check id -> result, of the intended check or of all."""
    only = None if everything else (mutant.check,)
    report = check_modality(mutant.modality(), RIGHT[mutant.right].data(), only=only)
    return {result.check.id: result for result in report.results}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="run every check on every mutant (minutes)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    alive = 0
    print(f"{'mutant':38} {'meant for':24} {'rejected':9} mistake")
    for mutant in MUTANTS:
        found = results(mutant, everything=args.all)
        failed = [name for name, result in found.items() if result.status == "failed"]
        alive += mutant.check not in failed
        others = f"  also: {', '.join(name for name in failed if name != mutant.check)}" if len(failed) > 1 else ""
        verdict = "yes" if mutant.check in failed else "NO"
        print(f"{mutant.name:38} {mutant.check:24} {verdict:9} {mutant.mistake}{others}", flush=True)
    print(f"{len(MUTANTS)} mutants, {alive} not rejected; {len({m.check for m in MUTANTS})} checks are meant for one")
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main())
