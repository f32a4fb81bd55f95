"""Tables of what was measured, out of the JSON that the commands wrote, and not typed by hand.

``{claims}`` is a row a claim of text and images, its verdict and the figure that decides it; ``{reached} TASK`` a row a
number with what is wanted; ``{tables}`` and ``{imputation}`` a row a score and a column a data set. A measurement whose
file is not there is said not to be made yet.
"""

import json
import statistics
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

FOLDER = Path(__file__).parents[1] / "measurements"

# name of the file -> how the figure is called
CLAIMS = {
    "guidance": (
        "noisy guidance trades accuracy against variety better than classifier-free guidance",
        "variety at equal accuracy, noisy less classifier-free, in units of real pictures' variety",
    ),
    "stages": (
        "three stages are better than one, in the same time",
        "right answers, three stages less one, mean of five tasks",
    ),
    "times": (
        "clocks of their own are better than one for all",
        "right answers, decoupled less tied, mean of five tasks",
    ),
    "objective": (
        "the weights of the authors' code are better than the bound's",
        "right answers, paper-text-image less elbo, mean of five tasks",
    ),
}

# task -> its file and (what, key, wanted, whether more is better)
REACHED = {
    "scenes": (
        "scenes",
        [
            ("picture given a caption, one object", "image_given_caption_one", 0.85, True),
            ("the same, two objects", "image_given_caption_two", 0.65, True),
            ("one object, guided", "image_given_caption_one_guided", 0.92, True),
            ("two objects, guided", "image_given_caption_two_guided", 0.80, True),
            ("caption given a picture, one object", "caption_given_image_one", 0.85, True),
            ("the same, two objects", "caption_given_image_two", 0.65, True),
            ("picture and caption agree, neither given: the caption drawn, then the picture", "joint", 0.75, True),
            ("the same, both from noise together", "joint_synchronous", None, True),
            ("the rest of a caption, given a picture and five words", "caption_completed", None, True),
            ("caption given a picture, nats a word, at most", "caption_bound_nats_per_word", None, False),
            ("Fréchet distance in the judge's features", "frechet", None, False),
            ("the same between two halves of real scenes", "floor", None, False),
            ("the judge is right, one held-out digit", "judge_one", None, True),
            ("the same, two", "judge_two", None, True),
            ("parameters", "parameters", 3_000_000, False),
            ("seconds of training", "training_seconds", 2700, False),
        ],
    ),
    "emoji": (
        "emoji",
        [
            ("the right emoji among the five nearest of all", "among_five_nearest", 0.60, True),
            ("the same, guided", "among_five_nearest_guided", None, True),
            ("the right emoji is the nearest", "nearest", None, True),
            ("the same of the real pictures, moved by a pixel", "real_moved_by_a_pixel", None, True),
            ("by chance", "by_chance", None, True),
            ("copies among the pictures", "copies", None, False),
            ("name given a picture, letter for letter", "name_given_picture", None, True),
            ("seconds of training", "training_seconds", 1200, False),
        ],
    ),
    "digits": (
        "demo_mmdit",
        [
            ("picture given its caption", "image_given_caption", 0.97, True),
            ("caption given a held-out picture", "caption_given_image", 0.96, True),
            ("parameters", "parameters", None, False),
        ],
    ),
    "engine": (
        "mmdit",
        [
            ("a training step over that of a plain encoder", "step_over_encoder", 1.25, False),
            ("the loss beyond the network, share of a step", "loss_overhead", 0.05, False),
            ("sampling beyond the network, share of the whole", "sampling_overhead", 0.05, False),
        ],
    ),
    "ranks": ("ranks", [("rows a second of two ranks over one", "ratio", 1.6, True)]),
}

# score of `benchmarks/tabular.py` -> its words and digits
SCORES = {
    "trend": ("Trend, all pairs", 2),
    "utility": ("MLE: AUC, or RMSE of the logarithm", 3),
    "utility, paper": ("MLE by the common script", 3),
    "auc": ("two-sample AUC, at most", 3),
    "shape": ("Shape", 2),
    "trend, real bins": ("Trend, bins of the real table", 2),
}
COSTS = {
    "bound, test": ("bound on -log p of test rows, nats", 1),
    "bound, train": ("the same of training rows", 1),
    "parameters": ("parameters", 0),
    "steps": ("steps", 0),
    "fit seconds": ("seconds of fitting", 0),
    "sample seconds": ("seconds of drawing as many rows", 1),
    "peak GiB": ("GiB at the peak, libraries and data too", 2),
}
PEERS = ("TabularARGN", "SMOTE")
TABLES = ("adult", "default", "shoppers", "magic", "beijing", "news")


def measured(name):
    """What a command wrote, or None."""
    file = FOLDER / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def claim_row(name):
    """The words of a claim's row."""
    claim, figure = CLAIMS[name]
    found = measured(f"claims_{name}")
    if found is None:
        return claim, "not measured yet", "", f"diffuse claims {name}"
    told = found["noisy_over_classifier_free"] if name == "guidance" else found["differences"]["all"]
    gap, error = (told.get(key) for key in ("gap" if name == "guidance" else "difference", "stderr"))
    value = "no setting of both is more accurate than none" if gap is None else f"{gap:+.3f} ± {error:.3f}"
    command = f"diffuse claims {name}"
    if "arms" in found:
        seeds = len(next(iter(found["arms"].values())))
        unit = "steps" if found["minutes"] is None else "minutes"
        command += f" --{unit} {found[unit]:g} --seeds {seeds} --rows {found['rows']}"
    return claim, found["verdict"], f"{value} ({figure})", command


