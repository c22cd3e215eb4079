"""The project around the book: its workflows, its requirements, and nothing of anyone's machine in it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from tools import chapters as book

ROOT = book.ROOT
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def schema_check(schema, path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_is_one(path):
    result = schema_check("vendor.github-workflows", path)
    assert result.returncode == 0, result.stdout


def test_dependabot_is_configured():
    result = schema_check("vendor.dependabot", ROOT / ".github" / "dependabot.yml")
    assert result.returncode == 0, result.stdout


def test_a_wrong_workflow_is_noticed(tmp_path):
    path = tmp_path / "w.yml"
    path.write_text("name: x\non: [push]\njobs: {a: {runs-on: ubuntu-latest, steps: [{use: actions/checkout@v4}]}}\n")
    assert schema_check("vendor.github-workflows", path).returncode != 0


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_make_target_of_a_workflow_exists(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        for step in job.get("steps", []):
            assert set(re.findall(r"^make ([\w-]+)", step.get("run", ""), re.MULTILINE)) <= targets


def tracked():
    """The files of the repository; without git, the folders that hold them."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\n") if listed.returncode == 0 else []
    paths = [ROOT / name for name in names if name]
    if not paths:
        paths = [*ROOT.glob("*.*"), *(path for name in ("book", "tools", "tests") for path in (ROOT / name).rglob("*"))]
    return [path for path in paths if path.is_file() and path.suffix not in (".png", ".ipynb", ".pyc")]


# Folders of one machine. Examples in the tests stand under names that are nobody's.
MACHINE = re.compile(r"(?<![\w.~])/(?:work|root|mnt|farm|home/(?!ann\b)\w+)/|(?<![\w.])\.\./" + "shared")


def test_no_path_of_a_machine_is_left():
    found = {str(path.relative_to(ROOT)): MACHINE.findall(path.read_text(encoding="utf-8")) for path in tracked()}
    assert not {name: paths for name, paths in found.items() if paths}


@pytest.mark.parametrize("text", ["see /wor" + "k/main", "cd /home" + "/bob/x", ".." + "/shared/DESIGN.md"])
def test_a_path_of_a_machine_is_noticed(text):
    assert MACHINE.search(text)


def requirements():
    """Name and reason of every pinned requirement."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [re.fullmatch(r"([\w-]+)==([\w.]+)  # (.+)", line) for line in lines if re.match(r"\w", line)]


def test_every_requirement_is_pinned_and_has_a_reason():
    assert requirements()
    assert all(requirements())


# What a requirement is called where it is used, if not by its own name.
USED_AS = {
    "jupyter-book": "jupyter-book",
    "pytest-xdist": "loadfile",
    "scikit-learn": "sklearn",
    "curvlinops-for-pytorch": "curvlinops",
    "check-jsonschema": "check_jsonschema",
    "axe-playwright-python": "axe_playwright_python",
}


def test_every_requirement_is_used():
    text = (
        "\n".join(
            path.read_text(encoding="utf-8")
            for path in tracked()
            if path.name not in ("requirements.txt", "test_project.py")
        )
        + "python3 (ipykernel)"
    )
    unused = [
        match[1]
        for match in requirements()
        if not re.search(rf"\b{USED_AS.get(match[1], match[1].replace('-', '[-_]'))}\b", text)
    ]
    assert not unused


STANDARD = set(sys.stdlib_module_names)
OURS = {"helpers", "tools", "tests", "benchmarks", "page_visits", "page_furniture", "conftest"}
# Come with a requirement, by that requirement's own promise.
COMES_WITH = {
    **dict.fromkeys(["yaml", "sphinx", "docutils", "myst_nb", "jupyter_cache", "tornado"], "jupyter-book"),
    **dict.fromkeys(["numpy", "PIL"], "matplotlib"),
    **dict.fromkeys(["dask", "cloudpickle"], "distributed"),
    "IPython": "ipykernel",
    "ruamel": "check-jsonschema",
    "sklearn": "scikit-learn",
    "curvlinops": "curvlinops-for-pytorch",
}


def test_every_import_is_required():
    required = {match[1].replace("-", "_") for match in requirements()}
    # The libraries that the book is compared with have pins of their own; one of them, in a comment, is on no index.
    beside = (ROOT / "benchmarks" / "requirements.txt").read_text(encoding="utf-8").replace("-", "_")
    compared = re.findall(r"^(?:# )?(\w+)(?:\[\w+\])?(?:==| \d)", beside, re.MULTILINE)
    missing = {}
    for path in tracked():
        if path.suffix != ".py":
            continue
        text = path.read_text(encoding="utf-8")
        imported = re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)
        optional = re.findall(r"""importorskip\(["'](\w+)""", text)
        optional += compared if path.parent.name == "benchmarks" else []
        for name in set(imported) - set(optional) - STANDARD - OURS - required - set(COMES_WITH):
            missing.setdefault(name, []).append(path.name)
    assert not missing


def pins(path):
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def test_binder_has_the_same_pins():
    here, there = pins(ROOT / "requirements.txt"), pins(ROOT / "binder" / "requirements.txt")
    assert {name: there[name] for name in there.keys() & here.keys()} == {
        name: here[name] for name in there.keys() & here
    }
    assert {"torch", "matplotlib", "ipykernel", "myst-nb", "jupyterlab", "jupyterlab_myst"} <= there.keys()


def test_binder_takes_the_cpu_build_of_torch_and_a_python_of_ours():
    text = (ROOT / "binder" / "requirements.txt").read_text(encoding="utf-8")
    assert text.startswith("--extra-index-url https://download.pytorch.org/whl/cpu\n")
    assert re.search(r"^torch==[\d.]+\+cpu$", text, re.MULTILINE)
    assert (ROOT / "binder" / "runtime.txt").read_text(encoding="utf-8").strip() == "python-3.11"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no executable bit")
def test_scripts_can_be_executed():
    assert (ROOT / "binder" / "postBuild").stat().st_mode & 0o100
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
