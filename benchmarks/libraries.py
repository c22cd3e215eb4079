"""``python -m benchmarks.libraries``: the influences of 1,400 digits on 100, by the libraries that people use.

Each contender is a short function that calls one library as it wants to be called, and returns the predicted change of
each test loss on the removal of each training point, ``+g_testᵀ H⁻¹ g_i / n``, test × train. It is compared with a
reference that shares no code with the helpers. Each runs in a process of its own, on one thread, so that its time and
its memory are its own. What fails, or takes too long or too much, has a row that says so.

The libraries are no requirement of the book. Install them beside it, in an environment of their own::

    python -m venv libraries
    libraries/bin/pip install -e ".[book]" -r benchmarks/requirements.txt
    libraries/bin/python -m benchmarks.libraries

A library that is not installed has a row that says so, too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import RUNS, Peak, machine, resident, rounded, write_run
from helpers import (
    CROSS_ENTROPY,
    Data,
    Risk,
    block_conjugate_gradients,
    conjugate_gradients,
    digits,
    influence,
    minimise,
    mlp,
    predicted_change,
    refined,
)

STORED = RUNS / "libraries.json"
SECONDS = 180  # of the processor's time: how long one contender may take
GIB = 8  # how much memory it may ask for
QUICK = 3.0  # seconds: what is faster runs three times, and the median counts
RELEVANT = (UserWarning, RuntimeWarning)  # what a library says of its own result is one of these
ROUNDING = 1e-4  # of the largest score: if two batch sizes differ by more, it is not rounding


# The problem


@dataclass(frozen=True)
class Problem:
    """The digits classifier at its minimum, in the forms in which libraries ask for it."""

    train: Data
    test: Data
    hidden: int
    theta: Tensor
    l2: float = 0.01

    @staticmethod
    def trained(n: int = 1400, n_test: int = 100, hidden: int = 32) -> Problem:
        train, test = digits()
        problem = Problem(train[:n], test[:n_test], hidden, mlp(64, hidden, 10)[1])
        return replace(problem, theta=minimise(problem.risk, problem.theta).theta)

    @property
    def n(self) -> int:
        return len(self.train)

    @property
    def risk(self) -> Risk:
        """``R(θ) = (1/n) Σ ℓ(z_i, θ) + λ‖θ‖²``. A library is told of the data; of the 2λ on the diagonal, by a knob."""
        return Risk(mlp(64, self.hidden, 10)[0], self.train, CROSS_ENTROPY, l2=self.l2)

    def module(self) -> nn.Sequential:
        """A PyTorch module at the minimum."""
        module = nn.Sequential(nn.Linear(64, self.hidden), nn.Tanh(), nn.Linear(self.hidden, 10))
        nn.utils.vector_to_parameters(self.theta, module.parameters())
        return module

    def train_set(self) -> TensorDataset:
        return TensorDataset(self.train.X, self.train.y)

    def test_set(self) -> TensorDataset:
        return TensorDataset(self.test.X, self.test.y)

    def train_loader(self, batch: int) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.train_set(), batch_size=batch)

    def test_loader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.test_set(), batch_size=len(self.test))

    def loss(self, theta: Tensor, X: Tensor, y: Tensor) -> Tensor:
        """The mean loss, written out: for what takes a function of the parameters."""
        h = self.hidden
        W, b, V, c = theta.split([h * 64, h, 10 * h, 10])
        return F.cross_entropy(torch.tanh(X @ W.view(h, 64).T + b) @ V.view(10, h).T + c, y)

    def gradients(self, data: Data) -> Tensor:
        """The gradients of single losses, as rows."""
        one = torch.func.grad(lambda theta, x, y: self.loss(theta, x[None], y[None]))
        return torch.func.vmap(one, in_dims=(None, 0, 0))(self.theta, data.X, data.y)

    def exact(self) -> Tensor:
        """The reference: forward over reverse for a dense Hessian, LU to solve, float64. No helper takes part."""

        def risk(theta: Tensor) -> Tensor:
            return self.loss(theta, self.train.X, self.train.y) + self.l2 * theta.square().sum()

        def column(v: Tensor) -> Tensor:
            return torch.func.jvp(torch.func.grad(risk), (self.theta,), (v,))[1]

        H = torch.func.vmap(column, chunk_size=32)(torch.eye(len(self.theta)))
        return self.gradients(self.test) @ torch.linalg.solve(H, self.gradients(self.train).T) / self.n


# The list of contenders


@dataclass(frozen=True)
class Contender:
    """One way to call one library.

    Args:
        library, method: what the table calls it.
        scores: the function, ``scores(problem, batch)``.
        package: what has to be installed, if anything.
        native: what the library returns.
        factor: what turns it into the predicted change on removal.
        l2: where the library is told of the L2 term.
        defaults: whether all else is as the library ships it.
        batches: into how many batches the training data are cut; None if the method knows no batches.
        warm_up: whether it runs on a small problem first, once in one batch and once in four.
        note: what the reader should know.
    """

    library: str
    method: str
    scores: Callable[[Problem, int], Tensor]
    package: str | None
    native: str
    factor: str
    l2: str
    defaults: bool = False
    batches: int | None = 1
    warm_up: bool = True
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.library} {self.method}"

    def version(self) -> str | None:
        """The version that is installed, or None."""
        if self.package is None:
            return "this book's"
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


CONTENDERS: list[Contender] = []


def contender(library: str, method: str, **fields: Any) -> Callable[..., Any]:
    """Enter a function into the list."""

    def enter(scores: Callable[[Problem, int], Tensor]) -> Callable[[Problem, int], Tensor]:
        CONTENDERS.append(Contender(library, method, scores, **fields))
        return scores

    return enter


# The helpers: ℐ is the derivative by a point's weight, which removal takes from 1/n to 0. They know no batches.

HELPERS: dict[str, Any] = {"package": None, "native": "−gᵀH⁻¹g, test × train", "factor": "−1/n", "l2": "in the risk"}
HELPERS |= {"batches": None, "defaults": True}


@contender("helpers", "direct", **HELPERS)
def helpers_direct(problem: Problem, batch: int) -> Tensor:
    return predicted_change(influence(problem.risk, problem.theta, problem.test), "zero")


@contender("helpers", "CG", **HELPERS, note="residual below 1e-8, or an error")
def helpers_conjugate_gradients(problem: Problem, batch: int) -> Tensor:
    scores = influence(problem.risk, problem.theta, problem.test, solve=conjugate_gradients)
    return predicted_change(scores, "zero")


@contender("helpers", "block CG", **HELPERS, note="residual below 1e-10, or an error")
def helpers_block(problem: Problem, batch: int) -> Tensor:
    solve = partial(block_conjugate_gradients, rtol=1e-10)
    return predicted_change(influence(problem.risk, problem.theta, problem.test, solve=solve), "zero")


@contender("helpers", "refined", **HELPERS, note="factored in float32, residual below 1e-12, or an error")
def helpers_refined(problem: Problem, batch: int) -> Tensor:
    return predicted_change(influence(problem.risk, problem.theta, problem.test, solve=refined), "zero")


# pyDVL. Its loss averages over a batch, and so does its Hessian; its scores are not divided by n.

PYDVL = {"package": "pydvl", "native": "+gᵀH⁻¹g, test × train", "factor": "1/n", "l2": "regularization = 2λ"}


def pydvl_scores(problem: Problem, fitted: Any) -> Tensor:
    train, test = problem.train, problem.test
    return fitted.influences(test.X, test.y, train.X, train.y) / problem.n


@contender("pyDVL", "direct", defaults=True, **PYDVL)
def pydvl_direct(problem: Problem, batch: int) -> Tensor:
    from pydvl.influence.torch import DirectInfluence

    model = DirectInfluence(problem.module(), F.cross_entropy, regularization=2 * problem.l2)
    return pydvl_scores(problem, model.fit(problem.train_loader(batch)))


contender("pyDVL", "direct, 28 batches", defaults=True, batches=28, **PYDVL)(pydvl_direct)


@contender("pyDVL", "CG", defaults=True, **PYDVL, note="one test point after the other")
def pydvl_cg(problem: Problem, batch: int) -> Tensor:
    from pydvl.influence.torch import CgInfluence

    model = CgInfluence(problem.module(), F.cross_entropy, regularization=2 * problem.l2)
    return pydvl_scores(problem, model.fit(problem.train_loader(batch)))


@contender("pyDVL", "block CG", **PYDVL, note="solve_simultaneously = True")
def pydvl_block_cg(problem: Problem, batch: int) -> Tensor:
    from pydvl.influence.torch import CgInfluence

    settings = {"regularization": 2 * problem.l2, "solve_simultaneously": True}
    model = CgInfluence(problem.module(), F.cross_entropy, **settings)
    return pydvl_scores(problem, model.fit(problem.train_loader(batch)))


@contender("pyDVL", "Arnoldi", defaults=True, **PYDVL, note="rank 10")
def pydvl_arnoldi(problem: Problem, batch: int) -> Tensor:
    from pydvl.influence.torch import ArnoldiInfluence

    model = ArnoldiInfluence(problem.module(), F.cross_entropy, regularization=2 * problem.l2)
    return pydvl_scores(problem, model.fit(problem.train_loader(batch)))


PYDVL_EKFAC = PYDVL | {"l2": "hessian_regularization = 2λ"}


@contender("pyDVL", "K-FAC", defaults=True, **PYDVL_EKFAC, note="EkfacInfluence as shipped")
def pydvl_kfac(problem: Problem, batch: int) -> Tensor:
    from pydvl.influence.torch import EkfacInfluence

    model = EkfacInfluence(problem.module(), hessian_regularization=2 * problem.l2)
    return pydvl_scores(problem, model.fit(problem.train_loader(batch)))


@contender("pyDVL", "EK-FAC", **PYDVL_EKFAC, note="update_diagonal = True")
def pydvl_ekfac(problem: Problem, batch: int) -> Tensor:
    from pydvl.influence.torch import EkfacInfluence

    model = EkfacInfluence(problem.module(), update_diagonal=True, hessian_regularization=2 * problem.l2)
    return pydvl_scores(problem, model.fit(problem.train_loader(batch)))


# dattri. Its loss takes parameters and a batch; its scores are train × test, and not divided by n.

DATTRI = {"package": "dattri", "native": "+gᵀH⁻¹g, train × test", "factor": "1/n", "l2": "regularization = 2λ"}


def dattri_scores(problem: Problem, batch: int, attributor: Any, **settings: Any) -> Tensor:
    from dattri.task import AttributionTask

    module = problem.module()

    def loss(parameters: dict[str, Tensor], examples: tuple[Tensor, Tensor]) -> Tensor:
        X, y = examples
        # LiSSA hands over labels, and inputs, as float32.
        outputs = torch.func.functional_call(module, parameters, (X.to(problem.theta.dtype),))
        return F.cross_entropy(outputs, y.long())

    attribute = attributor(AttributionTask(loss, module, module.state_dict()), **settings)
    attribute.cache(problem.train_loader(batch))
    return attribute.attribute(problem.train_loader(batch), problem.test_loader()).T / problem.n


@contender("dattri", "explicit", defaults=True, **DATTRI)
def dattri_explicit(problem: Problem, batch: int) -> Tensor:
    from dattri.algorithm import IFAttributorExplicit

    return dattri_scores(problem, batch, IFAttributorExplicit, regularization=2 * problem.l2)


contender("dattri", "explicit, 4 batches", defaults=True, batches=4, **DATTRI, note="adds one inverse a batch")(
    dattri_explicit
)


@contender("dattri", "CG", defaults=True, **DATTRI, note="10 iterations, no test of convergence")
def dattri_cg(problem: Problem, batch: int) -> Tensor:
    from dattri.algorithm import IFAttributorCG

    return dattri_scores(problem, batch, IFAttributorCG, regularization=2 * problem.l2)


@contender("dattri", "CG, long", **DATTRI, note="max_iter = 100; the graph of every iteration is kept")
def dattri_long_cg(problem: Problem, batch: int) -> Tensor:
    from dattri.algorithm import IFAttributorCG

    return dattri_scores(problem, batch, IFAttributorCG, regularization=2 * problem.l2, max_iter=100)


@contender("dattri", "CG, long, no graph", **DATTRI, note="max_iter = 100, under torch.no_grad()")
def dattri_lean_cg(problem: Problem, batch: int) -> Tensor:
    with torch.no_grad():
        return dattri_long_cg(problem, batch)


# Its many steps take as long on a small problem, so that it has no warm-up.
DATTRI_LISSA = DATTRI | {"l2": "damping = 2λ/scaling", "warm_up": False}


@contender("dattri", "LiSSA", defaults=True, **DATTRI_LISSA, note="5,000 steps, under torch.no_grad()")
def dattri_lissa(problem: Problem, batch: int) -> Tensor:
    from dattri.algorithm import IFAttributorLiSSA

    with torch.no_grad():  # or it asks for more than 8 GiB
        return dattri_scores(problem, batch, IFAttributorLiSSA, damping=2 * problem.l2 / 50)


@contender("dattri", "Arnoldi", defaults=True, **DATTRI, note="100 dimensions")
def dattri_arnoldi(problem: Problem, batch: int) -> Tensor:
    from dattri.algorithm import IFAttributorArnoldi

    return dattri_scores(problem, batch, IFAttributorArnoldi, regularization=2 * problem.l2)


@contender("dattri", "EK-FAC", defaults=True, **DATTRI | {"l2": "damping = 2λ"}, note="labels of the data")
def dattri_ekfac(problem: Problem, batch: int) -> Tensor:
    from dattri.algorithm import IFAttributorEKFAC

    return dattri_scores(problem, batch, IFAttributorEKFAC, damping=2 * problem.l2)


@contender("dattri", "EK-FAC, mended", **DATTRI | {"l2": "damping = 2λ"}, note="eigenvectors as columns, biases beside")
def dattri_ekfac_mended(problem: Problem, batch: int) -> Tensor:
    """What its EK-FAC would be without two slips: it takes the rows of a matrix of eigenvectors for the eigenvectors,
    and it reshapes a layer's weights, with the biases behind them all, to rows of weights with a bias each."""
    from dattri.algorithm import IFAttributorEKFAC
    from dattri.func import fisher

    module, order, start = problem.module(), [], 0
    for layer in module:
        if isinstance(layer, nn.Linear):
            k, m = layer.weight.shape
            place = start + torch.arange(k * m + k)
            order.append(torch.cat([place[: k * m].view(k, m), place[k * m :, None]], 1).flatten())
            start += k * m + k
    rows = torch.cat(order)  # each bias behind its own weights

    class Mended(IFAttributorEKFAC):  # type: ignore[misc]
        def transform_test_rep(self, ckpt_idx: int, test_rep: Tensor) -> Tensor:
            return super().transform_test_rep(ckpt_idx, test_rep[:, rows])[:, rows.argsort()]

    shipped = fisher.estimate_eigenvector
    fisher.estimate_eigenvector = lambda *given: {
        name: tuple(Q.T for Q in bases) for name, bases in shipped(*given).items()
    }
    try:
        return dattri_scores(problem, batch, Mended, damping=2 * problem.l2)
    finally:
        fisher.estimate_eigenvector = shipped


