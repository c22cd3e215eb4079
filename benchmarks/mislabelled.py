"""``python -m benchmarks.mislabelled``: which wrong labels does which ranking find, and what does finding them bring?

The digits of the book's chapter on wrong labels, for several draws of the mistakes and two strengths of the L2 term.
In each draw 90 careless mistakes (another class at random) and 50 systematic ones (fours labelled as nines) are made
among 1,400 labels, the network is trained to a certified minimum, and every ranking says whom to look at first. It
takes about a quarter of an hour on one thread, and no test runs it: the chapter prints the stored numbers.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks import measure
from benchmarks.measure import RUNS, by_pytorch, write_run
from helpers import (
    CROSS_ENTROPY,
    Data,
    HessianOperator,
    NotAMinimum,
    NotConverged,
    Risk,
    cholesky_solve,
    digits,
    leave_group_out,
    leave_out_weights,
    minimise_many,
    mlp,
)

STORED = RUNS / "mislabelled.json"
CARELESS, SYSTEMATIC = 90, 50
REFERENCE = 100  # so many test images are known to be labelled right; the others measure what was gained
BUDGETS = (70, 140, 280)  # so many training images are looked at
# Whose findings are corrected, or removed, to see what that brings.
BROUGHT = (
    "random", "self-influence", "training loss", "influence on reference", "model of reference", "loss and influence",
    "loss and gradient product", "loss and model of reference",
)  # fmt: skip
LEFT_OUT = 8  # so many careless mistakes are left out, one at a time
BLAMED = 8  # so many training images are named, and left out together, for each misclassified test image


def corrupted(y: Tensor, seed: int, true: int = 4, given_as: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """The labels as given, and the indices of the careless and of the systematic mistakes."""
    generator = torch.Generator().manual_seed(seed)
    given, fours = y.clone(), (y == true).nonzero().flatten()
    systematic = fours[torch.randperm(len(fours), generator=generator)[:SYSTEMATIC]]
    given[systematic] = given_as
    others = torch.randperm(len(y), generator=generator)
    careless = others[~torch.isin(others, systematic)][:CARELESS]
    given[careless] = (given[careless] + torch.randint(1, 10, (CARELESS,), generator=generator)) % 10
    return given, careless, systematic


def rankings(risk: Risk, theta: Tensor, solved: Tensor, reference: Data, seed: int) -> dict[str, Tensor]:
    """A score a training image, the most suspicious first: by what is known without, and then with a reference."""
    G, g = risk.gradients(theta), risk.gradients(theta, reference).mean(0)
    y = risk.data.y[:, None]
    p = risk.model(theta, risk.data.X).softmax(1)
    losses, harm, product = risk.losses(theta), -(solved @ g), -(G @ g)
    alone = retrained(Risk(risk.model, reference, loss=CROSS_ENTROPY, l2=risk.l2), mlp(64, 32, 10)[1])
    return {
        "random": torch.rand(risk.n, generator=torch.Generator().manual_seed(seed)),
        "self-influence": (G * solved).sum(1),
        "gradient norm": G.norm(dim=1),
        "training loss": losses,
        "surprise": (p - one_hot(risk.data.y, 10)).square().sum(1),
        "margin": (p.scatter(1, y, 0).amax(1) - p.gather(1, y)[:, 0]),
        "influence on reference": harm,
        "gradient product": product,
        "model of reference": risk.losses(alone),
        "loss and influence": by_turns(losses, harm),
        "loss and gradient product": by_turns(losses, product),
        "loss and model of reference": by_turns(losses, risk.losses(alone)),
    }


def by_turns(one: Tensor, other: Tensor) -> Tensor:
    """The next one not yet seen from either list, by turns: the better of its two places counts."""
    places = [scores.argsort(descending=True, stable=True).argsort() for scores in (one, other)]
    return -torch.minimum(*places).to(one)


def retrained(risk: Risk, start: Tensor, weights: Tensor | None = None) -> Tensor:
    """A certified minimum near ``start``; from a little further away where a saddle or a flat valley is in the way."""
    generator = torch.Generator().manual_seed(0)
    for noise in (0.01, 0.03, 0.1, 0.3):
        beside = start + noise * torch.randn(len(start), generator=generator)
        try:
            return by_pytorch(risk, beside, weights, max_steps=20_000)
        except (NotAMinimum, NotConverged):
            continue
    raise RuntimeError("no certified minimum near the start")


def without(risk: Risk, members: Tensor) -> Tensor:
    """Equal weights on all but the members."""
    weights = torch.ones(risk.n)
    weights[members] = 0
    return weights / weights.sum()


def study(l2: float, seed: int, gains: bool) -> dict[str, Any]:
    """One draw of the mistakes: what each ranking finds and, if asked, what it brings to correct or to remove."""
    train, test = digits()
    model, start = mlp(64, 32, 10)
    given, careless, systematic = corrupted(train.y, seed)
    risk = Risk(model, Data(train.X, given), loss=CROSS_ENTROPY, l2=l2)
    theta = by_pytorch(risk, start, max_steps=20_000)
    G = risk.gradients(theta)
    H = HessianOperator(risk, theta).dense()
    solved = cholesky_solve(H, G.T).T
    reference, rest = test[:REFERENCE], test[REFERENCE:]
    orders = {
        name: scores.argsort(descending=True, stable=True)
        for name, scores in rankings(risk, theta, solved, reference, seed).items()
    }

    def on_the_rest(theta: Tensor) -> dict[str, Any]:
        wrong = int((model(theta, rest.X).argmax(1) != rest.y).sum())
        return {"wrong": wrong, "loss": rounded(risk.losses(theta, rest).mean())}

    moves = solved / risk.n
    predicted = (G * moves).sum(1)  # the rise of its own loss when a point is left out
    share = risk.gauss_newton_curvatures(theta, moves) / predicted
    losses = risk.losses(theta)
    found: dict[str, Any] = {
        "l2": l2,
        "seed": seed,
        "before": on_the_rest(theta),
        "fitted": int((model(theta, train.X).argmax(1) == given)[torch.cat([careless, systematic])].sum()),
        "found": {
            name: {str(k): [int(torch.isin(order[:k], kind).sum()) for kind in (careless, systematic)] for k in BUDGETS}
            for name, order in orders.items()
        },
        "leverage": {
            "careless": rounded(share[careless].median()),
            "largest": rounded(share.max()),
        },
        "left_out": left_out(risk, theta, careless[:LEFT_OUT], predicted),
    }
    if not gains:
        return found
    everything = torch.cat([careless, systematic])
    found["failures"] = failures(risk, theta, H, solved, rest, everything)
    together = retrained(risk, theta, without(risk, systematic))
    found["masking"] = {
        "own loss": rounded(losses[systematic].median()),
        "without all": rounded(risk.losses(together)[systematic].median()),
        "after": on_the_rest(together),
    }
    looks = {name: orders[name][: len(everything)] for name in BROUGHT} | {"the truth": everything}
    found["gains"] = {}
    for name, looked_at in looks.items():
        labels = given.clone()
        labels[looked_at] = train.y[looked_at]
        corrected = Risk(model, Data(train.X, labels), loss=CROSS_ENTROPY, l2=l2)
        found["gains"][name] = {
            "corrected": on_the_rest(retrained(corrected, theta)),
            "removed": on_the_rest(retrained(risk, theta, without(risk, looked_at))),
        }
    return found


def left_out(risk: Risk, theta: Tensor, points: Tensor, predicted: Tensor) -> dict[str, Any] | None:
    """The change of a point's own loss when it is left out (weight zero), first order and retrained: medians."""
    try:
        thetas = leave_group_out(risk, theta, [[int(i)] for i in points], convention="zero", gtol=1e-7).thetas
    except (NotAMinimum, NotConverged):
        return None
    before = risk.losses(theta)
    after = torch.stack([risk.losses(each)[i] for each, i in zip(thetas, points, strict=True)])
    actual = after - before[points]
    return {
        "loss": rounded(before[points].median()),
        "predicted": rounded(predicted[points].median()),
        "actual": rounded(actual.median()),
        "ratio": rounded((actual / predicted[points]).median()),
    }


