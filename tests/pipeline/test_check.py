"""`make test` and `make check`: what is tested does not depend on a reader's shell, and nothing is left behind."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest

from tools import affected, check
from tools import chapters as book

from .conftest import hear_ctrl_c


def test_a_readers_shell_does_not_change_what_is_tested(monkeypatch):
    settings = {
        "PYTHONOPTIMIZE": "1", "PYTHONPATH": "/elsewhere", "PYTHONWARNINGS": "ignore", "MPLBACKEND": "Cairo",
        "JUPYTER_PATH": "/elsewhere", "PYTEST_ADDOPTS": "-k nothing",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    kept = check.environment()
    assert not settings.keys() & kept.keys()
    assert kept["PATH"] == os.environ["PATH"]


def test_an_assertion_is_one_in_every_step(monkeypatch, capfd):
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    step = check.Step("asserts", "timeit", "-n1", "-r1", "assert False", beside_others=True)
    assert not step.passes()
    assert "AssertionError" in capfd.readouterr().out


def test_what_failed_comes_first_with_its_notebook_in_order():
    """Cell 2 without cells 0 and 1 before it would fail again, whatever was mended."""
    spec = importlib.util.spec_from_file_location("ordering", book.ROOT / "conftest.py")
    ordering = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ordering)
    cells = [f"notebooks/02-chain-rule.ipynb::Cell {k}" for k in range(3)]
    kept = {
        ordering.FAILED: {cells[2]: True},
        ordering.SECONDS: {"tests/a.py": 9.0, "notebooks/02-chain-rule.ipynb": 1.0},
    }
    config = SimpleNamespace(
        getoption=lambda name: [], cache=SimpleNamespace(get=lambda key, default: kept.get(key, default))
    )
    items = [SimpleNamespace(nodeid=name) for name in ("tests/a.py::test", *cells)]
    ordering.pytest_collection_modifyitems(config, items)
    assert [item.nodeid for item in items] == [*cells, "tests/a.py::test"]


@pytest.fixture
def steps(monkeypatch):
    """What would have been run; every step passes but those whose module is in `failing`."""
    ran, failing = [], set()

    class Step:
        def __init__(self, title, *arguments, beside_others=False):
            ran.append(arguments)
            self.title, self.arguments, self.start = title, arguments, time.perf_counter()

        def passes(self):
            return self.arguments[0] not in failing

        def end(self):
            pass

    monkeypatch.setattr(check, "Step", Step)
    return ran, failing


def modules(ran):
    return [arguments[0] for arguments in ran]


def test_everything_is_run_even_if_a_step_fails(steps, capsys):
    ran, failing = steps
    assert check.everything([]) == 0
    assert sorted(modules(ran)) == ["mypy", "pytest", "ruff", "ruff", "tools.browser", "tools.build", "tools.layout"]
    failing.add("tools.build")
    assert check.everything([]) == 1
    assert modules(ran)[-1] == "pytest"
    assert "FAILED: the book" in capsys.readouterr().out


def test_a_changed_chapter_is_executed_built_and_tested(steps):
    ran, _ = steps
    assert check.some(["03"], ["-x"]) == 0
    assert modules(ran) == ["pytest", "tools.browser", "tools.layout", "tools.execute", "tools.build", "pytest"]
    assert ran[2][-1] == ran[3][-1] == "03-argmin"
    beside, last = ran[0], ran[-1]
    assert {"tests/mistakes/test_planted_in_chapters.py", "--about=03-argmin", "-x"} <= set(beside)
    assert {"notebooks/03-argmin.ipynb", "--about=03-argmin", "-x"} <= set(last)
    assert set(affected.select(["book/03-argmin.md"]).tests) <= {*beside, *last}


def test_a_changed_helper_leaves_chapters_alone_and_says_so(steps, monkeypatch, capsys):
    ran, _ = steps
    monkeypatch.setattr(affected, "changed", lambda: ["helpers/risk.py", "book/03-argmin.md"])
    assert check.some([], []) == 0
    assert sorted(modules(ran)) == ["mypy", "pytest", "ruff", "ruff"]
    assert "tests/helpers" in ran[-1]
    assert not [argument for argument in ran[-1] if argument.startswith(("notebooks", "tests/pages", "tests/book"))]
    assert "make book" in capsys.readouterr().out


def test_no_change_runs_nothing_and_a_wrong_name_is_an_error(steps, monkeypatch, capsys):
    ran, _ = steps
    monkeypatch.setattr(affected, "changed", list)
    assert check.some([], []) == 0
    assert check.some(["77"], []) == 1
    assert "77" in capsys.readouterr().err
    assert ran == []


def test_the_tests_beside_the_book_count(steps, monkeypatch):
    _, failing = steps
    assert check.some(["03"], []) == 0
    monkeypatch.setattr(check, "tests", lambda *arguments: True)
    failing.add("pytest")
    assert check.some(["03"], []) == 1


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="Ctrl-C reaches a group of processes otherwise on this system")
def test_ctrl_c_leaves_no_process_behind():
    program = textwrap.dedent(
        """
        import sys
        from tools import check, command
        def main():
            sleep = "import os, time; print(os.getpid(), flush=True); time.sleep(99)"
            step = check.Step("sleep", "timeit", "-n1", "-r1", sleep)
            return 0 if step.passes() else 1
        sys.exit(command.run(main))
        """
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program], cwd=book.ROOT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    assert run.stdout.readline() == "== sleep\n"
    inner = int(run.stdout.readline())
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "Interrupted" in said
    with pytest.raises(ProcessLookupError):
        os.kill(inner, 0)