# Captum. It sums the losses, so its H is n times ours, and the 1/n is in its scores already.

CAPTUM = {"package": "captum", "native": "+gᵀ(ΣH + reg)⁻¹g, test × train", "factor": "1", "l2": "hessian_reg = n·2λ"}


def captum_scores(problem: Problem, batch: int, influence_function: Any, **settings: Any) -> Tensor:
    module = problem.module()
    with tempfile.TemporaryDirectory() as folder:  # it reads the parameters from a file
        checkpoint = f"{folder}/module.pt"
        torch.save(module.state_dict(), checkpoint)
        fitted = influence_function(
            module,
            problem.train_set(),
            checkpoint,
            loss_fn=nn.CrossEntropyLoss(reduction="none"),
            batch_size=batch,
            hessian_reg=2 * problem.l2 * problem.n,
            **settings,
        )
        return fitted.influence((problem.test.X, problem.test.y))


@contender("Captum", "naive, full rank", **CAPTUM, note="projection_dim = p, hessian_inverse_tol = 0")
def captum_full(problem: Problem, batch: int) -> Tensor:
    from captum.influence import NaiveInfluenceFunction

    p = len(problem.theta)
    return captum_scores(problem, batch, NaiveInfluenceFunction, projection_dim=p, hessian_inverse_tol=0.0)


