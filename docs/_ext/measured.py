"""Tables of what was measured, out of the JSON that the commands wrote: nothing is typed by hand.

``{claims}`` is a row a claim of text and images, its verdict and the figure that decides it; ``{reached} TASK`` a row a
number with what is wanted. A measurement whose file is not there is said not to be made yet.
"""

import json
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
    return claim, found["verdict"], f"{value} ({figure})", f"diffuse claims {name}"


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


def setup(app):
    app.add_directive("claims", Claims)
    app.add_directive("reached", Reached)
    return {"parallel_read_safe": True}
