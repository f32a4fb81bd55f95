"""The six tables in minutes: fit, draw, score, beside what is published and what else runs here.

    DIFFUSE_DATA=folder python benchmarks/tabular.py [--data adult,magic] [--preset P] [--minutes M,...] [--steps N]
        [--seeds N] [--draws N] [--threads T] [--out results.json] [--figure quality.png] [--keep FOLDER]
        [--models FOLDER] [--peers --peer-python PYTHON]

For each data set and training seed a process of its own fits a `TableSynthesizer` on the training rows, draws as many
and scores them by the published protocol: Shape and Trend against the training table (Trend over all pairs; "trend,
real bins" takes its bins from the real table only), utility (36 settings of XGBoost, chosen on a ninth of the synthetic
rows, judged on the test rows; "paper" with the quirks of the common script), and the two-sample AUC of XGBoost against
as many test rows (five folds, three seeds). "bound" is of -log p of test and of training rows, in nats: far apart, they
tell of rows learnt by heart. The first seed's model is drawn ``--draws`` times for Shape and Trend, as the published
figures are. ``--peers`` runs TabularARGN (mostlyai-engine, Apache-2) in the environment of ``--peer-python`` and a
SMOTE baseline on the same rows, one after the other with ours. Of several ``--minutes`` all seeds have the most, and
the first seed is also trained for each of the others: quality against seconds, which ``--figure`` draws.

Prints progress on stderr, then one table in Markdown a score; ``--out`` holds everything as JSON, ``--keep`` the first
seed's models, by data set, which ``--models`` reads in place of training.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tabular_sets import AIMED, PUBLISHED, SETS, WANTED, chosen, load

from de_core.artifact import atomic_write
from de_plugins.tabular import TableSynthesizer
from de_plugins.tabular._model_scores import held_out_bound
from de_plugins.tabular.metrics import fidelity
from de_plugins.tabular.metrics.detection import two_sample_auc
from de_plugins.tabular.metrics.matrix import matrices
from de_plugins.tabular.metrics.utility import utility

SCORES = ("shape", "trend", "trend, real bins", "utility", "utility, paper", "auc")


def fidelity_of(train: pd.DataFrame, fake: pd.DataFrame) -> dict[str, float]:
    """Shape and Trend in per cent."""
    coded = matrices({"real": train, "synthetic": fake})
    real, synthetic = coded["real"], coded["synthetic"]
    return {
        "shape": 100 * float(np.nanmean(fidelity.shape(real, synthetic))),
        "trend": 100 * float(np.nanmean(fidelity.trend(real, synthetic))),
        "trend, real bins": 100 * float(np.nanmean(fidelity.trend(real, synthetic, bins="real"))),
    }


def score(name: str, train: pd.DataFrame, test: pd.DataFrame, fake: pd.DataFrame) -> dict[str, Any]:
    """All scores of one synthetic table."""
    coded = matrices({"real": train, "synthetic": fake, "test": test})
    role, found = SETS[name], two_sample_auc(coded["test"], coded["synthetic"], seed=0)
    out: dict[str, Any] = {**fidelity_of(train, fake), "auc": found.auc, "auc columns": list(found.columns[:5])}
    for key, paper in {"utility": False, "utility, paper": True}.items():
        if paper and not role.regression:  # trees do not see the scale of a column: the quirks are of regression
            out[key] = out["utility"]
            continue
        out[key] = utility(
            coded["synthetic"], coded["test"], role.target, seed=0, paper=paper, log_target=role.regression
        ).score
    return out


def ours(
    name: str,
    preset: str,
    minutes: float,
    steps: int | None,
    seed: int,
    draws: int,
    threads: int,
    keep: Path | None,
    models: Path | None,
) -> dict[str, Any]:
    """One training, or a model that is there: its scores, and what it cost."""
    torch.set_num_threads(threads)
    train, test = load(name)
    began = time.perf_counter()
    if models is None:
        synthesizer = TableSynthesizer(preset, minutes, seed, max_steps=steps, progress=False).fit(train)
    else:
        synthesizer = TableSynthesizer.load(models / name)
    fitted = time.perf_counter()
    fake = synthesizer.sample(len(train), rng=seed)
    drawn = time.perf_counter()
    if keep is not None and seed == 0:
        synthesizer.save(keep / name)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    out = {"seed": seed, "parameters": synthesizer.parameters, "steps": synthesizer.steps}
    spent = fitted - began if models is None else synthesizer.seconds  # coding the table is not in the latter
    out |= {"fit seconds": spent, "sample seconds": drawn - fitted, "peak GiB": memory}
    out |= score(name, train, test, fake)
    bound = held_out_bound(synthesizer, train, test, seed)
    out |= {f"bound, {rows}": bound[rows] for rows in ("test", "train") if rows in bound}
    if draws > 1:
        each = [fidelity_of(train, synthesizer.sample(len(train), rng=1000 + k)) for k in range(draws)]
        out["draws"] = {key: _spread([one[key] for one in each]) for key in each[0]}
    return out


def argn(name: str, python: str, threads: int, minutes: float) -> dict[str, Any]:
    """TabularARGN at its defaults and for our minutes at most, in its own environment."""
    train, test = load(name)
    with tempfile.TemporaryDirectory() as folder:
        rows, made = Path(folder) / "train.parquet", Path(folder) / "synthetic.parquet"
        train.to_parquet(rows)
        worker = Path(__file__).with_name("tabular_peers.py")
        call = [python, str(worker), str(rows), str(made), str(threads), str(minutes)]
        told = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
        fake = pd.read_parquet(made)
    for column in train.columns:
        kind = train[column].dtype
        fake[column] = fake[column].astype("float64" if kind.kind == "i" else kind).astype(kind)
    return {**json.loads(told.splitlines()[-1]), **score(name, train, test, fake)}


def ahead(runs: list[dict[str, Any]], peer: dict[str, Any], regression: bool) -> bool:
    """Whether the mean of our seeds is better in Trend and in utility, and by .03 in the two-sample AUC."""
    mean = {key: statistics.mean(one[key] for one in runs) for key in ("trend", "utility", "auc")}
    better = mean["utility"] < peer["utility"] if regression else mean["utility"] > peer["utility"]
    return mean["trend"] > peer["trend"] and better and mean["auc"] <= peer["auc"] - 0.03


def smote(name: str) -> dict[str, Any]:
    """Each row moved towards one of its five nearest neighbours by a uniform share; categories of the nearer end."""
    from sklearn.neighbors import NearestNeighbors

    train, test = load(name)
    rng = np.random.default_rng(0)
    numbers = [c for c in train if train[c].dtype.kind in "if"]
    words = [c for c in train if c not in numbers]
    began = time.perf_counter()
    scale = train[numbers].std().replace(0, 1)
    codes = [pd.get_dummies(train[c].astype(str)).to_numpy(float) / 2**0.5 for c in words]
    place = np.concatenate([((train[numbers] - train[numbers].mean()) / scale).to_numpy(), *codes], 1)
    near = NearestNeighbors(n_neighbors=6).fit(place).kneighbors(place, return_distance=False)[:, 1:]
    other = near[np.arange(len(train)), rng.integers(5, size=len(train))]
    share = rng.random(len(train))
    fake = train.copy()
    for c in numbers:
        a, b = train[c].to_numpy(float), train[c].to_numpy(float)[other]
        moved = a + share * (b - a)
        fake[c] = (np.rint(moved) if (a % 1 == 0).all() else moved).astype(train[c].dtype)
    for c in words:
        fake[c] = np.where(share < 0.5, train[c], train[c].to_numpy()[other])
    fake = fake.astype(train.dtypes.to_dict())
    return {"sample seconds": time.perf_counter() - began, **score(name, train, test, fake)}


def anchors(name: str) -> dict[str, Any]:
    """The training table itself, and its columns shuffled."""
    train, test = load(name)
    rng = np.random.default_rng(0)
    shuffled = pd.DataFrame({c: train[c].to_numpy()[rng.permutation(len(train))] for c in train})
    return {"training table": score(name, train, test, train), "columns shuffled": score(name, train, test, shuffled)}


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def alone(work: Any, *arguments: Any) -> Any:
    """In a process of its own, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def quality(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw utility and two-sample AUC against the seconds of fitting, a column a data set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    shown = {"utility": "MLE: AUC, or RMSE", "auc": "two-sample AUC"}
    figure, axes = plt.subplots(
        len(shown), len(results), figsize=(2.3 * len(results) + 1, 4.6), squeeze=False, layout="constrained"
    )
    for column, (name, found) in zip(axes.T, results.items(), strict=True):
        for ax, key in zip(column, shown, strict=True):
            runs = [(one["fit seconds"], one[key]) for one in found["sooner"]]
            runs.append(tuple(statistics.mean(one[k] for one in found["ours"]) for k in ("fit seconds", key)))
            ax.plot(*zip(*runs, strict=True), "o-", ms=4, label="ours")
            for (method, one), mark in zip(found["peers"].items(), "s^", strict=False):
                spent = one.get("fit seconds", one.get("sample seconds"))  # SMOTE fits nothing
                ax.plot(spent, one[key], mark, ms=5, label=method)
            ax.axhline(found["anchors"]["training table"][key], color="gray", ls=":", label="the training table")
            ax.set(xscale="log", title=name if ax is column[0] else "")
            ax.xaxis.set_minor_formatter(NullFormatter())
    for ax, words in zip(axes[:, 0], shown.values(), strict=True):
        ax.set_ylabel(words)
    figure.supxlabel("seconds of fitting", fontsize=10)
    axes[0, 0].legend(fontsize=7)
    atomic_write(path, lambda aside: figure.savefig(aside, dpi=110))


def markdown(results: dict[str, dict[str, Any]], label: str) -> str:
    """One table a score: rows are methods, columns data sets."""
    lines = []
    for key in SCORES:
        rows: dict[str, dict[str, str]] = {}
        for name, found in results.items():
            targets = {"must": WANTED.get(key), "aim": AIMED.get(key)} | PUBLISHED.get(key, {})
            for method, value in targets.items():
                if value:
                    rows.setdefault(method, {})[name] = value[name]
            for method in ("training table", "columns shuffled"):
                rows.setdefault(f"*{method}*", {})[name] = _cell(key, [found["anchors"][method][key]])
            for method, one in found.get("peers", {}).items():
                rows.setdefault(f"{method}, here", {})[name] = _cell(key, [one[key]])
            rows.setdefault(f"**{label}**", {})[name] = _cell(key, [one[key] for one in found["ours"]])
        lines += [f"\n{key}\n", "| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
        if any("ahead" in found for found in results.values()) and key == SCORES[-1]:
            told = {name: "yes" if found["ahead"] else "no" for name, found in results.items() if "ahead" in found}
            rows["ahead of TabularARGN"] = told
        lines += [
            f"| {method} | " + " | ".join(row.get(n, "–") for n in results) + " |" for method, row in rows.items()
        ]
    return "\n".join(lines)


def _cell(key: str, values: list[float]) -> str:
    digits = 2 if key in ("shape", "trend", "trend, real bins") else 3
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _numbers(text: str) -> list[float]:
    return sorted(float(part) for part in text.split(","))


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=",".join(SETS), help="names, with commas between")
    parser.add_argument("--preset", default="nano")
    parser.add_argument(
        "--minutes", type=_numbers, default=[10.0], metavar="M,...", help="of training, a data set and seed"
    )
    parser.add_argument("--steps", type=int, help="an end beside --minutes, which a busy machine does not move")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=20, help="samplings of the first seed's model")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path, help="quality against seconds")
    parser.add_argument("--keep", type=Path, help="where the models of the first seed are saved")
    parser.add_argument("--models", type=Path, help="read from here, where --keep saved them; one seed")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--peer-python", help="the interpreter of an environment that has mostlyai-engine")
    args = parser.parse_args()
    names = chosen(parser, args.data)
    if args.peers and not args.peer_python:
        parser.error("--peers: expected --peer-python, the interpreter of an environment that has mostlyai-engine")
    *sooner, minutes = args.minutes
    if args.models:
        args.seeds, sooner = 1, []
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        found: dict[str, Any] = {"anchors": alone(anchors, name), "ours": [], "sooner": [], "peers": {}}
        for part in sooner:
            budget = args.preset, part, args.steps
            found["sooner"].append(alone(ours, name, *budget, 0, 1, args.threads, None, None))
            print(f"{name}, {part:g} minutes: {json.dumps(found['sooner'][-1])}", file=sys.stderr, flush=True)
        for seed in range(args.seeds):
            draws = args.draws if seed == 0 else 1
            budget = args.preset, minutes, args.steps
            found["ours"].append(alone(ours, name, *budget, seed, draws, args.threads, args.keep, args.models))
            print(f"{name}, seed {seed}: {json.dumps(found['ours'][-1])}", file=sys.stderr, flush=True)
        if args.peers:
            found["peers"]["SMOTE"] = alone(smote, name)
            found["peers"]["TabularARGN"] = alone(argn, name, args.peer_python, args.threads, minutes)
            found["ahead"] = ahead(found["ours"], found["peers"]["TabularARGN"], SETS[name].regression)
            print(f"{name}, peers: {json.dumps(found['peers'])}", file=sys.stderr, flush=True)
        results[name] = found
        if args.out:
            about = {"preset": args.preset, "minutes": minutes, "steps": args.steps, "threads": args.threads}
            about |= {"draws": args.draws, "published": PUBLISHED, "wanted": WANTED, "aimed": AIMED}
            atomic_write(args.out, json.dumps({**about, "results": results}, indent=1) + "\n")
    if args.figure:
        quality(results, args.figure)
    budget = f"{minutes:g} min" if args.steps is None else f"{args.steps:,} steps"
    print(markdown(results, f"ours, {args.preset}, {budget}"))


if __name__ == "__main__":
    main()