def failures(
    risk: Risk, theta: Tensor, H: Tensor, solved: Tensor, tested: Data, mistakes: Tensor
) -> list[dict[str, Any]]:
    """For each misclassified image: who is named by influence, and by two cheaper ways; and what leaving them out does.

    The mean is taken over the training images that stay, in the prediction and in the retraining.
    """
    G, g = risk.gradients(theta), risk.gradients(theta, tested)
    taken_for = risk.model(theta, tested.X).argmax(1)
    wrong = (taken_for != tested.y).nonzero().flatten()
    influence, distance = -g @ solved.T, torch.cdist(tested.X, risk.data.X)
    # The nearest of those that carry the label for which the image is taken.
    distance[risk.data.y != taken_for[:, None]] = torch.inf
    ways = {"influence": influence, "gradient product": -g @ G.T, "nearest of that label": -distance}
    named = {
        name: scores[wrong].argsort(dim=1, descending=True, stable=True)[:, :BLAMED] for name, scores in ways.items()
    }
    centred = influence - influence.mean(1, keepdim=True)
    after = minima_without(risk, theta, H, torch.cat(list(named.values())))
    rows: list[dict[str, Any]] = [
        {"image": REFERENCE + int(i), "class": int(tested.y[i]), "taken for": int(taken_for[i]), "named": {}}
        for i in wrong
    ]
    for (name, groups), thetas in zip(named.items(), after.split(len(wrong)), strict=True):
        for row, i, group, at in zip(rows, wrong, groups, thetas, strict=True):
            one = tested[i[None]]
            row["named"][name] = {
                "mistakes": int(torch.isin(group, mistakes).sum()),
                "predicted": rounded(-centred[i, group].sum() / (risk.n - BLAMED)),
                "actual": rounded(risk.losses(at, one)[0] - risk.losses(theta, one)[0]),
                "now": int(risk.model(at, one.X).argmax()),
            }
    return rows


