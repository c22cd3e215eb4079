"""Check everything: style, types, that the notebooks are the chapters', the build, and every test.

Each step runs even if one before it failed, so that one run shows all that is wrong; pytest's summary comes last.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tools import browser, build, execute
from tools import chapters as book


def step(title: str, *command: str) -> bool:
    print(f"== {title}", flush=True)
    return subprocess.run([sys.executable, "-m", *command], cwd=book.ROOT, check=False).returncode == 0


def main() -> int:
    passed = {
        "style": step("style", "ruff", "check", "-q") and step("format", "ruff", "format", "--check", "-q"),
        "types": step("types of the helpers", "mypy"),
    }
    print("== notebooks and pages", flush=True)
    passed["notebooks are fresh"] = execute.main(["--check"]) == 0
    passed["the book builds"] = passed["notebooks are fresh"] and build.main() == 0
    try:
        os.environ["CHROMIUM"] = browser.ensure()
        passed["a browser"] = True
    except browser.NoBrowser as error:
        print(error)
        passed["a browser"] = False
    options = ["-q", "-n", "2", "--dist", "loadfile", "--nbval", "--nbval-current-env", *sys.argv[1:]]
    passed["tests"] = step("tests", "pytest", *options)
    failed = [name for name, good in passed.items() if not good]
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
