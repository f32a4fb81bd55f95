"""Law: beside other modalities. The joint loss is the sum, what is given is held, the theorem on a finite product."""

from __future__ import annotations

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.generator import JumpGenerator
from de_core.joint import JointProcess
from de_core.modality import Modality, expand
from de_core.plugins import get_modality
from de_core.sampling.plan import Given
from de_core.testing.case import Case
from de_core.testing.checks.forward import states_of
from de_core.testing.finite import FiniteProduct, RateGenerator
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS"]


def _partners() -> dict[str, tuple[Modality, Tensor]]:
    """One small modality of each built-in kind that is installed, with clean rows of it."""
    shapes: dict[str, dict[str, object]] = {
        "gaussian": {"event_shape": (2,)},
        "masked": {"event_shape": (2,), "num_classes": 3},
        "uniform": {"event_shape": (), "num_classes": 3},
        "simplex": {"event_shape": (3,)},
    }
    data = {
        "gaussian": torch.tensor([[0.5, -1.0], [1.0, 0.2]], dtype=torch.float64),
        "masked": torch.tensor([[0, 2], [1, 1]]),
        "uniform": torch.tensor([2, 0]),
        "simplex": torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.float64),
    }
    found = {}
    for name, arguments in shapes.items():
        try:
            found[name] = (get_modality(name)(**arguments), data[name])  # type: ignore[call-arg] # a plugin's own arguments
        except DiffuseError:
            continue
    return found


@check("joint_is_sum", "law", spec="5. Joint process, loss")
def joint_is_sum(case: Case) -> str:
    """Beside every built-in modality, in any order and beside itself, the joint loss is the sum of the unimodal losses,
    per sample, and its gradient the sum of theirs."""
    n, m = 6, case.m
    partners = _partners()
    base = {name: pair[0] for name, pair in partners.items()}
    clean = {name: pair[1][torch.arange(n) % 2] for name, pair in partners.items()}
    mine = case.clean(n, "joint")
    for order in (("mine", *base), (*reversed(list(base)), "twin", "mine")):
        joint = JointProcess({k: m if k in ("mine", "twin") else base[k] for k in order})
        x0 = {k: mine if k in ("mine", "twin") else clean[k] for k in order}
        t = {k: torch.rand(n, generator=case.rng("joint", k), dtype=torch.float64) for k in order}
        outputs = {}
        for k, modality in joint.modalities.items():
            shape = (n, *modality.output_shape)
            draw = torch.randn(shape, generator=case.rng("joint", k, "output"), dtype=torch.float64)
            outputs[k] = draw.requires_grad_()
        loss = joint.loss(lambda x, t, o=outputs: o, x0, times=t, rng=7)
        noised = joint.perturb(x0, t, rng=7)
        alone = {k: modality.loss(outputs[k], noised[k]) for k, modality in joint.modalities.items()}
        for k in order:
            require(torch.equal(loss.terms[k], alone[k]), f"term {k!r}: not what the modality's loss returns alone")
        total = sum(float(value.detach().mean()) for value in alone.values())
        off = abs(float(loss.total.detach()) - total) / (1 + abs(total))
        require(off < 1e-12, f"the total is off the sum of the terms by {off:.2g} (bound 1e-12)")
        together = torch.autograd.grad(loss.total, list(outputs.values()))
        for k, grad in zip(order, together, strict=True):
            (own,) = torch.autograd.grad(alone[k].mean(), outputs[k])
            off = float((grad - own).abs().max())
            require(off < 1e-12, f"gradient of {k!r}: off its own by {off:.2g} (bound 1e-12)")
    return f"beside {', '.join(base) or 'itself'}"


