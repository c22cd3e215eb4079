"""The tests in other environments than `.venv`: `make matrix`, or one session: `make matrix SESSION="-s oldest"`.

Only a session that names no Python runs in `.venv`. On a Linux without PyTorch's CPU index, a session that needs torch
asks for BOOK_ALLOW_CUDA=1, as `make book` does.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from itertools import product
from pathlib import Path

import nox

from tools.binder import copy_of_repository
from tools.environment import CPU_INDEX, reachable
from tools.pins import pins

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
# The repository's conftest.py is for the notebooks, and wants more than the helpers do.
HELPERS = ["python", "-m", "pytest", "-q", "-n", "2", "--confcutdir=tests/helpers", "tests/helpers"]
CAPABILITIES = ["default", "avx2", "avx512"]  # torch's names for the instruction sets, each beyond the one before


def install_torch(session: nox.Session, requirement: str) -> None:
    """Torch with what it needs, from PyTorch's CPU index where that can be reached."""
    if platform.system() == "Linux" and reachable(CPU_INDEX):
        session.install("--index-url", CPU_INDEX, requirement)
    elif platform.system() == "Linux" and os.environ.get("BOOK_ALLOW_CUDA") != "1":
        session.error(
            f"{CPU_INDEX} cannot be reached, and PyPI's {requirement} brings CUDA: allow it, BOOK_ALLOW_CUDA=1"
        )
    else:
        session.install(requirement)


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """All of `make test`, with each Python that the book promises."""
    folder = {"BOOK_VENV": session.virtualenv.location, "BOOK_ADOPT_VENV": "1"}
    session.run("python", "tools/env.py", "--this", env=folder)
    session.run("python", "-m", "tools.check", *session.posargs)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """The helpers with the oldest versions that pyproject.toml allows."""
    extras = PROJECT["optional-dependencies"]
    floors = [*PROJECT["dependencies"], *(one for name in sorted(extras) for one in extras[name])]
    floors = [floor.replace(">=", "==") for floor in floors if not floor.startswith(PROJECT["name"])]
    install_torch(session, floors[0])
    tools = pins("tools.in")
    session.install(*floors, *(f"{name}=={tools[name]}" for name in ("pytest", "pytest-xdist", "hypothesis")))
    session.install("--no-deps", ".")
    session.run(*HELPERS, *session.posargs)


@nox.session(python="3.13")
def newest(session: nox.Session) -> None:
    """What the next upgrade meets: the helpers, and every chapter executed afresh, with the newest versions."""
    # Jupyter Book stays on its 1.x line. Torch's registry is asked first, and then what came is left as it is.
    names = [name for file in ("book.in", "tools.in") for name in pins(file)]
    wanted = ["jupyter-book<2" if name == "jupyter-book" else name for name in names if name != "torch"]
    install_torch(session, "torch")
    session.install(*wanted)
    # In a copy: the notebooks of this checkout are those of the pins.
    folder = Path(session.create_tmp())
    shutil.rmtree(folder / "repository", ignore_errors=True)
    session.chdir(copy_of_repository(folder))
    session.install("--no-deps", "-e", ".")
    session.run("python", "-m", "pip", "list")
    # From torch 2.14 on, its own forward mode warns, and so do libraries on import: in kernels, in workers, everywhere.
    ignore = 'warnings.filterwarnings("ignore", ".torch.jit.script. is", FutureWarning, "torch.jit._script")'
    site = session.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", silent=True)
    Path(site.strip(), "sitecustomize.py").write_text(f"import warnings\n{ignore}\n", encoding="utf-8")
    session.run(*HELPERS)
    session.run("python", "-m", "tools.execute", "--all")
    session.run("python", "-m", "tools.build")


@nox.session(python=False)
@nox.parametrize(("capability", "threads"), list(product(CAPABILITIES, (1, 2))))
def digits(session: nox.Session, capability: str, threads: int) -> None:
    """Every stored output, computed again with another instruction set and number of threads."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    best = session.run(sys.executable, "-c", code, silent=True, env={"ATEN_CPU_CAPABILITY": None}).strip().lower()
    if best not in CAPABILITIES or CAPABILITIES.index(capability) > CAPABILITIES.index(best):
        session.skip(f"this processor has {best}, not {capability}")
    environment = {"ATEN_CPU_CAPABILITY": capability}
    environment |= dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"], str(threads))
    options = ["-q", "-n", "2", "--dist", "loadfile", "--nbval", "--nbval-current-env", "notebooks"]
    session.run(sys.executable, "-m", "pytest", *options, *session.posargs, env=environment)
