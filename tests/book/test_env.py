"""The environment: what is made, what is repaired, what is left alone, and what is said. No package is installed."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools import env, environment, pins

run = environment.run
TORCH = pins.pins("book.in")["torch"]


class Pip:
    """Makes a real environment, without pip, and installs next to nothing in it."""

    def __init__(self):
        self.asked = []  # what pip was told to install
        self.without = ()  # what it does not find
        self.made = 0

    def __call__(self, *command, **options):
        words = [str(word) for word in command]
        if words[1:3] == ["-m", "venv"]:
            self.made += 1
            result = run(*words[:3], "--without-pip", *words[3:])
            self.add("pip", "23.0")
            return result
        if words[1:4] != ["-m", "pip", "install"]:
            return run(*command, **options)
        last = words[-1]
        if any(word in last for word in self.without):
            return SimpleNamespace(returncode=1, stderr="no such package")
        if "--dry-run" not in words:
            self.asked.append(" ".join(words[words.index("--no-input") + 1 :]))
            self.add(
                "torch" if "torch" in last else "helpers" if last == "." else "demo", last.partition("==")[2] or "1"
            )
        return SimpleNamespace(returncode=0, stderr="")

    def add(self, name, version):
        folder = environment.inside()[1]
        info = folder / f"{name}-{version}.dist-info"
        for path in (folder / name / "__init__.py", info / "METADATA"):
            path.parent.mkdir(exist_ok=True)
            path.write_text("", encoding="utf-8")
        record = [f"{name}/__init__.py,,", f"{name}/never.pyc,,", f"{info.name}/METADATA,,", f"{info.name}/RECORD,,"]
        (info / "RECORD").write_text("\n".join(record), encoding="utf-8")


def place(monkeypatch, venv):
    monkeypatch.setattr(environment, "VENV", venv)
    monkeypatch.setattr(environment, "PYTHON", venv / environment.PYTHON.relative_to(environment.PYTHON.parents[1]))
    monkeypatch.setattr(environment, "STAMP", venv / "book-stamp")


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """Where the environment goes: a path as people have them."""
    place(monkeypatch, tmp_path / "ünï 日本 x" / ".venv")
    return environment.VENV


@pytest.fixture
def pip(venv, monkeypatch):
    pip = Pip()
    monkeypatch.setattr(environment, "run", pip)
    monkeypatch.setattr(environment, "reachable", lambda url: False)
    for name in ("BOOK_ALLOW_CUDA", "BOOK_ADOPT_VENV"):
        monkeypatch.delenv(name, raising=False)
    return pip


@pytest.fixture
def ready(venv, pip):
    """A finished environment; `pip.asked` and `pip.made` count from here."""
    assert environment.main() == 0
    pip.asked.clear()
    pip.made = 0
    return venv


LOCK = "--no-deps --require-hashes -r requirements/tools.txt"
HELPERS = "--no-deps --no-build-isolation -e ."


def test_a_fresh_one_gets_torch_then_the_lock_then_the_helpers(venv, pip):
    assert environment.main() == 0
    assert [line for line in pip.asked if "torch" not in line] == [LOCK, HELPERS]
    assert "torch" in pip.asked[0]
    assert pip.made == 1


def test_what_is_up_to_date_is_left_alone(ready, pip):
    before = environment.STAMP.stat().st_mtime_ns
    assert environment.main() == environment.main(this_python=True) == 0
    assert not pip.asked
    assert environment.STAMP.stat().st_mtime_ns == before


def change(monkeypatch, name):
    wanted = environment.wanted()
    monkeypatch.setattr(environment, "wanted", lambda: {**wanted, name: "another"})


def test_a_new_lock_is_installed_into_what_is_there(ready, pip, monkeypatch):
    change(monkeypatch, "lock")
    assert environment.main() == 0
    assert (pip.asked, pip.made) == ([LOCK, HELPERS], 0)


def test_a_change_of_the_project_needs_no_network(ready, pip, monkeypatch):
    change(monkeypatch, "project")
    pip.without = ("setuptools", "tools.txt")
    assert environment.main() == 0
    assert (pip.asked, pip.made) == ([HELPERS], 0)


def link_is_broken(venv, monkeypatch):
    environment.PYTHON.unlink()
    environment.PYTHON.symlink_to("/nowhere/python3")


def python_does_not_start(venv, monkeypatch):
    environment.PYTHON.unlink()
    environment.PYTHON.write_text("not a program", encoding="utf-8")


def clone_was_moved(venv, monkeypatch):
    stamp = json.loads(environment.STAMP.read_text(encoding="utf-8"))
    environment.STAMP.write_text(json.dumps({**stamp, "root": "/elsewhere"}), encoding="utf-8")


def pip_is_gone(venv, monkeypatch):
    environment.STAMP.write_text("", encoding="utf-8")
    shutil.rmtree(environment.inside()[1] / "pip")


@contextlib.contextmanager
def python_is(monkeypatch, version):
    """The environment's Python says that it is this version, until it is made anew."""
    real, made = environment.inside, environment.make
    packages = real()[1]
    with monkeypatch.context() as patch:
        patch.setattr(environment, "inside", lambda: (version, packages))

        def make():
            patch.setattr(environment, "inside", real)
            made()

        patch.setattr(environment, "make", make)
        yield


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (link_is_broken, "does not start"),
        (python_does_not_start, "does not start"),
        (clone_was_moved, "made in another folder"),
        (pip_is_gone, "no pip"),
    ],
)
def test_what_cannot_be_used_is_made_anew(ready, pip, monkeypatch, capfd, fault, why):
    fault(ready, monkeypatch)
    assert environment.main() == 0
    assert pip.made == 1
    assert why in capfd.readouterr().out
    assert LOCK in pip.asked
    assert environment.up_to_date(this_python=True)