def reached_row(found, what, key, wanted, more):
    """The words of a number's row."""
    bound = "" if wanted is None else f"{'at least' if more else 'at most'} {wanted:,}"
    if found is None or key not in found:
        return what, "not measured yet", bound, ""
    value = found[key]
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    met = "" if wanted is None else "yes" if (value >= wanted if more else value <= wanted) else "no"
    return what, shown, bound, met


def table(head, rows, widths):
    """A table of words."""
    out = nodes.table()
    group = nodes.tgroup(cols=len(head))
    out += group
    for width in widths:
        group += nodes.colspec(colwidth=width)
    top, body = nodes.thead(), nodes.tbody()
    group += [top, body]
    for part, cells in ((top, head), *((body, cells) for cells in rows)):
        part += nodes.row("", *(nodes.entry("", nodes.paragraph(text=cell)) for cell in cells))
    return out


class Claims(Directive):
    """All claims."""

    def run(self):
        rows = [claim_row(name) for name in CLAIMS]
        return [table(("claim", "here", "figure", "command"), rows, (34, 14, 34, 18))]


class Reached(Directive):
    """What one task reached."""

    required_arguments = 1

    def run(self):
        if self.arguments[0] not in REACHED:
            raise self.error(f"reached: expected one of {', '.join(REACHED)}, got {self.arguments[0]!r}")
        file, lines = REACHED[self.arguments[0]]
        found = measured(file)
        rows = [reached_row(found, *line) for line in lines]
        return [table(("what", "reached", "wanted", "met"), rows, (50, 20, 20, 10))]


def spread(values, digits):
    """Mean, and deviation where there are several."""
    mean = sum(values) / len(values)
    several = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean:,.{digits}f}{several}"


class Tables(Directive):
    """What the six tables reached, from `benchmarks/tabular.py --out`; of the file "tabular", or of another one."""

    optional_arguments = 1

    def run(self):
        whole = measured(*self.arguments or ["tabular"]) or {}
        found, rows = whole.get("results", {}), []

        def add(words, key, digits, runs):
            """``runs``: what to take of a data set's results, a list."""
            told = []
            for name in TABLES:
                values = [one[key] for one in runs(found[name]) if key in one] if name in found else []
                told.append(spread(values, digits) if values else "–" if name in found else "not measured yet")
            if set(told) - {"–", "not measured yet"}:
                rows.append((words, *told))

        for key, (words, digits) in SCORES.items():
            add(words, key, digits, lambda one: one["ours"])
            if key == "trend":
                draws = [found[n]["ours"][0].get("draws", {}).get(key) if n in found else None for n in TABLES]
                told = [f"{d['mean']:.{digits}f} ± {d['sd']:.{digits}f}" if d else "–" for d in draws]
                if any(draws):
                    rows.append((f"{whole.get('draws', 0)} draws of one model", *told))
            for goal, values in (("wanted", whole.get("wanted")), ("aimed at", whole.get("aimed"))):
                if key in (values or {}):
                    rows.append((goal, *(values[key][name] for name in TABLES)))
            for method, values in whole.get("published", {}).get(key, {}).items():
                rows.append((f"{method}, published", *(values[name] for name in TABLES)))
            for method in PEERS:
                add(f"{method}, here", key, digits, lambda one, m=method: [one["peers"].get(m, {})])
            add("the training table", key, digits, lambda one: [one["anchors"]["training table"]])
            add("its columns shuffled", key, digits, lambda one: [one["anchors"]["columns shuffled"]])
        ahead = ["–" if "ahead" not in found.get(n, {}) else "yes" if found[n]["ahead"] else "no" for n in TABLES]
        if set(ahead) - {"–"}:
            rows.append(("ahead of TabularARGN in Trend, MLE and, by .03, in AUC", *ahead))
        for key, (words, digits) in COSTS.items():
            add(words, key, digits, lambda one: one["ours"])
            if key in ("fit seconds", "sample seconds"):
                add(f"{words}, TabularARGN", key, digits, lambda one: [one["peers"].get("TabularARGN", {})])
        return [table(("", *map(str.capitalize, TABLES)), rows, (28, *[12] * 6))]


class Imputation(Directive):
    """Who fills holes best, from `benchmarks/tabular_imputation.py`."""

    def run(self):
        found = (measured("tabular_imputation") or {}).get("results", {})
        ways = {"model": "the model", "iterative": "chained regressions", "neighbours": "nearest neighbours"}
        rows = []
        for key, words in {"crps": "numbers: CRPS, in deviations", "nats": "classes: smoothed log score, nats"}.items():
            for way, who in ways.items():
                told = [found[n]["scores"][way].get(key) if n in found else None for n in TABLES]
                rows.append((f"{words}; {who}", *("–" if v is None else f"{v:.3f}" for v in told)))
        ahead = ["yes" if all(found[n]["ahead"].values()) else "no" for n in TABLES if n in found]
        rows.append(("ahead, as it must be", *ahead, *["not measured yet"] * (len(TABLES) - len(ahead))))
        return [table(("", *map(str.capitalize, TABLES)), rows, (28, *[12] * 6))]


def setup(app):
    app.add_directive("claims", Claims)
    app.add_directive("reached", Reached)
    app.add_directive("tables", Tables)
    app.add_directive("imputation", Imputation)
    return {"parallel_read_safe": True}
