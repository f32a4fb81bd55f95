"""The conformance kit: put a modality through every law it claims to obey.

    report = check_modality(MyModality((2,)), data)
    assert report.ok, report.to_text()

Importing this needs neither pytest nor hypothesis.
"""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.modality import Modality
from de_core.plugins import get_modality
from de_core.testing.case import Case
from de_core.testing.checks import CHECKS
from de_core.testing.report import LEVELS, Check, Failed, Report, Result, Skipped, check

__all__ = ["ModalityConformance", "check_modality", "check_named", "example"]


def check_modality(
    modality: Modality,
    data: Tensor,
    *,
    level: str | None = None,
    only: Sequence[str] | None = None,
    seed: int = 0,
) -> Report:
    """Run the conformance checks.

    Args:
        modality: under test.
        data: (n, *event), clean rows, at least two of them different. Three are taken as the atoms of a data law.
        level: "contract", "law" or "numerics"; all by default.
        only: ids of the checks to run, while one works on them; "capabilities_checked" runs them all.
        seed: of every draw. A right modality fails with a chance below one in a million, whatever the seed.

    Returns:
        The report; ``report.ok`` where no check failed and at least one ran.

    Raises:
        DiffuseError: no modality, data of another shape, too few rows, an unknown level or check.
    """
    if level is not None and level not in LEVELS:
        raise DiffuseError(f"level: expected one of {', '.join(LEVELS)}, got {level!r}")
    known = {one.id for one in (*CHECKS, _covered)}
    if unknown := sorted(set(only or ()) - known):
        raise DiffuseError(f"only: there is no check {', '.join(unknown)}; expected some of {', '.join(sorted(known))}")
    case = Case(modality, data, seed)
    wanted = None if only is None or _covered.id in only else set(only)
    results = [_run(one, case) for one in CHECKS if level in (None, one.level) and (not wanted or one.id in wanted)]
    whole = level is None and wanted is None
    if whole:
        results.append(_coverage(case, results))
    return Report(_show(modality), tuple(results), _pace(case) if whole else float("nan"))


def _run(one: Check, case: Case) -> Result:
    started = time.perf_counter()
    lacking = one.needs - set(case.m.capabilities)
    if lacking:
        return Result(one, "skipped", f"needs {', '.join(sorted(lacking))}", 0.0)
    try:
        status, message = "passed", one.run(case)
    except Skipped as reason:
        status, message = "skipped", str(reason)
    except Failed as reason:
        status, message = "failed", str(reason)
    except (Exception, SystemExit) as error:  # whatever a stranger's code raises is a finding, not the end of the run
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.name} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
        status, message = "failed", f"{type(error).__name__} in {place}: {error}"
    return Result(one, status, message, time.perf_counter() - started)


@check("capabilities_checked", "contract", spec="3. Modality, by capability")
def _covered(case: Case) -> str:
    """Each declared capability is held by a check that ran."""
    return ""


def _coverage(case: Case, results: list[Result]) -> Result:
    ran = [r.check.needs for r in results if r.status != "skipped"]
    smoke = any(r.check.id == "capabilities" and r.status != "skipped" for r in results)
    bare = [
        c
        for c in sorted(case.m.capabilities)
        if not any(c in needs for needs in ran) and not (smoke and c == "compile")
    ]
    if case.m.element_shape == ():
        bare = [c for c in bare if c != "elementwise"]  # one element: its clock is the shared one
    if bare:
        return Result(_covered, "failed", f"declared, but no check of it ran: {', '.join(bare)}", 0.0)
    return Result(_covered, "passed", "every declared capability was checked", 0.0)


def _show(modality: Modality) -> str:
    try:
        return repr(modality)
    except Exception:  # a stranger's config may raise; the checks say so
        return type(modality).__name__


def _pace(case: Case) -> float:
    """The cost of noising, loss and step over that of a gaussian of the same event; medians, interleaved."""
    try:
        gaussian: Any = get_modality("gaussian")
        other = gaussian(case.m.event_shape or (1,))
        subjects = [
            (case.m, case.clean(256, "pace")),
            (other, torch.randn(256, *other.event_shape, dtype=torch.float64)),
        ]
        took: list[list[float]] = [[], []]
        t = torch.full((256,), 0.6, dtype=torch.float64)
        outputs = [torch.zeros(256, *m.output_shape, dtype=torch.float64) for m, _ in subjects]
        for _ in range(7):
            for k, (m, x) in enumerate(subjects):
                started = time.perf_counter()
                z = m.perturb(x, t, rng=0)
                m.loss(outputs[k], z)
                m.step(outputs[k], z.xt, t, t / 2, rng=0)
                took[k].append(time.perf_counter() - started)
    except Exception:  # no gaussian is installed, or the modality fails, which its checks say
        return float("nan")
    return sorted(took[0])[3] / sorted(took[1])[3]


def example(cls: type[Modality]) -> list[tuple[Modality, Tensor]]:
    """Small instances of a class with clean data: its own ``examples()``, or made from its constructor.

    Without ``examples``, ``event_shape`` is (3,) where it has no default, ``num_classes`` 3; data are the prior's draws
    where they are clean states, else what ``finish`` makes of them under random outputs.

    Raises:
        DiffuseError: the constructor asks for more, and there is no ``examples``.
    """
    own = getattr(cls, "examples", None)
    if own is not None:
        return list(own())
    known: dict[str, object] = {"event_shape": (3,), "num_classes": 3}
    arguments = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        if name not in known:
            raise DiffuseError(
                f"{cls.__name__}: its constructor needs {name!r}; give the class a classmethod examples() that returns "
                f"[(modality, data), ...] for the checks"
            )
        arguments[name] = known[name]
    modality = cls(**arguments)
    x = modality.prior(64, rng=0)
    try:
        modality.validate(x)
        clean = len(x.unique(dim=0)) > 1
    except DiffuseError:
        clean = False
    if not clean:
        output = torch.randn(64, *modality.output_shape, generator=torch.Generator().manual_seed(1))
        x = modality.finish(output, x, torch.ones(64), rng=2)
    return [(modality, x)]


def check_named(name: str, level: str | None = None, *, seed: int = 0) -> Report:
    """``check_modality`` for an installed modality, by name: the results over all its examples.

    Raises:
        DiffuseError: unknown name; no example can be made.
        PluginError: the plugin is broken.
    """
    reports = [check_modality(m, data, level=level, seed=seed) for m, data in example(get_modality(name))]
    if not reports:
        raise DiffuseError(f"{name}: examples() returned nothing to check")
    subject = "; ".join(report.subject for report in reports)
    return Report(subject, tuple(result for report in reports for result in report.results), reports[0].speed)


class ModalityConformance:
    """Subclass in a plugin's own tests, and every check runs under pytest.

        class TestMine(ModalityConformance):
            def modality(self): return Mine((2,))
            def data(self): return ...   # (n, *event), clean

    Each level is one test.
    """

    def modality(self) -> Modality:
        """The modality under test."""
        raise NotImplementedError("modality: expected the subclass to return the modality under test")

    def data(self) -> Tensor:
        """Clean rows, (n, *event), at least two of them different."""
        raise NotImplementedError("data: expected the subclass to return clean rows")

    def _hold(self, level: str) -> None:
        report = check_modality(self.modality(), self.data(), level=level)
        assert report.ok, report.to_text()

    def test_contract(self) -> None:
        """Every check of the level "contract"."""
        self._hold("contract")

    def test_law(self) -> None:
        """Every check of the level "law"."""
        self._hold("law")

    def test_numerics(self) -> None:
        """Every check of the level "numerics"."""
        self._hold("numerics")
