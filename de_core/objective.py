"""The names of what is minimised: three forms of the theorem, and the weights.

Forms (equal up to a constant that the network does not enter, so one minimiser):
    denoising   E Phi(p_{t|0}(. | x_0)/beta): the kernel is the target. The default.
    implicit    E [L* beta/beta + L log beta]: no target. The poster prints -L* log beta for the last term, which is
                wrong
                (``tests/laws/test_errata.py``).
    explicit    E Phi(p_t/beta): the true score is the target, where a model of the truth is at hand.

Weights of the denoising form:
    elbo              unit weights; with the bound's other two terms it bounds -log p(x_0).
    simple            each modality's own re-weighting, written in its docstring.
    paper-tabular     as the authors' tabular code trains.
    paper-text-image  as the authors' text-and-image code trains.

Sources: Benton et al. 2022 (2211.03595), Rojas et al. 2025 (2506.07903) and its two released code bases.
"""

from de_core.errors import DiffuseError

__all__ = ["FORMS", "OBJECTIVES", "check_form", "check_objective"]

FORMS = ("denoising", "implicit", "explicit")
OBJECTIVES = ("elbo", "simple", "paper-tabular", "paper-text-image")


def check_form(form: str) -> None:
    """Refuse an unknown form."""
    if form not in FORMS:
        raise DiffuseError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")


def check_objective(objective: str) -> None:
    """Refuse an unknown objective."""
    if objective not in OBJECTIVES:
        raise DiffuseError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {objective!r}")
