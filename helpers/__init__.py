"""What the chapters share: a model, its risk, its minimum, its curvature, and the influence of each training point.

Read the modules in the order of the book::

    data -> models -> risk -> optimum -> curvature -> solvers -> influence -> retraining -> audit -> cluster

``checks`` holds an equation against numbers, ``figures`` draws. Every function is pure: tensors in, tensors out.
The exceptions are `setup`, which a notebook calls to fix the number format, the threads and the figure style of its
own session, and what ``page`` and ``files`` store; importing ``helpers`` changes nothing.
"""

from helpers.audit import Audit, audit, damping_sensitivity, leverage
from helpers.checks import Agreement, CheckFailed, agreement, central_difference, differs, holds, rank_correlation
from helpers.cluster import influence_on, leave_group_out_on
from helpers.curvature import (
    HessianOperator,
    NotPositiveDefinite,
    cholesky_solve,
    condition_number,
    extreme_eigenvalues,
    hessian_vector_product,
    spectrum,
)
from helpers.data import Data, digits, ring
from helpers.influence import argmin, influence, predicted_change
from helpers.models import FlatModel, flatten, mlp
from helpers.optimum import (
    Certificate,
    Certificates,
    NotAMinimum,
    NotConverged,
    NotStationary,
    certify,
    minimise,
    minimise_many,
)
from helpers.page import NotStored, glue, stored_run
from helpers.retraining import actual_change, leave_group_out, leave_one_out, leave_out_weights
from helpers.risk import CROSS_ENTROPY, LOGISTIC, SQUARED_ERROR, Loss, Risk
from helpers.session import setup
from helpers.solvers import NotSolved, Solution, block_conjugate_gradients, conjugate_gradients, direct, lissa, refined

__all__ = [
    "CROSS_ENTROPY",
    "LOGISTIC",
    "SQUARED_ERROR",
    "Agreement",
    "Audit",
    "Certificate",
    "Certificates",
    "CheckFailed",
    "Data",
    "FlatModel",
    "HessianOperator",
    "Loss",
    "NotAMinimum",
    "NotConverged",
    "NotPositiveDefinite",
    "NotSolved",
    "NotStationary",
    "NotStored",
    "Risk",
    "Solution",
    "actual_change",
    "agreement",
    "argmin",
    "audit",
    "block_conjugate_gradients",
    "central_difference",
    "certify",
    "cholesky_solve",
    "condition_number",
    "conjugate_gradients",
    "damping_sensitivity",
    "differs",
    "digits",
    "direct",
    "extreme_eigenvalues",
    "flatten",
    "glue",
    "hessian_vector_product",
    "holds",
    "influence",
    "influence_on",
    "leave_group_out",
    "leave_group_out_on",
    "leave_one_out",
    "leave_out_weights",
    "leverage",
    "lissa",
    "minimise",
    "minimise_many",
    "mlp",
    "predicted_change",
    "rank_correlation",
    "refined",
    "ring",
    "setup",
    "spectrum",
    "stored_run",
]
