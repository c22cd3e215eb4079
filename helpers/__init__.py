"""Influence functions, right on your own model or refused: a model, its risk, its minimum, its curvature, and the
influence of each training point. Read the modules in the order of their imports::

    data -> models -> probe -> risk -> curvature -> solvers -> certificate -> optimum -> influences -> retraining
         -> auditing -> jackknife -> datamodeling -> cluster

``page`` holds what the pages of the book need beside the mathematics. Every function is pure: tensors in, tensors out.
The exceptions are `setup`, which a notebook calls to fix the number format, the threads and the figure style of its
own session, and what ``page`` and ``files`` store; importing ``helpers`` changes nothing.
"""

from typing import TYPE_CHECKING, Any

# fmt: off
# isort: off
from .auditing import Audit, audit, damping_sensitivity, leverage
from .certificate import Certificate, NotAMinimum, NotStationary, certify, fix_gauge
from .cluster import influence_on, leave_group_out_on
from .curvature import (
    HessianOperator, NotPositiveDefinite, cholesky_solve, condition_number, extreme_eigenvalues,
    hessian_vector_product, spectrum
)
from .data import Data, digits, ring
from .datamodeling import DatamodelingScore, jackknife_error, linear_datamodeling_score
from .influences import argmin, influence, predicted_change
from .jackknife import cross_validated_losses, standard_errors
from .models import FlatModel, flatten, mlp
from .optimum import Minima, NotConverged, minimise, minimise_many
from .page.checks import CheckFailed, central_difference, differs, holds
from .page.notebook import NotStored, note, setup, stored_run, table
from .retraining import (
    Agreement, actual_change, agreement, leave_group_out, leave_one_out, leave_out_weights, rank_correlation
)
from .risk import CROSS_ENTROPY, LOGISTIC, SQUARED_ERROR, Loss, Risk
from .solvers import (
    NotSolved, Solution, block_conjugate_gradients, conjugate_gradients, direct, lissa, pseudo_inverse, refined
)
# isort: on
# fmt: on

if TYPE_CHECKING:
    from .page.typeset import NotEvaluated, typeset

__all__ = [
    "CROSS_ENTROPY", "LOGISTIC", "SQUARED_ERROR", "Agreement", "Audit", "Certificate", "CheckFailed", "Data",
    "DatamodelingScore", "FlatModel", "HessianOperator", "Loss", "Minima", "NotAMinimum", "NotConverged",
    "NotEvaluated", "NotPositiveDefinite", "NotSolved", "NotStationary", "NotStored", "Risk", "Solution",
    "actual_change", "agreement", "argmin", "audit", "block_conjugate_gradients", "central_difference", "certify",
    "cholesky_solve", "condition_number", "conjugate_gradients", "cross_validated_losses", "damping_sensitivity",
    "differs", "digits", "direct", "extreme_eigenvalues", "fix_gauge", "flatten", "hessian_vector_product", "holds",
    "influence", "influence_on", "jackknife_error", "leave_group_out", "leave_group_out_on", "leave_one_out",
    "leave_out_weights", "leverage", "linear_datamodeling_score", "lissa", "minimise", "minimise_many", "mlp", "note",
    "predicted_change", "pseudo_inverse", "rank_correlation", "refined", "ring", "setup", "spectrum", "standard_errors",
    "stored_run", "table", "typeset",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """`typeset` and its error when they are first asked for: whoever does not typeset needs no parser."""
    if name not in ("typeset", "NotEvaluated"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .page import typeset

    return getattr(typeset, name)