def test_one_of_an_old_python_is_made_anew(ready, pip, monkeypatch, capfd):
    environment.STAMP.write_text("", encoding="utf-8")
    with python_is(monkeypatch, (3, 10)):
        assert environment.main() == 0
    assert pip.made == 1
    assert "it is Python 3.10, not 3." in capfd.readouterr().out


def test_another_python_is_kept_unless_one_is_named(ready, pip, monkeypatch, capfd):
    with python_is(monkeypatch, (3, 99)):
        assert environment.main() == 0
        assert pip.made == 0
        assert environment.main(this_python=True) == 0
    assert pip.made == 1
    assert "it is Python 3.99, not 3." in capfd.readouterr().out


def test_without_network_nothing_that_works_is_replaced(ready, pip, monkeypatch, capfd):
    pip.without = ("setuptools",)
    with python_is(monkeypatch, (3, 99)):
        assert environment.main(this_python=True) == 1
    assert "No network?" in capfd.readouterr().err
    assert pip.made == 0
    assert environment.main() == 0
    assert not pip.asked


def test_lost_packages_are_put_back(ready, pip):
    packages = environment.inside()[1]
    shutil.rmtree(packages / "demo")
    assert environment.main() == 0
    assert (pip.asked, pip.made) == ([LOCK, HELPERS], 0)  # torch is whole, so it stays
    assert (packages / "demo" / "__init__.py").exists()


def test_what_was_cut_short_is_installed_again(venv, pip):
    assert environment.main() == 0
    packages = environment.inside()[1]
    (packages / "demo-1.dist-info" / "RECORD").unlink()  # pip writes it last
    (packages / "demo" / "__init__.py").write_text("half", encoding="utf-8")
    environment.forget_damaged(packages)
    assert not (packages / "demo-1.dist-info").exists()
    assert (packages / f"torch-{TORCH}+cpu.dist-info").exists()


@pytest.mark.parametrize("stamp", [b"\xff\xfe\x00", b"", b"[]", b"null", b"{", b"0" * 64])
def test_an_unreadable_stamp_means_not_finished(ready, pip, stamp):
    environment.STAMP.write_bytes(stamp)
    assert environment.main() == 0
    assert (pip.asked, pip.made) == ([LOCK, HELPERS], 0)


def of_a_person(venv):
    """An environment that somebody else made, and everything in it."""
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    (environment.inside()[1] / "pip").mkdir()
    (venv / "notes.txt").write_text("mine", encoding="utf-8")
    return sorted(venv.rglob("*"))


