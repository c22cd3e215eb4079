"""``python -m benchmarks.attribution``: the book's methods, judged on runs of SGD that stop before any minimum.

Digits, 1,000 training images, a network with 1,210 parameters, 200 steps with momentum in batches of 50. Groups of 1,
10 and 50 % are left out, and the training runs again: with the same seed (the same initialisation and the same
batches), and with others. Each method scores all training images for fifty test images, from three runs. It takes some
minutes on one thread, and no test runs it: the chapter prints the stored numbers and repeats a slice of them.

``lds`` holds each method's score from each run, and the standard error of their mean for the draw of the groups;
``paired`` that of the difference of two methods, which share their groups: a matrix in the order of ``names``.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap
from torch.nn.functional import one_hot

from benchmarks.measure import RUNS, write_run
from helpers import (
    CROSS_ENTROPY,
    Data,
    DatamodelingScore,
    HessianOperator,
    Risk,
    conjugate_gradients,
    digits,
    jackknife_error,
    leave_out_weights,
    linear_datamodeling_score,
    lissa,
    minimise,
    mlp,
)

STORED = RUNS / "attribution.json"
N, N_TEST, HIDDEN, K, BATCH, BETA, PEAK, L2 = 1000, 50, 16, 200, 50, 0.9, 0.1, 1e-3
FRACTIONS = (0.01, 0.1, 0.5)
GROUPS, RUNS_JUDGED, SEEDS = 100, 3, 9
LISSA_DEPTH = 1000
ETA = PEAK * (1 + torch.cos(torch.pi * torch.arange(K, dtype=torch.float64) / K)) / 2


def problem() -> tuple[Risk, Data]:
    train, test = digits(N)
    return Risk(mlp(64, HIDDEN, 10)[0], train, CROSS_ENTROPY, L2), test[:N_TEST]


def batches(seed: int) -> Tensor:
    """The points of every step, (K, BATCH)."""
    generator = torch.Generator().manual_seed(seed)
    epochs = [torch.randperm(N, generator=generator) for _ in range(K * BATCH // N)]
    return torch.cat(epochs).reshape(K, BATCH)


def groups(fraction: float, count: int = GROUPS) -> list[list[int]]:
    """So many random groups to leave out; the same for every seed of a training."""
    generator = torch.Generator().manual_seed(round(1000 * fraction))
    size = round(fraction * N)
    return [torch.randperm(N, generator=generator)[:size].tolist() for _ in range(count)]


def trained(risk: Risk, W: Tensor, seed: int) -> Tensor:
    """All θ_k of runs with each row of weights, (K + 1, m, p)."""
    theta = mlp(64, HIDDEN, 10, seed=seed)[1].expand(len(W), -1)
    path, m = [theta], torch.zeros_like(theta)
    for eta, points in zip(ETA, batches(seed), strict=True):
        part = risk.part(points)
        m = BETA * m + part.values_and_gradients(theta, W[:, points] * N / BATCH)[1]
        theta = theta - eta * m
        path.append(theta)
    return torch.stack(path)


def losses(risk: Risk, thetas: Tensor, test: Data) -> Tensor:
    """The test losses of each model, (n_test, m)."""
    return torch.stack([risk.losses(theta, test) for theta in thetas], 1)


def run_derivative(risk: Risk, path: Tensor, seed: int, test: Data, *, on_the_way: bool = False) -> Tensor:
    """The exact derivative of the run (equation ``eq-run-influence``), or scores made on the way (``eq-in-run``)."""
    a, q = risk.gradients(path[K], test).T, torch.zeros(risk.model.p, len(test))
    scores = torch.zeros(len(test), N)
    weights = torch.full((BATCH,), 1 / BATCH)
    for k, points in reversed(list(enumerate(batches(seed)))):
        part = risk.part(points)
        if on_the_way:
            a = risk.gradients(path[k], test).T
        q = BETA * q - ETA[k] * a
        scores[:, points] += N / BATCH * q.T @ part.gradients(path[k]).T
        if not on_the_way:
            a = a + part.products(path[k], weights)(q.T).T
    return scores


def gauss_newton(risk: Risk, theta: Tensor) -> Tensor:
    """The generalised Gauss–Newton matrix of the data, without L2, (p, p)."""
    X = risk.data.X
    of_one = jacrev(lambda t, x: risk.model(t, x[None])[0])
    J = vmap(of_one, (None, 0), chunk_size=100)(theta, X)
    P = risk.model(theta, X).softmax(1)
    root = torch.linalg.cholesky(torch.diag_embed(P + 1e-12) - P[:, :, None] * P[:, None, :])
    A = (root.mT @ J).reshape(-1, risk.model.p)
    return A.T @ A / N


def frozen(curvature: Tensor, g: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """A segment of SOURCE: its answer when started at zero, and what it leaves of a start (equation ``eq-relax``)."""
    d, V = torch.linalg.eigh(curvature)
    left = torch.exp(-total / (1 - BETA) * d)
    gained = torch.where(d.abs() > 1e-10, -(1 - left) / d, -total / (1 - BETA))
    return V @ (gained[:, None] * (V.T @ g)), (V * left) @ V.T


def source(risk: Risk, path: Tensor, test: Data, segments: int, taken: int = 3) -> Tensor:
    """SOURCE with Gauss–Newton curvature (and 2λ), averaged over a few checkpoints of each segment."""
    v = torch.zeros(risk.model.p, N)
    for part in torch.arange(K).tensor_split(segments):
        at = path[part[torch.linspace(0, len(part) - 1, taken + 2)[1:-1].long()]]
        curvature = torch.stack([gauss_newton(risk, theta) for theta in at]).mean(0)
        g_bar = torch.stack([risk.gradients(theta) for theta in at]).mean(0)
        gained, kept = frozen(curvature + 2 * L2 * torch.eye(risk.model.p), g_bar.T, ETA[part].sum())
        v = gained + kept @ v
    return risk.gradients(path[K], test) @ v


def ekfac(risk: Risk, theta: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Bases and diagonal of EK-FAC on the two layers, as one orthogonal matrix (p, p) and its eigenvalues (p,)."""
    model, X = risk.model, risk.data.X
    W1, b1, W2, b2 = model.unflatten(theta).values()
    ones = torch.ones(N, 1)
    hidden = (X @ W1.T + b1).tanh()
    P = (hidden @ W2.T + b2).softmax(1)
    root = torch.linalg.cholesky(torch.diag_embed(P + 1e-12) - P[:, :, None] * P[:, None, :])
    # the second derivative of a loss by its outputs is root rootᵀ
    deltas = [torch.einsum("nok,oh,nh->nhk", root, W2, 1 - hidden.square()), root]
    Qs, ds = [], []
    for inputs, delta in zip((torch.cat([X, ones], 1), torch.cat([hidden, ones], 1)), deltas, strict=True):
        Q_A = torch.linalg.eigh(inputs.T @ inputs / N)[1]
        Q_B = torch.linalg.eigh(torch.einsum("nik,njk->ij", delta, delta) / N)[1]
        d = torch.einsum("nok,na->oa", (torch.einsum("nik,io->nok", delta, Q_B)).square(), (inputs @ Q_A).square()) / N
        full = torch.kron(Q_B, Q_A)
        o, i = len(Q_B), len(Q_A) - 1  # rows (output, input with the bias last) into the order of theta
        order = torch.arange(o * (i + 1)).reshape(o, i + 1)
        Qs.append(full[torch.cat([order[:, :i].flatten(), order[:, i]])])
        ds.append(d.flatten())
    return torch.block_diag(*Qs), torch.cat(ds) + 2 * L2 + damping


