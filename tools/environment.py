"""Make the Python environment `.venv`, repair it, or leave it alone; with nothing but the standard library.

It gets torch, then the lock requirements/tools.txt (every package with its hash), then this repository. A file in it,
`book-stamp`, says that it is ours and what is in it, and is locked while it changes. On Linux, plain `torch` from PyPI
brings several gigabytes of CUDA that the book never uses; without a CPU build, nothing is installed unless you say
BOOK_ALLOW_CUDA=1. `tools/env.py` starts this.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tools.pins import ROOT, pins

VENV = ROOT / (os.environ.get("BOOK_VENV") or ".venv")
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "book-stamp"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class Stop(Exception):
    """The environment cannot be made; the message says why and what to do."""


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    """Run a program, unimpressed by a reader's settings that would send packages or imports elsewhere."""
    elsewhere = ("PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    environment |= {"PIP_USER": "0", "PIP_REQUIRE_HASHES": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    # Children share the lock: it holds until they have ended too, even if this process is killed.
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, close_fds=False, **options)


def install(*arguments: str, **options) -> bool:
    return run(PYTHON, "-m", "pip", "install", "--quiet", "--no-input", *arguments, **options).returncode == 0


def digest(*contents: bytes) -> str:
    return hashlib.sha256(b"\n".join(content.replace(b"\r\n", b"\n") for content in contents)).hexdigest()


def wanted() -> dict[str, str]:
    """What the environment must be made for."""
    return {
        "root": str(ROOT),
        "lock": digest((ROOT / "requirements" / "tools.txt").read_bytes(), pins("book.in")["torch"].encode()),
        "project": digest((ROOT / "pyproject.toml").read_bytes()),
    }


def recorded() -> dict:
    """What the stamp says; nothing while an installation is unfinished."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def inside() -> tuple[tuple[int, ...], Path] | None:
    """The version of the environment's Python and the folder of its packages, or None if it does not start."""
    code = "import sys, sysconfig; print(*sys.version_info[:2], sysconfig.get_path('purelib'))"
    try:
        answer = run(PYTHON, "-I", "-X", "utf8", "-c", code, capture_output=True, text=True, encoding="utf-8")
        major, minor, packages = answer.stdout.strip().split(" ", 2)
    except (OSError, ValueError):
        return None
    return (int(major), int(minor)), Path(packages)


def unusable(this_python: bool) -> str | None:
    """Why the environment must be made anew, or None."""
    found = inside()
    if found is None:
        return "its Python does not start"
    version, packages = found
    if version < (3, 11) or (this_python and version != sys.version_info[:2]):
        return f"it is Python {version[0]}.{version[1]}, not {sys.version_info[0]}.{sys.version_info[1]}"
    if recorded().get("root", str(ROOT)) != str(ROOT):
        return "it was made in another folder, which its programs still point to"
    if not (packages / "pip").is_dir():
        return "it has no pip"
    return None


def names(packages: Path) -> list[str]:
    """What lies in the folder of packages, but for what comes and goes."""
    return sorted(name for name in os.listdir(packages) if not name.startswith(("pip", "~", "__pycache__")))


def up_to_date(this_python: bool) -> bool:
    """Whether nothing is to do. Asked each time, hence cheap: no file of a package is opened."""
    stamp, found = recorded(), inside()
    if found is None or any(stamp.get(name) != value for name, value in wanted().items()):
        return False
    if this_python and found[0] != sys.version_info[:2]:
        return False
    return found[1].is_dir() and set(stamp["installed"]) <= set(names(found[1]))


def claim() -> None:
    """Make sure that the folder is ours to change.

    Raises:
        Stop: if it is a person's own.
    """
    if VENV.is_symlink() and not VENV.exists():
        raise Stop(f"{VENV} is a link that leads nowhere. Remove it, or mend it.")
    if VENV.exists() and not VENV.is_dir():
        raise Stop(
            f"{VENV} is a file, where the environment should be. Move it away, or name another folder: BOOK_VENV=…"
        )
    if not VENV.exists() or STAMP.exists() or not any(VENV.iterdir()):
        return
    if os.environ.get("BOOK_ADOPT_VENV") != "1":
        raise Stop(
            f"{VENV} was not made by this book (there is no {STAMP.name} in it), so it is left as it is. Either\n"
            "  - move it away, or\n"
            "  - name another folder: BOOK_VENV=.venv-book make book, or\n"
            "  - let the book install its packages into it: BOOK_ADOPT_VENV=1 make book"
        )
    STAMP.write_text('{"adopted": true}', encoding="utf-8")