def test_one_that_a_person_made_is_left_as_it_is(venv, pip, capsys):
    before = of_a_person(venv)
    assert environment.main() == 1
    assert sorted(venv.rglob("*")) == before
    message = capsys.readouterr().err
    assert all(remedy in message for remedy in ("move it away", "BOOK_VENV=", "BOOK_ADOPT_VENV=1"))


def test_one_that_a_person_lends_is_used_but_never_replaced(venv, pip, monkeypatch, capsys):
    of_a_person(venv)
    monkeypatch.setenv("BOOK_ADOPT_VENV", "1")
    assert environment.main() == 0
    assert LOCK in pip.asked
    monkeypatch.delenv("BOOK_ADOPT_VENV")
    assert environment.main() == 0
    link_is_broken(venv, monkeypatch)
    assert environment.main() == 1
    assert "You lent" in capsys.readouterr().err
    assert (venv / "notes.txt").exists()
    assert pip.made == 0


def test_an_empty_folder_is_taken(venv, pip):
    venv.mkdir(parents=True)
    assert environment.main() == 0


def test_a_file_in_the_way_is_named(venv, pip, capsys):
    venv.parent.mkdir()
    venv.write_text("mine", encoding="utf-8")
    assert environment.main() == 1
    assert "is a file" in capsys.readouterr().err
    assert venv.read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="a link needs rights there")
def test_links(venv, pip, capsys):
    target = venv.parent / "target"
    venv.parent.mkdir()
    venv.symlink_to(target)
    assert environment.main() == 1
    assert "leads nowhere" in capsys.readouterr().err
    target.mkdir()
    assert environment.main() == 0
    link_is_broken(venv, None)
    assert environment.main() == 0
    assert venv.is_symlink()


def test_where_nothing_can_be_written_it_says_so(tmp_path, monkeypatch, pip, capsys):
    (tmp_path / "file").touch()
    place(monkeypatch, tmp_path / "file" / ".venv")
    assert environment.main() == 1
    assert "BOOK_VENV=" in capsys.readouterr().err


def test_without_network_it_says_so_at_once_and_goes_on_from_there(venv, pip, capsys):
    pip.without = ("setuptools",)
    assert environment.main() == 1
    message = capsys.readouterr().err
    assert "No network?" in message
    assert "no such package" in message
    assert not pip.asked
    pip.without = ()
    assert environment.main() == 0
    assert pip.made == 1


@pytest.mark.parametrize("where", ["torch", "tools.txt", "."])
def test_what_pip_cannot_install_stops_it(venv, pip, capsys, where):
    pip.without = (where,)
    assert environment.main() == 1
    assert "pip" in capsys.readouterr().err
    assert not environment.up_to_date(this_python=False)


@pytest.fixture
def linux(monkeypatch):
    monkeypatch.setattr(environment.platform, "system", lambda: "Linux")


def test_gigabytes_of_cuda_stop_the_installation(linux, venv, pip, capsys):
    pip.without = ("+cpu",)
    assert environment.main() == 1
    message = capsys.readouterr().err
    assert not pip.asked
    assert all(
        remedy in message for remedy in (environment.CPU_INDEX, f'"{environment.PYTHON}" -m pip', "BOOK_ALLOW_CUDA=1")
    )
    pip.add("torch", f"{TORCH}+cpu")  # the second remedy
    assert environment.main() == 0
    assert (pip.asked, pip.made) == ([LOCK, HELPERS], 1)


def test_cuda_can_be_allowed(linux, venv, pip, monkeypatch):
    pip.without = ("+cpu",)
    monkeypatch.setenv("BOOK_ALLOW_CUDA", "1")
    assert environment.main() == 0
    assert pip.asked[0] == f"torch=={TORCH}"  # with what it needs: CUDA


def test_a_cpu_build_is_taken_wherever_it_is(linux, venv, pip):
    assert environment.main() == 0
    assert pip.asked[0] == f"--no-deps torch=={TORCH}+cpu"


def test_from_the_index_of_cpu_builds_only_torch_is_taken(linux, venv, pip, monkeypatch):
    monkeypatch.setattr(environment, "reachable", lambda url: True)
    assert environment.main() == 0
    assert pip.asked[0] == f"--no-deps --index-url {environment.CPU_INDEX} torch=={TORCH}+cpu"
    assert all(environment.CPU_INDEX not in line for line in pip.asked[1:])


