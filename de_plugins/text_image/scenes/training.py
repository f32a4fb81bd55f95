"""A training run of scenes as one value, and the model that it left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from de_core.artifact import load_artifact, save_artifact
from de_core.engine import quick_precision
from de_core.errors import DiffuseError
from de_core.times import Mixed, Tied
from de_core.train import TrainResult
from de_plugins.text_image.clocks import asked_clocks
from de_plugins.text_image.mmdit import MMDiT, Size
from de_plugins.text_image.scenes.kinds import KINDS, Kind, kind_of
from de_plugins.text_image.scenes.model import WEIGHTS, SceneSource
from de_plugins.text_image.scenes.world import Hands
from de_plugins.text_image.stages import Stage, single_stage, three_stages, train_stages

__all__ = ["CHOICES", "SceneRun", "load_scenes"]

CHOICES = {
    "digits": tuple(KINDS),
    "stages": ("one", "three"),
    "times": ("decoupled", "tied"),
    "objective": ("simple", "elbo", "paper-text-image"),
    "precision": ("auto", "float32", "bfloat16"),
}

CLOCKS = asked_clocks(picture=0.40, caption=0.25, apart=0.15, alone=0.10, tied=0.10)


def decoupled(weights: Mapping[str, float]) -> Mixed:
    """Clocks of their own: those of ``CLOCKS`` in which some modality that is trained is not clean."""
    return Mixed([part for part in CLOCKS.parts if any(w and part[2].get(name) != 0 for name, w in weights.items())])


@attrs.frozen
class SceneRun:
    """All that decides a training.

    Args:
        digits: of which the scenes are made, a name of ``KINDS``.
        size: of the network, a name of ``SIZES``.
        stages: "one", all at once; "three", the authors'.
        times: "decoupled", a mixture, most of it with one of the two clean (``CLOCKS``); "tied", one clock for both.
        objective: of the losses. "simple" weighs them as ``WEIGHTS`` says; the others are sums, as they are meant.
        precision: of the matrix products; "auto" is the faster one here (``quick_precision``).
        batch_size, lr: of the trainer.
        seed: of the first weights and of all that is drawn.

    Raises:
        DiffuseError: an unknown choice.
    """

    digits: str = "sklearn"
    size: str = "nano"
    stages: str = "one"
    times: str = "decoupled"
    objective: str = "simple"
    precision: str = "auto"
    batch_size: int = 64
    lr: float = 1.5e-3
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise DiffuseError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")

    def plan(self) -> tuple[Stage, ...]:
        """The stages."""
        weights = WEIGHTS if self.objective == "simple" else dict.fromkeys(WEIGHTS, 1.0)
        three = self.stages == "three"
        stages = three_stages("image", "caption", weights=weights) if three else single_stage(weights)
        tied = self.times == "tied"
        return tuple(attrs.evolve(stage, times=Tied() if tied else decoupled(stage.weights)) for stage in stages)

    def train(
        self,
        part: Hands,
        out: Path,
        *,
        minutes: float | None = None,
        steps: int | None = None,
        on_stage: Callable[[Stage], None] | None = None,
    ) -> TrainResult:
        """Train on scenes of these digits; stages and checkpoints go to ``out/stages``, the model to ``out/model``."""
        kind = kind_of(self.digits)
        joint, model = kind.process(), kind.network(part, self.size, self.seed)
        result = train_stages(
            joint,
            model,
            SceneSource(part),  # type: ignore[arg-type] # pictures and labels are all that it asks for
            self.plan(),
            minutes=minutes,
            steps=steps,
            out=out / "stages",
            on_stage=on_stage,
            batch_size=self.batch_size,
            lr=self.lr,
            objective=self.objective,
            precision=quick_precision() if self.precision == "auto" else self.precision,
            seed=self.seed,
            weight_decay=0.01,
        )
        facts = {"run": attrs.asdict(self), "steps": result.steps, "seconds": result.seconds}
        lines = "".join(json.dumps(line) + "\n" for line in result.curve)
        config = {"kind": "scenes", "network": model.settings, **facts}
        save_artifact(out / "model", config, model.state_dict(), files={"curve.jsonl": lines})
        return result


def load_scenes(path: Path) -> tuple[Kind, MMDiT]:
    """The kind of scenes and the model that ``SceneRun.train`` left.

    Raises:
        DiffuseError: no artifact, one of another kind, or of another architecture.
    """
    artifact = load_artifact(path)
    if artifact.config.get("kind") != "scenes":
        raise DiffuseError(f"--model: expected a model of scenes at {path}, got kind {artifact.config.get('kind')!r}")
    kind = kind_of(artifact.config.get("run", {}).get("digits", "sklearn"))
    network = artifact.config["network"]
    model = kind.blank(Size(**network["size"]), network["patch"])
    try:
        model.load_state_dict(artifact.tensors)
    except RuntimeError as error:
        last = str(error).splitlines()[-1].strip()
        raise DiffuseError(f"--model: the weights at {path} are of another architecture: {last}") from None
    return kind, model.eval()