def minima_without(risk: Risk, theta: Tensor, H: Tensor, groups: Tensor) -> Tensor:
    """Certified minima near ``theta`` (m, p), row ``k`` without ``groups[k]``.

    In some draws two units of the network are alike at ``theta`` but for their signs, and stay so in a retraining from
    there, where the minimum would have them part. Then all start again from beside ``theta``.
    """
    W = leave_out_weights(risk.n, groups.tolist())
    try:
        return minimise_many(risk, W, theta, preconditioner=H, gtol=1e-6).thetas
    except NotAMinimum:
        noise = torch.randn(len(W), len(theta), generator=torch.Generator().manual_seed(0))
        # The valleys are flat there, so a smaller gradient is asked for.
        beside = theta + 0.01 * noise
        return minimise_many(risk, W, beside, preconditioner=H, gtol=1e-7, max_steps=20_000).thetas


def rounded(value: Tensor) -> float | None:
    """Four significant digits."""
    return measure.rounded(float(value), digits=4)


def main() -> None:
    """Print what is found as it is found, and store it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mislabelled", description="Wrong labels, found.")
    parser.add_argument("--json", type=Path, default=STORED, metavar="FILE", help="where to store the numbers")
    parser.add_argument("--seeds", type=int, default=5, help="how many draws of the mistakes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    begun, runs = time.perf_counter(), []
    for l2, gains in ((0.01, True), (0.001, False)):
        for seed in range(options.seeds):
            runs.append(study(l2, seed, gains))
            print(f"l2 = {l2}, seed {seed}: {json.dumps(runs[-1]['found'])}", flush=True)
    content = {"minutes": round((time.perf_counter() - begun) / 60), "runs": runs}
    write_run(options.json, "python -m benchmarks.mislabelled", content)


if __name__ == "__main__":
    main()