def test_elsewhere_plain_torch_is_a_cpu_build(venv, pip, monkeypatch):
    monkeypatch.setattr(environment.platform, "system", lambda: "Darwin")
    assert environment.main() == 0
    assert pip.asked[0] == f"--no-deps torch=={TORCH}"


def test_an_interrupted_one_is_taken_up(venv, pip, monkeypatch):
    def interrupted(*command, **options):
        if "requirements/tools.txt" in command:
            raise KeyboardInterrupt
        return pip(*command, **options)

    monkeypatch.setattr(environment, "run", interrupted)
    assert environment.main() == 130
    monkeypatch.setattr(environment, "run", pip)
    pip.asked.clear()
    assert environment.main() == 0
    assert (pip.asked, pip.made) == ([LOCK, HELPERS], 1)


def holder(stamp):
    """Another process that has the lock, until it ends; it says so."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from tools.environment import try_lock\n"
        "with open(sys.argv[2], 'a+') as file: print(try_lock(file), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(pins.ROOT), str(stamp)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    return process


def test_two_at_once_take_turns_and_a_killed_one_holds_up_nobody(ready):
    process = holder(environment.STAMP)
    with environment.STAMP.open("a+", encoding="utf-8") as file:
        assert not environment.try_lock(file)
        assert environment.recorded()  # reading is not held up
        process.kill()
        process.wait()
        assert environment.try_lock(file)


def test_the_second_uses_what_the_first_made(ready, pip, monkeypatch, capsys):
    answers = iter([False, True])  # out of date at first; done when our turn has come
    monkeypatch.setattr(environment, "up_to_date", lambda this_python: next(answers))
    assert environment.main() == 0
    assert not pip.asked


HOSTILE = {
    "PYTHONHOME": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PIP_TARGET": "/nowhere",
    "PIP_USER": "1",
    "PIP_REQUIRE_HASHES": "1",
}


def test_a_readers_settings_do_not_reach_what_is_run(monkeypatch):
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    seen = json.loads(run(sys.executable, "-c", code, capture_output=True, text=True).stdout)
    assert not {name: seen.get(name) for name, value in HOSTILE.items() if seen.get(name) == value}


@pytest.fixture
def too_old(monkeypatch):
    monkeypatch.setattr(env, "OLDEST", (99, 0))


def test_a_python_that_is_too_old_looks_for_a_newer_one(too_old, monkeypatch, capfd):
    started = []
    monkeypatch.setattr(env.subprocess, "call", lambda command, **options: started.append(command) or 0)
    assert env.main([]) == 0
    assert started[-1] == ["python3.13", str(pins.ROOT / "tools" / "env.py")]
    started.clear()
    assert env.main(["--this"]) == 1  # this one was asked for
    assert not started
    assert "needs Python 3.11 or newer; this is 3." in capfd.readouterr().err


def test_a_newer_python_that_does_not_start_is_passed_over(too_old, monkeypatch, capfd):
    monkeypatch.setattr(env.subprocess, "call", lambda command, **options: 127)  # a shim of pyenv
    assert env.main([]) == 1
    assert "make PYTHON=" in capfd.readouterr().err


def old_pythons():
    names = [shutil.which(name) for name in ("python2.7", "python3.6", "python3.8", "python3.10")]
    versions = Path.home() / ".pyenv" / "versions"
    return [name for name in names if name and "shims" not in name] + [
        str(path) for path in versions.glob("*/bin/python")
    ]


def test_every_old_python_says_that_it_is_too_old():
    source = (pins.ROOT / "tools" / "env.py").read_bytes()
    assert source.isascii()
    for program in old_pythons():
        version = subprocess.check_output(
            [program, "-c", "import sys; print(sys.version_info[:2] < (3, 11))"], text=True
        )
        if version.strip() == "True":
            result = subprocess.run([program, "tools/env.py", "--this"], cwd=pins.ROOT, capture_output=True, text=True)
            assert (result.returncode, "Traceback" in result.stderr) == (1, False)
            assert "The book needs Python 3.11" in result.stderr
