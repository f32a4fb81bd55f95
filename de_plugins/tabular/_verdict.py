"""What the scores come to, in sentences. Each is graded by the anchors, or by what chance would give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from de_plugins.tabular._scores import standing

__all__ = ["Judgement", "headline", "verdict"]

GOOD, FAIR, POOR, NOTE = "good", "fair", "poor", "note"
LIKENESS, PRIVACY = ("Single columns", "Pairs of columns", "Telling them apart"), "Privacy"


@attrs.frozen
class Judgement:
    """A sentence of the verdict.

    Args:
        topic: what it is about.
        level: "good", "fair", "poor", or "note" where nothing is to be graded.
        sentence: plain words with the numbers.
    """

    topic: str
    level: str
    sentence: str


def verdict(results: Mapping[str, Any]) -> list[Judgement]:
    """One judgement a topic, in the order of the report; topics without a score are left out."""
    makers = (_columns, _pairs, _classifier, _learning, _copies, _cells, _imputation, _cost)
    return [judgement for make in makers if (judgement := make(results)) is not None]


def headline(results: Mapping[str, Any]) -> str:
    """The whole in one sentence."""
    levels = {judgement.topic: judgement.level for judgement in verdict(results)}
    order = (GOOD, FAIR, POOR)
    graded = [levels[topic] for topic in LIKENESS if levels.get(topic, NOTE) != NOTE]
    worst = max(graded, key=order.index, default=FAIR)
    like = {
        GOOD: "Very close to the real table",
        FAIR: "Close to the real table, with differences that can be found",
        POOR: "Clearly different from the real table",
    }[worst]
    copied = {
        GOOD: "no sign that training rows were copied",
        FAIR: "it lies a little nearer to the training rows than it should",
        POOR: "it gives training rows away",
        NOTE: "whether it copies could not be judged",
    }[levels.get(PRIVACY, NOTE)]
    return f"{like}; {copied}."


def _columns(results: Mapping[str, Any]) -> Judgement | None:
    score, best = results["scores"].get("shape"), _anchor(results, "perfect", "shape")
    if score is None:
        return None
    far = 1 - score
    level = GOOD if far <= max(0.01, 2 * (1 - (1 if best is None else best))) else FAIR if far <= 0.05 else POOR
    text = {
        GOOD: "One by one, the columns are distributed as in the real table",
        FAIR: "One by one, the columns are nearly distributed as in the real table",
        POOR: "Some columns are distributed differently from the real table",
    }[level]
    worst = sorted((value, name) for name, value in results["shape"].items() if value is not None)
    beside = "" if best is None else f", where another real sample would have {_percent(best)}"
    least = f" The least alike is {_name(worst[0][1])} ({_percent(worst[0][0])})." if len(worst) > 1 else ""
    gone = max(results["missing"].items(), key=lambda item: abs(item[1] or 0.0))
    holes = ""
    if abs(gone[1] or 0.0) > 0.02:
        more = "more" if gone[1] > 0 else "fewer"
        holes = f" {_name(gone[0])} has {_percent(abs(gone[1]))} {more} missing cells than it should."
        level = FAIR if level == GOOD else level
    return Judgement(LIKENESS[0], level, f"{text}: Shape is {_percent(score)}{beside}.{least}{holes}")


def _pairs(results: Mapping[str, Any]) -> Judgement | None:
    score = results["scores"].get("trend_ranks")
    if score is None:
        return None
    best, worst = (_anchor(results, name, "trend_ranks") for name in ("perfect", "shuffled"))
    place = standing("trend_ranks", results)
    beside, ordered = "", True
    if best is None or worst is None:
        level = GOOD if score >= 0.98 else FAIR if score >= 0.95 else POOR
    elif place is None:
        ordered = False
        level = POOR if _below_chance(score, min(best, worst), results["rows"]) else NOTE
        beside = f"; shuffled columns have {_percent(worst)} and another real sample {_percent(best)}"
    else:
        level = GOOD if place >= 0.85 else FAIR if place >= 0.5 else POOR
        beside = f", between {_percent(worst)} for shuffled columns and {_percent(best)} for another real sample"
    text = {
        GOOD: "Pairs of columns hang together as they should",
        FAIR: "Pairs of columns hang together for the most part",
        POOR: "Much of how columns hang together is lost" if ordered else "Columns hang together as they should not",
        NOTE: "Pairs of columns tell nothing here, as shuffled columns do as well as a real sample",
    }[level]
    pair = results["worst_pairs"][:1] if level != NOTE else []
    least = f" The least alike are {_name(pair[0][0])} and {_name(pair[0][1])}." if pair else ""
    return Judgement(LIKENESS[1], level, f"{text}: Trend (deciles and ranks) is {_percent(score)}{beside}.{least}")


def _below_chance(score: float, least: float, rows: Mapping[str, int]) -> bool:
    """Whether a Trend lies clearly below both anchors: twice as far from 1, and by more than three standard errors of
    half a difference of two correlations."""
    noise = 0.5 * (1 / rows["train"] + 1 / rows["synthetic"]) ** 0.5
    return 1 - score > max(2 * (1 - least), 3 * noise)


def _classifier(results: Mapping[str, Any]) -> Judgement:
    scores, found = results["scores"], results["two_sample"]["full"]
    auc = scores["auc"]
    levels = [(0.55, GOOD, "can hardly"), (0.65, FAIR, "can sometimes"), (0.8, FAIR, "can often")]
    level, can = next(((level, can) for most, level, can in levels if auc <= most), (POOR, "can nearly always"))
    text = f"A classifier {can} tell synthetic rows from real ones: AUC is {auc:.2f}, where 0.5 is a guess"
    worst = _anchor(results, "shuffled", "auc")
    text += "." if worst is None else f" and shuffled columns have {worst:.2f}."
    if auc > 0.55:
        single, joint = scores["auc_marginal"] - 0.5, scores["auc_dependence"] - 0.5
        where = (
            "single columns" if single > 2 * joint else "how columns hang together" if joint > 2 * single else "both"
        )
        what = "both single columns and how they hang together" if where == "both" else where
        names = [_name(name) for name, lost in found["columns"][:3] if lost > 0.01]
        text += f" It goes by {what}" + (f", most of all by {_listed(names)}." if names else ".")
    if results["two_sample_against"] == "train":
        text += " The real rows are the training rows, for want of others: a copy would pass."
    return Judgement(LIKENESS[2], level, text)


def _learning(results: Mapping[str, Any]) -> Judgement | None:
    score, best = results["scores"].get("mle"), _anchor(results, "perfect", "mle")
    if score is None:
        return None
    what, metric = _name(results["target"]), results["learning"]["metric"].upper()
    text = f"A model that learns {what} from the synthetic table has {metric} {score:.3f} on real rows"
    if best is None:
        return Judgement("Learning", NOTE, text + ".")
    place = standing("mle", results)
    level = NOTE if place is None else GOOD if place >= 0.95 else FAIR if place >= 0.8 else POOR
    kept = "" if place is None else f" ({100 * max(0.0, min(1.0, place)):.0f} % of what there is to learn)"
    if place is None and (worst := _anchor(results, "shuffled", "mle")) is not None:
        kept = f", and one that learns from shuffled columns {worst:.3f}: there is nothing to lose"
    return Judgement("Learning", level, f"{text}; one that learns from the real table has {best:.3f}{kept}.")


def _copies(results: Mapping[str, Any]) -> Judgement:
    if "privacy" not in results:
        return Judgement(
            PRIVACY,
            NOTE,
            "Whether training rows were copied cannot be judged without rows held out; give a test table.",
        )
    found = results["privacy"]
    # in standard errors: a difference of two shares, a share, and a hit rate at a false-alarm rate of 0.01 that is
    # itself estimated
    gap, count = found["exact_train"] - found["exact_test"], results["rows"]
    noise = found["exact_train"] / count["train"] + found["exact_test"] / count["test"]
    exact = gap / max(noise**0.5, 1 / count["test"])
    nearer = (found["closer_to_train"] - 0.5) / (0.25 / found["rows"]) ** 0.5
    hits = (found["attack_tpr"] - 0.01) / (2 * 0.01 * 0.99 / found["rows"]) ** 0.5
    strong = gap > 0.01 or found["closer_to_train"] > 0.6 or found["attack_tpr"] > 0.05
    signs = max(exact, nearer, hits) > 4
    level = POOR if signs and strong else FAIR if signs else GOOD
    text = {
        GOOD: "There is no sign that training rows were copied",
        FAIR: "The table lies a little nearer to the training rows than to others",
        POOR: "The table gives training rows away",
    }[level]
    return Judgement(
        PRIVACY,
        level,
        f"{text}: {_percent(found['exact_train'])} of the training rows occur in it (of the rows held out: "
        f"{_percent(found['exact_test'])}), {_percent(found['closer_to_train'])} of its rows lie nearer to a training "
        f"row than to one held out (chance: 50 %), and an attacker finds {_percent(found['attack_tpr'])} of the "
        "training rows at 1 % false alarms (chance: 1 %).",
    )


def _cells(results: Mapping[str, Any]) -> Judgement:
    share = results["scores"]["invalid"]
    if share == 0:
        return Judgement("Impossible cells", GOOD, "Every cell is one that the real table could hold.")
    keys = ("outside", "off_grid", "unseen")
    name = max(results["validity"].items(), key=lambda item: max(item[1].get(key) or 0.0 for key in keys))[0]
    level = FAIR if share <= 0.01 else POOR
    text = (
        f"Some cells cannot be: {_percent(share)} of {_name(name)} are out of range, off its grid or were never seen."
    )
    return Judgement("Impossible cells", level, text)


def _imputation(results: Mapping[str, Any]) -> Judgement | None:
    if "imputation" not in results:
        return None
    table = results["imputation"]["summary"]
    ours = table["model"]
    others = [table["neighbours"], table["iterative"]]
    wins = [all(ours[key] <= other.get(key, math.inf) for other in others) for key in ("crps", "nats") if key in ours]
    level = GOOD if all(wins) else FAIR if any(wins) else POOR
    text = {
        GOOD: "Hidden cells are filled better than nearest neighbours and chained regressions fill them",
        FAIR: "Hidden cells are filled better than by the simple imputers in part",
        POOR: "Hidden cells are filled no better than by simple imputers",
    }[level]
    if not wins:
        return None
    parts = []
    if "crps" in ours:
        parts.append(f"numbers have a CRPS of {_beside(table, 'crps')}")
    if "nats" in ours:
        parts.append(f"categories a log score of {_beside(table, 'nats')}")
    return Judgement("Imputation", level, f"{text}: {' and '.join(parts)}; less is better.")


def _cost(results: Mapping[str, Any]) -> Judgement | None:
    if "cost" not in results:
        return None
    found = results["cost"]
    speed = found["sampling_rows"] / max(found["sampling_seconds"], 1e-9)
    text = (
        f"{found['parameters']:,} parameters, trained for {found['training_seconds'] / 60:.1f} minutes; it draws "
        f"{speed:,.0f} rows a second."
    )
    return Judgement("Cost", NOTE, text)


def _beside(table: Mapping[str, Any], key: str) -> str:
    found = (table[name].get(key) for name in ("model", "neighbours", "iterative"))
    ours, near, chained = ("–" if score is None else f"{score:.2f}" for score in found)
    return f"{ours} (neighbours {near}, regressions {chained})"


def _anchor(results: Mapping[str, Any], name: str, key: str) -> float | None:
    return results.get("anchors", {}).get(name, {}).get(key)


def _percent(share: float) -> str:
    """Two digits where they matter."""
    value = 100 * share
    return "0 %" if value == 0 else f"{value:.1f} %" if value >= 1 else f"{value:.2g} %"


def _name(name: Any) -> str:
    return f"“{name}”"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