@contender("Captum", "naive", defaults=True, **CAPTUM, note="the 50 largest eigenvalues")
def captum_naive(problem: Problem, batch: int) -> Tensor:
    from captum.influence import NaiveInfluenceFunction

    return captum_scores(problem, batch, NaiveInfluenceFunction)


@contender("Captum", "Arnoldi", defaults=True, **CAPTUM, note="200 products, the 50 largest eigenvalues")
def captum_arnoldi(problem: Problem, batch: int) -> Tensor:
    from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

    return captum_scores(problem, batch, ArnoldiInfluenceFunction)


# Kronfluence. Its losses are sums over a batch, its Fisher matrix is a mean over the data, and its scores are not
# divided by n. The labels of the Fisher matrix are drawn from the model.

KRONFLUENCE = {
    "package": "kronfluence",
    "native": "+gᵀH⁻¹g, test × train",
    "factor": "1/n",
    "l2": "damping_factor = 2λ",
}


# What its arguments call a format is float32 where they are not told.
FACTOR_FORMATS = ["activation_covariance", "gradient_covariance", "eigendecomposition", "per_sample_gradient", "lambda"]
SCORE_FORMATS = ["per_sample_gradient", "precondition", "score"]


def kronfluence_scores(problem: Problem, batch: int, strategy: str, damping: float | None) -> Tensor:
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Digits(Task):  # type: ignore[misc]
        def compute_train_loss(self, batch: list[Tensor], model: nn.Module, sample: bool = False) -> Tensor:
            outputs = model(batch[0])
            y = torch.multinomial(outputs.detach().softmax(-1), 1)[:, 0] if sample else batch[1]
            return F.cross_entropy(outputs, y, reduction="sum")

        def compute_measurement(self, batch: list[Tensor], model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    module, task = prepare_model(problem.module(), Digits()), Digits()
    with tempfile.TemporaryDirectory() as folder:  # its results are files
        analyzer = Analyzer("digits", module, task, cpu=True, disable_tqdm=True, output_dir=folder)
        of_factors, of_scores = (
            {f"{name}_dtype": torch.float64 for name in names} for names in (FACTOR_FORMATS, SCORE_FORMATS)
        )
        factors = FactorArguments(strategy=strategy, **of_factors)
        analyzer.fit_all_factors("factors", problem.train_set(), batch, factor_args=factors)
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            problem.test_set(),
            problem.train_set(),
            per_device_query_batch_size=len(problem.test),
            per_device_train_batch_size=batch,
            score_args=ScoreArguments(damping_factor=damping, **of_scores),
        )
        return analyzer.load_pairwise_scores("scores")["all_modules"] / problem.n