def trak(risk: Risk, theta: Tensor, test: Data, k: int = 256, draws: int = 5) -> Tensor:
    """TRAK from one run: margins, random projections, the mean of a few draws (book: Projections and low rank)."""
    generator = torch.Generator().manual_seed(0)

    def margin(t: Tensor, x: Tensor, own: Tensor) -> Tensor:
        logits = risk.model(t, x[None])[0]
        return logits @ own - (logits - 1e6 * own).logsumexp(0)

    per = vmap(grad(margin), (None, 0, 0))
    M, M_test = (per(theta, data.X, one_hot(data.y, 10).to(theta)) for data in (risk.data, test))
    wrong = 1 - risk.model(theta, risk.data.X).softmax(1).gather(1, risk.data.y[:, None])[:, 0]
    total = torch.zeros(len(test), N)
    for _ in range(draws):
        P = torch.randn(risk.model.p, k, generator=generator, dtype=torch.float64) / k**0.5
        Phi = M @ P
        total -= (M_test @ P) @ torch.linalg.solve(Phi.T @ Phi / N, Phi.T) * wrong / draws
    return total  # of the loss: more margin is less loss


def datainf(risk: Risk, G: Tensor, g: Tensor) -> Tensor:
    """DataInf (book: No minimum to certify), each tensor of the parameters by itself, with its authors' damping."""
    scores = torch.zeros(len(g), N)
    sizes = [part.numel() for part in risk.model.unflatten(torch.zeros(risk.model.p)).values()]
    for A, a in zip(G.split(sizes, 1), g.split(sizes, 1), strict=True):
        square = A.square().sum(1)
        delta = 0.1 * square.mean() / A.shape[1]
        product = a @ A.T
        scores -= (product - (product / (delta + square)) @ (A @ A.T) / N) / delta
    return scores


def at_the_minimum(risk: Risk, theta: Tensor, test: Data) -> Tensor:
    """The influence function at the certified minimum to which training on leads, by conjugate gradients."""
    theta_hat = minimise(risk, theta).theta
    H, g = risk.hessian(theta_hat), risk.gradients(theta_hat, test)
    return -conjugate_gradients(H, g.T, rtol=1e-6).X.T @ risk.gradients(theta_hat).T


