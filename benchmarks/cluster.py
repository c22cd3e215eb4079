"""What do more workers bring, and what does handing out cost? ``python -m benchmarks.cluster`` stores the answer.

Everything is measured by the clock, as more than one process works. Run it on a quiet machine: it takes some minutes.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import distributed
import torch
from distributed import Client, LocalCluster
from torch import Tensor

from benchmarks.measure import RUNS, write_run
from helpers import (
    CROSS_ENTROPY,
    HessianOperator,
    Risk,
    conjugate_gradients,
    digits,
    direct,
    influence,
    influence_on,
    leave_group_out,
    leave_group_out_on,
    minimise,
    mlp,
    ring,
)

RUN = RUNS / "cluster.json"
WORKERS = (1, 2, 4)
GTOL = 1e-7


def seconds(job: Callable[[], object], repeats: int) -> float:
    """The shortest time on the clock, which is the least disturbed; the first call, which allocates, does not count."""
    job()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return min(times)


def factored(L: Tensor, H: HessianOperator, B: Tensor) -> Tensor:
    """``H⁻¹B`` with the Cholesky factor that came along."""
    return torch.cholesky_solve(B, L)


def started(workers: int, *, give_back: bool = False) -> tuple[LocalCluster, Client, float]:
    """A cluster whose workers have imported the helpers, and how long that took.

    By Dask's default a worker gives freed memory back to the system at once (``give_back``), and asks for it again.
    """
    setting = {} if give_back else {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
    start = time.perf_counter()
    with dask.config.set(setting):
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
    client = Client(cluster)
    client.wait_for_workers(workers)
    client.run(__import__, "helpers")
    return cluster, client, time.perf_counter() - start


def measure(repeats: int) -> dict[str, Any]:
    """Each row says what was computed, where, in chunks of what size, and in how many seconds."""
    small = Risk(mlp()[0], ring()[0], l2=0.02)
    theta_small = minimise(small, mlp()[1]).theta
    generator = torch.Generator().manual_seed(0)
    groups = [torch.randperm(60, generator=generator)[:3].tolist() for _ in range(600)]

    train, test = digits()
    model, start = mlp(64, 8, 10)
    medium = Risk(model, train, loss=CROSS_ENTROPY, l2=0.01)
    theta_medium = minimise(medium, start).theta
    points = [[i] for i in range(64)]

    model, start = mlp(64, 32, 10)
    large = Risk(model, train, loss=CROSS_ENTROPY, l2=0.01)
    theta_large = minimise(large, start).theta
    queries = test[list(range(8))]

    rows: list[dict[str, Any]] = []

    def row(job: str, where: str, workers: int, chunk: int, run: Callable[[], object]) -> None:
        rows.append({"job": job, "where": where, "workers": workers, "chunk": chunk, "seconds": seconds(run, repeats)})
        print("{job:28}{where:34}{workers:3d} workers, chunks of {chunk:4d}: {seconds:8.3f} s".format(**rows[-1]))

    def in_chunks(risk: Risk, theta: Tensor, which: list[list[int]], chunk: int) -> None:
        for k in range(0, len(which), chunk):
            leave_group_out(risk, theta, which[k : k + chunk], gtol=GTOL)

    # Without a cluster: the number of workers is 0.
    alone = [[i] for i in range(60)]
    row("ring, 60 points", "one after another", 0, 1, lambda: in_chunks(small, theta_small, alone, 1))
    row("ring, 60 points", "one batch", 0, 60, lambda: leave_group_out(small, theta_small, alone, gtol=GTOL))
    row("ring, 600 groups", "one batch", 0, 600, lambda: leave_group_out(small, theta_small, groups, gtol=GTOL))
    row("ring, 600 groups", "in chunks", 0, 50, lambda: in_chunks(small, theta_small, groups, 50))
    row("p = 610, 64 points", "in chunks", 0, 8, lambda: in_chunks(medium, theta_medium, points, 8))
    row("p = 2,410, 8 influences", "factored", 0, 8, lambda: influence(large, theta_large, queries, solve=direct))
    cg = functools.partial(conjugate_gradients, rtol=1e-6)
    iterative = functools.partial(influence, large, theta_large, queries, solve=cg)
    row("p = 2,410, 8 influences", "conjugate gradients", 0, 8, iterative)

    ready, overhead = {}, {}
    for workers in WORKERS:
        cluster, client, ready[workers] = started(workers)

        def small_on(which: list[list[int]], chunk: int, client: Client = client) -> Callable[[], object]:
            return lambda: leave_group_out_on(client, small, theta_small, which, gtol=GTOL, chunk=chunk)

        def influences(solve: Callable[..., Any], client: Client = client) -> Callable[[], Tensor]:
            return lambda: influence_on(client, large, theta_large, queries, solve=solve, chunk=2)

        overhead[workers] = seconds(lambda c=client: c.gather(c.map(int, range(500), pure=False)), repeats) / 500
        row("ring, 600 groups", "cluster", workers, 50, small_on(groups, 50))
        row(
            "p = 610, 64 points",
            "cluster",
            workers,
            8,
            lambda c=client: leave_group_out_on(c, medium, theta_medium, points, gtol=GTOL, chunk=8),
        )
        if workers == 2:
            for chunk in (1, 30):
                row("ring, 60 points", "cluster", workers, chunk, small_on(alone, chunk))
            for chunk in (3, 10, 150, 300):
                row("ring, 600 groups", "cluster", workers, chunk, small_on(groups, chunk))

            def once(client: Client = client) -> Tensor:
                L = torch.linalg.cholesky(HessianOperator(large, theta_large).dense())
                return influences(functools.partial(factored, L), client)()

            row("p = 2,410, 8 influences", "conjugate gradients", workers, 2, influences(cg))
            row("p = 2,410, 8 influences", "factored in every task", workers, 2, influences(direct))
            row("p = 2,410, 8 influences", "factored once, factor sent", workers, 2, once)
        client.close()
        cluster.close()

    cluster, client, _ = started(2, give_back=True)
    row(
        "p = 610, 64 points",
        "cluster, memory given back",
        2,
        8,
        lambda: leave_group_out_on(client, medium, theta_medium, points, gtol=GTOL, chunk=8),
    )
    client.close()
    cluster.close()
    return {
        "start_seconds": {str(workers): value for workers, value in ready.items()},
        "empty_task_seconds": {str(workers): value for workers, value in overhead.items()},
        "rows": rows,
    }


def main() -> None:
    """The reference is one process on one thread; every worker is one thread, too."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=RUN, metavar="FILE", help=f"where to store it (default: {RUN})")
    parser.add_argument("--repeats", type=int, default=5, help="how often each job runs; the fastest counts")
    options = parser.parse_args()

    torch.set_num_threads(1)
    content = {
        "versions": {"torch": torch.__version__, "dask": dask.__version__, "distributed": distributed.__version__},
        "repeats": options.repeats,
    }
    write_run(options.json, "python -m benchmarks.cluster", content | measure(options.repeats))


if __name__ == "__main__":
    main()
