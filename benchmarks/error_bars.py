"""``python -m benchmarks.error_bars``: how much do test losses scatter when the training data are drawn anew?

The book's network is trained on the book's sixty points drawn again with replacement (the bootstrap), and on fresh
draws of sixty points, each time to a certified minimum, from the minimum of the book. What is stored is the standard
deviation of each of the twenty test losses, and how many trainings ended at no certified minimum: they are left out.
It takes some minutes on one thread, and no test runs it: the chapter prints the stored numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import RUNS, rounded, write_run
from helpers import (
    HessianOperator,
    Minima,
    NotAMinimum,
    NotConverged,
    Risk,
    cross_validated_losses,
    leverage,
    minimise,
    minimise_many,
    mlp,
    ring,
    standard_errors,
)  # fmt: skip

STORED = RUNS / "error_bars.json"
L2 = 0.02
FEW = 200  # fresh draws at which error bars and cross-validated losses are computed as well


def bootstrapped(risk: Risk, theta: Tensor, draws: int) -> Minima:
    """Minima of the risk with as many points drawn from its data, with replacement, as it has."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(risk.n, (draws, risk.n), generator=generator)
    W = torch.zeros(draws, risk.n).scatter_add_(1, drawn, torch.full(drawn.shape, 1 / risk.n))
    return minimise_many(risk, W, theta, preconditioner=HessianOperator(risk, theta), throw=False)


def fresh(model: Callable, theta: Tensor, seed: int) -> tuple[Risk, Tensor] | None:
    """The risk of another sixty points, and its minimum; None where training finds none."""
    risk = Risk(model, ring(seed=seed)[0], l2=L2)
    try:
        return risk, minimise(risk, theta).theta
    except (NotAMinimum, NotConverged):
        return None


def main() -> None:
    """Train, and store the standard deviations."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.error_bars", description="Training data drawn anew.")
    parser.add_argument("--json", type=Path, default=STORED, metavar="FILE", help="where to store the numbers")
    parser.add_argument("--draws", type=int, default=1000, help="how many trainings of each kind")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    train, test = ring()
    many = ring(1, 20_000, seed=1)[1]
    model, theta_0 = mlp()
    risk = Risk(model, train, l2=L2)
    theta = minimise(risk, theta_0).theta

    again = bootstrapped(risk, theta, options.draws)
    others = [fresh(model, theta, seed) for seed in range(1, options.draws + 1)]
    found = [pair for pair in others if pair is not None]
    few = [pair for pair in found[:FEW] if leverage(*pair).max() < 1]
    bars = {
        kind: torch.stack([standard_errors(r, t, test, kind=kind) for r, t in few]).square().mean(0).sqrt()
        for kind in ("HC0", "HC2", "HC3")
    }
    trained = torch.stack([r.losses(t).mean() for r, t in few])
    crossed = torch.stack([cross_validated_losses(r, t).mean() for r, t in few])
    unseen = torch.stack([r.losses(t, many).mean() for r, t in few])

    def scatter(thetas: list[Tensor]) -> list[float]:
        return [rounded(float(each)) for each in torch.stack([risk.losses(t, test) for t in thetas]).std(0)]

    content = {
        "draws": options.draws,
        "l2": L2,
        "bootstrap": {
            "certified": int(again.certified.sum()),
            "standard deviations": scatter(list(again.thetas[again.certified])),
        },
        "fresh": {
            "certified": len(found),
            "standard deviations": scatter([t for _, t in found]),
            "standard errors": {kind: [rounded(float(each)) for each in bar] for kind, bar in bars.items()},
            "few": len(few),
            "training loss": rounded(float(trained.mean())),
            "cross-validated": rounded(float(crossed.mean())),
            "unseen": rounded(float(unseen.mean())),
            "error of their difference": rounded(float((crossed - unseen).std() / len(few) ** 0.5)),
            "correlation": rounded(float(torch.corrcoef(torch.stack([crossed, unseen]))[0, 1])),
        },
    }
    write_run(options.json, "python -m benchmarks.error_bars", content)


if __name__ == "__main__":
    main()
