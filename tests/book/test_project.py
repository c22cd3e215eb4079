"""The project around the book: its requirements and locks, and nothing of anyone's machine in it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from itertools import chain

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import chapters as book
from tools import environment, pins

ROOT = book.ROOT


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


REQUIREMENTS = ROOT / "requirements"
ASKED = {path.stem: path.read_text(encoding="utf-8") for path in sorted(REQUIREMENTS.glob("*.in"))}
LOCKS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(REQUIREMENTS.glob("*.txt"))}


def asked(name):
    """Name, version and reason of what one .in file asks for; None where a line has no pin or no reason."""
    lines = [line for line in ASKED[name].splitlines() if re.match(r"\w", line)]
    return [re.fullmatch(r"([\w-]+)==([\w.]+)  # (.+)", line) for line in lines]


def direct():
    """The names of everything that is asked for."""
    return {match[1] for name in ASKED for match in asked(name)}


@pytest.mark.parametrize("name", ASKED)
def test_every_requirement_is_pinned_and_has_a_reason(name):
    assert asked(name)
    assert all(asked(name))


def test_nothing_is_asked_for_twice_with_different_versions():
    versions = {(match[1], match[2]) for name in ASKED for match in asked(name)}
    assert len(versions) == len(direct())


def faults_of_lock(lock, wanted=()):
    """What is wrong with the text of a lock that should have these (name, version)."""
    blocks = re.findall(
        r"^([\w-]+)==([^\s;]+)(?: ; [^\\\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.M
    )
    named = re.findall(r"^[^\s#][^\n]*", lock, re.M)
    locked = {name: version for name, version, _ in blocks}
    found = [] if len(locked) == len(named) else ["a line is not a version with hashes, or a package is there twice"]
    found += [f"{name} {version} is not in it" for name, version in wanted if locked.get(name) != version]
    found += [f"{name} belongs to a build of torch" for name in locked if re.match("torch|nvidia|cuda|triton", name)]
    return found + [
        f"{word} names a place" for word in re.findall(r"\S*(?:://|file:|--index|--find|--extra| @ )\S*", lock)
    ]


@pytest.mark.parametrize("name", LOCKS)
def test_lock_is_made_of_what_is_asked_for(name):
    files = [name, *re.findall(r"^-r (\w+)\.in$", ASKED[name], re.M)]
    wanted = [(match[1], match[2]) for file in files for match in asked(file) if match[1] != "torch"]
    assert not faults_of_lock(LOCKS[name], wanted)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("numpy==", "numpy==1."),
        ("numpy==", "number==1."),
        ("    --hash=sha256:", "    --hash=md5:"),
        ("numpy==", "torch==2.13.0 \\\n    --hash=sha256:" + 64 * "0" + "\nnumpy=="),
        ("numpy==", "nvidia-nccl==1 \\\n    --hash=sha256:" + 64 * "0" + "\nnumpy=="),
        ("numpy==", "six>=1\nnumpy=="),
        ("numpy==", "six @ file:///x/six.whl\nnumpy=="),
        ("numpy==", "--index-url https://example.org/simple\nnumpy=="),
    ],
)
def test_a_faulty_lock_is_noticed(old, new):
    wanted = [(match[1], match[2]) for match in asked("book") if match[1] != "torch"]
    assert faults_of_lock(LOCKS["book"].replace(old, new, 1), wanted)


def test_the_locks_agree():
    for name in LOCKS:
        assert pins.pins(f"{name}.txt").items() <= pins.pins("tools.txt").items()
    assert LOCKS.keys() == ASKED.keys()


def missing_from(locked):
    """What installed packages of a lock need here and the lock has not."""
    missing = {}
    for name in locked:
        with contextlib.suppress(metadata.PackageNotFoundError):  # of another system or Python
            for text in metadata.requires(name) or []:
                need = Requirement(text)
                wanted = not need.marker or need.marker.evaluate({"extra": ""})
                if wanted and canonicalize_name(need.name) not in locked:
                    missing.setdefault(canonicalize_name(need.name), []).append(name)
    return missing


def test_the_lock_is_complete():
    excluded = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"][
        "exclude-dependencies"
    ]
    assert not missing_from(pins.pins("tools.txt")).keys() - {"torch", *excluded}


def test_an_incomplete_lock_is_noticed():
    locked = pins.pins("tools.txt")
    del locked["tornado"]
    assert "distributed" in missing_from(locked)["tornado"]


def test_what_is_installed_is_what_is_locked():
    different = {}
    for name, version in pins.pins("tools.txt").items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            if metadata.version(name) != version:
                different[name] = metadata.version(name)
    assert not different


def test_only_what_the_notebooks_run_on_decides_the_digits():
    names = {line.split("==")[0] for line in pins.digits_pins()}
    assert {match[1] for match in asked("book")} <= names
    assert not {match[1] for match in asked("tools")} & names - {match[1] for match in asked("book")} - {
        "filelock",
        "setuptools",
    }


# What a requirement is called where it is used, if neither by its own name nor by what is imported from it.
USED_AS = {"pytest-xdist": "loadfile", "brotli": "woff2"}
PROVIDERS = metadata.packages_distributions()  # what is imported -> what was installed for it


def imported_from(name):
    """What can be imported from a requirement."""
    return [module for module, names in PROVIDERS.items() if name in map(canonicalize_name, names)]


def test_every_requirement_is_used():
    text = (
        "\n".join(
            path.read_text(encoding="utf-8")
            for path in tracked()
            if path.parent.name != "requirements" and path.name != "test_project.py"
        )
        + "python3 (ipykernel)"
    )
    known_as = {name: [USED_AS.get(name, name), name.replace("-", "_"), *imported_from(name)] for name in direct()}
    assert not {name for name, words in known_as.items() if not re.search(rf"\b({'|'.join(words)})\b", text)}


STANDARD = set(sys.stdlib_module_names)
OF_THE_PAGES = {path.stem for path in (ROOT / "book" / "_ext").glob("*.py")}
OURS = {"helpers", "tools", "tests", "benchmarks", "conftest", "settings", "inner"} | OF_THE_PAGES  # tests write two
# Come with a requirement, by that requirement's own promise.
COMES_WITH = {
    **dict.fromkeys(["yaml", "sphinx", "docutils", "pygments", "myst_nb", "jupyter_cache"], "jupyter-book"),
    **dict.fromkeys(["dask", "cloudpickle", "psutil"], "distributed"),
    "IPython": "ipykernel",
    "PIL": "matplotlib",
    "fontTools": "matplotlib",
    "jupyter_client": "nbclient",
    "jupyter_server": "jupyterlab",
    "packaging": "pytest",
    "ruamel": "check-jsonschema",
}


def test_every_import_is_required():
    required = {module for name in direct() for module in imported_from(name)}
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
    assert set(COMES_WITH.values()) <= direct()


def test_binder_takes_the_lock_and_the_cpu_build_of_torch():
    text = (ROOT / "binder" / "postBuild").read_text(encoding="utf-8")
    assert "--require-hashes -r requirements/binder.txt" in text
    assert f'--index-url {environment.CPU_INDEX} "torch==${{version}}+cpu"' in text
    assert not (ROOT / "binder" / "requirements.txt").exists()  # would be installed before, without hashes
    assert (ROOT / "binder" / "runtime.txt").read_text(encoding="utf-8").strip() == "python-3.11"


def test_binder_reads_the_version_of_torch(tmp_path):
    command = re.search(r"version=\$\((.+)\)", (ROOT / "binder" / "postBuild").read_text(encoding="utf-8"))[1]
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == pins.pins("book.in")["torch"]


def floors():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in chain(project["dependencies"], *project["optional-dependencies"].values())]


def test_the_pins_satisfy_the_floors():
    locked = pins.pins("book.txt") | {"torch": pins.pins("book.in")["torch"]}
    outside = [need for need in floors() if need.name != "hessian-book-helpers"]
    assert outside
    assert all(need.specifier.contains(locked[need.name]) for need in outside)


def test_an_extra_has_everything_that_the_notebooks_import():
    named = {need.name for need in floors()}
    known = STANDARD | OURS | {module for name in named for module in imported_from(name)}
    known |= {module for module, name in COMES_WITH.items() if name in named}
    code = "\n".join(cell.source for path in book.chapters() for cell in book.code_cells(book.read_chapter(path)))
    assert not set(re.findall(r"^\s*(?:from|import) (\w+)", code, re.MULTILINE)) - known


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no executable bit")
def test_scripts_can_be_executed():
    assert (ROOT / "binder" / "postBuild").stat().st_mode & 0o100
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
