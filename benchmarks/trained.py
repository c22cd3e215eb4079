"""``python -m benchmarks.trained``: where the trainings of the digits end, for the chapters to begin there.

A chapter that needs this minimum does not train for it once more: it goes on from the stored parameters, to nine
decimals, and certifies what it finds. The digits' networks have several minima; PyTorch's own L-BFGS leads to this one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.measure import RUNS, by_pytorch, write_run
from benchmarks.mislabelled import corrupted
from helpers import CROSS_ENTROPY, Data, Risk, digits, mlp

L2 = 0.01


def main() -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    train, _ = digits()
    model, start = mlp(64, 32, 10)

    def trained(labels: Tensor) -> list[float]:
        theta = by_pytorch(Risk(model, Data(train.X, labels), loss=CROSS_ENTROPY, l2=L2), start)
        return [round(x, 9) for x in theta.tolist()]

    problem = {"model": "mlp(64, 32, 10)", "l2": L2, "n": len(train)}
    problem |= {"spoilt": "140 labels, as in chapter 21", "sevens": "as in its last exercise"}
    content = {
        "problem": problem,
        "clean": trained(train.y),
        "spoilt": trained(corrupted(train.y, seed=0)[0]),
        "sevens": trained(corrupted(train.y, seed=0, true=7, given_as=1)[0]),
    }
    write_run(RUNS / "trained.json", "python -m benchmarks.trained", content)


if __name__ == "__main__":
    main()