@contender("Kronfluence", "EK-FAC", defaults=True, **KRONFLUENCE, note="all formats float64")
def kronfluence_ekfac(problem: Problem, batch: int) -> Tensor:
    return kronfluence_scores(problem, batch, "ekfac", 2 * problem.l2)


@contender(
    "Kronfluence", "EK-FAC, usual damping",
    **KRONFLUENCE | {"l2": "not at all: damping_factor = None, a tenth of a layer's mean eigenvalue"},
    note="all formats float64",
)  # fmt: skip
def kronfluence_usual(problem: Problem, batch: int) -> Tensor:
    return kronfluence_scores(problem, batch, "ekfac", None)


@contender("Kronfluence", "K-FAC", **KRONFLUENCE, note="strategy = 'kfac', all formats float64")
def kronfluence_kfac(problem: Problem, batch: int) -> Tensor:
    return kronfluence_scores(problem, batch, "kfac", 2 * problem.l2)


# curvlinops has the matrices and no influences: the gradients are ours, the 2λ is added by hand.

CURVLINOPS = {"package": "curvlinops-for-pytorch", "native": "none: H alone", "factor": "1/n", "l2": "H + 2λI"}


def curvlinops_scores(problem: Problem, inverse: Any) -> Tensor:
    G_test, G = problem.gradients(problem.test), problem.gradients(problem.train)
    return (inverse @ G_test.T).T @ G.T / problem.n