@check("given_is_held", "law", spec="5. Joint process, sample")
def given_is_held(case: Case) -> str:
    """A given modality comes back bit for bit, clean or noisy, whole or in part, and row i of a sample depends on the
    seed and not on the number of rows."""
    m, n = case.m, 5
    base = {name: pair[0] for name, pair in _partners().items() if name in ("gaussian", "uniform")}
    joint = JointProcess({"mine": m, **base}, block=4)

    def model(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        shapes = {k: (len(state), *joint.modalities[k].output_shape) for k, state in x.items()}
        return {k: torch.zeros(shape, dtype=torch.float64) for k, shape in shapes.items()}

    x = case.clean(n, "given")
    if base:
        for level in (0.0, 0.4):
            value = m.perturb(x, torch.full((n,), level, dtype=torch.float64), rng=case.rng("given", str(level))).xt
            out = joint.sample(model, n, rng=1, steps=3, given={"mine": Given(value, level=level)})
            require(torch.equal(out["mine"], value), f"given at level {level}: it came back changed")
    if m.element_shape != ():
        known = torch.rand(n, *m.element_shape, generator=case.rng("given", "known")) < 0.5
        part = JointProcess({"mine": m}, elementwise=("mine",) if case.has("elementwise") else (), block=4)
        out = part.sample(model, n, rng=2, steps=3, given={"mine": Given(x, known=known, resample=1)})["mine"]
        fixed = expand(known, x).expand_as(x)
        require(torch.equal(out[fixed].double(), x[fixed].double()), "a known part came back changed")
    alone = JointProcess({"mine": m}, block=4)
    few, many = (alone.sample(model, rows, rng=3, steps=3)["mine"] for rows in (3, 9))
    require(torch.equal(few, many[:3]), "row i depends on how many rows are sampled")
    return "whole, in part, and row by row"


@check("known_is_held", "law", needs=("density",), spec="5. Joint process, known parts")
def known_is_held(case: Case) -> str:
    """Where holds_known is set, a kept element is exact under any clock: no datum that differs from it there can have
    led to the state."""
    m, n = case.m, 200
    if not m.holds_known:
        raise Skipped("known parts are replaced, or have a clock of their own")
    z = case.noised(n, case.times[1], "known")
    known = torch.rand(n, *m.element_shape, generator=case.rng("known", "which")) < 0.5
    x = torch.where(expand(known, z.x0), z.x0, z.xt)
    logs = case.log_joint(x, z.t)
    for j, atom in enumerate(case.atoms):
        differs = (expand(known, x) & (x != atom)).reshape(n, -1).any(1)
        odd = int((differs & (logs[:, j] > -torch.inf)).sum())
        require(odd == 0, f"{odd} of {int(differs.sum())} states may come from data that differ from what is known")
    return f"{n} partly known states"


@check("theorem_on_finite_space", "law", needs=("generator", "density"), spec="2. Theory")
def theorem_on_finite_space(case: Case) -> str:
    """On a product with another chain, the generator's three forms differ by what beta does not enter, and each is the
    sum over the coordinates."""
    states = states_of(case, 64)
    if states is None:
        raise Skipped("not a chain with at most 64 states")
    t = torch.tensor(case.times[1], dtype=torch.float64)
    generator = case.m.generator(t)
    assert isinstance(generator, JumpGenerator)  # states_of looked
    k = len(states)
    kernel = case.m.log_transition(
        states.repeat(k, *[1] * (states.ndim - 1)), states.repeat_interleave(k, 0), t.expand(k * k)
    )
    clean = _clean(case, states)
    table = torch.where(clean[:, None], kernel.reshape(k, k).exp(), torch.eye(k, dtype=torch.float64))
    rates = torch.tensor([[0.0, 0.7], [0.4, 0.0]], dtype=torch.float64)
    other = RateGenerator(rates)
    move = torch.matrix_exp(0.8 * other.matrix())
    law = torch.rand(k, 2, generator=case.rng("theorem"), dtype=torch.float64) * clean[:, None]
    product = FiniteProduct({"mine": generator, "other": other}, {"mine": table, "other": move}, law)
    gaps, sums = [], 0.0
    for j in range(4):
        draw = torch.randn(2 * k, generator=case.rng("theorem", j), dtype=torch.float64)
        beta = draw.exp()
        explicit, implicit, denoising = product.explicit(beta), product.implicit(beta), product.denoising(beta)
        gaps.append(torch.stack([explicit - implicit, explicit - denoising]))
        for form, whole in (("explicit", explicit), ("implicit", implicit), ("denoising", denoising)):
            parts = sum(getattr(product, form)(beta, name) for name in ("mine", "other"))
            sums = max(sums, float((whole - parts).abs() / (1 + whole.abs())))
    spread = float((torch.stack(gaps).amax(0) - torch.stack(gaps).amin(0)).max())
    scale = 1 + float(torch.stack(gaps).abs().max())
    require(spread < 1e-9 * scale, f"the forms differ by something that beta enters, {spread:.2g} (bound 1e-9)")
    require(sums < 1e-10, f"the joint form is off the sum of its parts by {sums:.2g} (bound 1e-10)")
    return f"constants within {spread:.1g}, sums within {sums:.1g} (bounds 1e-9, 1e-10)"


def _clean(case: Case, states: Tensor) -> Tensor:
    """Which states of the chain are clean data: all but masks."""
    good = []
    for row in states:
        try:
            case.m.validate(row[None])
            good.append(True)
        except DiffuseError:
            good.append(False)
    return torch.tensor(good)


CHECKS = (joint_is_sum, given_is_held, known_is_held, theorem_on_finite_space)