def try_lock(file: TextIO) -> bool:
    """Lock a file for this process, unless another has it. The system unlocks it, whatever becomes of the process."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 30)  # beyond the content, which a lock would hide from readers
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def alone() -> Iterator[TextIO]:
    """The stamp, open for writing, while no other process changes the environment."""
    VENV.mkdir(parents=True, exist_ok=True)
    with STAMP.open("a+", encoding="utf-8") as file:
        os.set_inheritable(file.fileno(), True)
        if not try_lock(file):
            print(f"Another process is preparing {VENV.name}; waiting for it.", flush=True)
            while not try_lock(file):
                time.sleep(0.5)
        yield file


def write(file: TextIO, content: dict) -> None:
    file.truncate(0)
    json.dump(content, file, indent=1)
    file.flush()


def make() -> None:
    """An empty environment; what was in the folder is removed."""
    for path in VENV.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != STAMP:
            path.unlink()
    print(f"Making {VENV.name} with {sys.executable}", flush=True)
    if run(sys.executable, "-m", "venv", VENV.resolve()).returncode:
        raise Stop("python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv")


def forget_damaged(packages: Path) -> None:
    """Let pip install again what lost a file, or was being installed when something stopped it."""
    for folder in packages.glob("*.dist-info"):
        try:
            with (folder / "RECORD").open(encoding="utf-8", newline="") as record:
                files = [row[0] for row in csv.reader(record) if row and not row[0].endswith(".pyc")]
        except OSError:
            files = ["RECORD"]
        if not all((packages / name).exists() for name in files):
            shutil.rmtree(folder)


def check_network() -> None:
    """One small package, tried once more at most: without it, each of some 200 would be tried six times."""
    requirement = f"setuptools=={pins('tools.in')['setuptools']}"
    options = ["--dry-run", "--ignore-installed", "--no-deps", "--retries", "1"]
    answer = run(
        PYTHON, "-m", "pip", "install", "-qq", *options, requirement, capture_output=True, text=True, errors="replace"
    )
    if answer.returncode:
        raise Stop(
            f"pip cannot find {requirement}. No network? If there is one, see what pip is told to use:\n"
            f'    "{PYTHON}" -m pip config list\n'
            f"The same command goes on from here. pip's last words:\n\n{answer.stderr.strip()[-1000:]}"
        )


def reachable(url: str, seconds: float = 4) -> bool:
    import urllib.request  # slow to load, and seldom needed

    try:
        with urllib.request.urlopen(f"{url}/torch/", timeout=seconds) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


def install_torch(packages: Path) -> None:
    """The pinned torch, unless some build of it is there; and a stop before gigabytes of CUDA that nobody asked for."""
    version = pins("book.in")["torch"]
    if any(packages.glob(f"torch-{version}.dist-info")) or any(packages.glob(f"torch-{version}+*.dist-info")):
        return
    if platform.system() != "Linux":  # PyPI's builds for macOS and Windows are CPU builds
        if not install("--no-deps", f"torch=={version}"):
            raise Stop(f"pip could not install torch {version}; its message is above.")
        return
    if reachable(CPU_INDEX):
        # Only torch, and from this index alone: everything else comes from the lock.
        if not install("--no-deps", "--index-url", CPU_INDEX, f"torch=={version}+cpu"):
            raise Stop(f"pip could not install torch {version} from {CPU_INDEX}; its message is above.")
        return
    print("PyTorch's CPU index cannot be reached from here; looking for a CPU build where pip looks.", flush=True)
    if install("--no-deps", f"torch=={version}+cpu", stderr=subprocess.DEVNULL):
        return
    if os.environ.get("BOOK_ALLOW_CUDA") != "1":
        raise Stop(
            f"STOPPED before a large download: pip finds no CPU build of torch {version}, and PyPI's build for Linux\n"
            "brings CUDA, several gigabytes that the book does not use. Either\n"
            f"  - let pip reach {CPU_INDEX} (or a mirror of it: PIP_EXTRA_INDEX_URL), or\n"
            f'  - install a CPU build yourself: "{PYTHON}" -m pip install --no-deps /path/to/torch-…+cpu-….whl, or\n'
            "  - accept what pip finds: BOOK_ALLOW_CUDA=1 make book"
        )
    print("BOOK_ALLOW_CUDA=1: whatever build pip finds comes; with CUDA, several gigabytes.", flush=True)
    if not install(f"torch=={version}"):
        raise Stop(f"pip could not install torch {version}; its message is above.")


def prepare(this_python: bool = False) -> None:
    """Make the environment what it must be.

    Raises:
        Stop: if that cannot be done.
    """
    claim()
    if up_to_date(this_python):
        return
    with alone() as file:
        if up_to_date(this_python):  # by the process that we waited for
            return
        stamp, want = recorded(), wanted()
        kept = {name: stamp[name] for name in ("adopted",) if name in stamp}
        why = unusable(this_python)
        if why and (PYTHON.is_symlink() or PYTHON.exists()):
            print(f"{VENV.name} cannot be used: {why}.", flush=True)
        if why and kept:
            raise Stop(f"You lent {VENV} to the book, so it is not replaced. Make it anew, or move it away.")
        if why and (found := inside()) and (found[1] / "pip").is_dir():
            check_network()  # before anything that works is removed
        write(file, kept)  # until all is done, nothing counts
        if why:
            make()
            stamp = {}
        packages = inside()[1]
        if stamp.get("lock") != want["lock"] or set(stamp["installed"]) - set(names(packages)):
            print("Installing what the book needs (once; a few minutes)", flush=True)
            forget_damaged(packages)
            check_network()
            install_torch(packages)
            if not install("--no-deps", "--require-hashes", "-r", "requirements/tools.txt"):
                raise Stop("pip could not install requirements/tools.txt; its message is above.")
        if not install("--no-deps", "--no-build-isolation", "-e", "."):
            raise Stop("pip could not install the helpers (this repository); its message is above.")
        write(file, {**kept, **want, "installed": names(packages)})


def main(this_python: bool = False) -> int:
    try:
        prepare(this_python)
    except Stop as stop:
        print(f"\n{stop}\n", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"\n{error.filename or VENV}: {error.strerror}. If that is no place to write, name one that is:\n"
            "BOOK_VENV=/path/to/folder make book\n",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0