def curvlinops_cg_scores(problem: Problem, batch: int, **settings: Any) -> Tensor:
    from curvlinops import CGInverseLinearOperator, HessianLinearOperator
    from curvlinops.examples import IdentityLinearOperator

    module = problem.module()
    parameters = list(module.parameters())
    H = HessianLinearOperator(module, nn.CrossEntropyLoss(), parameters, problem.train_loader(batch))
    identity = IdentityLinearOperator([parameter.shape for parameter in parameters], H.device, H.dtype)
    return curvlinops_scores(problem, CGInverseLinearOperator(H + 2 * problem.l2 * identity, **settings))


@contender("curvlinops", "CG", **CURVLINOPS, note="tolerance = 1e-8, eps = 1e-20")
def curvlinops_cg(problem: Problem, batch: int) -> Tensor:
    # The default eps, 1e-10, stops an update of squared size below it: the residual then stays near 1e-5.
    return curvlinops_cg_scores(problem, batch, tolerance=1e-8, eps=1e-20)


@contender("curvlinops", "CG at defaults", defaults=True, **CURVLINOPS, note="tolerance 1, at least ten iterations")
def curvlinops_short_cg(problem: Problem, batch: int) -> Tensor:
    return curvlinops_cg_scores(problem, batch)


def curvlinops_ekfac_scores(problem: Problem, batch: int, fisher_type: str) -> Tensor:
    from curvlinops import EKFACLinearOperator, KFACInverseLinearOperator

    module = problem.module()
    fisher = EKFACLinearOperator(
        module,
        nn.CrossEntropyLoss(),
        list(module.parameters()),
        problem.train_loader(batch),
        fisher_type=fisher_type,
        separate_weight_and_bias=False,
    )
    inverse = KFACInverseLinearOperator(fisher, damping=2 * problem.l2, use_exact_damping=True)
    return curvlinops_scores(problem, inverse)


