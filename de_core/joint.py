"""The joint process: several modalities, each with its own clock; the product of their processes.

    p(x, t) = sum_{x_0} p_data(x_0) prod_i p^i_{t_i|0}(x_i | x_0,i)

A network sees all noisy modalities and all clocks, and answers for each modality. The generator of the product along
any path of clocks is the sum of theirs, and Phi is linear in it: the joint loss *is* the sum of the unimodal losses.
Source: Rojas et al. 2025 (2506.07903).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from de_core.bound import Bound, compute_bound
from de_core.errors import DiffuseError
from de_core.families.jump import held
from de_core.generator import JumpGenerator
from de_core.guidance import NoisyGuidance
from de_core.likelihood import compute_log_likelihood
from de_core.modality import Modality, Noised, expand
from de_core.objective import check_form, check_objective
from de_core.paths import Path, Steps, Synchronous
from de_core.rng import Rng, as_generator, seed_of
from de_core.sampling.loop import run
from de_core.sampling.plan import Given, make_plan
from de_core.sampling.state import SampleState
from de_core.times import TimePolicy, default_times

__all__ = ["JointLoss", "JointProcess", "Model"]

Model = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]


@attrs.frozen(eq=False)
class JointLoss:
    """What ``JointProcess.loss`` returns.

    Attributes:
        total: the batch mean of the weighted sum of the terms, a scalar.
        terms: name -> (B,), unweighted: what the modality's own ``loss`` returns when called alone.
        times: name -> the clocks that were drawn.
    """

    total: Tensor
    terms: dict[str, Tensor]
    times: dict[str, Tensor]


class JointProcess:
    """Named modalities with decoupled clocks.

    Args:
        modalities: name -> modality, in the order in which everything is drawn.
        elementwise: names whose clock has one reading an element, (B, *element), in place of one a sample.
        block: rows a block in ``sample`` and ``bound``. A block is always worked whole, from its own stream, so that
            row i depends on the seed and not on how many rows are asked for. Large blocks suit small networks.

    Raises:
        DiffuseError: no modality; a value that is none; an elementwise name that is unknown or lacks the capability; a
            block below 1.
    """

    def __init__(self, modalities: Mapping[str, Modality], elementwise: Sequence[str] = (), *, block: int = 64) -> None:
        if not modalities:
            raise DiffuseError("a joint process needs at least one modality")
        for name, modality in modalities.items():
            if not isinstance(modality, Modality):
                raise DiffuseError(f"modality '{name}': expected a Modality, got {type(modality).__name__}")
        if isinstance(block, bool) or not isinstance(block, int) or block < 1:
            raise DiffuseError(f"block: expected a whole number of at least 1, got {block!r}")
        self.modalities = dict(modalities)
        self.elementwise = frozenset(elementwise)
        self.block = block
        for name in elementwise:
            self.check_name(name)
            if "elementwise" not in self.modalities[name].capabilities:
                raise DiffuseError(f"modality '{name}' lacks the capability 'elementwise'")

    def __repr__(self) -> str:
        return f"JointProcess({', '.join(f'{name}={m!r}' for name, m in self.modalities.items())})"

    # --- checks -----------------------------------------------------------------------------------------------------

    def check_name(self, name: str) -> None:
        """Refuse a name that is no modality."""
        if name not in self.modalities:
            raise DiffuseError(f"unknown modality '{name}'; there are {', '.join(self.modalities)}")

    def validate_one(self, name: str, x: Tensor, *, noised: bool = False) -> None:
        """Refuse a clean state, or a noised one, that is not in the modality's space, naming the modality."""
        if not isinstance(x, Tensor):
            raise DiffuseError(f"modality '{name}': expected a tensor, got {type(x).__name__}")
        try:
            modality = self.modalities[name]
            modality.validate_noised(x) if noised else modality.validate(x)
        except DiffuseError as error:
            raise DiffuseError(f"modality '{name}': {error}") from None

    def validate(self, x0: Mapping[str, Tensor]) -> int:
        """Refuse data that is not one clean state of every modality; returns the batch size."""
        for name in x0:
            self.check_name(name)
        missing = [name for name in self.modalities if name not in x0]
        if missing:
            raise DiffuseError(
                f"modality '{missing[0]}': expected in the data, which holds {', '.join(x0) or 'nothing'}"
            )
        for name in self.modalities:
            self.validate_one(name, x0[name])
        sizes = {name: len(x0[name]) for name in self.modalities}
        if len(set(sizes.values())) > 1:
            raise DiffuseError(f"expected one batch size, got {sizes}")
        return next(iter(sizes.values()))

    def replaces(self, name: str) -> bool:
        """Whether a known part of this modality is held by replacement, because neither its clock nor its law holds
        it."""
        return name not in self.elementwise and not self.modalities[name].holds_known

    def call(
        self, model: Model, x: Mapping[str, Tensor], t: Mapping[str, Tensor], *, check: bool = False
    ) -> dict[str, Tensor]:
        """The network's outputs at (x, t), with their names and shapes checked, and with ``check`` that they are
        numbers.

        Raises:
            DiffuseError: an output is missing, of wrong shape, or (with ``check``) NaN or infinite.
        """
        outputs = model(dict(x), dict(t))
        for name, modality in self.modalities.items():
            output = outputs.get(name) if isinstance(outputs, Mapping) else None
            if not isinstance(output, Tensor):
                raise DiffuseError(f"modality '{name}': the model returned no output for it")
            want = (x[name].shape[0], *modality.output_shape)
            if output.shape != want:
                raise DiffuseError(f"modality '{name}': expected an output of shape {want}, got {tuple(output.shape)}")
            if check and not bool(output.isfinite().all()):
                raise DiffuseError(f"modality '{name}': the model returned NaN or infinite numbers")
        return dict(outputs)

    # --- the forward process ----------------------------------------------------------------------------------------

    def time_shapes(self, x: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """The shape of each clock for a batch: (B,), or (B, *element) where elementwise."""
        return {
            name: (len(x[name]), *(m.element_shape if name in self.elementwise else ()))
            for name, m in self.modalities.items()
        }

    def draw_times(
        self, x0: Mapping[str, Tensor], policy: TimePolicy, *, rng: torch.Generator, progress: float = 0.0
    ) -> dict[str, Tensor]:
        """Training times: the policy's, with (0, 1] brought to [t_min, 1] and 0 kept, in each modality's precision."""
        drawn = policy.draw(self.time_shapes(x0), rng=rng, progress=progress)
        out = {}
        for name in self.modalities:
            t, low, x = self._given_times(drawn, name, len(x0[name])), self.modalities[name].t_min, x0[name]
            t = torch.where(t > 0, 1 - (1 - low) * (1 - t), 0.0)
            out[name] = t.to(x.dtype) if x.is_floating_point() else t
        return out

    def perturb(self, x0: Mapping[str, Tensor], t: Mapping[str, Tensor], *, rng: Rng) -> dict[str, Noised]:
        """Each modality noised by its own kernel to its own time, one after the other from one stream."""
        device = next(iter(x0.values())).device
        draw = as_generator(rng, device)
        return {name: m.perturb(x0[name], t[name], rng=draw) for name, m in self.modalities.items()}

    # --- training ---------------------------------------------------------------------------------------------------

    def noise(
        self,
        x0: Mapping[str, Tensor],
        *,
        rng: Rng,
        times: TimePolicy | Mapping[str, Tensor] | None = None,
        progress: float = 0.0,
    ) -> dict[str, Noised]:
        """What ``loss`` draws first: clocks, then each modality noised to its own. ``loss`` takes it, or some rows of
        it (``Noised.pick``), in place of clean data: so several processes share one draw for one batch.

        Args:
            x0: name -> (B, *event), clean.
            rng, times, progress: as in ``loss``.

        Raises:
            DiffuseError: no rows, or data outside the space.
        """
        if not (batch := self.validate(x0)):
            raise DiffuseError("loss: expected at least 1 row, got 0")
        draw = as_generator(rng, next(iter(x0.values())).device)
        if isinstance(times, Mapping):
            t = {name: self._given_times(times, name, batch) for name in self.modalities}
        else:
            t = self.draw_times(x0, times or default_times(), rng=draw, progress=progress)
        return self.perturb(x0, t, rng=draw)

    def loss(
        self,
        model: Model,
        x0: Mapping[str, Tensor] | Mapping[str, Noised],
        *,
        rng: Rng,
        times: TimePolicy | Mapping[str, Tensor] | None = None,
        objective: str = "elbo",
        weights: Mapping[str, float] | None = None,
        form: str = "denoising",
        truth: Model | None = None,
        progress: float = 0.0,
    ) -> JointLoss:
        """The joint objective: the sum of the unimodal losses at one draw of clocks and noises.

        Args:
            model: (x, t) -> outputs.
            x0: name -> (B, *event), clean; or what ``noise`` drew, which ``times`` and ``progress`` then do not move.
            rng: of the clocks and the noises.
            times: a policy, or the clocks themselves by name; by default stratified and independent with a share on
                the faces.
            objective: the weights of the denoising form, see ``de_core.objective``.
            weights: lambda_i >= 0 by name, 1 where it is left out; 0 leaves a modality out of the total.
            form: "denoising", "implicit" or "explicit" (with ``truth``, a model of the true score).
            progress: the share of training that is done, for staged policies.

        Raises:
            DiffuseError: no rows, or data outside the space; an unknown name, form or objective; a negative weight; a
                model whose output has a wrong shape or is not finite.
        """
        check_form(form)
        check_objective(objective)
        for name, weight in (weights or {}).items():
            self.check_name(name)
            if not 0 <= weight < math.inf:
                raise DiffuseError(f"weights: expected a finite number of at least 0 for '{name}', got {weight}")
        if form == "explicit" and truth is None:
            raise DiffuseError("form 'explicit' needs truth=, a model of the true score")
        noised = {name: x for name, x in x0.items() if isinstance(x, Noised)}
        if len(noised) < len(self.modalities):
            clean = {name: x for name, x in x0.items() if not isinstance(x, Noised)}
            draw = as_generator(rng, next((x.device for x in clean.values() if isinstance(x, Tensor)), "cpu"))
            noised = self.noise(clean, rng=draw, times=times, progress=progress)
        else:
            draw = as_generator(rng, next(iter(noised.values())).xt.device)
        xt = {name: n.xt for name, n in noised.items()}
        t = {name: n.t for name, n in noised.items()}
        if form == "implicit":
            terms = self._implicit(model, xt, t, draw)
        else:
            outputs = self.call(model, xt, t)
            if form == "denoising":
                terms = {
                    name: m.loss(outputs[name], noised[name], objective=objective)
                    for name, m in self.modalities.items()
                }
            else:
                assert truth is not None  # refused above
                terms = self._explicit(outputs, self.call(truth, xt, t), xt, t)
        means = {name: term.mean() for name, term in terms.items()}
        total = torch.stack([means[n] * weights[n] if weights and n in weights else means[n] for n in means]).sum()
        if not bool(total.isfinite()):
            self.call(model, xt, t, check=True)
            worst = [name for name, term in terms.items() if not bool(term.isfinite().all())]
            raise DiffuseError(f"modality '{worst[0] if worst else '?'}': the loss is not finite")
        return JointLoss(total, terms, t)

    def _given_times(self, times: Mapping[str, Tensor], name: str, batch: int) -> Tensor:
        if name not in times:
            raise DiffuseError(f"modality '{name}': expected a clock in times, which has {', '.join(times)}")
        t, m = times[name], self.modalities[name]
        shape = (batch, *(m.element_shape if name in self.elementwise else ()))
        if tuple(t.shape) != shape:
            raise DiffuseError(f"modality '{name}': expected a clock of shape {shape}, got {tuple(t.shape)}")
        if not bool(((t >= 0) & (t <= 1)).all()):  # NaN too
            raise DiffuseError(f"modality '{name}': expected times in [0, 1]")
        return t

    def _implicit(
        self, model: Model, xt: dict[str, Tensor], t: dict[str, Tensor], rng: torch.Generator
    ) -> dict[str, Tensor]:
        """One integrand a modality, through its own head as a function of its own state, the others held."""
        terms = {}
        for name, modality in self.modalities.items():

            def head(x: Tensor, name: str = name) -> Tensor:
                return self.call(model, {**xt, name: x}, t)[name]

            terms[name] = modality.implicit(head, xt[name], t[name], rng=rng)
        return terms

    def _explicit(
        self, outputs: dict[str, Tensor], truths: dict[str, Tensor], xt: dict[str, Tensor], t: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        terms = {}
        for name, m in self.modalities.items():
            safe = torch.where(t[name] > 0, t[name], 0.5)
            generator = m.generator(safe)
            target, score = (m.score(o[name], xt[name], safe) for o in (truths, outputs))
            jumps = isinstance(generator, JumpGenerator)
            fixed = held(generator, xt[name], t[name]) if jumps else expand(t[name] == 0, score)
            terms[name] = generator.bregman(target, torch.where(fixed, target, score), xt[name])
        return terms

    # --- sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        model: Model,
        n: int,
        *,
        rng: Rng,
        given: Mapping[str, Tensor | Given] | None = None,
        steps: int | Mapping[str, Steps] = 64,
        methods: Mapping[str, str] | None = None,
        guidance: NoisyGuidance | None = None,
        path: Path | None = None,
        first_row: int = 0,
        device: torch.device | str | None = None,
        callback: Callable[[SampleState], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Tensor]:
        """Anything given anything: the modalities that are not given, sampled; the given ones as they were.

        Args:
            model: (x, t) -> outputs.
            n: rows.
            rng: row i is a function of the seed alone, whatever ``n`` is.
            given: name -> value (n, *event), clean, or a ``Given`` with a level or a known part.
            steps: network calls in which a modality runs through its own grid; or by name of the sampled modality, a
                number of them or the readings themselves, descending from 1. One with fewer holds in between.
            methods: stepper by name, where it is not the modality's default.
            guidance: noisy or classifier-free guidance, or guidance by a weaker model.
            path: who moves when; ``Synchronous()`` by default.
            first_row: the number of the first row, a multiple of ``block``: rows first_row to first_row + n of the
                sample that the seed stands for, so that several processes can share one.
            device: where to sample; that of the model's parameters by default.
            callback: called with the ``SampleState`` of a block at its start and after each round; a ``Trajectory``
                collects them.
            progress: called with (rows done, rows) after each block.

        Returns:
            name -> (n, *event).

        Raises:
            DiffuseError: as ``de_core.sampling.plan.make_plan`` and ``de_core.sampling.loop.run``, and as ``call``.
        """
        plan = make_plan(self, n, given=given, steps=steps, methods=methods, guidance=guidance, path=path)
        drawn = run(
            self,
            model,
            plan,
            seed=seed_of(rng),
            device=_device(model) if device is None else torch.device(device),
            first_row=first_row,
            callback=callback,
            progress=progress,
        )
        return {name: plan.held[name].value if name in plan.held else drawn[name] for name in self.modalities}

    def blocks(self, n: int) -> list[torch.Tensor]:
        """The rows of each block, the last row repeated where the last block is not full."""
        return [torch.arange(k, k + self.block).clamp_max(n - 1) for k in range(0, n, self.block)]

    # --- likelihood -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def bound(
        self,
        model: Model,
        x0: Mapping[str, Tensor],
        *,
        rng: Rng,
        draws: int = 16,
        path: Path | None = None,
        given: Sequence[str] | Mapping[str, float] = (),
    ) -> Bound:
        """An upper bound on -log p(x_0 | given), in nats, row by row.

        KL(p_{1|0} || prior) + int sum_i t_i'(u) E Phi_{L_i} du + reconstruction at t_min, along a path of clocks; at
        the true score every path gives the same number. Source: SPEC.md, section "Likelihood"; Benton et al. 2022
        (2211.03595).

        Args:
            x0: name -> (n, *event), clean, the given modalities too.
            draws: points of the path a row, an even number: two in each of draws/2 strata, dense where a clock is near
                the data, each one network call; an eighth as many calls, at least 2, are for the reconstruction.
            path: of the modalities that are not given; ``Synchronous()`` by default.
            given: names that are held clean, or name -> level in [0, 1]: they add no term. Above level 0 the given is
                noised afresh in each draw, and the bound is on the mean of -log p(x_0 | given at its level) over that
                noise.

        Raises:
            DiffuseError: data outside the space; a modality without the capability "likelihood"; an odd number of
                draws; a given name that is unknown, a level outside [0, 1], or nothing that is not given.
        """
        return compute_bound(self, model, x0, rng=rng, draws=draws, path=path or Synchronous(), given=given)

    def log_likelihood(
        self,
        model: Model,
        x0: Mapping[str, Tensor],
        *,
        given: Sequence[str] | Mapping[str, float] = (),
        steps: int = 64,
        probes: int = 0,
        rng: Rng | None = None,
    ) -> Tensor:
        """log p(x_0 | given) by the probability flow, (n,) float64 nats, where all that is not given are real numbers.

        dx/dt = v(x, t) carries the density: log p_{t_min}(x_0) = log prior(x(1)) + int_{t_min}^1 div v dt, all clocks
        together. So it is the density of the data noised to t_min, at x_0: without blur, up to O(sigma(t_min)^2).
        Source: Chen et al. 2018 (1806.07366), Song et al. 2021 (2011.13456), section 4.3.

        Args:
            model: differentiable in its states.
            x0: name -> (n, *event), clean, the given modalities too. The network sees their precision; the path is
                followed in float64.
            given: as in ``bound``; above level 0 the given is noised once a row.
            steps: Runge-Kutta steps of order 4, even in sqrt(t); four network calls each.
            probes: Rademacher directions that estimate the divergence without bias (Hutchinson); 0 sums it exactly,
                with one gradient a number.
            rng: where something is drawn: probes, or a level above 0.

        Raises:
            DiffuseError: data outside the space; a modality that is neither given nor a flow on R^n ("ode", "density",
                reference "lebesgue"); an output without gradient; steps below 1; as ``bound`` for ``given``.
        """
        return compute_log_likelihood(self, model, x0, given=given, steps=steps, probes=probes, rng=rng)

    # --- saving -----------------------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """JSON that rebuilds the process by the names of installed plugins."""
        from de_core.plugins import name_of_modality

        return {
            "modalities": {
                name: {"plugin": name_of_modality(type(m)), "config": m.config()} for name, m in self.modalities.items()
            },
            "elementwise": sorted(self.elementwise),
            "block": self.block,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> JointProcess:
        """The process that ``config()`` described; modalities are looked up among the installed plugins by name."""
        from de_core.plugins import get_modality

        modalities = {
            name: get_modality(entry["plugin"])(**entry["config"]) for name, entry in config["modalities"].items()
        }
        return cls(modalities, config["elementwise"], block=config["block"])


def _device(model: Model) -> torch.device:
    """Where a model's parameters are; the CPU for a plain callable."""
    if isinstance(model, torch.nn.Module):
        for parameter in model.parameters():
            return parameter.device
    return torch.device("cpu")
