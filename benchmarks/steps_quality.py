"""Quality against network calls: the energy distance of the demo's joint samples to the real digits.

    diffuse demo --out demo-out
    python benchmarks/steps_quality.py demo-out/model [--figure docs/images/steps_quality.png]

A sample is a picture, ink shares, a label and the digit its caption states. Pixels are whole numbers from 0 to 16, as
in the data; each coordinate is divided by its standard deviation over the real digits. The energy distance is
2 E|X - Y| - E|X - X'| - E|Y - Y'|, X sampled, Y real; its standard error is that of the sampled side,
2 sd(E|x_i - Y| - E|x_i - X'|)/sqrt(n). Prints JSON: by stepper and step count the distance, its error and the network
calls a sample; and whether 20 steps lie within three errors of 500.
Source: Szekely and Rizzo 2013, Energy statistics.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from de_plugins.text_image.digits.captions import Captions
from de_plugins.text_image.digits.data import load_digits_joint, pixels_of
from de_plugins.text_image.digits.model import DigitsNet, digits_process

DEFAULT = {"image": "ancestral", "caption": "systematic"}  # as the demo samples
RUNS = {
    "demo's own": (DEFAULT, (5, 10, 20, 50, 100, 500)),
    "image: dpm_solver": (DEFAULT | {"image": "dpm_solver"}, (5, 10, 20, 50, 100)),
    "image: euler": (DEFAULT | {"image": "euler"}, (5, 10, 20, 50, 100)),
    "image: heun": (DEFAULT | {"image": "heun"}, (5, 10, 20, 50)),
    "caption: analytic": (DEFAULT | {"caption": "analytic"}, (5, 10, 20, 50, 100)),
    "caption: tau_leaping": (DEFAULT | {"caption": "tau_leaping"}, (5, 10, 20, 50, 100)),
    "ink: heun": (DEFAULT | {"ink": "heun"}, (5, 10, 20, 50)),
}


def coordinates(x: dict[str, Tensor], captions: Captions) -> Tensor:
    """(n, 101): pixels, shares, label and stated digit (the eleventh is none), one-hot."""
    stated = captions.parse(x["caption"])
    hot = torch.nn.functional.one_hot
    parts = [
        pixels_of(x["image"]).round().flatten(1),
        x["ink"],
        hot(x["label"], 10),
        hot(torch.where(stated < 0, 10, stated), 11),
    ]
    return torch.cat([part.double() for part in parts], 1)


def mean_distance(a: Tensor, b: Tensor) -> Tensor:
    """The mean distance of each row of ``a`` to the rows of ``b``."""
    return torch.cat([torch.cdist(rows, b).mean(1) for rows in a.split(500)])


def energy(sample: Tensor, real: Tensor) -> tuple[float, float]:
    """The energy distance and the standard error that the sampled side gives it."""
    n = len(sample)
    across, within = mean_distance(sample, real), mean_distance(sample, sample) * n / (n - 1)
    own = mean_distance(real, real).mean() * len(real) / (len(real) - 1)
    value = 2 * across.mean() - within.mean() - own
    return float(value), float(2 * (across - within).std() / n**0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the folder 'model' that diffuse demo wrote")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--only", help="one line of the comparison, by name")
    parser.add_argument("--figure", type=Path, help="where to draw the curve (needs matplotlib)")
    args = parser.parse_args()
    data, joint, net = load_digits_joint(), digits_process(), DigitsNet()
    net.load_state_dict(load_file(args.model / "model.safetensors"))
    net.eval()
    captions = Captions.fit(data.train.image)
    part = data.train
    real = {"image": part.image, "ink": part.ink, "label": part.label}
    real["caption"] = captions.draw(part.label, part.image, rng=0)
    y = coordinates(real, captions)
    scale = y.std(0)
    kept = scale > 0
    held = data.held_out
    fresh = {"image": held.image, "ink": held.ink, "label": held.label}
    fresh["caption"] = captions.draw(held.label, held.image, rng=1)

    def measure(x: dict[str, Tensor]) -> tuple[float, float]:
        return energy((coordinates(x, captions) / scale)[:, kept], (y / scale)[:, kept])

    report: dict[str, object] = {"rows": args.rows, "held-out real digits": measure(fresh)}
    curves: dict[str, list[dict[str, float]]] = {}
    for name, (methods, counts) in RUNS.items():
        if args.only not in (None, name):
            continue
        for steps in counts:
            x = joint.sample(net, args.rows, rng=steps, steps=steps, methods=methods)
            value, error = measure(x)
            calls = 2 * steps - 1 if "heun" in methods.values() else steps
            line = {"steps": steps, "calls": calls, "energy": round(value, 5), "error": round(error, 5)}
            curves.setdefault(name, []).append(line)
            print(f"{name}: {line}", file=sys.stderr, flush=True)
    report["curves"] = curves
    own = {line["steps"]: line for line in curves.get("demo's own", [])}
    if own:
        apart = abs(own[20]["energy"] - own[500]["energy"]) / (own[20]["error"] ** 2 + own[500]["error"] ** 2) ** 0.5
        report["20 against 500 steps, in standard errors of the difference"] = round(apart, 2)
        report["in standard errors of the 500 alone"] = round(
            abs(own[20]["energy"] - own[500]["energy"]) / own[500]["error"], 2
        )
    if args.figure:
        draw(curves, report["held-out real digits"][0], args.figure)  # type: ignore[index] # a pair, as measured above
    print(json.dumps(report, indent=1))
    return 0


def draw(curves: dict[str, list[dict[str, float]]], floor: float, path: Path) -> None:
    """The curves, one a stepper, over the floor that real held-out digits have."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, lines in curves.items():
        axes.plot([line["calls"] for line in lines], [line["energy"] for line in lines], "o-", ms=4, label=name)
    axes.axhline(floor, color="gray", ls=":", label="held-out real digits")
    axes.set(xscale="log", yscale="log", xlabel="network calls a sample", ylabel="energy distance to real digits")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    raise SystemExit(main())