CURVLINOPS_EKFAC = CURVLINOPS | {"l2": "damping = 2λ"}


@contender("curvlinops", "EK-FAC", **CURVLINOPS_EKFAC, note="fisher_type = 'type-2', separate_weight_and_bias = False")
def curvlinops_ekfac(problem: Problem, batch: int) -> Tensor:
    return curvlinops_ekfac_scores(problem, batch, "type-2")


@contender("curvlinops", "EK-FAC of labels", **CURVLINOPS_EKFAC, note="fisher_type = 'empirical', else as above")
def curvlinops_empirical(problem: Problem, batch: int) -> Tensor:
    return curvlinops_ekfac_scores(problem, batch, "empirical")


# Measuring one contender, in a process that does nothing else


def limit() -> None:
    """Refuse more memory than so much (on Linux), and end after so much of the processor's time (not on Windows)."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        at_once = [(resource.RLIMIT_CPU, int(time.process_time()) + SECONDS)]
        if "VmSize" in resident():
            at_once.append((resource.RLIMIT_AS, int(resident()["VmSize"] * 2**20 + GIB * 2**30)))
        for what, most in at_once:
            resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def timed(function: Callable[[], Tensor]) -> tuple[Tensor, float, float]:
    """What it returns, and how long it takes: on the clock, and the processor's time."""
    clock, processor = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - clock, time.process_time() - processor


