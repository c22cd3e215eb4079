"""Prepare the Python environment `.venv`, with nothing but the standard library.

It is made once, and again when requirements.txt or pyproject.toml change. On Linux, plain `torch` from PyPI brings
several gigabytes of CUDA that the book never uses; so PyTorch's CPU index is tried first, and without it an
installation that would bring CUDA is not started unless you say BOOK_ALLOW_CUDA=1.

    python3 tools/env.py            make the environment if it is not there
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "book-stamp"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
OLDEST = (3, 11)


class Stop(Exception):
    """The environment cannot be made; the message says why and what to do."""


def stamp():
    """What the environment depends on, as a hash."""
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for name in ("requirements.txt", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def interpreter():
    """A Python that is new enough: this one, or a newer one on the PATH."""
    if sys.version_info >= OLDEST:
        return sys.executable
    for minor in (13, 12, 11):
        found = shutil.which("python3." + str(minor))
        if found:
            return found
    raise Stop(
        "The book needs Python 3.11 or newer; this is %s. Install one, or name it: make PYTHON=/path/to/python3.12"
        % platform.python_version()
    )


def pip(*arguments, **options):
    return subprocess.run(
        [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments], cwd=str(ROOT), **options
    )


def torch_requirement():
    """The line of requirements.txt that pins torch."""
    match = re.search(r"^(torch==[\w.]+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.M)
    if not match:
        raise Stop("requirements.txt does not pin torch (torch==…).")
    return match.group(1)


def reachable(url, seconds=4):
    try:
        with urllib.request.urlopen(url + "/torch/", timeout=seconds) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


def comes_with_cuda(report):
    """Whether pip's report of what it would install has NVIDIA's libraries in it."""
    names = [item["metadata"]["name"].lower() for item in report["install"]]
    return any(name.startswith(("nvidia-", "cuda-")) for name in names)


def torch_options():
    """The options of pip for torch, and a stop before gigabytes of CUDA that nobody asked for."""
    if platform.system() != "Linux":
        return []  # PyPI's builds for macOS and Windows are CPU builds
    if reachable(CPU_INDEX):
        return ["--extra-index-url", CPU_INDEX]
    print("PyTorch's CPU index cannot be reached from here; looking at what the configured registry has.", flush=True)
    requirement = torch_requirement()
    result = pip(
        "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", requirement,
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if result.returncode:
        raise Stop("pip found no %s. Check the network, or pip's configuration (pip config list)." % requirement)
    if comes_with_cuda(json.loads(result.stdout.decode("utf-8"))):
        if os.environ.get("BOOK_ALLOW_CUDA") != "1":
            raise Stop(
                "STOPPED before a large download: the %s that pip finds here is the CUDA build, several gigabytes\n"
                "that the book does not use. Either\n"
                "  - let pip reach %s (a proxy or a mirror of it: PIP_EXTRA_INDEX_URL), or\n"
                "  - install a CPU build into .venv yourself: %s -m pip install /path/to/torch-…+cpu-….whl, or\n"
                "  - accept it: BOOK_ALLOW_CUDA=1 make book" % (requirement, CPU_INDEX, PYTHON)
            )
        print("BOOK_ALLOW_CUDA=1: the CUDA build comes, several gigabytes.", flush=True)
    return []


def has_torch():
    """Whether the pinned torch is already in the environment (then nothing is asked of any index)."""
    code = "import importlib.metadata as m; print(m.version('torch').split('+')[0])"
    result = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=False)
    return result.stdout.strip() == torch_requirement().split("==")[1]


def prepare():
    if STAMP.is_file() and PYTHON.exists() and STAMP.read_text(encoding="utf-8") == stamp():
        return
    if not PYTHON.exists():
        print("Making .venv with %s" % interpreter(), flush=True)
        made = subprocess.run([interpreter(), "-m", "venv", str(VENV)], check=False)
        if made.returncode:
            raise Stop("python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv")
    print("Installing the requirements (once; a few minutes)", flush=True)
    options = [] if has_torch() else torch_options()
    if pip("install", "--quiet", *options, "-r", "requirements.txt", check=False).returncode:
        raise Stop("pip could not install requirements.txt; its message is above.")
    STAMP.write_text(stamp(), encoding="utf-8")


def main():
    try:
        prepare()
    except Stop as stop:
        print("\n%s\n" % stop, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
