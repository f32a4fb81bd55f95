"""How the kit could fool itself, and that it does not; what its report says."""

import ast
import inspect
import json
import subprocess
import sys

import pytest
import torch
from rights import RIGHT

from de_core.errors import DiffuseError
from de_core.plugins import get_modality, list_modalities
from de_core.testing import ModalityConformance, check_modality
from de_core.testing.checks import CHECKS
from de_core.testing.report import LEVELS, Report, Result
from de_plugins.gaussian.modality import Gaussian


def data(n=64):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def one(status):
    return Result(CHECKS[0], status, "", 0.0)


def test_a_report_without_a_check_that_ran_has_not_passed():
    assert not Report("nothing", ()).ok
    assert not Report("skipped", (one("skipped"),)).ok
    assert "no check ran: that is a failure" in Report("skipped", (one("skipped"),)).to_text()
    assert Report("one", (one("skipped"), one("passed"))).ok
    assert not Report("two", (one("passed"), one("failed"))).ok


def test_a_capability_that_no_check_ran_for_is_a_failure(monkeypatch):
    few = [check for check in CHECKS if "density" not in check.needs and check.level == "contract"]
    monkeypatch.setattr("de_core.testing.conformance.CHECKS", few)
    report = check_modality(Gaussian((2,)), data())
    assert report.failed == ("capabilities_checked",)
    assert "density" in report.results[-1].message


def test_a_capability_that_is_none_is_refused():
    with pytest.raises(DiffuseError, match="telepathy"):

        class Boastful(Gaussian):
            capabilities = Gaussian.capabilities | {"telepathy"}


def test_a_capability_not_declared_skips_its_checks_and_says_so():
    class Modest(Gaussian):
        capabilities = Gaussian.capabilities - {"generator"}

    report = check_modality(Modest((2,)), data(), only=["kolmogorov"])
    assert [(r.status, r.message) for r in report.results] == [("skipped", "needs generator")]
    assert not report.ok


def test_every_check_is_described():
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)
    for check in CHECKS:
        assert check.level in LEVELS
        assert check.law.endswith("."), check.id
        assert check.spec, check.id
        assert check.since.count(".") == 1, check.id


def test_a_failure_says_what_was_measured_the_law_and_where_it_stands():
    class Averaged(Gaussian):
        def loss(self, output, noised, **options):
            return super().loss(output, noised, **options) / 2

    report = check_modality(Averaged((2,)), data(), level="law")
    text = report.to_text()
    assert report.failed
    for result in report.results:
        if result.status == "failed":
            assert f"law: {result.check.law} (SPEC.md, {result.check.spec}; since {result.check.since})" in text
            assert any(c.isdigit() for c in result.message), result.message  # a measurement, not an opinion


def test_streams_of_two_checks_and_of_two_seeds_differ():
    """A kit that draws the same numbers in every check, or whatever the seed, repeats one experiment."""
    seen = []

    class Seen(Gaussian):
        def perturb(self, x, t, *, s=0.0, rng):
            z = super().perturb(x, t, s=s, rng=rng)
            seen.append(float(z.xt.reshape(-1)[0]) if z.xt.numel() else 0.0)
            return z

    draws = []
    for seed in (0, 0, 1):
        seen.clear()
        check_modality(Seen((2,)), data(), only=["shapes_dtypes", "time_one_is_prior"], seed=seed)
        draws.append(tuple(seen))
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("raised", [ValueError("odd"), SystemExit(3), RecursionError("deep")])
def test_whatever_a_modality_raises_is_a_finding(raised):
    class Odd(Gaussian):
        def step(self, *args, **kwargs):
            raise raised

    report = check_modality(Odd((2,)), data(), level="contract")
    found = [r.message for r in report.results if r.status == "failed"]
    assert found
    assert any(type(raised).__name__ in message for message in found)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"level": "all"}, "level: expected one of contract, law, numerics"),
        ({"only": ["no_such"]}, "no check no_such"),
    ],
)
def test_bad_calls(what, words):
    with pytest.raises(DiffuseError, match=words):
        check_modality(Gaussian((2,)), data(), **what)


def test_data_that_shows_nothing_are_refused():
    with pytest.raises(DiffuseError):
        check_modality(Gaussian((2,)), torch.zeros(64, 2))
    with pytest.raises(DiffuseError):
        check_modality(Gaussian((2,)), data(1))
    with pytest.raises(DiffuseError):
        check_modality(Gaussian((2,)), torch.randn(64, 3))


class TestUnderPytest(ModalityConformance):
    def modality(self):
        return Gaussian((2,))

    def data(self):
        return data()


def test_the_kit_needs_neither_pytest_nor_hypothesis():
    code = "import sys, de_core.testing; print([m for m in ('pytest', 'hypothesis') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_report_is_json():
    report = check_modality(Gaussian((2,)), data(), level="contract")
    told = json.loads(json.dumps(report.to_dict()))
    assert told["ok"]
    assert {r["status"] for r in told["results"]} <= {"passed", "skipped"}


def test_nine_modalities_are_held_to_it():
    plugins = {right.plugin for right in RIGHT.values()}
    assert len(plugins) == 9
    assert plugins <= {info.name for info in list_modalities()}


def test_a_right_modality_takes_sixty_lines():
    """The torus on the family base: code lines of the class without docstrings, comments and blank lines."""
    if "torus" not in {info.name for info in list_modalities()}:
        pytest.skip("de-torus is not installed")
    source = inspect.getsource(get_modality("torus"))
    tree = ast.parse(source)
    silent = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            silent |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = [
        line
        for k, line in enumerate(source.splitlines(), 1)
        if k not in silent and line.strip() and not line.strip().startswith("#")
    ]
    assert len(lines) <= 60