def measured(contender: Contender, problem: Problem, small: Problem, exact: Tensor) -> dict[str, Any]:
    """The row of one contender."""

    def run(on: Problem, batches: int | None) -> Tensor:
        torch.manual_seed(0)
        return contender.scores(on, on.n // (batches or 1)).detach()

    limit()
    row: dict[str, Any] = {}
    if contender.warm_up:
        with suppress(Exception):  # what goes wrong there says nothing
            whole = run(small, 1)
            if contender.batches:
                difference = float((run(small, 4) - whole).abs().max() / whole.abs().max())
                row["batch_difference"] = rounded(difference)
                row["batch_dependent"] = None if difference != difference else difference > ROUNDING
    peak = Peak()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        scores, clock, processor = timed(lambda: run(problem, contender.batches))
    mib = peak.mib()
    times = [(clock, processor)]
    while clock < QUICK and len(times) < 3:
        times.append(timed(lambda: run(problem, contender.batches))[1:])
    return row | {
        **compared(scores.double(), exact),
        "dtype": str(scores.dtype).removeprefix("torch."),
        "seconds": rounded(statistics.median(t[0] for t in times)),
        "cpu_seconds": rounded(statistics.median(t[1] for t in times)),
        "runs": len(times),
        "peak_mib": None if mib is None else round(mib),
        "peak": peak.how,
        "warned": sorted({brief(str(w.message)) for w in raised if issubclass(w.category, RELEVANT)}),
    }


def compared(scores: Tensor, exact: Tensor) -> dict[str, Any]:
    """Correlation and slope over all pairs, and the largest error, in leave-one-out units."""
    if scores.shape != exact.shape:
        raise ValueError(f"scores of shape {tuple(scores.shape)}")
    if not scores.isfinite().all():
        return {"finite": False}
    a, b = (x.flatten() - x.mean() for x in (scores, exact))
    return {
        "finite": True,
        "r": round(float(a @ b / (a.norm() * b.norm())), 4),
        "slope": rounded(float(a @ b / (b @ b))),
        "error": rounded(float((scores - exact).abs().max() / exact.abs().max())),
    }


def brief(message: str) -> str:
    """The first line of a message, without the paths of this machine."""
    return re.sub(r"(?<![\w:/\\])(?:[A-Za-z]:)?[/\\]\S*[/\\]", "", (message.strip().splitlines() or [""])[0])[:160]


def work(name: str, folder: Path) -> None:
    """Measure one contender and leave its row in the folder. This is what the fresh process does."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # so that what a library allocates itself is not float32
    problem, small, exact = torch.load(folder / "problem.pt", weights_only=False)
    chosen = next(c for c in CONTENDERS if c.name == name)
    try:
        row = measured(chosen, problem, small, exact)
    except Exception as error:
        out = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        row = {"failed": f"asked for more than {GIB} GiB" if out else f"{type(error).__name__}: {brief(str(error))}"}
    (folder / "row.json").write_text(json.dumps(row), encoding="utf-8")


# All of them


UNKNOWN = "r slope error finite dtype seconds cpu_seconds runs peak_mib batch_difference batch_dependent warned failed"
ONE_THREAD = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"], "1")


def row_of(contender: Contender, folder: Path) -> dict[str, Any]:
    """Run one contender in a process of its own."""
    result = folder / "row.json"
    result.unlink(missing_ok=True)
    if contender.version() is None:
        found = {"failed": "not installed"}
    else:
        command = [sys.executable, "-m", "benchmarks.libraries", "--work", contender.name, "--folder", str(folder)]
        environment = {**os.environ, **ONE_THREAD, "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
        try:
            done = subprocess.run(
                command, cwd=Path(__file__).parent.parent, env=environment, timeout=4 * SECONDS, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
            if result.exists():
                found = json.loads(result.read_text(encoding="utf-8"))
            elif done.returncode == -getattr(signal, "SIGXCPU", 0):
                found = {"failed": f"took more than {SECONDS} s"}
            else:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                found = {"failed": f"ended with {done.returncode}: {brief(last)}"}
        except subprocess.TimeoutExpired:
            found = {"failed": f"took more than {SECONDS} s"}
    shown = ["library", "method", "defaults", "native", "factor", "l2", "batches"]
    return {
        **{name: getattr(contender, name) for name in shown},
        **dict.fromkeys(UNKNOWN.split()),
        **found,
        "note": contender.note,
    }


def line(row: dict[str, Any]) -> str:
    """One row for reading."""
    name = f"{row['library']:16}{row['method']:22}"
    if row["failed"]:
        return f"{name}{row['failed']}"
    error = "not finite" if not row["finite"] else f"r {row['r']:6.3f}   error {row['error']:8.1e}"
    memory = "" if row["peak_mib"] is None else f"{row['peak_mib']:6d} MiB"
    batches = {None: "", True: "batches matter", False: "same in batches"}[row["batch_dependent"]]
    times = f"{row['seconds']:8.2f} s {row['cpu_seconds']:8.2f} s"
    return f"{name}{error:26}{times}{memory}   {batches:16} {row['note']}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.libraries", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", metavar="NAME", help="those whose name has this in it; nothing is stored")
    parser.add_argument("--quick", action="store_true", help="a small problem, to see that all runs; nothing is stored")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to store (default: benchmarks/runs)")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.folder)
        return

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    chosen = [c for c in CONTENDERS if not options.only or options.only.lower() in c.name.lower()]
    small = Problem.trained(n=200, n_test=10, hidden=4)
    problem = small if options.quick else Problem.trained()
    print(", ".join(f"{name} {value}" for name, value in machine().items()), "\n", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        torch.save((problem, small, problem.exact()), f"{folder}/problem.pt")
        print(f"{'':38}{'against the exact scores':26}{'clock':>10} {'processor':>10}{'memory':>10}")
        for each in chosen:
            rows.append(row_of(each, Path(folder)))
            print(line(rows[-1]), flush=True)

    peaks = {row.pop("peak", None) for row in rows} - {None}
    content = {
        "versions": {c.library: c.version() for c in chosen if c.package},
        "problem": {
            "data": "digits",
            "n": problem.n,
            "n_test": len(problem.test),
            "model": f"64-{problem.hidden}-10, tanh, cross-entropy",
            "p": len(problem.theta),
            "l2": problem.l2,
            "dtype": "float64",
            "threads": 1,
            "batch_dependent": f"four batches against one, at n = {small.n} and p = {len(small.theta)}",
            "peak_mib": ", ".join(sorted(peaks)),
            "cpu_seconds_allowed": SECONDS,
            "gib_allowed": GIB,
        },
        "rows": rows,
    }
    where = options.json or (None if options.only or options.quick else STORED)
    if where:
        write_run(where, "python -m benchmarks.libraries", content)


if __name__ == "__main__":
    main()
