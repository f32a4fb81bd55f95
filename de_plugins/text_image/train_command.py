"""``diffuse train``: a transformer on shards of pictures and captions, as a TOML file says."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import attrs
import torch

from de_core.artifact import save_artifact
from de_core.distributed import World
from de_core.errors import DiffuseError
from de_plugins.text_image.config import Config, load_config
from de_plugins.text_image.data.shards import ShardSource
from de_plugins.text_image.estimate import estimate
from de_plugins.text_image.gallery import Grid, write_gallery
from de_plugins.text_image.mmdit import MMDiT
from de_plugins.text_image.stages import train_stages

__all__ = ["Command"]


class Command:
    """The arguments and the work of ``diffuse train``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        about = "a TOML file, or one that comes with the package: paper, small"
        parser.add_argument("config", metavar="CONFIG", help=about)
        parser.add_argument("--data", metavar="DIR", help="shards, as `diffuse prepare` writes them")
        parser.add_argument("--out", metavar="DIR", help="where to write; a run that was cut off goes on from there")
        about = "count, estimate, and take one step of every stage at a width of 32 on noise; nothing is written"
        parser.add_argument("--dry-run", action="store_true", help=about)
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")

    def run(self, args: argparse.Namespace) -> int:
        config = load_config(args.config)
        if args.dry_run:
            found = dry_run(config)
            print(json.dumps(found) if args.json else _estimate_text(found))
            return 0
        for name in ("data", "out"):
            if getattr(args, name) is None:
                raise DiffuseError(f"--{name}: expected a directory (or --dry-run)")
        if Path(args.out).is_file():
            raise DiffuseError(f"--out: expected a directory at {args.out}, got a file")
        source = ShardSource(args.data)
        check_shards(config, source)
        config = attrs.evolve(config, vocabulary=source.captioner().vocabulary)
        with World.here() as world:
            found = self._train(config, source, Path(args.out), world)
            if world.rank == 0:
                print(json.dumps(found) if args.json else "\n".join(f"{k:<14}{v}" for k, v in found.items()))
        return 0

    def _train(self, config: Config, source: ShardSource, out: Path, world: World) -> dict[str, Any]:
        joint = config.process()
        torch.manual_seed(config.training.get("seed", 0))
        model = config.network(joint).to(world.device)
        settings = dict(config.training)
        budget = {name: settings.pop(name, None) for name in ("steps", "minutes")}

        def say(stage: Any) -> None:
            if world.rank == 0:
                print(f"stage '{stage.name}'", file=sys.stderr, flush=True)

        result = train_stages(
            joint, model, source, config.stages, **budget, out=out / "stages", on_stage=say, **settings
        )
        found = {
            "parameters": sum(model.parameter_counts().values()),
            "steps": result.steps,
            "seconds": round(result.seconds, 1),
            "loss": result.curve[-1]["loss"] if result.curve else None,
        }
        if world.rank == 0:
            facts = {"kind": "text-image", "joint": joint.config(), "network": model.settings, **found}
            curve = "".join(json.dumps(line) + "\n" for line in result.curve)
            save_artifact(out / "model", facts, result.model.state_dict(), files={"curve.jsonl": curve})
            found["page"] = str(_page(config, source, result.model, out))  # type: ignore[arg-type] # an MMDiT
        return found


def check_shards(config: Config, source: ShardSource) -> None:
    """Refuse shards that are not of the configured pictures and captions.

    Raises:
        DiffuseError: they are of another size, length or vocabulary.
    """
    captioner = source.captioner()
    want = {"image": config.image, "length": config.length, "vocabulary": config.vocabulary}
    got = {"image": source.shape, "length": captioner.length, "vocabulary": captioner.vocabulary}
    for name, value in want.items():
        if got[name] != value and not (name == "vocabulary" and got[name] <= value):
            raise DiffuseError(f"the configuration has {name} = {value}, the shards have {got[name]}")


def dry_run(config: Config) -> dict[str, Any]:
    """The estimate, and one step of every stage of the shrunk network on noise: its losses."""
    small = config.shrunk()
    joint = small.process()
    torch.manual_seed(0)
    model = small.network(joint)
    draw = torch.Generator().manual_seed(0)
    rows = {
        "image": torch.randn(4, *small.image, generator=draw),
        "caption": torch.randint(small.vocabulary, (4, small.length), generator=draw),
    }
    settings = {k: v for k, v in small.training.items() if k not in ("steps", "minutes")}
    result = train_stages(joint, model, rows, small.stages, steps=len(small.stages), progress=False, **settings)  # type: ignore[arg-type] # tensors are a source too
    losses = {line["stage"]: line["loss"] for line in result.curve}
    return {**estimate(config), "dry_run_losses": losses}


def _estimate_text(found: dict[str, Any]) -> str:
    parts = ", ".join(f"{part} {n:,}" for part, n in found["parameters"].items() if part != "all")
    lines = [
        f"parameters     {found['parameters']['all']:,}: {parts}",
        f"state          {found['state_gib']:.1f} GiB: weights, gradients, moments, averages; fsdp divides it",
        f"activations    {found['activations_mib']:,.0f} MiB a row",
        f"operations     {found['flops'] / 1e12:.3f} T a row and training step",
        f"rate here      {found['measured_flops_per_second'] / 1e9:.0f} G a second, measured with a narrow network",
    ]
    if "days" in found:
        days = found["rows"] * found["flops"] / 86_400
        lines.append(
            f"whole run      {found['days']:,.0f} days here; {days / 1.6e15:.1f} days on eight GPUs at 200 T each"
        )
    lines.append(
        "one step of    " + ", ".join(f"{name}: loss {loss:.3g}" for name, loss in found["dry_run_losses"].items())
    )
    return "\n".join(lines)


def _page(config: Config, source: ShardSource, model: MMDiT, out: Path, rows: int = 16) -> Path:
    """Joint draws and pictures for captions of the data; latents are shown as they are, three of their channels."""
    joint, captioner = config.process(), source.captioner()
    index = torch.arange(rows) % len(source)
    real = source.batch(index, torch.Generator().manual_seed(0))
    model = model.eval()
    methods = {"image": "ancestral", "caption": "systematic"}
    both = joint.sample(model, rows, rng=0, steps=50, methods=methods)
    drawn = joint.sample(model, rows, rng=1, steps=50, given={"caption": real["caption"]}, methods=methods)["image"]
    said = joint.sample(model, rows, rng=2, steps=50, given={"image": real["image"]}, methods=methods)["caption"]
    channels = 3 if config.image[0] >= 3 else 1
    grids = [
        Grid("Both at once", "Nothing was given.", both["image"][:, :channels], captioner.decode(both["caption"])),
        Grid("A picture for a caption", "", drawn[:, :channels], captioner.decode(real["caption"])),
        Grid("A caption for a picture", "", real["image"][:, :channels], captioner.decode(said)),
    ]
    return write_gallery(out / "index.html", "Text and images", "What the network draws after training.", grids, {})
