"""The worker of ``samplers.py --peers``: public samplers in their own environment, at the same sizes.

It needs torch and any of bionemo-moco and diffusers, nothing of this project. First it prints what it has; then, for
each name on a line of its input, it takes one step of that sampler at t = 1/2, half the tokens masked, and prints the
seconds. Names: "log_softmax", and

- "bionemo-moco MDLM": ``MDLM.step`` with a log-linear schedule, for absorbing tokens;
- "diffusers Amused": ``AmusedScheduler.step``, confidence-ordered, for absorbing tokens;
- "diffusers DiscreteDDIM": ``DiscreteDDIMScheduler.step`` at temperature 1; its tokens are uniform, not masked.
"""

import importlib.metadata
import json
import sys
import time

import torch

VOCABULARY, TOKENS, BATCH, STEPS = 50_257, 128, 16, 64


def samplers():
    """name -> a call that takes one step, for what is installed, and the versions."""
    g = torch.Generator().manual_seed(0)
    logits = torch.empty(BATCH, TOKENS, VOCABULARY).normal_(generator=g)
    half = torch.arange(TOKENS) % 2 == 0
    made, versions = {"log_softmax": lambda: logits.log_softmax(-1)}, {"torch": torch.__version__}
    try:
        from bionemo.moco.distributions.prior.discrete.mask import DiscreteMaskedPrior
        from bionemo.moco.distributions.time.uniform import UniformTimeDistribution
        from bionemo.moco.interpolants.continuous_time.discrete.mdlm import MDLM
        from bionemo.moco.schedules.noise.continuous_noise_transforms import LogLinearExpNoiseTransform

        # the mask is the last of the vocabulary here, so that the table is no larger than the others'
        prior = DiscreteMaskedPrior(num_classes=VOCABULARY, inclusive=True)
        mdlm = MDLM(UniformTimeDistribution(), prior, LogLinearExpNoiseTransform())
        x = torch.where(half, mdlm.mask_index, 0).expand(BATCH, -1)
        t = torch.full((BATCH,), 0.5)
        made["bionemo-moco MDLM"] = lambda: mdlm.step(logits, t, x, torch.full((BATCH,), 1 / STEPS))
        versions["bionemo-moco"] = importlib.metadata.version("bionemo-moco")
    except ImportError as error:
        versions["bionemo-moco"] = f"not there: {error}"
    try:
        from diffusers import AmusedScheduler, DiscreteDDIMScheduler

        ddim, amused = DiscreteDDIMScheduler(), AmusedScheduler(mask_token_id=VOCABULARY, masking_schedule="linear")
        ddim.set_timesteps(STEPS)
        amused.set_timesteps(STEPS)
        shown, other = torch.where(half, VOCABULARY, 0).expand(BATCH, -1), torch.zeros(BATCH, TOKENS, dtype=torch.int64)
        made["diffusers Amused"] = lambda: amused.step(logits, STEPS // 2, shown, generator=g)
        made["diffusers DiscreteDDIM"] = lambda: ddim.step(logits, STEPS // 2, other, temperature=1.0, generator=g)
        versions["diffusers"] = importlib.metadata.version("diffusers")
    except ImportError as error:
        versions["diffusers"] = f"not there: {error}"
    return made, versions


def main():
    torch.set_num_threads(int(sys.argv[1]))
    with torch.no_grad():
        made, versions = samplers()
        for call in made.values():
            call()  # the first use loads and allocates
        print(json.dumps({"names": [name for name in made if name != "log_softmax"], "versions": versions}), flush=True)
        for line in sys.stdin:
            start = time.perf_counter()
            made[line.strip()]()
            print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