def methods(risk: Risk, path: Tensor, seed: int, test: Data) -> dict[str, Tensor]:
    """Each method's scores ℐ (n_test, N), positive where more weight raises the test loss."""
    theta, p = path[K], risk.model.p
    G, g = risk.gradients(theta), risk.gradients(theta, test)
    delta = float((1 - BETA) / ETA.sum())  # the damping of a run of this length
    I = torch.eye(p)
    GN = gauss_newton(risk, theta)
    H = risk.hessian(theta)
    d, V = torch.linalg.eigh(H)
    Q, scale = ekfac(risk, theta, delta)
    damped = HessianOperator(risk, theta, damping=delta)
    summed = lissa(damped, g.T, scale=2 * float(d[-1]), depth=LISSA_DEPTH, batch=BATCH, rtol=float("inf")).X
    solved = partial(torch.linalg.solve, B=G.T)
    return {
        "derivative of the run": run_derivative(risk, path, seed, test),
        "SOURCE, 3 segments": source(risk, path, test, 3),
        "SOURCE, 1 segment": source(risk, path, test, 1),
        "Gauss–Newton, δ of the run": -g @ solved(GN + (2 * L2 + delta) * I),
        "Gauss–Newton, δ = 0": -g @ solved(GN + 2 * L2 * I),
        "|H|, δ of the run": -((g @ V) / (d.abs() + delta)) @ (G @ V).T,
        "LiSSA, δ of the run": -summed.T @ G.T,
        "EK-FAC, δ of the run": -((g @ Q) / scale) @ (G @ Q).T,
        "empirical Fisher, δ of the run": -g @ solved(G.T @ G / N + (2 * L2 + delta) * I),
        "exact, at the minimum (CG)": at_the_minimum(risk, theta, test),
        "TRAK": trak(risk, theta, test),
        "DataInf": datainf(risk, G, g),
        "in-run, first order": run_derivative(risk, path, seed, test, on_the_way=True),
        "gradient product": -g @ G.T,
        "pixels, same class or not": -(test.X @ risk.data.X.T) * (2.0 * (test.y[:, None] == risk.data.y) - 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attribution", description="Methods, judged.")
    parser.add_argument("--json", type=Path, default=STORED, metavar="FILE", help="where to store the numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    begun = time.process_time()
    risk, test = problem()
    everything = risk.uniform[None]
    paths = [trained(risk, everything, seed)[:, 0] for seed in range(RUNS_JUDGED)]
    scores = [methods(risk, path, seed, test) for seed, path in enumerate(paths)]
    print(f"scores: {time.process_time() - begun:.0f} s", flush=True)

    def accuracy(theta: Tensor) -> float:
        return float((risk.model(theta, test.X).argmax(1) == test.y).double().mean())

    rows: dict[str, dict[str, list[DatamodelingScore]]] = {}
    for fraction in FRACTIONS:
        left_out = groups(fraction)
        W = leave_out_weights(N, left_out)
        # (seeds, n_test, groups): the test losses after each retraining
        after = torch.stack([losses(risk, trained(risk, W, seed)[-1], test) for seed in range(SEEDS)])
        print(f"{fraction:.0%} left out: {time.process_time() - begun:.0f} s", flush=True)
        single = [[k] for k in range(GROUPS)]
        for seed in range(RUNS_JUDGED):
            others = after[[s for s in range(SEEDS) if s != seed]]
            targets = {"this run": after[seed], "other runs": others.mean(0)}
            judged = [(name, values, left_out, to) for name, values in scores[seed].items() for to in targets]
            # A group as a "training point" of its own, scored by what leaving it out did to other runs.
            judged += [
                ("another run, retrained", -others[0], single, "this run"),
                ("eight runs, retrained", -others.mean(0), single, "this run"),
                ("this run, retrained", -after[seed], single, "other runs"),
            ]
            for name, values, which, to in judged:
                found = linear_datamodeling_score(values, which, targets[to])
                rows.setdefault(name, {}).setdefault(f"{fraction:g} {to}", []).append(found)
    table: dict[str, dict[str, Any]] = {name: {} for name in rows}
    paired: dict[str, Any] = {}
    for key in rows["TRAK"]:
        names = [name for name in rows if key in rows[name]]
        without = torch.stack([torch.stack([run.without for run in rows[name][key]]).mean(0) for name in names], 1)
        for name, error in zip(names, jackknife_error(without).tolist(), strict=True):
            runs = [round(run.score, 4) for run in rows[name][key]]
            table[name][key] = {"runs": runs, "error": round(error, 4)}
        errors = jackknife_error(without[:, :, None] - without[:, None, :])
        paired[key] = {"names": names, "errors": [[round(x, 4) for x in row] for row in errors.tolist()]}
    for name, row in table.items():
        print(f"{name:32}", {key: f"{sum(x['runs']) / len(x['runs']):.2f}" for key, x in row.items()})
    content = {
        "minutes": round((time.process_time() - begun) / 60),
        "accuracy": [accuracy(path[K]) for path in paths],
        "gradient": [float(f"{risk.gradient(path[K]).norm():.3g}") for path in paths],
        "lowest": [float(f"{torch.linalg.eigvalsh(risk.hessian(path[K]))[0]:.3g}") for path in paths],
        "lds": table,
        "paired": paired,
    }
    write_run(options.json, "python -m benchmarks.attribution", content)


if __name__ == "__main__":
    main()
