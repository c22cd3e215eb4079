"""On a cluster: the same numbers as on one machine, whatever the chunks and the workers, and whoever dies."""

import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import torch
from distributed import Client, KilledWorker, LocalCluster
from distributed.client import FutureCancelledError

from helpers import (
    LOGISTIC,
    Loss,
    NotAMinimum,
    NotConverged,
    NotSolved,
    NotStationary,
    Risk,
    cholesky_solve,
    conjugate_gradients,
    direct,
    flatten,
    influence,
    influence_on,
    leave_group_out,
    leave_group_out_on,
    leave_out_weights,
    mlp,
    ring,
)
from helpers import cluster as module
from helpers.cluster import _is_installed, _name, _read, _seal, _write
from helpers.optimum import Minima
from tests.helpers.closed_forms import Ridge

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
MANY = [[i, (i + 7) % 60, (i + 13) % 60] for i in range(60)]
SOME = [[i, (i + k) % 12] for k in (1, 5) for i in range(10)]


@pytest.fixture(scope="module")
def device():
    return "cpu"


@pytest.fixture(scope="module")
def problem(device):
    from tests.helpers.conftest import Ring

    return Ring(device)


@pytest.fixture(scope="module")
def small():
    """Ridge regression, for what is the same with any problem: its tasks take no time."""
    return Ridge()


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def threads():
    """A cluster of one worker, in this process, with three threads: what they share they must not change."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def alone(problem):
    return leave_group_out(problem.risk, problem.theta, MANY)


@pytest.fixture(scope="module")
def few(small):
    found = leave_group_out(small.risk, small.theta, SOME)
    expected = torch.stack([small.minimum(w) for w in leave_out_weights(12, SOME)])
    torch.testing.assert_close(found.thetas, expected, rtol=1e-9, atol=1e-11)
    return found


def same(found, expected):
    # The eigenvalues are taken a little before the minimum, where rounding that differs with the batch still shows.
    for name, atol in (("thetas", 1e-12), ("gradient_norms", 1e-12), ("smallest_eigenvalues", 1e-6)):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=atol)


def first(count, minima):
    return Minima(*(part[:count] for part in minima.rows), minima.tolerance)


def begun(client):
    return len(client.get_events("chunk begun"))


def files(store):
    return sorted(store.glob("*.pt"))


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("convention", "count", "chunk"), [("mean", 5, 1), ("mean", 60, 17), ("zero", 60, 100), ("zero", 7, 4)]
)
def test_each_point_alone(client, problem, convention, count, chunk):
    points = None if count == 60 else [[i] for i in range(count)]
    found = leave_group_out_on(client, problem.risk, problem.theta, points, convention=convention, chunk=chunk)
    same(found, first(count, problem.leave_one_out(convention)))


def test_one_worker_or_two_and_processes_or_threads(client, threads, problem, alone):
    for cluster, chunk in ((client, 31), (threads, 31), (threads, 11)):
        same(leave_group_out_on(cluster, problem.risk, problem.theta, MANY, chunk=chunk), alone)


def test_from_scratch(threads, problem):
    one = leave_group_out(problem.risk, problem.theta, MANY[:7], start=problem.start)
    for start in (problem.start, problem.start.expand(7, -1)):
        found = leave_group_out_on(threads, problem.risk, problem.theta, MANY[:7], start=start, chunk=4)
        same(found, one)


@pytest.mark.parametrize("chunk", [3, 8])
def test_influence(client, small, chunk):
    H, test = small.hessian(small.uniform), small.risk.data[:10]
    L, G = torch.linalg.cholesky(H), small.risk.gradients(small.theta)
    exact = -G[:10] @ torch.linalg.solve(H, G.T)
    for solve in (
        direct,
        lambda H, B: torch.cholesky_solve(B, L),
        lambda H, B: conjugate_gradients(H, B, rtol=1e-12),
    ):
        found = influence_on(client, small.risk, small.theta, test, solve=solve, chunk=chunk)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-10 * float(exact.abs().max()))


def test_influence_with_other_weights(threads, problem, close):
    weights = problem.risk.uniform.clone()
    weights[5] = 0
    expected = influence(problem.risk, problem.theta, problem.test, weights=weights, gtol=1)
    found = influence_on(threads, problem.risk, problem.theta, problem.test, weights=weights, gtol=1, solve=direct)
    close(found, expected)


def test_every_task_computes_on_one_thread(client, threads, problem):
    def solve(H, B):
        assert torch.get_num_threads() == 1
        return cholesky_solve(H.dense(), B)

    torch.set_num_threads(2)
    try:
        influence_on(client, problem.risk, problem.theta, problem.test, solve=solve)
        influence_on(threads, problem.risk, problem.theta, problem.test, solve=solve)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_two_large_chunks_go_to_two_workers(client, problem):
    for _ in range(4):  # once may be luck
        before = begun(client)
        leave_group_out_on(client, problem.risk, problem.theta, MANY, chunk=len(MANY) // 2)
        assert len({process for _, process in client.get_events("chunk begun")[before:]}) == 2


def test_a_failure_names_the_group_in_the_whole_list(client, problem, alone, tmp_path):
    start = problem.theta.repeat(60, 1)
    start[37] = 0  # all units alike: training stays at a saddle
    with pytest.raises(NotAMinimum, match=r"group 37 \(") as raised:
        leave_group_out_on(client, problem.risk, problem.theta, start=start, chunk=20, store=tmp_path)
    assert "problem" not in str(raised.value)
    # The others are done, and are not lost: here with the exception, and in the store.
    assert raised.value.theta.shape == (60, 33) and len(files(tmp_path)) == 3
    others = torch.arange(60) != 37
    torch.testing.assert_close(
        raised.value.theta[others], problem.leave_one_out("mean").thetas[others], rtol=0, atol=1e-9
    )
    found = leave_group_out_on(client, problem.risk, problem.theta, start=start, chunk=20, store=tmp_path, throw=False)
    assert torch.equal(found.certified, others)
    before = begun(client)
    start[37] = problem.theta
    found = leave_group_out_on(client, problem.risk, problem.theta, start=start, chunk=20, store=tmp_path)
    torch.testing.assert_close(found.thetas, problem.leave_one_out("mean").thetas, rtol=0, atol=1e-9)
    assert begun(client) - before == 1


def test_other_failures(threads, problem):
    before = begun(threads)
    with pytest.raises(ValueError, match=r"group 3 is \[60\]"):
        leave_group_out_on(threads, problem.risk, problem.theta, [[0], [1], [2], [60], [3]], chunk=2)
    assert begun(threads) == before
    with pytest.raises(NotStationary) as raised:
        leave_group_out_on(threads, problem.risk, problem.theta + 1, [[0], [1], [2]], chunk=2)
    assert raised.value.finished == {} and "begins with group 0" in raised.value.__notes__[0]
    for wrong in ({"groups": []}, {"groups": None, "chunk": 0}):
        with pytest.raises(ValueError, match="at least one"):
            leave_group_out_on(threads, problem.risk, problem.theta, **wrong)


def test_an_exception_comes_home_as_it_was(client, problem):
    def solve(H, B):
        if B.shape[1] == 5:
            raise NotConverged("stopped", B)
        return 0 * B

    with pytest.raises(NotConverged) as raised:
        influence_on(client, problem.risk, problem.theta, problem.test[:17], solve=solve, chunk=6)
    back = raised.value
    assert type(back) is NotConverged
    assert str(back) == "stopped"
    assert torch.equal(back.theta, problem.risk.gradients(problem.theta, problem.test[12:17]).T)
    assert back.__notes__ == ["In the chunk that begins with test point 12."]
    assert sorted(back.finished) == [0, 6]


def test_a_solver_that_does_not_converge(threads, problem):
    def solve(H, B):
        return conjugate_gradients(H, B, max_iterations=2)

    with pytest.raises(NotSolved, match="after 2 iterations") as raised:
        influence_on(threads, problem.risk, problem.theta, problem.test, solve=solve, chunk=7)
    assert raised.value.X.shape == (33, 7)
    assert "begins with test point 0" in raised.value.__notes__[0]


def test_the_store_takes_up_what_is_there_and_only_that(threads, small, few, tmp_path):
    def run(**options):
        before = begun(threads)
        options = {"risk": small.risk, "theta": small.theta, "groups": SOME, "chunk": 5} | options
        return leave_group_out_on(threads, **options, store=tmp_path / "new"), begun(threads) - before

    assert run()[1] == 4
    found, computed = run()
    same(found, few)
    assert computed == 0
    files(tmp_path / "new")[2].unlink()
    found, computed = run()
    same(found, few)
    assert computed == 1
    # Whatever decides a result is in its name.
    assert run(groups=[*SOME[:5], *SOME[:4:-1]])[1] == 3
    assert run(chunk=10)[1] == 2
    assert run(convention="zero")[1] == 4
    assert run(gtol=1e-10)[1] == 4
    assert run(theta=small.theta + 1e-12)[1] == 4
    assert run(weights=small.uniform)[1] == 4
    assert run(risk=small.risk.but(batch=7))[1] == 4
    assert run(start=small.theta)[1] == 4
    assert not list((tmp_path / "new").glob("*.tmp"))


@pytest.fixture(scope="module")
def kept(threads, small, tmp_path_factory):
    """A store with four chunks in it."""
    folder = tmp_path_factory.mktemp("store")
    leave_group_out_on(threads, small.risk, small.theta, SOME, chunk=5, store=folder)
    assert len(files(folder)) == 4
    return folder


@pytest.fixture
def store(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "store")


@pytest.fixture
def four(threads, small, few):
    """Compute the four chunks, or take them up. How many were computed, and what warnings there were."""

    def call(store):
        before = begun(threads)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = leave_group_out_on(threads, small.risk, small.theta, SOME, chunk=5, store=store)
        same(found, few)
        return begun(threads) - before, [str(warning.message) for warning in said]

    return call


def altered(content, place):
    content = bytearray(content)
    content[place] ^= 1
    return bytes(content)


def sealed(file, content):
    file.write_bytes(_seal(file, content) + b"\n" + content)


def result_of(file):
    return torch.load(io.BytesIO(file.read_bytes().partition(b"\n")[2]), weights_only=True)


FAULTS = {
    "empty": (lambda file: file.write_bytes(b""), "does not begin"),
    "cut short": (lambda file: file.write_bytes(file.read_bytes()[:-1]), "checksum"),
    "cut in its first line": (lambda file: file.write_bytes(file.read_bytes()[:60]), "checksum"),
    "one bit flipped": (lambda file: file.write_bytes(altered(file.read_bytes(), 1000)), "checksum"),
    "as earlier versions wrote it": (lambda file: torch.save(result_of(file), file), "does not begin"),
    "a tensor missing": (lambda file: _write(file, result_of(file)[:2]), "it holds"),
    "of another shape": (lambda file: _write(file, tuple(x[:1] for x in result_of(file))), "it holds"),
    "of another type": (lambda file: _write(file, tuple(x.float() for x in result_of(file))), "it holds"),
    "no tensors": (lambda file: _write(file, {"thetas": [1.0]}), "no attribute"),
    "no pickle": (lambda file: sealed(file, b"\0" * 99), ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_is_named_and_computed_again(four, store, fault):
    spoil, why = FAULTS[fault]
    bad = files(store)[1]
    good = bad.read_bytes()
    assert four(store) == (0, [])
    spoil(bad)
    computed, (said,) = four(store)
    assert computed == 1
    assert str(bad) in said and "computed again" in said and why in said
    # The good result has taken its place.
    assert bad.read_bytes() == good
    assert four(store) == (0, [])


def test_files_that_changed_places_are_not_believed(four, store):
    one, other = files(store)[:2]
    ours, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(ours)
    computed, said = four(store)
    assert computed == 2
    for file, text in zip((other, one), sorted(said), strict=True):
        assert f"it is the file of {file.stem}" in text
    assert (one.read_bytes(), other.read_bytes()) == (ours, theirs)


def test_no_byte_of_a_file_can_change_unnoticed(tmp_path):
    file, form = tmp_path / "0a.pt", [(torch.float64, (2,))]
    _write(file, torch.tensor([1.0, 2.0], dtype=torch.float64))
    good = file.read_bytes()
    assert torch.equal(_read(file, form), torch.tensor([1.0, 2.0], dtype=torch.float64))
    seal = good.index(b"\n") + 1
    for place in (*range(seal), *range(seal, len(good), 9)):  # all of the first line, and the rest here and there
        file.write_bytes(altered(good, place))
        with pytest.warns(UserWarning, match=r"0a\.pt is not believed"):
            assert _read(file, form) is None


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_file_that_would_run_code_does_not(four, store, tmp_path):
    went_off = tmp_path / "went off"
    packed = io.BytesIO()
    torch.save(Bomb(went_off), packed)
    sealed(files(store)[0], packed.getvalue())
    computed, (said,) = four(store)
    assert computed == 1 and str(files(store)[0]) in said
    assert not went_off.exists()
    torch.load(io.BytesIO(packed.getvalue()), weights_only=False)
    assert went_off.exists()  # so it was a live one


def test_a_folder_in_the_place_of_a_file_stays_and_nothing_is_lost(four, store):
    file = files(store)[1]
    file.unlink()
    file.mkdir()
    (file / "notes.txt").write_text("mine", encoding="utf-8")
    computed, (unread, unkept) = four(store)
    assert computed == 1
    assert str(file) in unread and "not believed" in unread
    assert str(file) in unkept and "cannot be kept" in unkept
    assert (file / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert not list(store.glob("*.tmp"))


def test_a_file_that_cannot_be_read_is_computed_again(four, store, monkeypatch):
    locked, read = files(store)[1], Path.read_bytes

    def read_bytes(path):
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    computed, (said,) = four(store)
    assert computed == 1 and str(locked) in said and "Permission denied" in said


def test_a_full_disk_loses_no_result(four, monkeypatch, tmp_path):
    def fsync(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    computed, (said,) = four(tmp_path / "new")
    assert computed == 4
    assert "cannot be kept" in said and "No space left" in said
    assert list((tmp_path / "new").iterdir()) == []


def test_a_store_that_is_no_folder_is_refused_before_anything_is_computed(threads, problem, tmp_path):
    (tmp_path / "store").write_text("mine", encoding="utf-8")
    before = begun(threads)
    with pytest.raises(OSError, match="store is no folder"):
        leave_group_out_on(threads, problem.risk, problem.theta, store=tmp_path / "store")
    assert begun(threads) == before


def test_two_clients_use_one_store_at_once(threads, small, few, tmp_path):
    def run(_):
        with Client(threads.cluster, set_as_default=False) as other:
            return leave_group_out_on(other, small.risk, small.theta, SOME, chunk=2, store=tmp_path)

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(run, range(2)):
            same(found, few)
    before = begun(threads)
    run(None)
    assert begun(threads) == before
    assert len(files(tmp_path)) == 10 and not list(tmp_path.glob("*.tmp"))


def test_results_of_other_helpers_are_not_taken_up(four, store, monkeypatch, tmp_path):
    helpers = shutil.copytree(Path(module.__file__).parent, tmp_path / "helpers")
    monkeypatch.setattr(module, "__file__", str(helpers / "cluster.py"))
    assert four(store) == (0, [])
    (helpers / "retraining.py").write_text("# corrected\n", encoding="utf-8")
    assert four(store) == (4, [])


def test_stored_influences_have_the_shape_that_is_asked_for(threads, small, tmp_path):
    exact = influence(small.risk, small.theta, small.test)
    for computed in (2, 0):
        before = begun(threads)
        found = influence_on(threads, small.risk, small.theta, small.test, solve=direct, chunk=2, store=tmp_path)
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)
        assert begun(threads) - before == computed


def test_a_name_is_the_same_in_every_process():
    code = (
        "from helpers import *; from helpers.cluster import _name; train, _ = ring(); model, start = mlp();"
        "print(_name(Risk(model, train, LOGISTIC, 0.02), start, [[1, 2]], conjugate_gradients, 'mean'))"
    )
    train, start = ring()[0], mlp()[1]
    here = _name(Risk(mlp()[0], train, LOGISTIC, 0.02), start, [[1, 2]], conjugate_gradients, "mean")
    seed = {"PYTHONHASHSEED": "1"}  # ours is another
    there = subprocess.run([sys.executable, "-c", code], env=os.environ | seed, capture_output=True, text=True)
    assert there.stdout.strip() == here and len(here) == 32
    assert _name(torch.zeros(2)) != _name(torch.zeros(3)) != _name(torch.zeros(3, dtype=torch.float64))
    assert _name(lambda x: x + 1) != _name(lambda x: x + 2)


def test_every_worker_is_killed_in_the_middle(client, problem, alone, tmp_path):
    pids, before, dead = client.run(os.getpid).values(), begun(client), []

    def pull_the_plug(event):
        if len(files(tmp_path)) >= 3 and not dead:
            dead.append(len(files(tmp_path)))
            for pid in pids:
                os.kill(pid, KILL)

    client.subscribe_topic("chunk begun", pull_the_plug)
    try:
        found = leave_group_out_on(client, problem.risk, problem.theta, MANY, chunk=5, store=tmp_path)
    finally:
        client.unsubscribe_topic("chunk begun")
    same(found, alone)
    assert 3 <= dead[0] < 12
    assert not set(pids) & set(client.run(os.getpid).values())
    # What was under way and what had not yet arrived is done again, and nothing else.
    assert 12 <= begun(client) - before <= 12 + 4


def test_a_chunk_that_kills_its_workers_is_given_up(client, problem):
    def solve(H, B):
        os.kill(os.getpid(), KILL)

    def allow(failures, dask_scheduler=None):
        dask_scheduler.allowed_failures = failures

    client.wait_for_workers(2, timeout=60)
    client.run_on_scheduler(allow, 0)
    try:
        with pytest.raises(KilledWorker) as raised:
            influence_on(client, problem.risk, problem.theta, problem.test, solve=solve, chunk=20)
    finally:
        client.run_on_scheduler(allow, dask.config.get("distributed.scheduler.allowed-failures"))
    assert "begins with test point 0" in raised.value.__notes__[0]


class Remote:
    """A scheduler and a worker, started by their commands; of them we know an address."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        contact = folder / "scheduler.json"
        self.scheduler = self.command(
            "distributed.cli.dask_scheduler",
            *("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(contact)),
        )
        wait_for(lambda: contact.is_file() and contact.read_text("utf-8").endswith("}"))
        self.address = json.loads(contact.read_text("utf-8"))["address"]

    def command(self, module, *arguments):
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return self.processes[-1]

    def worker(self):
        return self.command(
            "distributed.cli.dask_worker",
            *(self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny"),
            *("--local-directory", str(self.folder)),
        )

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


CLIENT = """
import json, sys, torch
from distributed import Client
from helpers import LOGISTIC, Risk, leave_group_out_on, mlp, ring
address, theta, groups, store = sys.argv[1:]
risk = Risk(mlp()[0], ring()[0], LOGISTIC, 0.02)
with Client(address) as client:
    leave_group_out_on(client, risk, torch.load(theta), json.loads(groups), chunk=3, store=store)
"""


def test_by_address_and_the_client_dies_and_then_the_scheduler(client, problem, alone, tmp_path):
    store, theta = tmp_path / "store", tmp_path / "theta.pt"
    torch.save(problem.theta, theta)
    remote = Remote(tmp_path)
    try:
        remote.worker()
        arguments = (remote.address, str(theta), json.dumps(MANY), str(store))
        other = subprocess.Popen([sys.executable, "-c", CLIENT, *arguments], stderr=subprocess.DEVNULL)
        wait_for(lambda: len(files(store)) >= 3)
        other.kill()
        other.wait()
        first = len(files(store))
        assert 3 <= first < 20

        with Client(remote.address, set_as_default=False) as far:
            assert far.scheduler.address == remote.address

            def kill_the_scheduler(event):
                if len(files(store)) >= first + 3 and remote.scheduler.poll() is None:
                    remote.scheduler.kill()
                    remote.scheduler.wait()

            far.subscribe_topic("chunk begun", kill_the_scheduler)
            with pytest.raises((FutureCancelledError, OSError)):  # whichever it notices first
                leave_group_out_on(far, problem.risk, problem.theta, MANY, chunk=3, store=store)
        second = len(files(store))
        assert first + 3 <= second < 20
    finally:
        remote.close()
    # On another cluster: what is missing is computed, and nothing else.
    before = begun(client)
    same(leave_group_out_on(client, problem.risk, problem.theta, MANY, chunk=3, store=store), alone)
    assert begun(client) - before == 20 - second


# ------------------------------------------------------------------------------------------- code of one's own

OWN = """
import torch
from torch import nn
FACTOR = {factor}

def helper(x):
    return x * FACTOR

def loss(f, y):
    return helper(f - y){power}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)

    def forward(self, x):
        return self.line(torch.{activation}(x))
"""


def test_the_name_of_a_chunk_sees_the_code_of_ones_own_modules(tmp_path, monkeypatch):
    """Of what is imported from a file of the reader's: a loss, what it calls, a constant, a forward."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a cached file is as old as its source, to the second
    names = []
    for factor, power, activation in (
        (1.0, ".square()", "tanh"),
        (1.0, ".square()", "tanh"),
        (2.0, ".square()", "tanh"),
        (1.0, ".abs()", "tanh"),
        (1.0, ".square()", "sigmoid"),
    ):
        text = OWN.format(factor=factor, power=power, activation=activation)
        (tmp_path / "own_module.py").write_text(text, encoding="utf-8")
        sys.modules.pop("own_module", None)
        importlib.invalidate_caches()
        own = importlib.import_module("own_module")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model, _ = flatten(own.Net())
        names.append(_name(Risk(model, ring()[0], Loss(own.loss), 0.02)))
    sys.modules.pop("own_module")
    assert names[0] == names[1]
    assert len(set(names)) == 4


CONFIGURED = """
import functools
import settings

def reads(f, y):
    return settings.FACTOR * (f - y)

def calls(f, y):
    return settings.scaled(f) - y

def imports(f, y):
    from inner import FACTOR  # which nothing else names
    return FACTOR * (f - y)

class Holds:
    module = settings

@functools.lru_cache
def cached():
    return settings.FACTOR
"""


@pytest.mark.parametrize("name", ["reads", "calls", "imports", "Holds", "cached"])
def test_the_name_of_a_chunk_sees_what_another_module_of_ones_own_holds(tmp_path, monkeypatch, name):
    monkeypatch.syspath_prepend(tmp_path)
    for each in ("settings", "inner"):
        (tmp_path / f"{each}.py").write_text("FACTOR = 1.0\ndef scaled(f):\n    return FACTOR * f\n", encoding="utf-8")
    (tmp_path / "configured.py").write_text(CONFIGURED, encoding="utf-8")
    for each in ("settings", "inner", "configured"):
        monkeypatch.delitem(sys.modules, each, raising=False)
    own, inner = importlib.import_module("configured"), importlib.import_module("inner")
    before = _name(getattr(own, name))
    assert _name(getattr(own, name)) == before
    inner.FACTOR = sys.modules["settings"].FACTOR = 2.0
    assert _name(getattr(own, name)) != before


ATTRIBUTES = {
    "array": (np.ones(1), np.zeros(1)),
    "set": ({"a"}, {"b"}),
    "namespace": (SimpleNamespace(s=1), SimpleNamespace(s=2)),
    "class": (type("In", (), {"s": 1}), type("In", (), {"s": 2})),
    "cached property": (cached_property(lambda self: 1), cached_property(lambda self: 2)),
    "few digits": (torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)),
}


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_the_name_of_a_chunk_sees_every_attribute_of_a_class(kind):
    one, other = (_name(type("Own", (), {"__module__": "__main__", "attribute": each})) for each in ATTRIBUTES[kind])
    assert one != other


def test_what_has_no_name_is_refused_before_anything_is_computed(threads, small, tmp_path):
    lock, before = threading.Lock(), begun(threads)

    def loss(f, y):
        with lock:
            return (f - y).square()

    risk = small.risk.but(loss=Loss(loss))
    with pytest.raises(TypeError, match=r"no name can be made of .*lock.*leave out store="):
        leave_group_out_on(threads, risk, small.theta, [[0]], store=tmp_path)
    assert begun(threads) == before


def test_a_package_installed_elsewhere_is_nobodys_own_code(tmp_path, monkeypatch):
    """As from the user's own folder, or from another environment by a .pth file."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "their_module.py").write_text(OWN.format(factor=1.0, power="", activation="tanh"), encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    their = importlib.import_module("their_module")
    try:
        assert _is_installed(their.loss) and _is_installed(their.Net)
    finally:
        sys.modules.pop("their_module")


def made(value, default=1, keyword=1, inner=1, name="sin", attribute=1, got=1, base=object):
    """A function and a class of one's own that differ in what is given, and in nothing else."""

    def function(x, a=default, *, b=keyword):
        return getattr(x, name)() + value + a + b

    function.__code__ = function.__code__.replace(co_consts=(*function.__code__.co_consts, inner))

    class Own(base):
        constant = attribute

        def method(self):
            return value

        @property
        def seen(self):
            return got

        @staticmethod
        def plain():
            return value + 1

    return function, Own


def test_the_name_of_a_chunk_sees_all_that_a_function_or_a_class_does():
    """What it closes over, its defaults, its constants, those of its methods and properties; the same is the same."""
    both = {"value": 2}
    only_function = ({"default": 2}, {"keyword": 2}, {"inner": 2}, {"name": "cos"})
    only_class = ({"attribute": 2}, {"got": 2}, {"base": dict})
    functions = [made(**{"value": 1} | each)[0] for each in ({}, both, *only_function)]
    classes = [made(**{"value": 1} | each)[1] for each in ({}, both, *only_class)]
    again = made(1)
    assert _name(again[0]) == _name(functions[0]) and _name(again[1]) == _name(classes[0])
    assert len({_name(each) for each in functions}) == 6
    assert len({_name(each) for each in classes}) == 5
    assert _name(1, [2]) != _name([1], 2) and _name(torch.ones(2, 1)) != _name(torch.ones(1, 2))
    assert _name(torch.ones(3)[::2]) == _name(torch.ones(2))
    assert not _is_installed(made) and _is_installed(torch.ones_like.__class__) and _is_installed(influence)
