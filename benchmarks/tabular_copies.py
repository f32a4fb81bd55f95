"""Whether rows are learnt by heart: a model of one half of a table, beside the other half, which it did not see.

    DIFFUSE_DATA=folder python benchmarks/tabular_copies.py [--data adult,magic] [--preset P] [--minutes M] [--seed S]
        [--threads T]

For each data set the training rows are halved at random, and a `TableSynthesizer` learns the first half and draws as
many rows. Prints one JSON object: the share of the rows of either half that were drawn again in every cell, the share
of drawn rows that lie nearer to the half that was learnt (.5 of a model that copies nothing), and the attack of who
calls those rows learnt that lie nearest to a drawn one: its AUC, and its true positives at 1 % false ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
import torch
from tabular_sets import chosen, load, training

from de_core.rng import stream
from de_plugins.tabular import TableSynthesizer
from de_plugins.tabular.metrics.matrix import matrices
from de_plugins.tabular.metrics.privacy import privacy


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    training(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = chosen(parser, args.data)
    results: dict[str, Any] = {}
    for name in names:
        table = load(name)[0]
        order = np.random.default_rng(args.seed).permutation(len(table))
        one, other = (table.iloc[part].reset_index(drop=True) for part in np.array_split(order, 2))
        model = TableSynthesizer(args.preset, args.minutes, args.seed, progress=False).fit(one)
        drawn = model.sample(len(one), rng=args.seed)
        coded = matrices({"learnt": one, "unseen": other, "drawn": drawn})
        found = privacy(coded["learnt"], coded["unseen"], coded["drawn"], rng=stream(args.seed, "privacy"))
        results[name] = {
            "rows": len(one),
            "exact, learnt": found.exact_train,
            "exact, unseen": found.exact_test,
            "closer to learnt": found.closer_to_train,
            "attack AUC": found.attack_auc,
            "attack at 1 %": found.attack_tpr,
        }
        print(f"{name}: {json.dumps(results[name])}", file=sys.stderr, flush=True)
    about = {"preset": args.preset, "minutes": args.minutes, "seed": args.seed, "threads": args.threads}
    print(json.dumps({**about, "results": results}, indent=1))


if __name__ == "__main__":
    main()
