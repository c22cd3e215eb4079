"""Render the book: ``_build/html``. Nothing is executed here; a stale notebook stops the build.

python -m tools.build              what changed
python -m tools.build --all        every page
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools import chapters as book
from tools import execute

SITE = book.ROOT / "_build" / "html"


def build(*options: str) -> int:
    """Run Jupyter Book with every warning an error; return its exit status."""
    program = shutil.which("jupyter-book", path=str(Path(sys.executable).parent))
    if program is None:
        print("jupyter-book is not installed beside this Python: run `make book`.", file=sys.stderr)
        return 1
    command = [program, "build", ".", "-n", "-W", "--keep-going", "-q", *options]
    # Warnings go to stderr; what is left on stdout is a banner.
    return subprocess.run(command, cwd=book.ROOT, stdout=subprocess.DEVNULL, check=False).returncode


def main() -> int:
    if execute.main(["--check"]):
        return 1
    start = time.perf_counter()
    status = build(*sys.argv[1:])
    if status == 0:
        print(f"Built in {time.perf_counter() - start:.0f} s: {SITE / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
